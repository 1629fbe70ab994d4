"""Predictions and labels: placed in their windows, or kept until their run is known."""

import logging
from typing import Any

import msgspec

from clipdrift_contract import metrics as names
from clipdrift_contract.bus.reading import Read
from clipdrift_contract.clock import MS_PER_DAY, Clock
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import LABELS, PREDICTIONS, LabelBatch, PredictionBatch, RunEnd
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.intake.intake import Intake, Taken
from clipdrift_monitor.store.store import Store

_log = logging.getLogger(__name__)


class Rows:
    """Takes batches of rows.

    Args:
        config: Of the monitor.
        memory: Whose windows and states are added to.
        store: Holds the rows that came before their run.
        metrics: Counts batches by topic and outcome.
        clock: Bounds the times that clients claim.
    """

    max_waiting_batches = 20_000  # of 512 rows at most: hours of traffic, while a run comes within seconds

    def __init__(self, config: MonitorConfig, memory: Memory, store: Store, metrics: MetricSet, clock: Clock) -> None:
        self._memory = memory
        self._store = store
        self._events = metrics.counter(names.MONITOR_EVENTS)
        self._clock = clock
        self._intake = Intake(memory.windows, memory.labels, config.window_ms, config.policy.harm.max_ordered_labels)
        self._num_waiting: dict[tuple[str, str], int] = {}  # batches of versions whose run is not known, in this life

    def take(self, read: Read, batch: PredictionBatch | LabelBatch, draft: Draft) -> bool:
        """Place the rows of a batch, or keep them until their run comes; False where it is left out, which changes nothing."""
        if self._memory.run(batch.model, batch.version) is None:
            if not self._may_wait(batch.model, batch.version):
                return False
            headers = msgspec.msgpack.encode(read.record.headers)
            draft.changes.unplaced.append((read.envelope.id, batch.model, batch.version, headers, read.record.value))
            return True
        return self._add(batch, read.record.topic, draft)

    def place(self, run: RunEnd, draft: Draft) -> None:
        """Add the rows that came before their run."""
        changes = draft.changes
        here = [one for one in changes.unplaced if (one[1], one[2]) == (run.model, run.version)]
        changes.unplaced = [one for one in changes.unplaced if one not in here]
        kept = self._store.unplaced(run.model, run.version)
        changes.placed_ids += [event_id for event_id, _, _ in kept]
        for headers, value in [*((one[1], one[2]) for one in kept), *((one[3], one[4]) for one in here)]:
            event = _decode_kept(headers, value)
            topic = LABELS if isinstance(event, LabelBatch) else PREDICTIONS
            if not self._add(event, topic, draft):
                self._events.labels(topic, "poison").inc()

    def _may_wait(self, model: str, version: str) -> bool:
        """A run that never comes must not fill the store."""
        place = (model, version)
        self._num_waiting[place] = self._num_waiting.get(place, 0) + 1
        if self._num_waiting[place] == self.max_waiting_batches + 1:
            _log.error("the run of %s version %s is still unknown; further rows of it are left out", model, version)
        return self._num_waiting[place] <= self.max_waiting_batches

    def _add(self, batch: PredictionBatch | LabelBatch, topic: str, draft: Draft) -> bool:
        """Count the rows of a batch; False where it is poison, which changes nothing."""
        latest_ms = self._clock.now_ms() + MS_PER_DAY
        try:
            layout = self._memory.layout(batch.model, batch.version)
            if isinstance(batch, PredictionBatch):
                taken = self._intake.take_predictions(self._memory.state(batch.model), layout, batch, latest_ms)
            else:
                taken = self._intake.take_labels(self._memory.state(batch.model), layout, batch, latest_ms)
        except PoisonError as error:
            _log.error("a batch of %s %s is left out: %s", batch.model, batch.version, error)
            return False
        self._count(topic, taken)
        draft.touched.add(batch.model)
        return True

    def _count(self, topic: str, taken: Taken) -> None:
        if taken.num_duplicate:
            self._events.labels(topic, "duplicate").inc()
        if taken.num_late:
            self._events.labels(topic, "late").inc()


def _decode_kept(headers: bytes, value: bytes) -> Any:
    """An event as it was kept: headers packed, value as it came."""
    return decode(msgspec.msgpack.decode(headers, type=dict[str, bytes]), value)[1]
