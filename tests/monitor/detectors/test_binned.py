import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from clipdrift_monitor.detectors.binned import (
    ByDistance,
    ChiSquare,
    GTest,
    JensenShannon,
    StabilityIndex,
    homogeneity,
)
from clipdrift_monitor.detectors.detector import Bins

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
    assert JensenShannon().compare(Bins(*arrays(reference, current))).score == pytest.approx(
        jensenshannon(reference, current, 2)
    )


def test_disjoint_shares_are_at_distance_one():
    assert JensenShannon().compare(Bins(*arrays([5, 5, 0], [0, 0, 9]))).score == pytest.approx(1.0)


@every_pair
def test_the_stability_index_is_the_sum_of_both_relative_entropies_of_smoothed_shares(reference, current):
    p, q = (np.array(one) + 0.5 for one in (reference, current))
    expected = stats.entropy(q, p) + stats.entropy(p, q)
    assert StabilityIndex().compare(Bins(*arrays(reference, current))).score == pytest.approx(expected)


def test_the_stability_index_of_large_windows_is_its_closed_form():
    found = StabilityIndex().compare(Bins(*arrays([5e8, 5e8], [2.5e8, 7.5e8]))).score
    assert found == pytest.approx(0.25 * np.log(1.5) + 0.25 * np.log(2), rel=1e-6)


@pytest.mark.parametrize(("reference", "current"), [([500, 500], [90, 10]), ([1000, 2000, 3000, 4000], [110, 190, 350, 350])])
def test_pearsons_and_the_likelihood_ratio_test_are_scipys(reference, current):
    bins = Bins(*arrays(reference, current))
    expected = stats.chi2_contingency([reference, current], correction=False).pvalue
    assert ChiSquare().compare(bins).p_value == pytest.approx(expected, rel=1e-9)
    expected = stats.chi2_contingency([reference, current], correction=False, lambda_="log-likelihood").pvalue
    assert GTest().compare(bins).p_value == pytest.approx(expected, rel=0.15)  # ours knows the mean of few rows


def test_cramers_v_of_equally_many_rows_is_scipys_and_that_of_more_rows_the_same():
    reference, current = [500, 300, 200], [400, 400, 200]
    expected = stats.contingency.association([reference, current], method="cramer")
    assert ChiSquare().compare(Bins(*arrays(reference, current))).score == pytest.approx(expected)
    assert ChiSquare().compare(Bins(*arrays(reference, [4, 4, 2]))).score == pytest.approx(expected)


def test_bins_empty_on_both_sides_are_left_out():
    assert homogeneity(*arrays([50, 0, 90], [70, 0, 20])) == homogeneity(*arrays([50, 90], [70, 20]))


def test_one_bin_in_use_proves_nothing():
    assert homogeneity(*arrays([5, 0], [9, 0])) == 1.0


def test_a_detector_without_a_distance_says_what_is_lacking():
    with pytest.raises(NotImplementedError, match="has no distance"):
        ByDistance().compare(Bins(np.ones(2), np.ones(2)))
