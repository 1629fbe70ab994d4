"""One turn after another: reads events, adds them up, judges what has closed, and saves all of it with the offsets in one
transaction. What follows from it (events, jobs) is written with it and carried out after it."""

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from clipdrift_contract import metrics as names
from clipdrift_contract.bus.log import Bus, Consumer, TopicPartition
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.reading import EventReader, Read
from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import (
    DEPLOYMENTS,
    LABELS,
    PREDICTIONS,
    RETRAINING,
    TRAINING,
    Deployment,
    LabelBatch,
    PredictionBatch,
    RetrainOutcome,
    RunEnd,
)
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.actions.course import Observation
from clipdrift_monitor.actions.errands import Errand
from clipdrift_monitor.actions.outbox import Outbox, to_publish
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.judging import Judgement
from clipdrift_monitor.engine.approvals import Approvals
from clipdrift_monitor.engine.blocks import Blocks
from clipdrift_monitor.engine.commands import CommandError, Commands
from clipdrift_monitor.engine.deployments import Deployments
from clipdrift_monitor.engine.draft import ACTOR, Alarm, Draft
from clipdrift_monitor.engine.incidents import Incidents
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.offsets import find_shorter, moved
from clipdrift_monitor.engine.pruning import Pruning
from clipdrift_monitor.engine.rehearsals import Rehearsals
from clipdrift_monitor.engine.responses import Responses
from clipdrift_monitor.engine.retrains import JobError, Runs
from clipdrift_monitor.engine.rollouts import Rollouts
from clipdrift_monitor.engine.rows import Rows
from clipdrift_monitor.engine.snapshot import Snapshot
from clipdrift_monitor.engine.spending import Spending
from clipdrift_monitor.engine.versions import Versions
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.lease import Lease
from clipdrift_monitor.store.store import Changes, Store

GROUP = "monitor"
STANDS_BY = "another monitor is at work; this one stands by and takes over when that one ends"
TOPICS = (TRAINING, PREDICTIONS, LABELS, RETRAINING, DEPLOYMENTS)
_MAX_RECORDS = 500  # of a turn
_RECORDS_AT_ONCE = 64
_POLL_SECONDS = 0.25
_MAX_FULL_POLLS = 200  # under a backlog that never ends, blocks are judged all the same
_AUDIT_SECONDS = 300.0
_PAUSE_SECONDS = 1.0
_LEAVE_SECONDS = 2.0  # what is not on the bus by then is in the outbox still
_log = logging.getLogger(__name__)
OnAlarm = Callable[[Judgement, ModelState, RunEnd], None]
OnTurn = Callable[[], object]


class _NotAloneError(RetryableError):
    """Another member of the group has a part of the bus: two that write the same sums would write one another's over."""


class Engine:
    """One thread runs `run`; `snapshot`, `command` and `stop` may be used by any other.

    Args:
        config: Of the monitor.
        bus: Where events come from and go to.
        store: Where everything is kept.
        dispatch: Has an errand done at the CI and its end told by `note`; must not block.
        metrics: Counts events.
        clock: For the audit's times and for bounding the times that clients claim.
        on_alarm: Told of each judgement that raised an alarm, after it was saved, by the engine's thread.
        on_turn: Called after every turn, by the engine's thread; must not block.
        writer: A name that no other living monitor has; of several on one store, one writes and the others stand by.
    """

    def __init__(
        self,
        config: MonitorConfig,
        bus: Bus,
        store: Store,
        dispatch: Callable[[Errand], None],
        metrics: MetricSet,
        clock: Clock,
        on_alarm: OnAlarm | None = None,
        on_turn: OnTurn | None = None,
        writer: str = "monitor",
    ) -> None:
        self._bus = bus
        self._store = store
        self._dispatch = dispatch
        self._metrics = metrics
        self._clock = clock
        self._on_alarm = on_alarm
        self._on_turn = on_turn
        self._events = metrics.counter(names.MONITOR_EVENTS)
        self._memory = Memory(store, clock, config.window_ms)
        self.rows = Rows(config, self._memory, store, metrics, clock)
        self._incidents = Incidents(config, self._memory, clock)
        self._spending = Spending(config, self._memory)
        deployments = Deployments(config, self._memory, self._incidents, self._spending)
        self._rollouts = Rollouts(config, self._memory, deployments)
        self.approvals = Approvals(config, self._memory, store, clock, self._rollouts.begin)
        self._versions = Versions(config, self._memory, self.rows, deployments, self._rollouts, self.approvals)
        self._blocks = Blocks(config, self._memory, self._incidents, deployments, self._spending, self.approvals, clock)
        self.commands = Commands(config, self._memory, store, deployments, self._rollouts, clock, self.approvals)
        self.responses = Responses(config, self._memory, store, clock)
        self.runs = Runs(config, self._memory, store, clock, self._versions.check_run, self._versions.take_outcome)
        self._pruning = Pruning(config, self._memory, store, clock)
        self._rehearsals = Rehearsals(config, self._memory, store, self._spending)
        self._lease = Lease(store, writer, clock)
        self._places: set[TopicPartition] = set()  # all there are
        self._asked: queue.SimpleQueue[tuple[Callable[[Draft], Any], Future[Any]]] = queue.SimpleQueue()
        self._noted: queue.SimpleQueue[tuple[Errand, Observation]] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._num_loads = 0
        self._num_full_polls = 0
        self._needs_judging = True
        self._last_audit = float("-inf")
        self._has_outbox = True
        self.snapshot = Snapshot()

    # --- life ---

    def run(self) -> None:
        """Work until `stop`. Outages of bus and store are waited out."""
        while not self._is_stopping.is_set():
            try:
                with self.session() as turn:
                    while not self._is_stopping.is_set():
                        turn(_POLL_SECONDS)
            except RetryableError as error:  # memory may be ahead of the store: all is read anew from the store
                self.wait(str(error), _PAUSE_SECONDS)

    @contextmanager
    def session(self) -> Iterator[Callable[[float], None]]:
        """All that was saved is read, and the group joined; what it gives does one turn and waits at most so many seconds for
        something to do. For `run`, and for whoever wants to go turn by turn.

        Raises:
            RetryableError: Bus or store is away, or another monitor is at work. The session is over then, and another may go on
                where it was.
        """
        if not self._lease.take():
            raise _NotAloneError(STANDS_BY)
        publisher = self._bus.publisher()
        events = EventPublisher(publisher, source=ACTOR, clock=self._clock)
        consumer: Consumer | None = None
        try:
            self._bus.ensure_topics(TOPICS)
            self._load()
            self._places = {TopicPartition(topic, i) for topic in TOPICS for i in range(self._bus.num_partitions(topic))}
            consumer = self._bus.consumer(GROUP, TOPICS, on_assigned=self._start_offsets)
            reader = EventReader(consumer, publisher=publisher, metrics=self._metrics, clock=self._clock)
            outbox = Outbox(self._store, events)
            yield lambda wait_seconds: self._turn(reader, outbox, wait_seconds)
        finally:
            self.runs.forget()  # errands that wait are not ours any more
            if consumer is not None:
                consumer.close()
            events.close(_LEAVE_SECONDS)
            with suppress(RetryableError):
                self._lease.let_go()

    def wait(self, why: str, seconds: float) -> bool:
        """Do nothing for a while, and show why; True once the engine is to stop."""
        if why != self.snapshot.waits_for:
            _log.warning("the monitor waits: %s", why)
        self._show_outage(why)
        return self._is_stopping.wait(seconds)

    def stop(self) -> None:
        """Let `run` return after the present turn."""
        self._is_stopping.set()

    def command(self, what: Callable[[Draft], Any]) -> "Future[Any]":
        """Have a function run by the engine's thread, what it drafts saved in one transaction; its result comes as a future."""
        future: Future[Any] = Future()
        self._asked.put((what, future))
        return future

    def note(self, errand: Errand, seen: Observation) -> None:
        """Tell what came of an errand. Any thread."""
        self._noted.put((errand, seen))

    def _start_offsets(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if not self._places <= set(places):
            raise _NotAloneError("a part of the bus is with another monitor, or with one that was cut off some seconds ago")
        self._load()  # another member may have worked on what comes to this one now
        known = self._memory.offsets
        kept = {place: known[place] for place in places if place in known}
        shorter = find_shorter(self._bus, TOPICS, kept)
        if shorter:
            _log.error("the bus is another one, or older: %s ends before the offset kept; it is read anew", min(shorter))
            self._tell_deployments_again()
        return kept | dict.fromkeys(shorter, 0)  # what was counted before is known by its id

    def _tell_deployments_again(self) -> None:
        """Servers that start later find on the bus what should be in service; those that run know it by its generation."""
        outbox = []
        for model in self._memory.states:
            for one in self._store.listed("deployments", model, 1, 0):
                outbox.append(to_publish(one, f"deployment-{model}-{one.generation}"))
        self._store.commit(Changes(outbox=outbox))

    def _load(self) -> None:
        """Memory becomes what the store holds, whatever it was."""
        self._num_loads += 1
        self._memory.load()
        self._spending.share_out()  # the settings may be others now
        self.rows.forget()
        self.runs.forget()
        self._blocks.forget()
        self._pruning.forget()
        self._rehearsals.forget()
        self._num_full_polls = 0
        self._needs_judging = True
        self._has_outbox = True

    # --- one turn ---

    def _turn(self, reader: EventReader, outbox: Outbox, wait_seconds: float) -> None:
        try:
            draft, num_reads = self._read(reader, 0.0 if self._has_work() else wait_seconds)
        except _NotAloneError as error:  # still a member, so that the bus comes to this one when the other is gone
            self.wait(str(error), wait_seconds)
            self._lease.beat()
            return
        self._lease.beat()
        is_whole = reader.consumer.assignment() >= self._places
        self._judge_when_read(num_reads, is_whole, draft)
        answers: list[tuple[Future[Any], Any]] = []
        try:
            self._obey(draft, answers)
            self._incidents.lapse(draft)
            self.approvals.lapse(draft)
            draft.changes.offsets = moved(reader.consumer, self._memory.offsets)
            lag = reader.consumer.lag()
            while not self._noted.empty():
                self.runs.observe(draft, *self._noted.get())
            # an order is on the bus before its run begins
            errands = [] if self._has_outbox or draft.changes.outbox else self.runs.advance(draft, lag)
            if not num_reads and not lag:
                self._pruning.plan(draft)
            self._save(draft)
        except Exception as error:  # whoever asked must not wait for an answer that never comes
            for future, _ in answers:
                future.set_exception(error)
            raise
        self._answer(answers, lag)
        if self._has_outbox:
            outbox.carry_out()
            self._has_outbox = False
        for errand in errands:
            self._dispatch(errand)
        self._tell(draft.alarms)
        if not num_reads and not lag:
            self._pruning.portion()
            self._rehearsals.portion()
        self._show(lag)

    def _answer(self, answers: list[tuple["Future[Any]", Any]], lag: int) -> None:
        """Whoever asked finds what came of it at the next look."""
        try:
            if answers:
                self._show(lag)
        finally:
            for future, result in answers:
                future.set_result(result)

    def _read(self, reader: EventReader, wait_seconds: float) -> tuple[Draft, int]:
        """Take what there is, at most `_MAX_RECORDS` records, a few at a time: what was read is counted while the processor's
        cache still holds it."""
        draft, seen, num_reads = Draft(self._clock), set[str](), 0
        while num_reads < _MAX_RECORDS:
            num_loads = self._num_loads
            reads = reader.poll(min(_RECORDS_AT_ONCE, _MAX_RECORDS - num_reads), 0.0 if num_reads else wait_seconds)
            if self._num_loads != num_loads:  # the bus was given out anew: what was taken before is read again
                draft, seen = Draft(self._clock), set()
            if not reads:
                break
            num_reads += len(reads)
            seen |= self._store.has_seen([read.envelope.id for read in reads])
            for read in reads:
                self._take(read, seen, draft)
            self.rows.settle(draft)
        return draft, num_reads

    def _has_work(self) -> bool:
        return not self._asked.empty() or not self._noted.empty()

    def _take(self, read: Read, seen: set[str], draft: Draft) -> None:
        event, topic = read.event, read.record.topic
        if read.envelope.id in seen or self._memory.is_forgotten(read.record):
            self._events.labels(topic, "duplicate").inc()
            return
        if isinstance(event, PredictionBatch | LabelBatch):
            seen.add(read.envelope.id)
            draft.changes.seen_ids[read.envelope.id] = read.record.timestamp_ms
            self.rows.take(read, event, draft)
            return
        self.rows.settle(draft)
        if isinstance(event, RetrainOutcome) and not self._versions.take_outcome(event, draft):
            return  # not noted as seen: its order may be known later, where the store was lost
        seen.add(read.envelope.id)
        draft.changes.seen_ids[read.envelope.id] = read.record.timestamp_ms
        is_applied = True
        if isinstance(event, RunEnd):
            is_applied = self._versions.take_run(event, draft)
        elif isinstance(event, Deployment):
            self._versions.take_deployment(event, draft)
        self._events.labels(topic, "applied" if is_applied else "poison").inc()

    def _judge_when_read(self, num_reads: int, is_whole: bool, draft: Draft) -> None:
        """Judge what has closed, once everything that waits is read: what is late by milliseconds is then in time. Not before
        the bus was joined: the labels of a block may wait there."""
        self._num_full_polls = self._num_full_polls + 1 if num_reads >= _MAX_RECORDS else 0
        self._needs_judging = self._needs_judging or num_reads > 0
        if is_whole and self._needs_judging and (self._num_full_polls == 0 or self._num_full_polls > _MAX_FULL_POLLS):
            self._num_full_polls, self._needs_judging = 0, False
            for model in sorted(self._memory.states):
                self._blocks.judge_closed(model, draft)
                self._rollouts.look(model, draft)
                self._blocks.see_again(model, draft)

    def _obey(self, draft: Draft, answers: list[tuple[Future[Any], Any]]) -> None:
        """Carry out what people asked for; `answers` are to be given once it is saved."""
        while not self._asked.empty():
            what, future = self._asked.get()
            if not future.set_running_or_notify_cancel():  # whoever asked has given up
                continue
            answers.append((future, None))
            try:
                answers[-1] = (future, what(draft))
            except (CommandError, JobError) as error:  # refused, and nothing was changed
                answers.pop()
                future.set_exception(error)
                continue
            draft.touched.update(self._memory.states)

    # --- saving and showing ---

    def _save(self, draft: Draft) -> None:
        memory, changes = self._memory, draft.changes
        changes.windows = dict(memory.windows.changes())
        changes.seen_labels = dict(memory.labels.changes())
        changes.waiting_rows = dict(memory.pairs.changes())
        for model in draft.touched:
            changes.models[model] = msgspec.msgpack.encode(memory.states[model])
        if changes.is_empty:
            return
        began = self._clock.monotonic_seconds()
        self._store.commit(changes)
        memory.offsets |= changes.offsets
        self._metrics.histogram(names.MONITOR_COMMIT_SECONDS).observe(self._clock.monotonic_seconds() - began)
        self._metrics.counter(names.MONITOR_AUDIT_ROWS).inc(len(changes.audit))
        memory.windows.forget_changes()
        memory.labels.forget_changes()
        memory.pairs.forget_changes()
        self._has_outbox = self._has_outbox or bool(changes.outbox)

    def _tell(self, alarms: Collection[Alarm]) -> None:
        for told, state, run in alarms:
            if self._on_alarm is not None:
                self._on_alarm(told, state, run)
        if self._on_turn is not None:
            self._on_turn()

    def _show(self, lag: int) -> None:
        now = self._clock.monotonic_seconds()
        is_intact = self.snapshot.is_audit_intact
        if now - self._last_audit > _AUDIT_SECONDS:
            self._last_audit = now
            is_intact = self._store.verify_audit().is_intact
        is_done = not lag and not self._needs_judging and not self._has_outbox and not self._memory.unfinished
        self.snapshot = Snapshot(
            models={name: msgspec.structs.replace(state) for name, state in self._memory.states.items()},
            is_loaded=True,
            is_idle=is_done and not self._has_work(),
            lag=lag,
            is_audit_intact=is_intact,
            running=dict(self._memory.started),
            realised=self._rehearsals.figures,
        )

    def _show_outage(self, why: str) -> None:
        """Readers go on seeing what was saved, and that nothing goes on."""
        num_outbox = self.snapshot.num_outbox
        with suppress(RetryableError):
            num_outbox = self._store.num_outbox()
        self.snapshot = msgspec.structs.replace(self.snapshot, is_idle=False, waits_for=why, num_outbox=num_outbox)
