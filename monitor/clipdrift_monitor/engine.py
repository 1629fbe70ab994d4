"""The monitor's one writer: reads events, adds them up, judges what has closed, and saves all of it with the offsets in one
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
from clipdrift_contract.clock import MS_PER_DAY, Clock
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ClipdriftError, PoisonError, RetryableError
from clipdrift_contract.events import (
    DEPLOYMENTS,
    LABELS,
    PREDICTIONS,
    RETRAINING,
    TRAINING,
    Decision,
    Deployment,
    LabelBatch,
    PredictionBatch,
    RetrainOutcome,
    RetrainRequest,
    RunEnd,
    Signal,
)
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.actions.jobs import Jobs
from clipdrift_monitor.actions.outbox import Outbox, to_publish, to_start
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.judging import BySlice, Judgement, Subject, digest_of, judge, note_order, order_retrain
from clipdrift_monitor.intake.columns import check_profile, check_times
from clipdrift_monitor.intake.intake import Intake, Taken
from clipdrift_monitor.intake.label_book import LabelBook
from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.risk.harm import HarmState, start
from clipdrift_monitor.risk.reference import reference_of
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import ModelState, counted
from clipdrift_monitor.store.store import AuditEntry, Changes, Store
from clipdrift_monitor.windows.window import Layout

GROUP = "monitor"
TOPICS = (TRAINING, PREDICTIONS, LABELS, RETRAINING, DEPLOYMENTS)
ACTOR = "monitor"
_MAX_RECORDS = 500
_POLL_SECONDS = 0.25
_MAX_FULL_POLLS = 200  # under a backlog that never ends, blocks are judged all the same
_WATCH_SECONDS = 0.25
_AUDIT_SECONDS = 300.0
_PAUSE_SECONDS = 1.0
_FAR_OFFSET = 2**62
_LEAVE_SECONDS = 2.0  # what is not on the bus by then is in the outbox still
_log = logging.getLogger(__name__)
OnAlarm = Callable[[Judgement, ModelState, RunEnd], None]
OnTurn = Callable[[], object]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What readers may see: the state after a commit.

    `is_idle`: nothing was left to read, to judge, to send or to wait for. `waits_for`: why nothing goes on at this moment, in
    words; then all the rest is from before.
    """

    models: Mapping[str, ModelState] = {}
    is_loaded: bool = False
    is_idle: bool = False
    waits_for: str = ""
    lag: int = 0
    num_outbox: int = 0
    is_audit_intact: bool = True
    running: Mapping[str, float] = {}  # wall time at which each model's running retrain was started, in seconds


class _NotAloneError(RetryableError):
    """Another member of the group has a part of the bus: two that write the same sums would write one another's over."""


class CommandError(ClipdriftError):
    """A command of a person that cannot be carried out; the message says why."""


class Engine:
    """One thread runs `run`; `snapshot`, `command` and `stop` may be used by any other.

    Args:
        config: Of the monitor.
        bus: Where events come from and go to.
        store: Where everything is kept.
        jobs: Starts retrains.
        metrics: Counts events.
        clock: For the audit's times and for bounding the times that clients claim.
        on_alarm: Told of each judgement that raised an alarm, after it was saved, by the engine's thread.
        on_turn: Called after every turn, by the engine's thread; must not block.
    """

    max_waiting_batches = 20_000  # of 512 rows at most: hours of traffic, while a run comes within seconds

    def __init__(
        self,
        config: MonitorConfig,
        bus: Bus,
        store: Store,
        jobs: Jobs,
        metrics: MetricSet,
        clock: Clock,
        on_alarm: OnAlarm | None = None,
        on_turn: OnTurn | None = None,
    ) -> None:
        self._config = config
        self._bus = bus
        self._store = store
        self._jobs = jobs
        self._metrics = metrics
        self._clock = clock
        self._on_alarm = on_alarm
        self._on_turn = on_turn
        self._events = metrics.counter(names.MONITOR_EVENTS)
        self._windows = WindowBook(store.window)
        self._labels = LabelBook(store.seen_labels)
        self._intake = Intake(self._windows, self._labels, config.window_ms, config.policy.harm.max_ordered_labels)
        self._states: dict[str, ModelState] = {}
        self._harm: dict[str, HarmState] = {}
        self._runs: dict[tuple[str, str], RunEnd | None] = {}
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._num_waiting: dict[tuple[str, str], int] = {}  # batches of versions whose run is not known, in this life
        self._unfinished: dict[str, RetrainRequest] = {}
        self._started: dict[str, float] = {}  # by model
        self._offsets: dict[TopicPartition, int] = {}  # as the store has them
        self._places: set[TopicPartition] = set()  # all there are
        self._commands: queue.SimpleQueue[tuple[Callable[[Changes], Any], Future[Any]]] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._num_full_polls = 0
        self._needs_judging = True
        self._finished_before: set[str] = set()
        self._last_watch = self._last_audit = float("-inf")
        self._has_outbox = True
        self._alarms: list[tuple[Judgement, ModelState, RunEnd]] = []
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
                _log.warning("the monitor waits: %s", error)
                self._show_outage(str(error))
                self._is_stopping.wait(_PAUSE_SECONDS)

    @contextmanager
    def session(self) -> Iterator[Callable[[float], None]]:
        """All that was saved is read, and the group joined; what it gives does one turn and waits at most so many seconds for
        something to do. For `run`, and for whoever wants to go turn by turn.

        Raises:
            RetryableError: Bus or store is away. The session is over then, and another may go on where it was.
        """
        publisher = self._bus.publisher()
        events = EventPublisher(publisher, source=ACTOR, clock=self._clock)
        consumer: Consumer | None = None
        try:
            self._bus.ensure_topics(TOPICS)
            self._load()
            self._places = {TopicPartition(topic, i) for topic in TOPICS for i in range(self._bus.num_partitions(topic))}
            consumer = self._bus.consumer(GROUP, TOPICS, on_assigned=self._start_offsets)
            reader = EventReader(consumer, publisher=publisher, metrics=self._metrics, clock=self._clock)
            outbox = Outbox(self._store, events, self._jobs)
            yield lambda wait_seconds: self._turn(reader, outbox, wait_seconds)
        finally:
            if consumer is not None:
                consumer.close()
            events.close(_LEAVE_SECONDS)

    def stop(self) -> None:
        """Let `run` return after the present turn."""
        self._is_stopping.set()

    def command(self, what: Callable[[Changes], Any]) -> "Future[Any]":
        """Have a function run by the engine's thread, its changes saved in one transaction; its result comes as a future."""
        future: Future[Any] = Future()
        self._commands.put((what, future))
        return future

    def _start_offsets(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if not self._places <= set(places):
            raise _NotAloneError("a part of the bus is with another monitor, or with one that was cut off some seconds ago")
        self._load()  # another member may have worked on what comes to this one now
        kept = {place: self._offsets[place] for place in places if place in self._offsets}
        shorter = self._find_shorter(kept)
        if shorter:
            _log.error("the bus is another one, or older: %s ends before the offset kept; it is read anew", min(shorter))
            self._tell_deployments_again()
        return kept | dict.fromkeys(shorter, 0)  # what was counted before is known by its id

    def _find_shorter(self, kept: Mapping[TopicPartition, int]) -> frozenset[TopicPartition]:
        """Partitions that end before the offset kept, of a bus that was lost, or restored from before."""
        consumer = self._bus.consumer(None, TOPICS)
        try:
            consumer.poll(1, 0.0)
            for place in consumer.assignment():
                consumer.seek(place, _FAR_OFFSET)
            return frozenset(place for place, offset in kept.items() if offset and not _lag_before(consumer, place, offset))
        finally:
            consumer.close()

    def _tell_deployments_again(self) -> None:
        """Servers that start later find on the bus what should be in service; those that run know it by its generation."""
        outbox = []
        for model in self._states:
            for one in self._store.listed("deployments", model, 1, 0):
                outbox.append(to_publish(one, f"deployment-{model}-{one.generation}"))
        self._store.commit(Changes(outbox=outbox))

    def _load(self) -> None:
        """Memory becomes what the store holds, whatever it was."""
        self._windows.clear()
        self._labels.clear()
        self._runs.clear()
        self._layouts.clear()
        self._states = {name: msgspec.msgpack.decode(body, type=ModelState) for name, body in self._store.models().items()}
        self._harm = {}
        for name in self._states:
            if (body := self._store.harm(name)) is not None:
                self._harm[name] = msgspec.msgpack.decode(body, type=HarmState)
        self._unfinished = {row.key: row.request for row in self._store.retrains(unfinished=True)}
        now = self._clock.now_ms() / 1000
        self._started = {request.model: self._started.get(request.model, now) for request in self._unfinished.values()}
        self._offsets = self._store.offsets()
        self._finished_before = set()
        self._alarms = []
        self._num_full_polls = 0
        self._needs_judging = True
        self._has_outbox = True

    # --- one turn ---

    def _turn(self, reader: EventReader, outbox: Outbox, wait_seconds: float) -> None:
        try:
            reads = reader.poll(_MAX_RECORDS, 0.0 if self._has_work() else wait_seconds)
        except _NotAloneError as error:  # still a member, so that the bus comes to this one when the other is gone
            self._show_outage(str(error))
            self._is_stopping.wait(wait_seconds)
            return
        changes = Changes()
        touched: set[str] = set()
        seen = self._store.has_seen([read.envelope.id for read in reads]) if reads else set()
        for read in reads:
            self._take(read, seen, changes, touched)
        is_whole = reader.consumer.assignment() >= self._places
        self._judge_when_read(len(reads), is_whole, changes, touched)
        answers: list[tuple[Future[Any], Any]] = []
        try:
            self._obey(changes, touched, answers)
            changes.offsets = self._moved(reader.consumer)
            lag = reader.consumer.lag()
            self._watch_jobs(changes, touched, lag)
            self._save(changes, touched)
        except Exception as error:  # whoever asked must not wait for an answer that never comes
            for future, _ in answers:
                future.set_exception(error)
            raise
        for future, result in answers:
            future.set_result(result)
        if self._has_outbox:
            outbox.carry_out()
            self._has_outbox = False
        self._tell_alarms()
        self._show(lag)

    def _judge_when_read(self, num_reads: int, is_whole: bool, changes: Changes, touched: set[str]) -> None:
        """Judge what has closed, once everything that waits is read: what is late by milliseconds is then in time. Not before
        the bus was joined: the labels of a block may wait there."""
        self._num_full_polls = self._num_full_polls + 1 if num_reads >= _MAX_RECORDS else 0
        self._needs_judging = self._needs_judging or num_reads > 0
        if is_whole and self._needs_judging and (self._num_full_polls == 0 or self._num_full_polls > _MAX_FULL_POLLS):
            self._num_full_polls, self._needs_judging = 0, False
            for model in sorted(self._states):
                self._judge_closed(model, changes, touched)

    def _moved(self, consumer: Consumer) -> dict[TopicPartition, int]:
        """Offsets that are not as the store has them; also behind records that no event could be read from."""
        moved = {}
        for place in consumer.assignment():
            with suppress(RetryableError):  # a place that was never read yet, on a bus that is away
                if (offset := consumer.position(place)) != self._offsets.get(place, 0):
                    moved[place] = offset
        return moved

    def _has_work(self) -> bool:
        return not self._commands.empty()

    def _take(self, read: Read, seen: set[str], changes: Changes, touched: set[str]) -> None:
        event, topic = read.event, read.record.topic
        if read.envelope.id in seen:
            self._events.labels(topic, "duplicate").inc()
            return
        if isinstance(event, RetrainOutcome) and not self._take_outcome(event, changes, touched):
            return  # not noted as seen: its order may be known later, where the store was lost
        seen.add(read.envelope.id)
        changes.seen_ids.append(read.envelope.id)
        is_applied = True
        if isinstance(event, PredictionBatch | LabelBatch):
            is_applied = self._take_rows(read, event, changes, touched)
        elif isinstance(event, RunEnd):
            is_applied = self._take_run(event, changes, touched)
        elif isinstance(event, Deployment):
            self._take_deployment(event, changes, touched)
        self._events.labels(topic, "applied" if is_applied else "poison").inc()

    # --- rows ---

    def _take_rows(self, read: Read, batch: PredictionBatch | LabelBatch, changes: Changes, touched: set[str]) -> bool:
        if self._run(batch.model, batch.version) is None:  # its run has not been told yet: it is placed when it is
            if not self._may_wait(batch.model, batch.version):
                return False
            changes.unplaced.append(
                (read.envelope.id, batch.model, batch.version, msgspec.msgpack.encode(read.record.headers), read.record.value)
            )
            return True
        return self._add_rows(batch, read.record.topic, touched)

    def _may_wait(self, model: str, version: str) -> bool:
        """A run that never comes must not fill the store."""
        place = (model, version)
        self._num_waiting[place] = self._num_waiting.get(place, 0) + 1
        if self._num_waiting[place] == self.max_waiting_batches + 1:
            _log.error("the run of %s version %s is still unknown; further rows of it are left out", model, version)
        return self._num_waiting[place] <= self.max_waiting_batches

    def _add_rows(self, batch: PredictionBatch | LabelBatch, topic: str, touched: set[str]) -> bool:
        """Count the rows of a batch; False where it is poison, which changes nothing."""
        latest_ms = self._clock.now_ms() + MS_PER_DAY
        try:
            layout = self._layout(batch.model, batch.version)
            if isinstance(batch, PredictionBatch):
                taken = self._intake.take_predictions(self._state(batch.model), layout, batch, latest_ms)
            else:
                taken = self._intake.take_labels(self._state(batch.model), layout, batch, latest_ms)
        except PoisonError as error:
            _log.error("a batch of %s %s is left out: %s", batch.model, batch.version, error)
            return False
        self._count(topic, taken)
        touched.add(batch.model)
        return True

    def _count(self, topic: str, taken: Taken) -> None:
        if taken.num_duplicate:
            self._events.labels(topic, "duplicate").inc()
        if taken.num_late:
            self._events.labels(topic, "late").inc()

    # --- runs, outcomes, deployments ---

    def _take_run(self, run: RunEnd, changes: Changes, touched: set[str]) -> bool:
        try:
            self._check_run(run)
        except PoisonError as error:
            _log.error("%s version %s is left out: %s", run.model, run.version, error)
            return False
        changes.runs.append(run)
        self._runs[run.model, run.version] = run
        self._layouts.pop((run.model, run.version), None)
        state = self._state(run.model)
        touched.add(run.model)
        if run.profile is None or not run.artifact_uri:
            _log.error("%s version %s has no reference profile or artifact: it is not put into service", run.model, run.version)
        elif state.generation == 0 and not run.retrain_key and state.waiting_deployment is None:
            self._deploy(state, rollout.first_deployment(state, run), run, changes)
        self._place(run, changes, touched)
        self._take_up_waiting(state, run, changes, touched)
        return True

    def _check_run(self, run: RunEnd) -> None:
        known = self._run(run.model, run.version)
        if known is not None and known.artifact_digest != run.artifact_digest:
            raise PoisonError("another model has this version already")
        check_times(as_of_ms=run.as_of_ms, ended_at_ms=run.ended_at_ms)
        if run.profile is not None:
            check_profile(run.profile)

    def _take_up_waiting(self, state: ModelState, run: RunEnd, changes: Changes, touched: set[str]) -> None:
        """What came before the run that it speaks of."""
        deployment, outcome = state.waiting_deployment, state.waiting_outcome
        if deployment is not None and deployment.champion.version == run.version:
            state.waiting_deployment = None
            self._take_deployment(deployment, changes, touched)
        if outcome is not None and outcome.candidate_version == run.version:
            state.waiting_outcome = None
            self._take_outcome(outcome, changes, touched)

    def _place(self, run: RunEnd, changes: Changes, touched: set[str]) -> None:
        """Add the rows that came before their run."""
        here = [one for one in changes.unplaced if (one[1], one[2]) == (run.model, run.version)]
        changes.unplaced = [one for one in changes.unplaced if one not in here]
        kept = self._store.unplaced(run.model, run.version)
        changes.placed_ids += [event_id for event_id, _, _ in kept]
        for headers, value in [*((one[1], one[2]) for one in kept), *((one[3], one[4]) for one in here)]:
            event = _decode_kept(headers, value)
            topic = LABELS if isinstance(event, LabelBatch) else PREDICTIONS
            if not self._add_rows(event, topic, touched):
                self._events.labels(topic, "poison").inc()

    def _take_outcome(self, outcome: RetrainOutcome, changes: Changes, touched: set[str]) -> bool:
        """Conclude the retrain that it is of; False where there is no such order."""
        request = self._unfinished.get(outcome.key)
        if request is None or request.model != outcome.model:
            _log.info("the outcome of %s is known already, or was never ordered here", outcome.key)
            return False
        state = self._state(outcome.model)
        touched.add(outcome.model)
        if outcome.verdict == "pass" and self._run(outcome.model, outcome.candidate_version) is None:
            state.waiting_outcome = outcome
            return True
        assert state.in_service is not None, outcome.model
        champion = self._run(outcome.model, state.in_service.version)
        assert champion is not None, state.in_service
        del self._unfinished[outcome.key]
        self._started.pop(outcome.model, None)
        state.waiting_outcome = None
        decision = rollout.conclude(state, request, outcome, champion, self._config.policy)
        changes.outcomes.append(outcome)
        self._decide(decision, changes)
        if decision.action == "promote":
            candidate = self._run(outcome.model, outcome.candidate_version)
            assert candidate is not None, outcome.candidate_version
            self._deploy(state, rollout.promote(state, outcome, request.as_of_ms, decision.decision_id), candidate, changes)
        return True

    def _take_deployment(self, deployment: Deployment, changes: Changes, touched: set[str]) -> None:
        """Our own, come back to us; or one that this store does not know, since another was lost."""
        state = self._state(deployment.model)
        newest = max(state.generation, state.waiting_deployment.generation if state.waiting_deployment else 0)
        if deployment.generation <= newest:
            return
        touched.add(deployment.model)
        run = self._run(deployment.model, deployment.champion.version)
        if run is None:
            state.waiting_deployment = deployment
            return
        state.waiting_deployment = None
        step = rollout.adopt(state, deployment)
        changes.deployments.append(deployment)
        self._audit(changes, "adopt", deployment.model, {"generation": deployment.generation})
        self._replace(state, step, run, changes)

    def _deploy(self, state: ModelState, step: rollout.Step, run: RunEnd, changes: Changes, actor: str = ACTOR) -> None:
        deployment = step.deployment
        changes.deployments.append(deployment)
        changes.outbox.append(to_publish(deployment, f"deployment-{state.model}-{deployment.generation}"))
        body = {"generation": deployment.generation, "version": deployment.champion.version, "reason": deployment.reason}
        self._audit(changes, "deploy", state.model, body, actor)
        self._replace(state, step, run, changes)

    def _replace(self, state: ModelState, step: rollout.Step, run: RunEnd, changes: Changes) -> None:
        """What was open about the version before is closed, and the tests begin again."""
        self._tell(step.closed, f"generation-{state.generation}", changes)
        self._begin_tests(state, run, changes)

    def _tell(self, signals: Collection[Signal], when: str, changes: Changes) -> None:
        changes.signals += signals
        for signal in signals:
            event_id = f"signal-{signal.signal_id}-{'open' if signal.is_open else 'closed'}-{when}"
            changes.outbox.append(to_publish(signal, event_id))

    def _begin_tests(self, state: ModelState, run: RunEnd, changes: Changes) -> None:
        harm = start(reference_of(run), self._config.policy.budget)
        self._harm[state.model] = harm
        changes.harm[state.model] = msgspec.msgpack.encode(harm)

    def _decide(self, decision: Decision, changes: Changes, actor: str = ACTOR) -> None:
        changes.decisions.append(decision)
        changes.outbox.append(to_publish(decision, f"decision-{decision.decision_id}"))
        body = {"action": decision.action, "reasons": list(decision.reasons), "evidence": decision.evidence_digest}
        self._audit(changes, f"decide {decision.action}", decision.decision_id, body, actor)

    def _audit(self, changes: Changes, action: str, subject: str, body: dict[str, Any], actor: str = ACTOR) -> None:
        at_ms = self._clock.now_ms()
        changes.audit.append(AuditEntry(at_ms=at_ms, actor=actor, action=action, subject=subject, body=body))

    # --- judging ---

    def _judge_closed(self, model: str, changes: Changes, touched: set[str]) -> None:
        """Judge each block of the version in service whose labels are due, the oldest first."""
        state = self._states[model]
        if state.in_service is None or model not in self._harm:
            return
        due_ms = (state.watermark_ms - self._config.label_horizon_ms) // self._config.window_ms * self._config.window_ms
        first_ms = max(state.judged_until_ms, state.in_service_since_ms // self._config.window_ms * self._config.window_ms)
        if due_ms <= first_ms:
            return
        by_start = self._version_windows(model, state.in_service.version, first_ms, due_ms, changes)
        for start_ms in sorted(by_start):
            if start_ms + self._config.window_ms > due_ms:
                continue
            self._judge(state, start_ms, by_start[start_ms], changes)
        touched.add(model)
        state.judged_until_ms = max(state.judged_until_ms, due_ms)

    def _judge(self, state: ModelState, start_ms: int, in_block: BySlice, changes: Changes) -> None:
        assert state.in_service is not None
        version = state.in_service.version
        run, layout = self._run(state.model, version), self._layout(state.model, version)
        assert run is not None, version
        end_ms = start_ms + self._config.window_ms
        view_from = end_ms - self._config.view_windows * self._config.window_ms
        in_view: dict[int, Any] = {}
        for by_slice in self._version_windows(state.model, version, view_from, end_ms, changes).values():
            for index, sums in by_slice.items():
                in_view[index] = in_view[index] + sums if index in in_view else sums
        subject = Subject(
            run=run, layout=layout, window_ms=self._config.window_ms, label_horizon_ms=self._config.label_horizon_ms,
            min_label_share=self._config.min_label_share, policy=self._config.policy,
        )  # fmt: skip
        harm = self._harm[state.model]
        told = judge(subject, state, harm, start_ms, in_block, in_view)
        changes.harm[state.model] = msgspec.msgpack.encode(harm)
        changes.blocks[state.model, version, start_ms] = msgspec.msgpack.encode(told.block)
        self._tell(told.signals, str(start_ms), changes)
        self._decide(told.decision, changes)
        if told.request is not None:
            self._order(told.request, changes)
        if told.block.alarms:
            self._alarms.append((told, state, run))

    def _order(self, request: RetrainRequest, changes: Changes) -> None:
        changes.requests.append(request)
        changes.outbox += [to_publish(request, f"retrain-request-{request.key}"), to_start(request)]
        self._unfinished[request.key] = request
        self._started[request.model] = self._clock.now_ms() / 1000

    def _version_windows(
        self, model: str, version: str, start_ms: int, end_ms: int, changes: Changes
    ) -> dict[int, dict[int, Any]]:
        """Vectors by start and slice: of the store, with what this turn has added."""
        found: dict[int, dict[int, Any]] = {}
        for key, sums in self._store.windows(model, start_ms, end_ms):
            if key.version == version:
                found.setdefault(key.start_ms, {})[key.slice_index] = sums
        for (of_model, key), sums in self._windows.changes().items():
            if of_model == model and key.version == version and start_ms <= key.start_ms < end_ms:
                found.setdefault(key.start_ms, {})[key.slice_index] = sums
        return found

    # --- commands of people ---

    def _obey(self, changes: Changes, touched: set[str], answers: list[tuple[Future[Any], Any]]) -> None:
        """Carry out what was asked for; `answers` are to be given once it is saved."""
        while not self._commands.empty():
            what, future = self._commands.get()
            if not future.set_running_or_notify_cancel():  # whoever asked has given up
                continue
            answers.append((future, None))
            try:
                answers[-1] = (future, what(changes))
            except CommandError as error:  # refused, and nothing was changed
                answers.pop()
                future.set_exception(error)
                continue
            touched.update(self._states)

    def roll_back(self, changes: Changes, model: str, reason: str, actor: str) -> Deployment:
        """For `command`: the version before the present one goes back into service.

        Raises:
            CommandError: There is no such model or version.
        """
        state = self._known(model)
        decision_id = f"{model}-rollback-{state.generation + 1}"
        at_ms = self._event_now_ms(state)
        try:
            step = rollout.roll_back(state, at_ms, f"rolled back by {actor}: {reason}", decision_id)
        except rollout.RolloutError as error:
            raise CommandError(str(error)) from error
        deployment = step.deployment
        run = self._run(model, deployment.champion.version)
        assert run is not None, deployment.champion
        state.num_decisions = counted(state.num_decisions, "rollback")
        self._decide(
            Decision(
                decision_id=decision_id, model=model, version=deployment.champion.version, at_ms=at_ms, action="rollback",
                reasons=(f"Ordered by {actor}: {reason}",), policy_version=self._config.policy.version,
                evidence_digest=digest_of({"reason": reason, "actor": actor}),
            ),
            changes,
            actor,
        )  # fmt: skip
        self._deploy(state, step, run, changes, actor)
        return deployment

    def order(self, changes: Changes, model: str, reason: str, actor: str) -> RetrainRequest:
        """For `command`: a retrain that a person orders.

        Raises:
            CommandError: There is no such model, or a retrain of it is running.
        """
        state = self._known(model)
        if state.history.running_key:
            raise CommandError(f"a retrain of {model} is running already: {state.history.running_key}")
        assert state.in_service is not None
        run = self._run(model, state.in_service.version)
        assert run is not None, state.in_service
        at_ms = self._event_now_ms(state)
        decision_id = f"{model}-order-{state.generation}-{self._clock.now_ms()}"
        request = order_retrain(
            run, state, self._config.policy, cause=f"ordered: {reason}", decision_id=decision_id, as_of_ms=at_ms
        )
        if self._store.retrain(request.key) is not None:
            raise CommandError(f"the same retrain was ordered before: {request.key}; it would find the same again")
        note_order(state, request)
        state.num_decisions = counted(state.num_decisions, "retrain")
        self._decide(
            Decision(
                decision_id=decision_id, model=model, version=state.in_service.version, at_ms=at_ms, action="retrain",
                reasons=(f"Ordered by {actor}: {reason}",), policy_version=self._config.policy.version,
                evidence_digest=digest_of({"reason": reason, "actor": actor}), diagnosis=state.diagnosis,
            ),
            changes,
            actor,
        )  # fmt: skip
        self._order(request, changes)
        return request

    def _event_now_ms(self, state: ModelState) -> int:
        return state.watermark_ms or self._clock.now_ms()

    def _known(self, model: str) -> ModelState:
        state = self._states.get(model)
        if state is None or state.in_service is None:
            raise CommandError(f"no model {model!r} is in service; there are: {', '.join(sorted(self._states)) or 'none'}")
        return state

    # --- jobs ---

    def _watch_jobs(self, changes: Changes, touched: set[str], lag: int) -> None:
        """Start again what died, give up what keeps dying. A finished job whose outcome never came publishes it once more."""
        now = self._clock.monotonic_seconds()
        if now - self._last_watch < _WATCH_SECONDS or self._has_outbox or changes.outbox:
            return
        self._last_watch = now
        for key, request in list(self._unfinished.items()):
            if not self._is_dead(key, lag):
                continue
            row = self._store.retrain(key)
            attempts = row.attempts if row is not None else 0
            if attempts >= self._config.max_job_attempts:
                self._take_outcome(self._lost(request, attempts), changes, touched)
                continue
            _log.warning("nobody works on retraining job %s: started again", key)
            self._jobs.order(request)
            self._store.note_attempt(key, attempts + 1)
            self._jobs.start(key)

    def _is_dead(self, key: str, lag: int) -> bool:
        """Nobody works on the job, and its outcome is not on its way either."""
        state = self._jobs.state(key)
        was_finished = key in self._finished_before
        self._finished_before = self._finished_before | {key} if state == "finished" else self._finished_before - {key}
        return (was_finished and not lag) if state == "finished" else state != "running"

    def _lost(self, request: RetrainRequest, attempts: int) -> RetrainOutcome:
        reason = f"the job ended {attempts} times without an outcome; {self._jobs.log_words(request.key)}"
        return RetrainOutcome(
            key=request.key, model=request.model, finished_at_ms=self._clock.now_ms(), verdict="inconclusive",
            reasons=(reason,), attempt=attempts,
        )  # fmt: skip

    # --- saving and showing ---

    def _save(self, changes: Changes, touched: set[str]) -> None:
        changes.windows = dict(self._windows.changes())
        changes.seen_labels = dict(self._labels.changes())
        for model in touched:
            changes.models[model] = msgspec.msgpack.encode(self._states[model])
        if changes.is_empty:
            return
        began = self._clock.monotonic_seconds()
        self._store.commit(changes)
        self._offsets |= changes.offsets
        self._metrics.histogram(names.MONITOR_COMMIT_SECONDS).observe(self._clock.monotonic_seconds() - began)
        self._metrics.counter(names.MONITOR_AUDIT_ROWS).inc(len(changes.audit))
        self._windows.forget_changes()
        self._labels.forget_changes()
        self._has_outbox = self._has_outbox or bool(changes.outbox)

    def _tell_alarms(self) -> None:
        alarms, self._alarms = self._alarms, []
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
        is_done = not lag and not self._needs_judging and not self._has_outbox and not self._unfinished
        self.snapshot = Snapshot(
            models={name: msgspec.structs.replace(state) for name, state in self._states.items()},
            is_loaded=True,
            is_idle=is_done and self._commands.empty(),
            lag=lag,
            is_audit_intact=is_intact,
            running=dict(self._started),
        )

    def _show_outage(self, why: str) -> None:
        """Readers go on seeing what was saved, and that nothing goes on."""
        num_outbox = self.snapshot.num_outbox
        with suppress(RetryableError):
            num_outbox = self._store.num_outbox()
        self.snapshot = msgspec.structs.replace(self.snapshot, is_idle=False, waits_for=why, num_outbox=num_outbox)

    # --- what is known of versions ---

    def _state(self, model: str) -> ModelState:
        if model not in self._states:
            self._states[model] = ModelState(model=model)
        return self._states[model]

    def _run(self, model: str, version: str) -> RunEnd | None:
        if self._runs.get((model, version)) is None:
            self._runs[model, version] = self._store.run(model, version)
        return self._runs[model, version]

    def _layout(self, model: str, version: str) -> Layout:
        if (model, version) not in self._layouts:
            run = self._run(model, version)
            assert run is not None, version
            if run.profile is None:
                raise PoisonError(f"the run that made version {version} had no reference profile")
            self._layouts[model, version] = Layout(run.profile)
        return self._layouts[model, version]


def _lag_before(consumer: Consumer, place: TopicPartition, offset: int) -> int:
    """Records at and behind the one before `offset`, in this place alone: 0 where it ends before. The others are seeked far."""
    if place not in consumer.assignment():
        return 1  # not known
    consumer.seek(place, offset - 1)
    lag = consumer.lag()
    consumer.seek(place, _FAR_OFFSET)
    return lag


def _decode_kept(headers: bytes, value: bytes) -> Any:
    """An event as it was kept: headers packed, value as it came."""
    return decode(msgspec.msgpack.decode(headers, type=dict[str, bytes]), value)[1]
