"""Validation figures with 95 % intervals, of all rows together and of each slice.

Axes: N rows, K classes.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import ScoreInterval
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.blocks import UNKNOWN, Days, Interval, loss_interval, mean_interval, rate_interval
from clipdrift_trainer.evaluation.ranking import auc_interval
from clipdrift_trainer.evaluation.reliability import calibration_error_interval
from clipdrift_trainer.evaluation.scores import MAX_NLL, Floats, row_losses

_MAX_AUC_CLASSES = 30  # 870 pairs of classes; beyond, the area of every slice takes seconds


def score_intervals(
    scores_NK: Floats,
    label_N: Floats,
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
) -> tuple[ScoreInterval, ...]:
    """Each figure with its interval over days, of all rows (slice "") and of each slice that has rows.

    Classification: accuracy, nll (nats a row), brier, ece (without the bias of few rows), overconfidence (mean probability of
    the predicted class minus accuracy: above 0 the model promises too much) and auc, which is left out where a class is absent
    or there are more than 30. Regression: rmse and mae in the label's unit. Below two days an interval spans all that is
    possible (what has no upper end goes to 1e9, or to the largest float where the figure itself is larger).

    Args:
        scores_NK: Class probabilities, or values [N, 1]; finite.
        label_N: Class indices or values.
        time_ms: When each row happened.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
        kind: Of the task.

    Raises:
        ValueError: A score is NaN or infinite.

    Source: see `mean_interval`, `loss_interval`, `rate_interval`, `auc_interval`, `calibration_error_interval`.

    Example:
        >>> time_ms = np.arange(6) * 86_400_000
        >>> scores = np.array([[0.2, 0.8]] * 6)
        >>> found = score_intervals(scores, np.array([1.0, 1, 1, 1, 0, 1]), time_ms, np.zeros(6), ("all",), "binary")
        >>> found[0].metric, round(found[0].value, 2), round(found[0].low, 2), round(found[0].high, 2)
        ('accuracy', 0.83, 0.3, 0.98)
    """
    if not np.isfinite(scores_NK).all():
        raise ValueError(f"scores must be finite; {int((~np.isfinite(scores_NK).all(axis=1)).sum())} rows are not")
    days = Days(time_ms)
    rows = _regression_rows(scores_NK, label_N) if kind == "regression" else _classification_rows(scores_NK, label_N)
    found: list[ScoreInterval] = []
    for index, name in [(None, ""), *enumerate(slice_names)]:
        chosen = np.arange(len(label_N)) if index is None else np.flatnonzero(slice_N == index)
        if len(chosen):
            within = days.only(chosen)
            some = {metric: column[chosen] for metric, column in rows.items()}
            intervals = _regression(some, within) if kind == "regression" else _classification(some, within)
            found += [
                ScoreInterval(
                    slice=name, metric=metric, value=one.value, low=one.low, high=one.high,
                    num_rows=len(chosen), num_blocks=within.num,
                )
                for metric, one in intervals.items()
            ]  # fmt: skip
    return tuple(found)


def _classification_rows(scores_NK: Floats, label_N: Floats) -> dict[str, npt.NDArray[Any]]:
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    return {
        "is_right": is_right_N, "nll": nll_N, "brier": brier_N,
        "confidence": scores_NK.max(axis=1), "scores": scores_NK, "label": label_N,
    }  # fmt: skip


def _classification(rows: dict[str, npt.NDArray[Any]], days: Days) -> dict[str, Interval]:
    found = {
        "accuracy": rate_interval(rows["is_right"], days),
        "nll": loss_interval(rows["nll"], days, ceiling=MAX_NLL),
        "brier": loss_interval(rows["brier"], days, ceiling=2.0),
        "ece": calibration_error_interval(rows["confidence"], rows["is_right"], days),
        "overconfidence": mean_interval(rows["confidence"] - rows["is_right"], days, floor=-1.0, ceiling=1.0),
    }
    area = auc_interval(rows["scores"], rows["label"], days) if rows["scores"].shape[1] <= _MAX_AUC_CLASSES else None
    return found | ({"auc": area} if area is not None else {})


def _regression_rows(scores_NK: Floats, label_N: Floats) -> dict[str, npt.NDArray[Any]]:
    error_N = scores_NK[:, 0] - label_N
    return {"squared": error_N**2, "absolute": np.abs(error_N)}


def _regression(rows: dict[str, npt.NDArray[Any]], days: Days) -> dict[str, Interval]:
    squared = loss_interval(rows["squared"], days, unknown=UNKNOWN**2)
    return {"rmse": Interval(*map(sqrt, squared)), "mae": loss_interval(rows["absolute"], days)}
