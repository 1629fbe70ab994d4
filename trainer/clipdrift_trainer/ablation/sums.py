"""What is kept of a model's answers: losses summed by day and slice, and confidence minus correctness by day and bin.

Small, whatever the number of rows, and enough for every figure and every paired interval. Axes: D days, C slices, B bins.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.scores import NUM_BINS, Floats, width_bins
from clipdrift_trainer.retraining.contrast import losses_by_metric


class DaySums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the rows of each day; the arrays are little-endian float64 as bytes."""

    days: tuple[int, ...]  # days since 1970, ascending
    slices: tuple[str, ...]
    metrics: tuple[str, ...]  # of the loss sums: brier, nll, error; for regression brier alone
    counts: bytes  # [D, C] rows
    losses: bytes  # [M, D, C]
    gaps: bytes  # [D, B] sum of confidence - correctness; empty for regression

    @property
    def num_rows(self) -> int:
        return int(self.counts_DC().sum())

    def counts_DC(self) -> Floats:  # noqa: N802  ends in its axes
        return np.frombuffer(self.counts, "<f8").reshape(len(self.days), len(self.slices))

    def losses_DC(self, metric: str) -> Floats:  # noqa: N802
        shape = (len(self.metrics), len(self.days), len(self.slices))
        found: Floats = np.frombuffer(self.losses, "<f8").reshape(shape)[self.metrics.index(metric)]
        return found

    def gaps_DB(self) -> Floats:  # noqa: N802
        return np.frombuffer(self.gaps, "<f8").reshape(len(self.days), NUM_BINS)

    def mean(self, metric: str, slice_name: str = "") -> float:
        """Mean loss of all rows, or of one slice; NaN where it has no rows."""
        chosen = self.columns(slice_name)
        num_rows = float(self.counts_DC()[:, chosen].sum())
        return float(self.losses_DC(metric)[:, chosen].sum()) / num_rows if num_rows else float("nan")

    def columns(self, slice_name: str) -> list[int]:
        """Positions of the slices that `slice_name` stands for: one, or all for ""."""
        return list(range(len(self.slices))) if slice_name == "" else [self.slices.index(slice_name)]

    def calibration_error(self) -> float:
        """As `evaluation.scores.expected_calibration_error` of the rows; NaN for no rows or values."""
        return calibration_error(self.gaps_DB(), self.num_rows) if self.gaps and self.num_rows else float("nan")


def calibration_error(gaps_DB: Floats, num_rows: float) -> float:
    """Mean over rows of |accuracy - confidence| by bin (Guo et al. 2017, arXiv 1706.04599, equation 3)."""
    return float(np.abs(gaps_DB.sum(axis=0)).sum() / num_rows)


def sum_by_day(
    scores_NK: Floats,
    label_N: Floats,
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
    label_span: float = 1.0,
) -> DaySums:
    """The sums of one model's answers.

    Args:
        scores_NK: Class probabilities, or values [N, 1] for regression; finite.
        label_N: Class indices or values.
        time_ms: When each row happened.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
        kind: Of the task.
        label_span: Regression: squared errors are in units of its square.

    Example:
        >>> sums = sum_by_day(np.array([[0.2, 0.8], [0.4, 0.6]]), np.array([1.0, 0.0]), np.array([0, 86_400_000]),
        ...                   np.array([0, 1]), ["north", "south"], "binary")
        >>> sums.num_rows, round(sums.mean("brier"), 2), round(sums.mean("error", "south"), 2)
        (2, 0.2, 1.0)
    """
    days, day_N = np.unique(time_ms // MS_PER_DAY, return_inverse=True)
    shape = (len(days), len(slice_names))
    cell_N = day_N * shape[1] + slice_N.astype(np.int64)
    losses = losses_by_metric(scores_NK, label_N, kind, label_span)
    return DaySums(
        days=tuple(int(day) for day in days),
        slices=tuple(slice_names),
        metrics=tuple(losses),
        counts=_packed(np.bincount(cell_N, minlength=shape[0] * shape[1])),
        losses=b"".join(_packed(np.bincount(cell_N, loss_N, shape[0] * shape[1])) for loss_N in losses.values()),
        gaps=b"" if kind == "regression" else _packed(_gaps(scores_NK, label_N, day_N, len(days))),
    )


def _gaps(scores_NK: Floats, label_N: Floats, day_N: npt.NDArray[Any], num_days: int) -> Floats:
    confidence_N = scores_NK.max(axis=1)
    is_right_N = scores_NK.argmax(axis=1) == label_N
    bin_N = width_bins(confidence_N, NUM_BINS)
    return np.bincount(day_N * NUM_BINS + bin_N, confidence_N - is_right_N, num_days * NUM_BINS).astype(np.float64)


def _packed(values: npt.NDArray[Any]) -> bytes:
    return values.astype("<f8").tobytes()
