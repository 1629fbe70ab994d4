"""Rows of a time that is kept no more. Counted, they would stand in a window that has lost its other rows; and a receipt that
was redeemed then is not known any more."""

from typing import Any

import msgspec
import numpy as np

from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch
from clipdrift_monitor.intake.joining import Batch

_COMMON = ("sequence", "event_time_ms", "slice_index", "predicted", "scores")
_OF_LABELS = (*_COMMON, "label", "label_time_ms")


def rows_since(batch: Batch, from_ms: int) -> Batch:
    """The rows whose prediction was made at or after `from_ms`; the batch itself where that is all of them.

    A batch whose columns do not fit each other comes back as it is: whoever counts it finds that out.

    Raises:
        PoisonError: A column does not hold what its shape says.

    Example:
        >>> column = Column.of(np.array([10, 20, 30]))
        >>> batch = LabelBatch(model="m", version="v", epoch="e", sequence=column, event_time_ms=column, slice_index=column,
        ...                    predicted=column, scores=column, label=column, label_time_ms=column)
        >>> rows_since(batch, 20).label.array().tolist()
        [20, 30]
    """
    if from_ms <= 0:
        return batch
    time_N = batch.event_time_ms.array()
    is_kept_N = time_N >= from_ms
    if is_kept_N.all() or not _is_even(batch):
        return batch
    names = _OF_LABELS if isinstance(batch, LabelBatch) else _COMMON
    columns: dict[str, Any] = {name: _chosen(getattr(batch, name), is_kept_N) for name in names}
    if isinstance(batch, PredictionBatch):
        columns["features"] = tuple(
            FeatureColumn(name=one.name, values=_chosen(one.values, is_kept_N)) for one in batch.features
        )
    return msgspec.structs.replace(batch, **columns)


def _is_even(batch: Batch) -> bool:
    columns = [getattr(batch, name) for name in (_OF_LABELS if isinstance(batch, LabelBatch) else _COMMON)]
    if isinstance(batch, PredictionBatch):
        columns += [one.values for one in batch.features]
    return len({len(column) for column in columns}) == 1


def _chosen(column: Column, is_kept_N: "np.ndarray[Any, Any]") -> Column:
    return Column.of(column.array()[is_kept_N])
