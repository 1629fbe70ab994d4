"""All that is found out about a fitted model on held-out rows, under the names that a `RunEnd` has for it.

Axes: N rows, K classes.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Calibration, ErrorClustering, HiddenSlice, ReliabilityBin, ScoreInterval, SliceScore
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.clustering import cluster_errors, cluster_misses
from clipdrift_trainer.evaluation.hidden import HiddenSlicePolicy, hidden_slices, slices_that_got_worse
from clipdrift_trainer.evaluation.intervals import score_intervals
from clipdrift_trainer.evaluation.reliability import reliability
from clipdrift_trainer.evaluation.scores import Floats, score_slices


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """See the fields of the same names in `RunEnd`."""

    validation: tuple[SliceScore, ...]
    clustering: tuple[ErrorClustering, ...]
    intervals: tuple[ScoreInterval, ...]
    hidden_slices: tuple[HiddenSlice, ...]
    calibration: Calibration | None
    reliability: tuple[ReliabilityBin, ...]


def validate(
    scores_NK: Floats,
    label_N: Floats,
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
    *,
    num_train: Sequence[int],
    calibration: Calibration | None,
    policy: HiddenSlicePolicy,
    label_span: float,
    in_service: Sequence[ScoreInterval] = (),
) -> Validation:
    """Figures, intervals, reliability, and the slices that stand out.

    Args:
        scores_NK: Class probabilities as they will be served, or values [N, 1]; finite.
        label_N: Class indices or values.
        time_ms: When each row happened, in order.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
        kind: Of the task.
        num_train: Training rows by slice, to be carried along.
        calibration: What temperature scaling gains; carried along.
        policy: When a slice is worth a warning.
        label_span: Regression: the unit in which slices are compared.
        in_service: Intervals of the run whose model is in service; empty: nothing is known of it.

    Raises:
        ValueError: Rows out of time order, or scores that are not finite.
    """
    if kind == "regression":
        clustering = cluster_misses(scores_NK[:, 0], label_N, time_ms, slice_N, slice_names, label_span)
    else:
        clustering = cluster_errors(scores_NK, label_N, time_ms, slice_N, slice_names)
    rows = (scores_NK, label_N, time_ms, slice_N, slice_names, kind)
    intervals = score_intervals(*rows)
    return Validation(
        validation=score_slices(scores_NK, label_N, slice_N, slice_names, kind, num_train),
        clustering=clustering,
        intervals=intervals,
        hidden_slices=(
            *hidden_slices(*rows, policy=policy, label_span=label_span),
            *slices_that_got_worse(intervals, in_service, policy=policy),
        ),
        calibration=calibration,
        reliability=reliability(*rows),
    )
