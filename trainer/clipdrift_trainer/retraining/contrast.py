"""Paired differences of a loss between two models on the same rows, with an interval whose unit is the day.

Errors of one day hang together, so rows are no independent evidence: the interval comes from the spread of the daily
differences.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Contrast
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.scores import Floats, row_losses

# Two-sided 95 % quantiles of Student's t for 1..30 degrees of freedom; beyond that the expansion below is exact to 1e-4.
_T95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314,
    2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_Z95 = 1.959964
METRICS = ("brier", "nll", "error")


def student_t95(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    Source: tables to 30 degrees; above, z + (z^3 + z) / (4 v) (Cornish, Fisher 1938).

    Example:
        >>> student_t95(10), round(student_t95(60), 3)
        (2.2281, 2.0)
    """
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be >= 1, got {degrees!r}")
    return _T95[degrees - 1] if degrees <= len(_T95) else _Z95 + (_Z95**3 + _Z95) / (4 * degrees)


def losses_by_metric(scores_NK: Floats, label_N: Floats, kind: TaskKind) -> dict[str, Floats]:
    """Row losses by metric: brier, nll and error for classes; for regression "brier" is the squared error and stands alone."""
    if kind == "regression":
        return {"brier": (scores_NK[:, 0] - label_N) ** 2}
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    return {"brier": brier_N, "nll": nll_N, "error": (~is_right_N).astype(float)}


def contrast(slice_name: str, metric: str, difference_N: Floats, time_ms: npt.NDArray[np.int64]) -> Contrast:
    """The mean of `difference_N` (a - b, negative: a is better) with its 95 % interval over days.

    The days are weighted by their rows; the interval is that of a ratio of sums. With fewer than two days it is infinite on
    both sides (said as the widest possible difference, +-1e9, since events hold finite numbers).

    Source: ratio estimator over clusters, Cochran, Sampling Techniques (1977), section 6.3, with Student's t over days.
    """
    days, day_N = np.unique(time_ms // MS_PER_DAY, return_inverse=True)
    if not len(difference_N):
        return Contrast(slice=slice_name, num_rows=0, num_blocks=0, metric=metric, difference=0.0, low=-1e9, high=1e9)
    num_D, sum_D = np.bincount(day_N).astype(float), np.bincount(day_N, difference_N)
    mean = float(difference_N.mean())
    half = 1e9
    if len(days) >= 2:
        residual_D = (sum_D - mean * num_D) / num_D.mean()
        standard_error = float(np.sqrt((residual_D**2).sum() / (len(days) - 1) / len(days)))
        half = student_t95(len(days) - 1) * standard_error
    return Contrast(
        slice=slice_name, num_rows=len(difference_N), num_blocks=len(days), metric=metric,
        difference=mean, low=mean - half, high=mean + half,
    )  # fmt: skip


def contrasts(
    first: Sequence[Floats],
    second: Sequence[Floats],
    label_N: Floats,
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
) -> tuple[Contrast, ...]:
    """Every metric's contrast of `first` minus `second`, overall (slice "") and per slice.

    Args:
        first: Scores [N, K] of one model, one array a seed; seeds are averaged row by row.
        second: The same for the other model.
        label_N: Labels of the N rows.
        time_ms: When each row happened.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
        kind: Of the task.
    """
    mean_first, mean_second = _mean_losses(first, label_N, kind), _mean_losses(second, label_N, kind)
    found = []
    for index, name in [(None, ""), *enumerate(slice_names)]:
        chosen = np.ones(len(label_N), bool) if index is None else slice_N == index
        for metric, loss_N in mean_first.items():
            found.append(contrast(name, metric, (loss_N - mean_second[metric])[chosen], time_ms[chosen]))
    return tuple(found)


def pick(found: Sequence[Contrast], metric: str, slice_name: str = "") -> Contrast:
    """The contrast of one metric and slice.

    Raises:
        KeyError: There is none.
    """
    for one in found:
        if one.metric == metric and one.slice == slice_name:
            return one
    raise KeyError(f"no contrast of {metric} in slice {slice_name!r}")


def _mean_losses(scores: Sequence[Floats], label_N: Floats, kind: TaskKind) -> dict[str, Floats]:
    by_seed = [losses_by_metric(one, label_N, kind) for one in scores]
    return {metric: np.mean([losses[metric] for losses in by_seed], axis=0) for metric in by_seed[0]}
