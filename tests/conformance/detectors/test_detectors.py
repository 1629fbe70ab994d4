"""One suite over every drift detector."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from clipdrift_monitor.detectors.binned import DETECTORS

every_detector = pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
counts_pair = st.integers(2, 20).flatmap(
    lambda num_bins: st.tuples(*[st.lists(st.integers(0, 10_000), min_size=num_bins, max_size=num_bins)] * 2)
)


def test_names_are_distinct():
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)


@every_detector
@given(counts_pair)
@settings(max_examples=80, deadline=None)
def test_answers_are_finite_symmetric_and_never_negative_whatever_bins_are_empty(detector, pair):
    reference_K, current_K = (np.array(one, float) for one in pair)
    there, back = detector.compare(reference_K, current_K), detector.compare(current_K, reference_K)
    assert np.isfinite(there.score)
    assert there.score >= 0.0
    assert 0.0 <= there.p_value <= 1.0
    assert there.num_rows == current_K.sum()
    assert (back.score, back.p_value) == pytest.approx((there.score, there.p_value), rel=1e-9, abs=1e-12)


@every_detector
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=20))
@settings(deadline=None)
def test_equal_counts_are_at_distance_zero(detector, counts):
    drift = detector.compare(np.array(counts, float), np.array(counts, float))
    assert drift.score == pytest.approx(0.0, abs=1e-7)
    assert drift.p_value == pytest.approx(1.0)


@every_detector
def test_the_same_counts_give_the_same_answer_and_are_left_as_they_were(detector):
    reference_K, current_K = np.array([10.0, 0.0, 5.0]), np.array([3.0, 4.0, 0.0])
    first = detector.compare(reference_K, current_K)
    assert detector.compare(reference_K, current_K) == first
    assert reference_K.tolist() == [10.0, 0.0, 5.0]
    assert current_K.tolist() == [3.0, 4.0, 0.0]


@every_detector
@pytest.mark.parametrize("empty", ["reference", "current", "both"])
def test_an_empty_side_says_nothing(detector, empty):
    nothing, something = np.zeros(3), np.array([1.0, 2.0, 3.0])
    drift = detector.compare(
        nothing if empty != "current" else something, nothing if empty != "reference" else something
    )  # fmt: skip
    assert (drift.score, drift.p_value) == (0.0, 1.0)


@every_detector
def test_a_larger_change_is_farther_away(detector):
    reference_K = np.array([500.0, 300.0, 200.0])
    scores = [detector.compare(reference_K, np.array([500 - d, 300.0, 200 + d])).score for d in (0.0, 50.0, 150.0, 400.0)]
    assert scores == sorted(scores)
    assert len(set(scores)) == 4


@every_detector
def test_more_rows_of_the_same_change_prove_it_better(detector):
    reference_K = np.array([5000.0, 5000.0])
    p_values = [detector.compare(reference_K, n * np.array([0.55, 0.45])).p_value for n in (40, 400, 4000)]
    assert p_values == sorted(p_values, reverse=True)
    assert p_values[-1] < 1e-6


@every_detector
@pytest.mark.parametrize("num_rows", [200, 5000])
def test_p_values_are_uniform_when_nothing_has_changed(detector, num_rows):
    random = np.random.default_rng(11)
    shares_K = np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
    references, windows = random.multinomial(20_000, shares_K, 800), random.multinomial(num_rows, shares_K, 800)
    pairs = zip(references.astype(float), windows.astype(float), strict=True)
    p_values = [detector.compare(reference_K, current_K).p_value for reference_K, current_K in pairs]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert np.mean(np.array(p_values) < 0.01) < 0.02


@every_detector
@pytest.mark.parametrize(
    ("reference", "current"),
    [([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, -1.0], [1.0, 1.0]), ([1.0, 2.0], [np.nan, 1.0]), ([np.inf, 1.0], [1.0, 1.0])],
    ids=["other length", "negative", "nan", "infinite"],
)
def test_what_are_no_counts_is_refused(detector, reference, current):
    with pytest.raises(ValueError, match="must be"):
        detector.compare(np.array(reference), np.array(current))
