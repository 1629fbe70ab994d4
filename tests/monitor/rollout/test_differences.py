"""The evidence on a mean difference holds at every look, whatever the spread, and is what numerical integration says it is.

Axes: M streams, J spreads.
"""

import numpy as np
import pytest

from clipdrift_monitor.rollout.differences import (
    NUM_SPREADS,
    estimate,
    grown,
    interval,
    log_best,
    log_evidence,
    log_mixture,
    sums_of_block,
)

SPREAD, INFLATION, MARGIN, ALPHA = 0.03, 2.0, 0.03, 0.1
NUM_STREAMS, NUM_LOOKS = 1_000, 80
AT_MOST = ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / NUM_STREAMS)
ERRORS = (0.1, 0.3)  # of the rows of a block, beside what one day has of its own
NOTHING = np.zeros((NUM_SPREADS, 4))


def streams(theta, share_of_bound, seed, *, spread=SPREAD, row_inflation=INFLATION):
    """Sums [M, J, 4] of null streams, look after look: blocks of 50 to 5,000 rows, whose errors hang together by so much of
    what the evidence allows for."""
    random = np.random.default_rng(seed)
    sums_MJ = np.zeros((NUM_STREAMS, NUM_SPREADS, 4))
    for _ in range(NUM_LOOKS):
        num_rows_M = np.exp(random.uniform(np.log(50), np.log(5_000), NUM_STREAMS))
        chance_M = random.uniform(*ERRORS, NUM_STREAMS) / num_rows_M
        true_M = chance_M + share_of_bound * ((INFLATION - 1) * chance_M + SPREAD**2)
        x_M = random.normal(theta, np.sqrt(true_M))
        sums_MJ = sums_MJ + sums_of_block(x_M, chance_M, spread=spread, row_inflation=row_inflation)
        yield sums_MJ


def share_that_ever(theta, low, high, share_of_bound, **assumed):
    bar, is_found_M = np.log(1 / ALPHA), np.zeros(NUM_STREAMS, dtype=bool)
    for sums_MJ in streams(theta, share_of_bound, 3, **assumed):
        is_found_M |= log_evidence(sums_MJ, np.full(NUM_STREAMS, MARGIN), low, high) >= bar
    return is_found_M.mean()


@pytest.mark.parametrize("share_of_bound", [0.0, 0.05, 0.3, 1.0])
def test_worse_by_the_margin_is_ever_found_good_enough_at_most_at_the_level_however_often_one_looks(share_of_bound):
    assert share_that_ever(MARGIN, MARGIN, 1.0, share_of_bound) <= AT_MOST


@pytest.mark.parametrize("share_of_bound", [0.0, 0.05, 0.3, 1.0])
def test_an_equal_one_is_ever_found_worse_at_most_at_the_level_however_often_one_looks(share_of_bound):
    assert share_that_ever(0.0, -1.0, 0.0, share_of_bound) <= AT_MOST


def test_the_level_would_be_passed_if_days_were_taken_as_chance_alone():
    """So the two tests above can fail."""
    assert share_that_ever(0.0, -1.0, 0.0, 0.3, spread=0.0, row_inflation=1.0) > 2 * ALPHA


@pytest.mark.parametrize("share_of_bound", [0.0, 0.3, 1.0])
def test_the_interval_holds_the_truth_at_all_looks_together(share_of_bound):
    is_missed_M = np.zeros(NUM_STREAMS, dtype=bool)
    for sums_MJ in streams(0.01, share_of_bound, 4):
        _, low_M, high_M = interval(sums_MJ, np.full(NUM_STREAMS, MARGIN), ALPHA)
        is_missed_M |= (low_M > 0.01) | (high_M < 0.01)
    assert is_missed_M.mean() <= AT_MOST


def test_a_difference_beyond_the_margin_is_found_soon_where_days_are_alike():
    *_, last_MJ = (sums for _, sums in zip(range(8), streams(0.06, 0.05, 5), strict=False))
    found = log_evidence(last_MJ, np.full(NUM_STREAMS, MARGIN), -1.0, 0.0) >= np.log(1 / ALPHA)
    assert found.mean() > 0.8


def some_sums(num_blocks, seed=1):
    random = np.random.default_rng(seed)
    x_B, w_B = random.normal(0.01, 0.02, num_blocks), random.uniform(1e-5, 1e-3, num_blocks)
    return sums_of_block(x_B, w_B, spread=SPREAD, row_inflation=INFLATION).sum(axis=0), x_B, w_B


def test_the_mixture_is_what_numerical_integration_of_the_likelihood_gives():
    sums, x_B, w_B = some_sums(6)
    theta_T = np.linspace(-1.0, 1.0, 40_001)
    parts = []
    for path in np.linspace(0.0, 1.0, NUM_SPREADS) ** 2:
        v_B = w_B + path * ((INFLATION - 1) * w_B + SPREAD**2)
        log_T = sum(-0.5 * (np.log(v) + (x - theta_T) ** 2 / v) for x, v in zip(x_B, v_B, strict=True))
        for width in (0.4, 1.2, 4.0):
            sd = width * MARGIN
            prior_T = np.exp(-0.5 * (theta_T / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
            parts.append(np.trapezoid(np.exp(log_T) * prior_T, theta_T))
    assert log_mixture(sums, np.array(MARGIN)) == pytest.approx(np.log(np.mean(parts)), abs=1e-6)


def test_the_interval_is_where_a_grid_of_differences_is_not_rejected():
    sums, _, _ = some_sums(6)
    middle, low, high = interval(sums, np.array(MARGIN), 0.05)
    theta_T = np.linspace(-0.2, 0.2, 4_001)
    bar = log_mixture(sums, np.array(MARGIN)) - np.log(20)
    kept_T = log_best(np.broadcast_to(sums, (len(theta_T), *sums.shape)), theta_T, theta_T) >= bar
    assert theta_T[kept_T].min() == pytest.approx(low, abs=2e-4)
    assert theta_T[kept_T].max() == pytest.approx(high, abs=2e-4)
    assert low < middle < high


def test_nothing_seen_proves_nothing():
    assert [float(one) for one in interval(NOTHING, np.array(MARGIN), 0.05)] == [0.0, -1.0, 1.0]
    assert float(log_evidence(NOTHING, np.array(MARGIN), MARGIN, 1.0)) == pytest.approx(0.0)


def test_a_block_that_tells_nothing_adds_nothing():
    assert not sums_of_block(np.array(np.nan), np.array(np.inf), spread=SPREAD, row_inflation=INFLATION).any()


def test_one_block_alone_proves_little_however_far_off_it_is():
    """The spread of days is not known from one: its evidence grows as a logarithm, so a single bad day rolls nothing back."""
    day = sums_of_block(np.array(0.08), np.array(0.005**2), spread=SPREAD, row_inflation=INFLATION)
    assert float(log_evidence(day, np.array(MARGIN), -1.0, 0.0)) < np.log(1 / 0.05)


def test_as_many_blocks_again_are_twice_the_sums():
    sums, x_B, w_B = some_sums(4)
    twice = sums_of_block(np.tile(x_B, 2), np.tile(w_B, 2), spread=SPREAD, row_inflation=INFLATION).sum(axis=0)
    assert grown(sums, np.array([2.0]))[0] == pytest.approx(twice)
    assert float(estimate(twice)) == pytest.approx(float(estimate(sums)), abs=0.01)
