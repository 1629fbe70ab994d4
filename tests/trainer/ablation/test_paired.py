import numpy as np
import pytest
from scipy import stats

from clipdrift_trainer.ablation.paired import paired
from clipdrift_trainer.ablation.sums import DaySums, sum_by_day
from clipdrift_trainer.retraining.contrast import contrast, losses_by_metric

DAY = 86_400_000


def days_of(num_days: int, rows_a_day: int = 40) -> np.ndarray:
    return np.repeat(np.arange(num_days), rows_a_day) * DAY


def answers(seed: int, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    positive_N = generator.random(num_rows)
    return np.stack([1 - positive_N, positive_N], axis=1), np.random.default_rng(0).integers(0, 2, num_rows).astype(float)


def sums(seed: int, num_days: int = 6) -> DaySums:
    time_ms = days_of(num_days)
    return sum_by_day(*answers(seed, len(time_ms)), time_ms, np.arange(len(time_ms)) % 2, ["a", "b"], "binary")


def from_days(by_day: np.ndarray) -> DaySums:
    """An arm whose mean loss is given day by day, in one slice of ten rows a day."""
    num = len(by_day)
    return DaySums(
        days=tuple(range(num)), slices=("all",), metrics=("brier",), counts=np.full(num, 10.0).tobytes(),
        losses=(10.0 * by_day).astype("<f8").tobytes(), gaps=b"",
    )  # fmt: skip


@pytest.mark.parametrize("slice_name", ["", "a"])
@pytest.mark.parametrize("metric", ["brier", "nll", "error"])
def test_with_one_seed_it_is_the_contrast_of_the_retraining_job(metric: str, slice_name: str) -> None:
    time_ms = days_of(6)
    chosen = np.arange(len(time_ms)) % 2 == 0 if slice_name else np.ones(len(time_ms), bool)
    losses = [losses_by_metric(*answers(seed, len(time_ms)), "binary")[metric] for seed in (1, 2)]
    expected = contrast(slice_name, metric, (losses[0] - losses[1])[None, chosen], time_ms[chosen])

    found = paired([sums(1)], [sums(2)], metric, slice_name).contrast(slice_name, metric)

    assert (found.num_rows, found.num_blocks) == (expected.num_rows, expected.num_blocks)
    assert (found.difference, found.low, found.high) == pytest.approx(
        (expected.difference, expected.low, expected.high), rel=1e-4
    )


def test_the_degrees_of_freedom_are_those_of_the_seeds_where_the_seeds_differ_most() -> None:
    first, second = [from_days(np.full(20, loss)) for loss in (1.0, 2.0, 4.0)], [from_days(np.zeros(20))] * 3

    found = paired(first, second, "brier")

    expected = stats.ttest_1samp([1.0, 2.0, 4.0], 0.0).confidence_interval(0.95)
    assert found.degrees == pytest.approx(2.0)
    assert found.difference - found.half_width() == pytest.approx(expected.low, rel=1e-5)


def test_the_interval_holds_the_truth_in_95_of_100_cases_whether_days_or_seeds_differ_most() -> None:
    generator = np.random.default_rng(1)
    for day_spread, seed_spread in ((1.0, 0.3), (0.3, 1.0), (1.0, 1.0)):
        held = 0
        for _ in range(400):
            day_D, seed_S = generator.normal(0, day_spread * 4, 15), generator.normal(0, seed_spread, 4)
            first = [from_days(0.5 + day_D + seed + generator.normal(0, 0.1, 15)) for seed in seed_S]
            found = paired(first, [from_days(np.zeros(15))] * 4, "brier")
            held += abs(found.difference - 0.5) <= found.half_width()
        assert 0.92 <= held / 400 <= 0.99, (day_spread, seed_spread, held)


def test_the_calibration_error_is_jackknifed_by_leaving_out_each_day() -> None:
    time_ms = days_of(6)

    def without(seed: int, day: int) -> float:
        kept = time_ms != day * DAY
        scores, label = answers(seed, len(time_ms))
        return sum_by_day(scores[kept], label[kept], time_ms[kept], np.zeros(kept.sum()), ["all"], "binary").calibration_error()

    left_out = np.array([without(1, day) - without(2, day) for day in range(6)])

    found = paired([sums(1)], [sums(2)], "ece")

    assert found.difference == pytest.approx(sums(1).calibration_error() - sums(2).calibration_error())
    assert found.day_variance == pytest.approx(5 / 6 * ((left_out - left_out.mean()) ** 2).sum())


def test_one_day_proves_nothing() -> None:
    assert paired([sums(1, num_days=1)], [sums(2, num_days=1)], "brier").half_width() == 1e9


def test_equal_answers_differ_by_nothing() -> None:
    found = paired([sums(1), sums(2)], [sums(1), sums(2)], "brier")
    assert (found.difference, found.half_width()) == (0.0, 0.0)


def test_arms_of_other_seeds_or_days_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same seeds"):
        paired([sums(1)], [sums(1), sums(2)], "brier")
    with pytest.raises(ValueError, match="same days"):
        paired([sums(1)], [sums(1, num_days=5)], "brier")
