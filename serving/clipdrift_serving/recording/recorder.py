"""Keeps references to what was predicted and turns them, off the hot path, into columnar events of up to 512 rows."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract import metrics as names
from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch, Role
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.receipts import Receipt
from clipdrift_serving.recording.spool import Spool, SpoolFullError

BATCH_ROWS = 512
_log = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """One answered request of N rows, as references to arrays that exist anyway."""

    model: str
    version: str
    role: Role
    generation: int
    sequence: npt.NDArray[Any]  # u8 [N]
    event_time_ms: npt.NDArray[Any]  # i8 [N]
    slice_index: npt.NDArray[Any]  # i2 [N]
    predicted: npt.NDArray[Any]  # f8 [N]
    scores: npt.NDArray[Any]  # f4 [N, K]
    features: Mapping[str, npt.NDArray[Any]]


class Labelled(NamedTuple):
    """A receipt with its label."""

    receipt: Receipt
    label: float
    label_time_ms: int


class Recorder:
    """Collects predictions and writes them to the spool. One thread (the event loop's) only; bounded memory.

    Args:
        spool: Where events go.
        epoch: Identity of this process's life.
        metrics: For counts of what was dropped.
        max_pending_rows: Rows kept in memory at most.
    """

    def __init__(self, spool: Spool, epoch: str, metrics: MetricSet, max_pending_rows: int) -> None:
        self._spool = spool
        self._epoch = epoch
        self._dropped = metrics.counter(names.SERVING_UNRECORDED)
        self._queue_gauge = metrics.gauge(names.SERVING_RECORDER_QUEUE)
        self._max_pending_rows = max_pending_rows
        self._pending: list[Predicted] = []
        self._num_pending = 0
        self._num_unrecorded: dict[str, int] = {}

    @property
    def num_pending_rows(self) -> int:
        return self._num_pending

    def add(self, predicted: Predicted) -> None:
        """Keep a reference; counted as dropped when too many wait."""
        num_rows = len(predicted.sequence)
        if self._num_pending + num_rows > self._max_pending_rows:
            self._drop(predicted.model, num_rows, "memory")
            return
        self._pending.append(predicted)
        self._num_pending += num_rows

    def flush(self) -> None:
        """Write everything that waits to the spool, in the order in which it was answered."""
        pending, self._pending, self._num_pending = self._pending, [], 0
        for group in _grouped(pending):
            try:
                self._write(group)
            except Exception:  # noqa: BLE001  what cannot be packed must not end the recording of everything else
                _log.exception("predictions of %s are dropped", group[0].model)
                self._drop(group[0].model, sum(len(one.sequence) for one in group), "fault")
        self._queue_gauge.set(self._num_pending)

    def _write(self, group: list[Predicted]) -> None:
        for batch in self._batches(group):
            try:
                self._spool.append(batch)
            except SpoolFullError as error:
                _log.error("predictions are dropped: %s", error)
                self._drop(batch.model, batch.sequence.shape[0], "spool_full")
            else:
                self._num_unrecorded.pop(batch.model, None)

    def add_labels(self, labelled: list[Labelled]) -> None:
        """Write labels to the spool at once: when this returns they survive a crash.

        Raises:
            SpoolFullError: They could not be written; the caller must not acknowledge them.
        """
        groups: dict[tuple[Any, ...], list[Labelled]] = {}
        for one in labelled:
            receipt = one.receipt
            key = (receipt.model, receipt.version, receipt.epoch, receipt.role, len(receipt.scores))
            groups.setdefault(key, []).append(one)
        for group in groups.values():
            for start in range(0, len(group), BATCH_ROWS):
                self._spool.append(_label_batch(group[start : start + BATCH_ROWS]))

    def _batches(self, group: list[Predicted]) -> Iterator[PredictionBatch]:
        first = group[0]
        joined = {
            name: np.concatenate([getattr(one, name) for one in group])
            for name in ("sequence", "event_time_ms", "slice_index", "predicted", "scores")
        }
        features = {name: np.concatenate([one.features[name] for one in group]) for name in first.features}
        for start in range(0, len(joined["sequence"]), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            yield PredictionBatch(
                model=first.model,
                version=first.version,
                epoch=self._epoch,
                role=first.role,
                generation=first.generation,
                num_unrecorded=self._num_unrecorded.get(first.model, 0),
                features=tuple(FeatureColumn(name=name, values=Column.of(values[part])) for name, values in features.items()),
                **{name: Column.of(values[part]) for name, values in joined.items()},
            )

    def _drop(self, model: str, num_rows: int, reason: str) -> None:
        self._num_unrecorded[model] = self._num_unrecorded.get(model, 0) + num_rows
        self._dropped.labels(model, reason).inc(num_rows)


def _grouped(pending: list[Predicted]) -> Iterator[list[Predicted]]:
    """Requests of one version together; the order within a version is kept."""
    groups: dict[tuple[Any, ...], list[Predicted]] = {}
    for one in pending:
        groups.setdefault((one.model, one.version, one.role, one.generation, one.scores.shape[1]), []).append(one)
    yield from groups.values()


def _label_batch(group: list[Labelled]) -> LabelBatch:
    first = group[0].receipt
    receipts = [one.receipt for one in group]
    return LabelBatch(
        model=first.model,
        version=first.version,
        epoch=first.epoch,
        role=first.role,
        sequence=Column.of(np.array([receipt.sequence for receipt in receipts], "u8")),
        event_time_ms=Column.of(np.array([receipt.event_time_ms for receipt in receipts], "i8")),
        slice_index=Column.of(np.array([receipt.slice_index for receipt in receipts], "i2")),
        predicted=Column.of(np.array([receipt.predicted for receipt in receipts], "f8")),
        scores=Column.of(np.array([receipt.scores for receipt in receipts], "f4")),
        label=Column.of(np.array([one.label for one in group], "f8")),
        label_time_ms=Column.of(np.array([one.label_time_ms for one in group], "i8")),
    )
