import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from clipdrift_monitor.detectors.binned import JensenShannon, StabilityIndex, chi_square_tail, discoveries, homogeneity

PAIRS = [
    ([500, 500], [900, 100]),
    ([10, 0, 90], [0, 10, 90]),
    ([1000, 2000, 3000, 4000], [11, 19, 35, 35]),
    ([5, 5, 0, 0], [0, 0, 5, 5]),
]
every_pair = pytest.mark.parametrize(("reference", "current"), PAIRS)


def arrays(*lists):
    return tuple(np.array(one, float) for one in lists)


@every_pair
def test_jensen_shannon_is_scipys_with_base_2(reference, current):
    assert JensenShannon().compare(*arrays(reference, current)).score == pytest.approx(jensenshannon(reference, current, 2))


def test_disjoint_shares_are_at_distance_one():
    assert JensenShannon().compare(*arrays([5, 5, 0], [0, 0, 9])).score == pytest.approx(1.0)


@every_pair
def test_the_stability_index_is_the_sum_of_both_relative_entropies_of_smoothed_shares(reference, current):
    p, q = (np.array(one) + 0.5 for one in (reference, current))
    expected = stats.entropy(q, p) + stats.entropy(p, q)
    assert StabilityIndex().compare(*arrays(reference, current)).score == pytest.approx(expected)


def test_the_stability_index_of_large_windows_is_its_closed_form():
    found = StabilityIndex().compare(*arrays([5e8, 5e8], [2.5e8, 7.5e8])).score
    assert found == pytest.approx(0.25 * np.log(1.5) + 0.25 * np.log(2), rel=1e-6)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 31, 100])
def test_the_chi_square_tail_is_scipys_far_out_too(degrees):
    for share in (0.999, 0.5, 0.05, 1e-3, 1e-8, 1e-30):
        statistic = stats.chi2.isf(share, degrees)
        assert chi_square_tail(statistic, degrees) == pytest.approx(share, rel=1e-7)
    assert chi_square_tail(0.0, degrees) == 1.0
    assert chi_square_tail(1e6, degrees) == 0.0


@every_pair
def test_homogeneity_is_scipys_contingency_test(reference, current):
    expected = stats.chi2_contingency([reference, current], correction=False).pvalue
    assert homogeneity(*arrays(reference, current)) == pytest.approx(expected, rel=1e-9)


def test_bins_empty_on_both_sides_are_left_out():
    assert homogeneity(*arrays([5, 0, 9], [7, 0, 2])) == homogeneity(*arrays([5, 9], [7, 2]))


def test_one_bin_in_use_proves_nothing():
    assert homogeneity(*arrays([5, 0], [9, 0])) == 1.0


@given(st.lists(st.floats(0, 1), max_size=40), st.sampled_from([0.01, 0.1]))
def test_discoveries_are_those_of_benjamini_and_hochberg_by_scipy(p_values, level):
    expected = stats.false_discovery_control(p_values, method="bh") <= level if p_values else np.zeros(0, bool)
    found = np.array(discoveries(p_values, level), bool)
    is_clear = np.abs(stats.false_discovery_control(p_values, method="bh") - level) > 1e-9 if p_values else np.zeros(0, bool)
    assert (found == expected)[is_clear].all()


def test_no_tests_discover_nothing():
    assert discoveries([], 0.05) == []
