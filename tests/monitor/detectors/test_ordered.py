import numpy as np
import pytest
from scipy import stats

from clipdrift_monitor.detectors.detector import Bins
from clipdrift_monitor.detectors.ordered import KolmogorovSmirnov, Wasserstein, middles

EDGES = (-1.0, 0.0, 0.5, 2.0)
COUNTS = np.array([100.0, 300.0, 400.0, 150.0, 50.0]), np.array([5.0, 20.0, 30.0, 30.0, 15.0])


def rows_of(counts_K, middle_K):
    return np.repeat(middle_K, counts_K.astype(int))


def test_the_wasserstein_distance_is_scipys_on_the_middles_of_the_bins_in_deviations_of_the_reference():
    bins = Bins(*COUNTS, kind="ordered", edges=EDGES)
    before, now = (rows_of(side, middles(bins)) for side in COUNTS)
    assert Wasserstein().compare(bins).score == pytest.approx(stats.wasserstein_distance(before, now) / before.std())


def test_the_kolmogorov_smirnov_distance_is_scipys_on_the_middles_of_the_bins():
    bins = Bins(*COUNTS, kind="ordered", edges=EDGES)
    before, now = (rows_of(side, middles(bins)) for side in COUNTS)
    assert KolmogorovSmirnov().compare(bins).score == pytest.approx(stats.ks_2samp(before, now).statistic)


@pytest.mark.parametrize("detector", [KolmogorovSmirnov(), Wasserstein()], ids=lambda one: one.name)
def test_the_p_value_is_that_of_shuffled_rows(detector):
    bins = Bins(*COUNTS, kind="ordered", edges=EDGES)
    # a window that chance gives now and then
    bins = bins._replace(current_K=np.array([9.0, 22.0, 38.0, 23.0, 8.0]))
    both = (bins.reference_K + bins.current_K).astype(int)
    scores = []
    for now in np.random.default_rng(0).multivariate_hypergeometric(both, 100, 400):
        shuffled = bins._replace(reference_K=(both - now).astype(float), current_K=now.astype(float))
        scores.append(detector.compare(shuffled).score)
    found = detector.compare(bins)
    assert found.p_value == pytest.approx(np.mean(np.array(scores) >= found.score - 1e-12), abs=0.06)


@pytest.mark.parametrize("detector", [KolmogorovSmirnov(), Wasserstein()], ids=lambda one: one.name)
def test_missing_values_lie_on_no_line(detector):
    with_missing = Bins(
        *(np.append(side, n) for side, n in zip(COUNTS, (7, 900), strict=True)), "ordered", EDGES, has_missing=True
    )
    assert detector.compare(with_missing) == detector.compare(Bins(*COUNTS, "ordered", EDGES))


def test_a_shift_far_out_has_the_tail_of_a_normal_mean():
    """Borell: the logarithm of the tail is that of the most variable linear part, here the mean."""
    edges = tuple(stats.norm.ppf(np.linspace(0, 1, 17))[1:-1])
    shares = [np.diff(stats.norm.cdf([-np.inf, *edges, np.inf], loc=shift)) for shift in (0.0, 0.2)]
    found = Wasserstein().compare(Bins(20_000 * shares[0], 4_000 * shares[1], "ordered", edges))
    z = found.score / np.sqrt(1 / 20_000 + 1 / 4_000)
    assert np.log(found.p_value) == pytest.approx(np.log(2 * stats.norm.sf(z)), rel=0.05)


def test_edges_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one fewer than the 3 bins, got 4"):
        Wasserstein().compare(Bins(np.ones(3), np.ones(3), "ordered", EDGES))


def test_a_reference_in_one_bin_is_compared_by_the_width_of_bins():
    found = Wasserstein().compare(Bins(np.array([0.0, 50.0, 0.0]), np.array([0.0, 0.0, 50.0]), "ordered", (0.0, 2.0)))
    assert found.score == pytest.approx(1.0)
    assert np.isfinite(found.p_value)
