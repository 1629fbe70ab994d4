import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clipdrift_monitor.detectors.detector import Bins
from clipdrift_monitor.detectors.null import MIN_EXPECTED, distance_p_value, fisher_exact, merged, shares_p_value


@given(st.integers(2, 30).flatmap(lambda k: st.tuples(*[st.lists(st.integers(0, 60), min_size=k, max_size=k)] * 2)))
def test_merged_bins_lose_no_row_and_each_expects_enough(pair):
    for kind in ("ordered", "unordered"):
        bins = Bins(*(np.array(side, float) for side in pair), kind=kind)
        if bins.is_empty:
            continue
        few = merged(bins)
        assert (few.reference_K.sum(), few.current_K.sum()) == (bins.reference_K.sum(), bins.current_K.sum())
        both = few.reference_K + few.current_K
        share = min(few.reference_K.sum(), few.current_K.sum()) / both.sum()
        assert len(both) == 1 or both.min() * share >= MIN_EXPECTED - 1e-9


def test_neighbours_are_merged_on_a_line_and_the_rarest_elsewhere():
    counts = np.array([2.0, 100.0, 2.0, 100.0]), np.array([2.0, 100.0, 2.0, 100.0])
    assert merged(Bins(*counts, kind="ordered")).current_K.tolist() == [102.0, 102.0]
    assert merged(Bins(*counts, kind="unordered")).current_K.tolist() == [104.0, 100.0]


@pytest.mark.parametrize(("before", "now"), [((8, 2), (1, 5)), ((900, 0), (40, 3)), ((5, 5), (5, 5)), ((3, 900), (0, 30))])
def test_fishers_exact_test_is_scipys(before, now):
    expected = stats.fisher_exact([before, now]).pvalue
    assert fisher_exact(np.array(before, float), np.array(now, float)) == pytest.approx(expected, rel=1e-6)


def test_the_share_of_one_bin_is_tested_exactly_where_rows_are_few_and_by_chi_square_where_they_are_many():
    few = Bins(np.array([400.0, 500.0, 0.0]), np.array([20.0, 20.0, 3.0]))
    assert shares_p_value(few, 2) == pytest.approx(stats.fisher_exact([(0, 900), (3, 40)]).pvalue, rel=1e-6)
    many = Bins(np.array([400.0, 500.0, 100.0]), np.array([170.0, 200.0, 60.0]))
    expected = stats.chi2_contingency([(100, 900), (60, 370)], correction=False).pvalue
    assert shares_p_value(many, 2) == pytest.approx(expected)
    assert shares_p_value(Bins(np.zeros(2), np.ones(2)), 0) == 1.0


def total_variation(reference_K, current_K):
    p_K, q_K = (side / side.sum(axis=-1, keepdims=True) for side in (reference_K, current_K))
    return np.abs(p_K - q_K).sum(axis=-1) / 2


def test_a_distance_of_ones_own_gets_the_p_value_of_two_coins():
    for now in ((57.0, 43.0), (60.0, 40.0), (75.0, 25.0)):
        bins = Bins(np.array([5e5, 5e5]), np.array(now))
        found = distance_p_value(bins, total_variation, float(total_variation(bins.reference_K, bins.current_K)))
        assert np.log(found) == pytest.approx(np.log(stats.binomtest(int(now[0]), 100, 0.5).pvalue), rel=0.2)


def test_a_distance_that_cannot_take_many_windows_at_once_is_told_how():
    with pytest.raises(ValueError, match=r"sum over axis=-1"):
        distance_p_value(Bins(np.ones(3), np.ones(3)), lambda a, b: np.abs(a - b).sum(), 0.5)
