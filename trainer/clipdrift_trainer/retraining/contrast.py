"""Paired differences of a loss between two models on the same rows, with an interval whose unit is the day.

Errors of one day hang together, so rows are no independent evidence: the interval comes from the spread of the daily
differences.
"""

from collections.abc import Mapping, Sequence
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
UNKNOWN = 1e9  # half the width of an interval that says nothing


def student_t95(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    Source: tables to 30 degrees; above, z + (z^3 + z) / (4 v) + (5 z^5 + 16 z^3 + 3 z) / (96 v^2), Abramowitz and Stegun
    (1964), 26.7.5.

    Example:
        >>> student_t95(10), round(student_t95(60), 3)
        (2.2281, 2.0)
    """
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be >= 1, got {degrees!r}")
    if degrees <= len(_T95):
        return _T95[degrees - 1]
    first, second = _Z95**3 + _Z95, 5 * _Z95**5 + 16 * _Z95**3 + 3 * _Z95
    return _Z95 + first / (4 * degrees) + second / (96 * degrees**2)


def losses_by_metric(scores_NK: Floats, label_N: Floats, kind: TaskKind, label_span: float = 1.0) -> dict[str, Floats]:
    """Row losses by metric: brier, nll and error for classes; for regression "brier" is the squared error in units of
    `label_span` squared, and stands alone."""
    if kind == "regression":
        return {"brier": ((scores_NK[:, 0] - label_N) / label_span) ** 2}
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    return {"brier": brier_N, "nll": nll_N, "error": (~is_right_N).astype(float)}


def contrast(slice_name: str, metric: str, difference_SN: npt.NDArray[np.float64], time_ms: npt.NDArray[np.int64]) -> Contrast:
    """The mean of `difference_SN` (a - b, negative: a is better) with its 95 % interval over days and seeds.

    The days are weighted by their rows; the interval is that of a ratio of sums. Several seeds add the variance of their means.
    With fewer than two days, or a difference that is not finite, nothing is known: 0 within +-1e9 (events hold finite numbers).

    Args:
        slice_name: Goes into the result, as does `metric`.
        metric: See `slice_name`.
        difference_SN: Differences of row losses, S paired seeds (at least one) by N rows.
        time_ms: When each row happened, shape [N].

    Source: ratio estimator over clusters, Cochran, Sampling Techniques (1977), section 6.3, with Student's t over days.

    Example:
        >>> day = 86_400_000
        >>> found = contrast("", "brier", np.array([[-0.1, -0.2, -0.3]]), np.array([0, day, 2 * day]))
        >>> round(found.difference, 3), round(found.high, 3), found.num_blocks     # -0.2 + 4.3027 * 0.1 / sqrt(3)
        (-0.2, 0.048, 3)
    """
    num_rows = len(time_ms)
    days, day_N = np.unique(time_ms // MS_PER_DAY, return_inverse=True)
    difference_N = difference_SN.mean(axis=0)
    if len(days) < 2 or not np.isfinite(difference_N).all():
        mean = float(difference_N.mean()) if num_rows and np.isfinite(difference_N).all() else 0.0
        return Contrast(
            slice=slice_name, num_rows=num_rows, num_blocks=len(days), metric=metric,
            difference=mean, low=-UNKNOWN, high=UNKNOWN,
        )  # fmt: skip
    num_D, sum_D = np.bincount(day_N).astype(float), np.bincount(day_N, difference_N)
    mean = float(sum_D.sum() / num_D.sum())
    residual_D = (sum_D - mean * num_D) / num_D.mean()
    variance = float((residual_D**2).sum() / (len(days) - 1) / len(days))
    if len(difference_SN) > 1:
        variance += float(difference_SN.mean(axis=1).var(ddof=1)) / len(difference_SN)
    half = student_t95(len(days) - 1) * variance**0.5
    return Contrast(
        slice=slice_name, num_rows=num_rows, num_blocks=len(days), metric=metric,
        difference=mean, low=mean - half, high=mean + half,
    )  # fmt: skip


def contrasts(
    first: Sequence[Mapping[str, Floats]],
    second: Sequence[Mapping[str, Floats]],
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
) -> tuple[Contrast, ...]:
    """Every metric's contrast of `first` minus `second`, overall (slice "") and per slice.

    Args:
        first: Row losses by metric of one model, one mapping a seed.
        second: The same for the other model, with the same seeds.
        time_ms: When each of the N rows happened.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
    """
    found = []
    for index, name in [(None, ""), *enumerate(slice_names)]:
        chosen = np.ones(len(time_ms), bool) if index is None else slice_N == index
        for metric in first[0]:
            difference_SN = np.stack([a[metric][chosen] - b[metric][chosen] for a, b in zip(first, second, strict=True)])
            found.append(contrast(name, metric, difference_SN, time_ms[chosen]))
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
