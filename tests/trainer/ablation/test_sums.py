import msgspec
import numpy as np
import pytest

from clipdrift_trainer.ablation.sums import DaySums, sum_by_day
from clipdrift_trainer.evaluation.scores import score_slices

DAY = 86_400_000
NAMES = ("north", "south", "(other)")


def rows(num_rows: int = 400, num_classes: int = 3):
    generator = np.random.default_rng(5)
    scores_NK = generator.dirichlet(np.ones(num_classes), num_rows)
    label_N = generator.integers(0, num_classes, num_rows).astype(float)
    return scores_NK, label_N, np.sort(generator.integers(0, 7 * DAY, num_rows)), generator.integers(0, 2, num_rows)


def test_the_figures_are_those_of_the_rows() -> None:
    scores_NK, label_N, time_ms, slice_N = rows()

    sums = sum_by_day(scores_NK, label_N, time_ms, slice_N, NAMES, "multiclass")

    for expected in score_slices(scores_NK, label_N, slice_N, NAMES, "multiclass")[:3]:
        assert sums.mean("error", expected.slice) == pytest.approx(1 - expected.num_correct / expected.num_rows)
        assert sums.mean("nll", expected.slice) == pytest.approx(expected.nll_sum / expected.num_rows)
        assert sums.mean("brier", expected.slice) == pytest.approx(expected.brier_sum / expected.num_rows)
    assert sums.calibration_error() == pytest.approx(score_slices(scores_NK, label_N, slice_N, NAMES, "multiclass")[0].ece)


def test_a_slice_without_rows_has_no_mean() -> None:
    assert np.isnan(sum_by_day(*rows(), NAMES, "multiclass").mean("brier", "(other)"))


def test_values_have_a_squared_error_in_units_of_the_span_and_no_calibration() -> None:
    sums = sum_by_day(
        np.array([[3.0], [5.0]]), np.array([1.0, 5.0]), np.array([0, DAY]), np.zeros(2), ["all"], "regression", 2.0
    )

    assert sums.metrics == ("brier",)
    assert sums.mean("brier") == pytest.approx((1.0 + 0.0) / 2)
    assert np.isnan(sums.calibration_error())


def test_sums_are_the_same_after_they_were_written_and_read() -> None:
    sums = sum_by_day(*rows(), NAMES, "multiclass")

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sums), type=DaySums) == sums
