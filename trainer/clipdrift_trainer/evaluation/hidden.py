"""Early warning: slices that the figure of all rows hides.

A model may be good on average and poor where few rows are. Each slice is compared with all rows together; days are the units,
and the intervals are widened so that all slices together raise a false alarm in at most one run of twenty.

Axes: N rows, K classes.
"""

from collections.abc import Sequence
from math import hypot
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import HiddenSlice, ScoreInterval
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.blocks import Days, Floats, student_t
from clipdrift_trainer.evaluation.scores import row_losses

_TAIL = 0.05  # of all slices together
_NAME_OF = {
    "brier": "Brier score", "nll": "log loss", "error": "share of errors", "squared_error": "squared error", "rmse": "rmse",
}  # fmt: skip


class HiddenSlicePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a slice worth a warning."""

    metric: str = "brier"
    """The loss that is compared: brier, nll or error. Regression goes by the squared error in units of the label's span."""
    margin: float = 0.02
    """A slice that is worse by less than this is not worth one, however certain it is."""
    min_rows: int = 100
    """A slice with fewer validation rows is not looked at."""
    min_days: int = 5
    """Nor one with rows on fewer days."""

    def __post_init__(self) -> None:
        if self.metric not in ("brier", "nll", "error"):
            raise ValueError(f"metric must be brier, nll or error, got {self.metric!r}")
        if not self.margin >= 0:
            raise ValueError(f"margin must be >= 0, got {self.margin!r}")
        if self.min_days < 2:
            raise ValueError(f"min_days must be >= 2 (one day has no spread), got {self.min_days!r}")


def hidden_slices(
    scores_NK: Floats,
    label_N: Floats,
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
    *,
    policy: HiddenSlicePolicy | None = None,
    label_span: float = 1.0,
) -> tuple[HiddenSlice, ...]:
    """The slices whose loss is worse than that of all rows by more than the margin, with an interval above 0; worst first.

    The interval holds for all slices that are looked at together (Bonferroni). A slice that holds all rows hides nothing.

    Args:
        scores_NK: Class probabilities, or values [N, 1].
        label_N: Class indices or values.
        time_ms: When each row happened.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
        kind: Of the task.
        policy: When to warn.
        label_span: Regression: errors are in units of it.

    Source: difference of two ratio estimates, one over a domain of the other, Taylor linearisation over clusters (Cochran 1977,
    sections 2.12 and 6.3) with Student's t over the days that have rows of the slice.

    Example:
        >>> day = 86_400_000
        >>> is_rare = np.arange(2_000) % 10 == 0
        >>> scores = np.where(is_rare[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
        >>> found = hidden_slices(scores, np.ones(2_000), np.arange(2_000) // 100 * day, is_rare, ("usual", "rare"), "binary")
        >>> print(found[0].words[:107])
        slice rare, 10.0 % of the rows, is worse than the figure of all rows tells: Brier score 0.810 against 0.090
    """
    policy = policy or HiddenSlicePolicy()
    metric, loss_N, is_right_N = _losses(scores_NK, label_N, kind, policy.metric, label_span)
    days = Days(time_ms)
    masks = {name: slice_N == index for index, name in enumerate(slice_names)}
    tested = {name: is_in_N for name, is_in_N in masks.items() if _has_evidence(is_in_N, days, policy)}
    found = []
    for name, is_in_N in tested.items():
        value, overall = float(loss_N[is_in_N].mean()), float(loss_N.mean())
        influence_N = is_in_N * (loss_N - value) / is_in_N.sum() - (loss_N - overall) / len(loss_N)
        quantile = student_t(days.only(is_in_N).num - 1, _TAIL / len(tested))
        half = quantile * days.standard_error(influence_N)
        one = HiddenSlice(
            slice=name,
            metric=metric,
            value=value,
            overall=overall,
            difference_low=value - overall - half,
            difference_high=value - overall + half,
            share_of_rows=float(is_in_N.mean()),
        )
        if value - overall > policy.margin and one.difference_low > 0:
            accuracies = None if is_right_N is None else (float(is_right_N[is_in_N].mean()), float(is_right_N.mean()))
            found.append(msgspec.structs.replace(one, words=_words(one, accuracies)))
    return tuple(sorted(found, key=lambda one: one.overall - one.value))


def slices_that_got_worse(
    now: Sequence[ScoreInterval], in_service: Sequence[ScoreInterval], *, policy: HiddenSlicePolicy | None = None
) -> tuple[HiddenSlice, ...]:
    """The slices whose loss is worse than the model in service was validated at by more than the margin, with an interval above
    0; worst first. In the result `overall` is the slice's own earlier figure.

    The two validations are taken as independent. For regression the metric is rmse, and the margin a share of what it was.

    Args:
        now: Intervals of this run (see `score_intervals`).
        in_service: Those of the run whose model is in service; empty: nothing is known of it.
        policy: When to warn.

    Source: the interval of a difference from two intervals, Donner and Zou (2012), doi 10.1177/0962280210375690, widened for
    the number of slices by the ratio of Student's quantiles.
    """
    policy = policy or HiddenSlicePolicy()
    new_by_slice, old_by_slice = (_losses_by_slice(intervals, policy) for intervals in (now, in_service))
    num_rows = new_by_slice[""].num_rows if "" in new_by_slice else 1
    names = [
        name
        for name, new in new_by_slice.items()
        if name and name in old_by_slice and _is_enough(new, policy) and _is_enough(old_by_slice[name], policy)
    ]
    found = []
    for name in names:
        new, old = new_by_slice[name], old_by_slice[name]
        degrees = min(new.num_blocks, old.num_blocks) - 1
        widened = student_t(degrees, _TAIL / len(names)) / student_t(degrees)
        difference = new.value - old.value
        low = difference - widened * hypot(new.value - new.low, old.high - old.value)
        if low > 0 and difference > policy.margin * (old.value if new.metric == "rmse" else 1.0):
            one = HiddenSlice(
                slice=name,
                metric=new.metric,
                value=new.value,
                overall=old.value,
                difference_low=low,
                difference_high=difference + widened * hypot(new.high - new.value, old.value - old.low),
                share_of_rows=new.num_rows / num_rows,
                against="in_service",
            )
            found.append(msgspec.structs.replace(one, words=_words_of_change(one)))
    return tuple(sorted(found, key=lambda one: one.overall - one.value))


def _losses_by_slice(intervals: Sequence[ScoreInterval], policy: HiddenSlicePolicy) -> dict[str, ScoreInterval]:
    """The policy's metric (for regression rmse) by slice, as a loss."""
    wanted = {"rmse", "accuracy" if policy.metric == "error" else policy.metric}
    return {one.slice: _as_loss(one) for one in intervals if one.metric in wanted}


def _as_loss(one: ScoreInterval) -> ScoreInterval:
    if one.metric != "accuracy":
        return one
    return msgspec.structs.replace(one, metric="error", value=1 - one.value, low=1 - one.high, high=1 - one.low)


def _is_enough(one: ScoreInterval, policy: HiddenSlicePolicy) -> bool:
    return one.num_rows >= policy.min_rows and one.num_blocks >= policy.min_days


def _losses(
    scores_NK: Floats, label_N: Floats, kind: TaskKind, metric: str, label_span: float
) -> tuple[str, Floats, npt.NDArray[np.bool_] | None]:
    if kind == "regression":
        return "squared_error", ((scores_NK[:, 0] - label_N) / label_span) ** 2, None
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    return metric, {"brier": brier_N, "nll": nll_N, "error": (~is_right_N).astype(float)}[metric], is_right_N


def _has_evidence(is_in_N: npt.NDArray[np.bool_], days: Days, policy: HiddenSlicePolicy) -> bool:
    is_part = not is_in_N.all() and int(is_in_N.sum()) >= policy.min_rows
    return is_part and days.only(is_in_N).num >= policy.min_days


def _words(one: HiddenSlice, accuracies: tuple[float, float] | None) -> str:
    interval = f"{one.value - one.overall:+.3f} [{one.difference_low:+.3f}, {one.difference_high:+.3f}]"
    figure = f"{_NAME_OF[one.metric]} {one.value:.3f} against {one.overall:.3f} ({interval})"
    accuracy = f", accuracy {accuracies[0]:.3f} against {accuracies[1]:.3f}" if accuracies else ""
    share = f"{one.share_of_rows * 100:.1f} % of the rows"
    return f"slice {one.slice}, {share}, is worse than the figure of all rows tells: {figure}{accuracy}"


def _words_of_change(one: HiddenSlice) -> str:
    interval = f"{one.value - one.overall:+.3f} [{one.difference_low:+.3f}, {one.difference_high:+.3f}]"
    figure = f"{_NAME_OF[one.metric]} {one.value:.3f}, it was {one.overall:.3f} ({interval})"
    return f"slice {one.slice} is worse than the model in service was validated at: {figure}"
