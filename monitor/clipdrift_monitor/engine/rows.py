"""Predictions and labels: placed in their windows, many batches at once, or kept until their run is known."""

import logging
from collections.abc import Iterable, Sequence
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
from clipdrift_monitor.engine.comparing import Comparing
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.intake.expiry import rows_since
from clipdrift_monitor.intake.intake import Intake
from clipdrift_monitor.intake.joining import Batch, grouped, join
from clipdrift_monitor.store.store import Store

_MAX_ROWS = 32_768  # counted at once: small enough for the processor's cache, enough that batches need not be large
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
        self._comparing = Comparing(config, memory)
        self._intake = Intake(
            memory.windows, memory.labels, config.window_ms, config.policy.harm.max_ordered_labels, config.part_ms
        )
        self._taken: list[Batch] = []  # of this turn, not counted yet
        self._began = clock.now_ms() - round(clock.monotonic_seconds() * 1000)
        self._num_waiting: dict[tuple[str, str], int] = {}  # batches of versions whose run is not known, in this life

    def take(self, read: Read, batch: Batch, draft: Draft) -> None:
        """Have the rows of a batch counted by the next `settle`, or keep them until their run comes."""
        topic = read.record.topic
        if isinstance(batch, PredictionBatch) and self._comparing.take_served(batch):
            draft.touched.add(batch.model)
        if not len(batch.sequence):  # it only says how requests fared
            self._events.labels(topic, "applied").inc()
            return
        if self._memory.run(batch.model, batch.version) is not None:
            self._taken.append(batch)
            return
        is_kept = self._may_wait(batch.model, batch.version)
        self._events.labels(topic, "applied" if is_kept else "poison").inc()
        if is_kept:
            headers = msgspec.msgpack.encode(read.record.headers)
            draft.changes.unplaced.append((read.envelope.id, batch.model, batch.version, headers, read.record.value))

    def settle(self, draft: Draft) -> None:
        """Count what was taken. Before anything that changes what rows are counted by: a run, a version put into service."""
        taken, self._taken = self._taken, []
        for is_applied, topic in self._add_all(taken, draft):
            self._events.labels(topic, "applied" if is_applied else "poison").inc()

    def forget(self) -> None:
        """Of a turn that failed: what was taken is read again."""
        self._taken = []

    def place(self, run: RunEnd, draft: Draft) -> None:
        """Add the rows that came before their run."""
        changes = draft.changes
        here = [one for one in changes.unplaced if (one[1], one[2]) == (run.model, run.version)]
        changes.unplaced = [one for one in changes.unplaced if one not in here]
        kept = self._store.unplaced(run.model, run.version)
        changes.placed_ids += [event_id for event_id, _, _ in kept]
        waiting = [*((one[1], one[2]) for one in kept), *((one[3], one[4]) for one in here)]
        for is_applied, topic in self._add_all((_decode_kept(headers, value) for headers, value in waiting), draft):
            if not is_applied:  # that it was taken was counted when it came
                self._events.labels(topic, "poison").inc()

    def _may_wait(self, model: str, version: str) -> bool:
        """A run that never comes must not fill the store."""
        place = (model, version)
        self._num_waiting[place] = self._num_waiting.get(place, 0) + 1
        if self._num_waiting[place] == self.max_waiting_batches + 1:
            _log.error("the run of %s version %s is still unknown; further rows of it are left out", model, version)
        return self._num_waiting[place] <= self.max_waiting_batches

    def _add_all(self, batches: Iterable[Batch], draft: Draft) -> list[tuple[bool, str]]:
        """Count the rows of batches, those of a kind together; of each whether it was no poison, and its topic."""
        told = []
        for group in grouped(batches, _MAX_ROWS):
            topic = LABELS if isinstance(group[0], LabelBatch) else PREDICTIONS
            told += [(is_applied, topic) for is_applied in self._add_group(group, topic, draft)]
        return told

    def _add_group(self, group: Sequence[Batch], topic: str, draft: Draft) -> list[bool]:
        try:
            self._add(group, topic, draft)
        except PoisonError as error:
            if len(group) > 1:  # which of them is poison shows when each is alone
                return [is_applied for one in group for is_applied in self._add_group([one], topic, draft)]
            _log.error("a batch of %s %s is left out: %s", group[0].model, group[0].version, error)
            return [False]
        return [True] * len(group)

    def _add(self, group: Sequence[Batch], topic: str, draft: Draft) -> None:
        """Count the rows of batches of one kind; where one of them is poison this raises, and nothing was changed."""
        latest_ms = self._now_ms() + MS_PER_DAY
        layout = self._memory.layout(group[0].model, group[0].version)
        state = self._memory.state(group[0].model)
        group, num_rows = [rows_since(one, state.kept_from_ms) for one in group], [len(one.sequence) for one in group]
        if num_expired := sum(len(one.sequence) < before for one, before in zip(group, num_rows, strict=True)):
            self._events.labels(topic, "expired").inc(num_expired)
        batch = join(group)
        if isinstance(batch, PredictionBatch):
            self._intake.take_predictions(state, layout, batch, latest_ms)
            if batch.role == "shadow":
                self._comparing.take_answers(state, batch)
        else:
            sizes = [len(one.sequence) for one in group]
            labels = batch
            taken = self._intake.take_labels(
                state, layout, labels, latest_ms, sizes,
                on_first=lambda chosen_N: self._comparing.take_labels(state, labels, chosen_N),
            )  # fmt: skip
            if taken.num_duplicate_batches:
                self._events.labels(topic, "duplicate").inc(taken.num_duplicate_batches)
            if taken.num_late_batches:
                self._events.labels(topic, "late").inc(taken.num_late_batches)
        draft.touched.add(batch.model)

    def _now_ms(self) -> int:
        """The wall clock; where it was set back, what it would say had it not been."""
        return max(self._clock.now_ms(), self._began + round(self._clock.monotonic_seconds() * 1000))


def _decode_kept(headers: bytes, value: bytes) -> Any:
    """An event as it was kept: headers packed, value as it came."""
    return decode(msgspec.msgpack.decode(headers, type=dict[str, bytes]), value)[1]
