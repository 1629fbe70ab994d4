"""Paired differences of a loss between two models on the same rows, with an interval whose unit is the day.

Errors of one day hang together, so rows are no independent evidence: the interval comes from the spread of the daily
differences.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Contrast
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.blocks import Days
from clipdrift_trainer.evaluation.paired import Paired, paired_sums
from clipdrift_trainer.evaluation.scores import Floats, row_losses


def losses_by_metric(scores_NK: Floats, label_N: Floats, kind: TaskKind, label_span: float = 1.0) -> dict[str, Floats]:
    """Row losses by metric: brier, nll and error for classes; for regression "brier" is the squared error in units of
    `label_span` squared, and stands alone."""
    if kind == "regression":
        return {"brier": ((scores_NK[:, 0] - label_N) / label_span) ** 2}
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    return {"brier": brier_N, "nll": nll_N, "error": (~is_right_N).astype(float)}


def difference(first: Sequence[Floats], second: Sequence[Floats], days: Days) -> Paired:
    """The mean of `first` minus `second`, row losses of the same seeds (at least one) on the rows of `days`."""
    sum_SD = np.stack([days.sums(a_N - b_N) for a_N, b_N in zip(first, second, strict=True)])
    return paired_sums(sum_SD, days.sums(np.ones(len(days.index_N))))


def contrast(slice_name: str, metric: str, difference_SN: npt.NDArray[np.float64], time_ms: npt.NDArray[np.int64]) -> Contrast:
    """The mean of `difference_SN` (a - b, negative: a is better) with its 95 % interval over days and seeds.

    With fewer than two days, or a difference that is not finite, nothing is known: 0 within +-1e9 (events hold finite numbers).

    Args:
        slice_name: Goes into the result, as does `metric`.
        metric: See `slice_name`.
        difference_SN: Differences of row losses, S paired seeds (at least one) by N rows.
        time_ms: When each row happened, shape [N].

    Example:
        >>> day = 86_400_000
        >>> found = contrast("", "brier", np.array([[-0.1, -0.2, -0.3]]), np.array([0, day, 2 * day]))
        >>> round(found.difference, 3), round(found.high, 3), found.num_blocks     # -0.2 + 4.3027 * 0.1 / sqrt(3)
        (-0.2, 0.048, 3)
    """
    nothing_SN = [np.zeros(len(time_ms))] * len(difference_SN)
    return difference(list(difference_SN), nothing_SN, Days(time_ms)).contrast(slice_name, metric)


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
        days = Days(time_ms[chosen])
        for metric in first[0]:
            mine, theirs = ([losses[metric][chosen] for losses in model] for model in (first, second))
            found.append(difference(mine, theirs, days).contrast(name, metric))
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
