import numpy as np
import pytest
from scipy import stats

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.detectors import joint
from clipdrift_monitor.detectors.joint import mmd, row_detector_names


def pair(random, num_rows, correlation=0.0):
    x, noise = random.normal(size=(2, num_rows))
    return {"x": x, "y": correlation * x + np.sqrt(1 - correlation**2) * noise}


def test_features_that_begin_to_hang_together_are_seen_though_none_moves_alone():
    random = np.random.default_rng(1)
    before, now = pair(random, 600), pair(random, 600, correlation=0.9)
    assert stats.ks_2samp(before["x"], now["x"]).pvalue > 0.05
    found = mmd(before, now)
    assert found.p_value == pytest.approx(1 / 500)
    assert "Together, 2 inputs" in found.words


def test_p_values_are_uniform_when_nothing_has_changed():
    random = np.random.default_rng(2)
    p_values = [mmd(pair(random, 60), pair(random, 40), 99).p_value for _ in range(200)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1


def test_the_discrepancy_is_the_mean_over_pairs_of_gretton():
    random = np.random.default_rng(3)
    numbers = random.normal(size=(45, 2))
    kernel = joint._kernel(numbers)
    now, before = kernel[25:, 25:], kernel[:25, :25]
    expected = now.sum() / (20 * 19) + before.sum() / (25 * 24) - 2 * kernel[:25, 25:].mean()
    signs = np.concatenate([-np.ones(25), np.ones(20)])[None]
    assert joint._discrepancy(kernel, signs)[0] == pytest.approx(expected)


def test_words_missing_values_and_wild_ones_are_compared_too():
    random = np.random.default_rng(4)

    def side(shares, missing):
        x = random.normal(size=300)
        x[: int(300 * missing)] = np.nan
        x[-1] = 1e30
        return {"x": x, "site": random.choice(np.array(["a", "b", "c"], object), 300, p=shares)}

    assert mmd(side([0.4, 0.3, 0.3], 0.1), side([0.4, 0.3, 0.3], 0.1)).p_value > 0.01
    assert mmd(side([0.4, 0.3, 0.3], 0.1), side([0.8, 0.1, 0.1], 0.1)).p_value < 0.01
    assert mmd(side([0.4, 0.3, 0.3], 0.1), side([0.4, 0.3, 0.3], 0.5)).p_value < 0.01


def test_no_more_than_a_thousand_rows_a_side_are_compared():
    random = np.random.default_rng(5)
    found = mmd(pair(random, 3_000), pair(random, 200), 19)
    assert (found.num_reference, found.num_current) == (1_000, 200)


@pytest.mark.parametrize(
    ("before", "now"), [({}, {}), ({"x": np.ones(19)}, {"x": np.ones(50)}), ({"x": np.ones(50)}, {"y": np.ones(50)})]
)
def test_rows_that_cannot_be_compared_are_refused(before, now):
    with pytest.raises(ValueError, match="needs 20 rows a side and a column that both have"):
        mmd(before, now)


def test_names_of_detectors_on_rows_are_checked():
    row_detector_names(("mmd", "evidently:wasserstein"))
    with pytest.raises(ConfigError, match="no detector 'evidently' on rows; there are mmd and"):
        row_detector_names(("evidently",))


def test_columns_that_never_vary_are_at_distance_zero():
    found = mmd({"x": np.ones(50)}, {"x": np.ones(50)}, 19)
    assert (found.effect, found.p_value) == (0.0, 1.0)
