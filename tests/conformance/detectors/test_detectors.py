"""One suite over every detector on bins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clipdrift_contract.profile import block_spread
from clipdrift_monitor.detectors.catalogue import BUILT_IN
from clipdrift_monitor.detectors.detector import Bins

every_detector = pytest.mark.parametrize("detector", BUILT_IN, ids=lambda detector: detector.name)
SHARES = {
    "uneven": np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05]),
    "a long tail": 1 / np.arange(1, 31) / (1 / np.arange(1, 31)).sum(),
}
NUM_WORLDS = 300
counts_pair = st.integers(2, 20).flatmap(
    lambda num_bins: st.tuples(*[st.lists(st.integers(0, 10_000), min_size=num_bins, max_size=num_bins)] * 2)
)


def bins_of(detector, reference, current, **more):
    return Bins(np.array(reference, float), np.array(current, float), kind=min(detector.kinds), **more)


def test_names_are_distinct():
    assert len({detector.name for detector in BUILT_IN}) == len(BUILT_IN)


@every_detector
def test_it_says_what_it_reads_and_what_is_worth_mentioning(detector):
    assert detector.kinds <= {"ordered", "unordered"}
    assert detector.kinds
    assert detector.min_effect > 0


@every_detector
@given(counts_pair)
@settings(max_examples=40, deadline=None)
def test_answers_are_finite_and_never_negative_whatever_bins_are_empty(detector, pair):
    found = detector.compare(bins_of(detector, *pair))
    assert np.isfinite(found.score)
    assert found.score >= 0.0
    assert 0.0 <= found.p_value <= 1.0
    assert found.num_rows == sum(pair[1])


@every_detector
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=20))
@settings(max_examples=30, deadline=None)
def test_equal_counts_are_at_distance_zero(detector, counts):
    drift = detector.compare(bins_of(detector, counts, counts))
    assert drift.score == pytest.approx(0.0, abs=1e-7)
    assert drift.p_value == pytest.approx(1.0)


@every_detector
def test_the_same_counts_give_the_same_answer_and_are_left_as_they_were(detector):
    bins = bins_of(detector, [10.0, 0.0, 5.0], [3.0, 4.0, 0.0])
    first = detector.compare(bins)
    assert detector.compare(bins) == first
    assert bins.reference_K.tolist() == [10.0, 0.0, 5.0]
    assert bins.current_K.tolist() == [3.0, 4.0, 0.0]


@every_detector
@pytest.mark.parametrize("empty", ["reference", "current", "both"])
def test_an_empty_side_says_nothing(detector, empty):
    nothing, something = np.zeros(3), np.array([1.0, 2.0, 3.0])
    sides = nothing if empty != "current" else something, nothing if empty != "reference" else something
    drift = detector.compare(bins_of(detector, *sides))
    assert (drift.score, drift.p_value) == (0.0, 1.0)


@every_detector
def test_a_larger_change_is_farther_away(detector):
    reference = [500.0, 300.0, 200.0]
    scores = [detector.compare(bins_of(detector, reference, [500 - d, 300, 200 + d])).score for d in (0, 50, 150, 400)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 4


@every_detector
def test_more_rows_of_the_same_change_prove_it_better_and_do_not_make_it_larger(detector):
    found = [detector.compare(bins_of(detector, [5000.0, 5000.0], n * np.array([0.55, 0.45]))) for n in (40, 400, 4000)]
    p_values = [one.p_value for one in found]
    assert p_values == sorted(p_values, reverse=True)
    assert p_values[-1] < 1e-6
    assert [one.score for one in found] == pytest.approx([found[0].score] * 3, rel=0.15)


@every_detector
@pytest.mark.parametrize(
    ("shares", "num_before", "num_now", "num_references"),
    [
        ("uneven", 20_000, 50, 20),
        ("uneven", 20_000, 1_000, 20),
        ("a long tail", 20_000, 200, 20),
        ("uneven", 10_000_000, 100_000, 20),  # so large a reference that one of them stands for all
        ("uneven", 2_000, 2_000, NUM_WORLDS),
    ],
)
def test_p_values_are_uniform_when_nothing_has_changed(detector, shares, num_before, num_now, num_references):
    """`make bench-drift` prints the same for more sizes and with ten times as many worlds, against .03 to .07."""
    random = np.random.default_rng(11)
    references = random.multinomial(num_before, SHARES[shares], num_references)
    windows = random.multinomial(num_now, SHARES[shares], NUM_WORLDS)
    pairs = [(references[i % num_references], window) for i, window in enumerate(windows)]
    p_values = np.array([detector.compare(bins_of(detector, *pair)).p_value for pair in pairs])
    assert stats.kstest(p_values, "uniform").pvalue > 0.0005
    assert 0.012 <= np.mean(p_values < 0.05) <= 0.088  # .05, and three times what 300 worlds let it stray
    assert np.mean(p_values < 0.01) < 0.03


@every_detector
@pytest.mark.parametrize("world", ["the mean of a day moves", "each share of a day moves"])
def test_p_values_hold_for_days_that_differ_where_the_spread_of_days_is_known(detector, world):
    random = np.random.default_rng(3)
    edges = stats.norm.ppf(np.linspace(0, 1, 9))

    def days(num_days):
        if world == "the mean of a day moves":
            shares = np.diff(stats.norm.cdf(edges - random.normal(0, 0.15, (num_days, 1))), axis=1)
        else:
            shares = random.dirichlet(np.full(8, 25.0), num_days)
        return random.multinomial(1_000, shares)

    holding, naive = [], []
    for _ in range(60):
        before, now = days(20), days(1)[0]
        holding.append(detector.compare(bins_of(detector, before.sum(axis=0), now, spread=block_spread(before))).p_value)
        naive.append(detector.compare(bins_of(detector, before.sum(axis=0), now)).p_value)
    assert np.mean(np.array(holding) < 0.05) <= 0.1
    assert np.mean(np.array(naive) < 0.05) > 0.4


@every_detector
def test_a_spread_makes_no_change_larger_and_proves_it_less(detector):
    spread = block_spread(np.array([[60, 40], [40, 60], [55, 45], [50, 50], [70, 30]]))
    assert spread.total > 0
    counts = [5000.0, 5000.0], [2000.0, 1500.0]
    alone, among_days = (
        detector.compare(bins_of(detector, *counts)),
        detector.compare(bins_of(detector, *counts, spread=spread)),
    )
    assert among_days.score == alone.score
    assert alone.p_value < 1e-6 < 0.05 < among_days.p_value


@every_detector
@pytest.mark.parametrize(
    ("reference", "current"),
    [([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, -1.0], [1.0, 1.0]), ([1.0, 2.0], [np.nan, 1.0]), ([np.inf, 1.0], [1.0, 1.0])],
    ids=["other length", "negative", "nan", "infinite"],
)
def test_what_are_no_counts_is_refused(detector, reference, current):
    with pytest.raises(ValueError, match="must be"):
        detector.compare(bins_of(detector, reference, current))
