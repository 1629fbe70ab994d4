"""Coverage at every look together: an interval misses if it misses at any of them, which is what stopping at will can bring."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from clipdrift_monitor.risk.confidence import ALPHA, accuracy_interval, mean_interval, share_interval

NUM_RUNS, NUM_BLOCKS, NUM_ROWS = 100, 40, 100
ALLOWED = stats.binom.ppf(0.999, NUM_RUNS, ALPHA) / NUM_RUNS  # a share of misses that a true 5 % exceeds once in 1,000


def share_that_misses(accuracy, correct_RT):
    """Share of runs in which the interval of the blocks so far misses at any of its looks; and the same of Wilson's."""
    missed, wilson_missed = 0, 0
    for correct_T in correct_RT:
        looks = [accuracy_interval(correct_T[:t], np.full(t, float(NUM_ROWS))) for t in range(1, NUM_BLOCKS + 1)]
        missed += any(not low <= accuracy <= high for low, high in looks)
        hits_T, rows_T = np.cumsum(correct_T), NUM_ROWS * np.arange(1, NUM_BLOCKS + 1)
        share_T, z = hits_T / rows_T, stats.norm.isf(ALPHA / 2)
        wilson_missed += bool((np.abs(share_T - accuracy) > z * np.sqrt(accuracy * (1 - accuracy) / rows_T)).any())
    return missed / len(correct_RT), wilson_missed / len(correct_RT)


@pytest.mark.parametrize("accuracy", [0.7, 0.97])
def test_the_accuracy_interval_holds_at_all_looks_together_where_a_fixed_one_does_not(accuracy):
    correct_RT = np.random.default_rng(11).binomial(NUM_ROWS, accuracy, (NUM_RUNS, NUM_BLOCKS)).astype(float)
    missed, wilson_missed = share_that_misses(accuracy, correct_RT)
    assert missed <= ALLOWED
    assert wilson_missed > 2 * ALLOWED


def test_the_accuracy_interval_holds_where_days_differ_as_wholes():
    random, accuracy, size = np.random.default_rng(12), 0.8, 40.0  # days' sd 0.06: four times the variance of single rows
    rate_RT = random.beta(accuracy * size, (1 - accuracy) * size, (NUM_RUNS, NUM_BLOCKS))
    inflation = 1 + (NUM_ROWS - 1) / (size + 1)
    missed = 0
    for correct_T in random.binomial(NUM_ROWS, rate_RT).astype(float):
        looks = (accuracy_interval(correct_T[:t], np.full(t, 100.0), inflation=inflation) for t in range(1, NUM_BLOCKS + 1))
        missed += any(not low <= accuracy <= high for low, high in looks)
    assert missed / NUM_RUNS <= ALLOWED


def test_the_mean_interval_holds_at_all_looks_together_though_the_variance_is_unknown():
    missed = 0
    for value_T in np.random.default_rng(13).normal(0.3, 0.2, (400, 60)):
        looks = [mean_interval(value_T[:t]) for t in range(5, 61)]
        missed += any(low is not None and not low <= 0.3 <= high for _, low, high in looks)
    assert missed / 400 <= stats.binom.ppf(0.999, 400, ALPHA) / 400


@pytest.mark.parametrize(("hits", "rows"), [(0, 20), (7, 20), (800, 1000), (20, 20)])
def test_the_edges_are_where_the_beta_mixture_has_won_20_to_1(hits, rows):
    """Against scipy's beta function and root finder."""

    def capital(p):
        likelihood = hits * np.log(p) + (rows - hits) * np.log1p(-p)
        return special.betaln(hits + 0.5, rows - hits + 0.5) - special.betaln(0.5, 0.5) - likelihood

    low, high = share_interval(hits, rows)
    share = hits / rows
    tiny = 1e-12
    if hits:
        assert low == pytest.approx(optimize.brentq(lambda p: capital(p) - math.log(20), tiny, share - tiny), abs=1e-6)
    else:
        assert low == pytest.approx(0.0, abs=1e-9)
    if hits < rows:
        assert high == pytest.approx(optimize.brentq(lambda p: capital(p) - math.log(20), share + tiny, 1 - tiny), abs=1e-6)
    else:
        assert high == pytest.approx(1.0, abs=1e-9)


def test_days_that_differ_make_the_accuracy_interval_wider_and_more_days_narrower():
    steady = accuracy_interval(np.full(30, 90.0), np.full(30, 100.0))
    moody = accuracy_interval(np.tile([80.0, 100.0], 15), np.full(30, 100.0))
    longer = accuracy_interval(np.full(90, 90.0), np.full(90, 100.0))
    assert moody[0] < steady[0] < longer[0] < 0.9 < longer[1] < steady[1] < moody[1]


def test_blocks_without_labels_change_nothing():
    with_gap = accuracy_interval(np.array([90.0, 0.0, 80.0]), np.array([100.0, 0.0, 100.0]))
    assert with_gap == accuracy_interval(np.array([90.0, 80.0]), np.array([100.0, 100.0]))


@pytest.mark.parametrize("wrong", [(1, 0, 1.0), (5, 4, 1.0), (-1, 4, 1.0), (1, 4, 0.0), (math.nan, 4, 1.0)])
def test_what_cannot_be_a_share_is_refused(wrong):
    with pytest.raises(ValueError, match="an interval needs rows"):
        share_interval(wrong[0], wrong[1], inflation=wrong[2])
