"""Against scipy, and by what the intervals promise."""

import numpy as np
import pytest
from scipy import stats

from clipdrift_trainer.evaluation.scores import area_under_roc
from clipdrift_trainer.quality.intervals import auc_interval, chi_square_tail, normal_tail, wilson


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (3, 10), (10, 10), (250, 1_000)])
def test_wilson_equals_scipys(hits: int, rows: int) -> None:
    expected = stats.binomtest(hits, rows).proportion_ci(method="wilson")

    assert wilson(hits, rows) == pytest.approx((expected.low, expected.high), abs=1e-7)


@pytest.mark.parametrize(("statistic", "degrees"), [(0.5, 1), (12.0, 7), (80.0, 40), (2_000.0, 1_900)])
def test_the_chi_square_tail_equals_scipys(statistic: float, degrees: int) -> None:
    assert chi_square_tail(statistic, degrees) == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-6)


def test_the_normal_tail_equals_scipys_and_knows_nothing_of_nan() -> None:
    assert normal_tail(-2.5) == pytest.approx(2 * stats.norm.sf(2.5))
    assert normal_tail(float("nan")) == 1.0


def test_the_interval_of_an_area_covers_the_true_area_in_95_of_100_cases() -> None:
    generator = np.random.default_rng(3)
    shift, covered = 2.5, 0
    true_area = stats.norm.cdf(shift / np.sqrt(2))
    label = np.repeat([0, 1], [80, 40])
    for _ in range(400):
        area = area_under_roc(generator.normal(size=120) + shift * label, label)
        low, high = auc_interval(area, 40, 80)
        covered += low <= true_area <= high

    assert 0.92 <= covered / 400 <= 0.985


def test_a_perfect_area_of_few_rows_proves_little() -> None:
    assert auc_interval(1.0, 5, 5)[0] < 0.75 < 0.99 < auc_interval(1.0, 5_000, 5_000)[0]
