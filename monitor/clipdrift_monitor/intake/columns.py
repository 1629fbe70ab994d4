"""Whether the columns of a batch fit each other and the version's reference profile. What does not fit is poison as a whole:
half a batch would be counted, and nobody could say which half."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import LATEST_MS
from clipdrift_contract.columns import Column
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import LabelBatch, PredictionBatch
from clipdrift_contract.profile import ReferenceProfile


def check_profile(profile: ReferenceProfile) -> None:
    """Raises PoisonError where a reference profile does not fit itself: nothing could be compared with it later."""
    sizes = {
        "slice_counts": (len(profile.slice_counts), len(profile.slice_names)),
        "score_counts": (len(profile.score_counts), len(profile.score_edges) + 1),
    }
    names = [feature.spec.name for feature in (*profile.features, *profile.derived)]
    if len(set(names)) < len(names):
        raise PoisonError(f"features must have names of their own, got {sorted(names)}")
    for feature in (*profile.features, *profile.derived):
        sizes[f"counts of {feature.spec.name}"] = len(feature.counts), feature.num_bins
    for name, (size, wanted) in sizes.items():
        if size != wanted:
            raise PoisonError(f"{name} must have {wanted} entries, got {size}")
    if profile.task == "regression" and not 0 < profile.label_high - profile.label_low < math.inf:
        raise PoisonError(f"label_high must lie above label_low, got {profile.label_low!r} to {profile.label_high!r}")
    if profile.task != "regression" and len(profile.classes) == 1:
        raise PoisonError(f"a {profile.task} task has at least two classes, got {profile.classes}")


def check_times(**times_ms: int) -> None:
    """Raises PoisonError for a time that is no number of milliseconds since 1970."""
    for name, time_ms in times_ms.items():
        if not 0 <= time_ms <= LATEST_MS:
            raise PoisonError(f"{name} must be in 0..{LATEST_MS}, got {time_ms}")


def check_predictions(profile: ReferenceProfile, batch: PredictionBatch) -> None:
    """Raises PoisonError where a batch of predictions cannot be counted; values of features may be missing, columns may not."""
    num_rows = _check_common(profile, batch)
    _check_lengths({column.name: column.values for column in batch.features}, num_rows)


def check_labels(profile: ReferenceProfile, batch: LabelBatch) -> None:
    """Raises PoisonError where a batch of labels cannot be counted."""
    num_rows = _check_common(profile, batch)
    _check_lengths({"label": batch.label, "label_time_ms": batch.label_time_ms}, num_rows)
    _check_within("label_time_ms", _whole("label_time_ms", batch.label_time_ms), LATEST_MS)
    _check_outputs("label", profile, batch.label, batch.scores)
    if profile.task != "regression" and batch.scores.shape[1] < 2:
        raise PoisonError(f"scores of a {profile.task} task need a probability for each class, got shape {batch.scores.shape}")


def _check_common(profile: ReferenceProfile, batch: PredictionBatch | LabelBatch) -> int:
    columns = {
        "sequence": batch.sequence,
        "event_time_ms": batch.event_time_ms,
        "slice_index": batch.slice_index,
        "predicted": batch.predicted,
    }
    num_rows = len(batch.sequence)
    _check_lengths({**columns, "scores": batch.scores}, num_rows)
    for name, column in columns.items():
        if len(column.shape) != 1:
            raise PoisonError(f"{name} must have one value a row, got shape {column.shape}")
    if len(batch.scores.shape) != 2:
        raise PoisonError(f"scores must have a row of values a row, got shape {batch.scores.shape}")
    _check_within("sequence", _whole("sequence", batch.sequence), 2**64 - 1)
    _check_within("event_time_ms", _whole("event_time_ms", batch.event_time_ms), LATEST_MS)
    _check_within("slice_index", _whole("slice_index", batch.slice_index), len(profile.slice_names) - 1)
    _check_outputs("predicted", profile, batch.predicted, batch.scores)
    _finite("scores", batch.scores)
    if profile.task != "regression" and profile.classes and batch.scores.shape[1] != len(profile.classes):
        raise PoisonError(f"scores must have {len(profile.classes)} columns, one a class, got shape {batch.scores.shape}")
    return num_rows


def _check_lengths(columns: Mapping[str, Column], num_rows: int) -> None:
    for name, column in columns.items():
        if len(column) != num_rows:
            raise PoisonError(f"{name} has {len(column)} rows where sequence has {num_rows}")


def _whole(name: str, column: Column) -> npt.NDArray[Any]:
    values_N = column.array()
    if values_N.dtype.kind not in "iu":
        raise PoisonError(f"{name} must hold whole numbers, got {column.dtype}")
    return values_N


def _finite(name: str, column: Column) -> npt.NDArray[Any]:
    values = column.array()
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise PoisonError(f"{name} must hold finite numbers")
    return values


def _check_within(name: str, values_N: npt.NDArray[Any], at_most: int) -> None:
    if len(values_N) and not (int(values_N.min()) >= 0 and int(values_N.max()) <= at_most):
        raise PoisonError(f"{name} must be in 0..{at_most}, got {int(values_N.min())} to {int(values_N.max())}")


def _check_outputs(name: str, profile: ReferenceProfile, column: Column, scores: Column) -> None:
    """Classes are indices of the scores' columns; values are any finite number."""
    values_N = _finite(name, column)
    if profile.task != "regression" and len(values_N):
        num_classes = max(2, scores.shape[1])
        if not (values_N.min() >= 0 and values_N.max() <= num_classes - 1 and (np.floor(values_N) == values_N).all()):
            raise PoisonError(f"{name} must be a class in 0..{num_classes - 1}, got {values_N.min()} to {values_N.max()}")
