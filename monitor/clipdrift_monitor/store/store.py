"""The monitor's store over SQLAlchemy Core: SQLite by default, PostgreSQL by address. Translates; decides nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Table, bindparam, case, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from clipdrift_contract.bus.log import TopicPartition
from clipdrift_contract.events import Decision, Deployment, Incident, RetrainOutcome, RetrainRequest, RunEnd, Signal
from clipdrift_monitor.actions.run import Run
from clipdrift_monitor.approvals.approval import Approval, encoded
from clipdrift_monitor.store import tables as t
from clipdrift_monitor.store.audit import GENESIS, AuditRow, AuditVerdict, canonical, row_hash, verify
from clipdrift_monitor.store.database import Database, take_writers_place
from clipdrift_monitor.store.retention import Floors
from clipdrift_monitor.windows.span import merged
from clipdrift_monitor.windows.window import WindowKey

_CHUNK_ROWS = 5_000


class Writer(NamedTuple):
    """Which monitor writes: `epoch` grows when another takes over, `beat` moves while it lives; no owner: nobody."""

    epoch: int
    owner: str
    beat: int


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An event to be published after the commit."""

    event_id: str
    kind: str  # the event type's name
    body: bytes


class RetrainRow(msgspec.Struct, frozen=True, kw_only=True):
    """A retrain as the store knows it: requested, running, finished."""

    key: str
    model: str
    at_ms: int
    state: str
    attempts: int
    request: RetrainRequest
    outcome: RetrainOutcome | None
    run: Run | None = None  # as its CI has it; of orders that are older than this table, only while they are open


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int
    actor: str
    action: str
    subject: str
    body: dict[str, Any]


class Changes(msgspec.Struct, kw_only=True):
    """What a batch of events changed; written whole or not at all."""

    offsets: dict[TopicPartition, int] = {}
    floors: dict[str, int] = {}  # by name: what lies before that moment is let go
    seen_ids: dict[str, int] = {}  # of events, with the time of their record on the bus
    seen_labels: dict[tuple[str, str, int], tuple[bytes, int]] = {}  # bits, newest event time
    waiting_rows: dict[tuple[str, str, int], bytes | None] = {}  # None: nothing waits there any more
    windows: dict[tuple[str, WindowKey], npt.NDArray[np.float64]] = {}
    blocks: dict[tuple[str, str, int], bytes] = {}
    models: dict[str, bytes] = {}
    harm: dict[str, bytes] = {}  # apart from the models: large, and changed only when a block is judged
    runs: list[RunEnd] = []
    unplaced: list[tuple[str, str, str, bytes, bytes]] = []
    placed_ids: list[str] = []
    signals: list[Signal] = []
    decisions: list[Decision] = []
    incidents: list[Incident] = []  # of one that changed several times, the last counts
    requests: list[RetrainRequest] = []
    ci_runs: dict[str, Run] = {}  # by the retrain's key
    outcomes: list[RetrainOutcome] = []
    deployments: list[Deployment] = []
    approvals: list[Approval] = []  # of one that changed several times, the last counts
    outbox: list[OutboxEntry] = []
    audit: list[AuditEntry] = []

    @property
    def is_empty(self) -> bool:
        return not any(getattr(self, name) for name in self.__struct_fields__)


class Store:
    """One database. Thread-safe: every call takes a connection of its own.

    Raises:
        ConfigError: The address is wrong, or the database belongs to a newer version.
        FencedError: Another monitor has taken over since this store did; nothing was written.
        RetryableError: The database is locked, full or away, or another monitor wrote the same generation or audit row first:
            nothing was written, and what the store holds must be read anew.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._dialect: Any = postgresql if self._database.dialect == "postgresql" else sqlite
        self._epoch: int | None = None  # in which this store writes; None: whoever comes may write

    def close(self) -> None:
        self._database.close()

    # --- who writes ---

    def writer(self) -> Writer:
        """Who writes now, and how far its beat has moved."""
        with self._reading() as connection:
            row = connection.execute(select(t.WRITER)).one()
        return Writer(row.epoch, row.owner, row.beat)

    def take_over(self, owner: str, found: Writer) -> bool:
        """Become the writer in place of `found`; False where it has moved, or another was first. From then on, this store
        writes only for as long as nobody takes over from it."""
        with self._database.transaction() as connection:
            c = t.WRITER.c
            is_same = (c.epoch == found.epoch) & (c.owner == found.owner) & (c.beat == found.beat)
            change = update(t.WRITER).where(is_same).values(epoch=found.epoch + 1, owner=owner, beat=0)
            is_taken = connection.execute(change).rowcount == 1
        if is_taken:
            self._epoch = found.epoch + 1
        return is_taken

    def beat(self) -> None:
        """Say that the writer lives."""
        with self._transaction() as connection:
            connection.execute(update(t.WRITER).values(beat=t.WRITER.c.beat + 1))

    def release(self) -> None:
        """Whoever waits may write at once. Nothing where another has taken over already."""
        if self._epoch is not None:
            with self._database.transaction() as connection:
                connection.execute(update(t.WRITER).where(t.WRITER.c.epoch == self._epoch).values(owner=""))

    # --- writing ---

    def commit(self, changes: Changes) -> None:
        """Write everything that `changes` holds in one transaction."""
        with self._transaction() as connection:
            self._put_offsets(connection, changes.offsets)
            self._put(connection, t.FLOORS, ("name",), [{"name": name, "ms": ms} for name, ms in changes.floors.items()])
            self._put(connection, t.SEEN_EVENTS, ("id",), [
                {"id": one, "at_ms": at_ms} for one, at_ms in changes.seen_ids.items()
            ])  # fmt: skip
            self._put(connection, t.SEEN_LABELS, ("model", "epoch", "chunk"), [
                {"model": model, "epoch": epoch, "chunk": chunk, "bits": bits, "newest_ms": newest_ms}
                for (model, epoch, chunk), (bits, newest_ms) in changes.seen_labels.items()
            ])  # fmt: skip
            self._put_waiting_rows(connection, changes.waiting_rows)
            self._put(connection, t.WINDOWS, ("model", "version", "slice_index", "start_ms"), [
                {"model": model, **key._asdict(), "sums": np.ascontiguousarray(sums, "<f8").tobytes()}
                for (model, key), sums in changes.windows.items()
            ])  # fmt: skip
            self._put(connection, t.BLOCKS, ("model", "version", "start_ms"), [
                {"model": model, "version": version, "start_ms": start_ms, "body": body}
                for (model, version, start_ms), body in changes.blocks.items()
            ])  # fmt: skip
            self._put(
                connection, t.MODELS, ("model",), [{"model": name, "body": body} for name, body in changes.models.items()]
            )
            self._put(connection, t.HARM, ("model",), [{"model": name, "body": body} for name, body in changes.harm.items()])
            self._put_records(connection, changes)
            self._put_retrains(connection, changes)
            self._put(connection, t.OUTBOX, ("event_id",), [
                {"event_id": one.event_id, "kind": one.kind, "body": one.body} for one in changes.outbox
            ], is_update=False)  # fmt: skip
            self._append_audit(connection, changes.audit)

    def _put_offsets(self, connection: Connection, offsets: Mapping[TopicPartition, int]) -> None:
        """`highest` never falls: below it, the bus is being read once more."""
        if not offsets:
            return
        statement = self._dialect.insert(t.OFFSETS)
        new, highest = statement.excluded, t.OFFSETS.c.highest
        statement = statement.on_conflict_do_update(
            index_elements=["topic", "part"],
            set_={"next": new.next, "highest": case((highest < new.next, new.next), else_=highest)},
        )
        connection.execute(statement, [
            {"topic": place.topic, "part": place.partition, "next": offset, "highest": offset}
            for place, offset in offsets.items()
        ])  # fmt: skip

    def _put_waiting_rows(self, connection: Connection, rows: Mapping[tuple[str, str, int], bytes | None]) -> None:
        names = ("model", "epoch", "chunk")
        kept = [{**dict(zip(names, place, strict=True)), "body": body} for place, body in rows.items() if body is not None]
        self._put(connection, t.WAITING_ROWS, names, kept)
        empty = [place for place, body in rows.items() if body is None]
        if empty:
            c = t.WAITING_ROWS.c
            gone = (c.model == bindparam("of_model")) & (c.epoch == bindparam("of_epoch")) & (c.chunk == bindparam("of_chunk"))
            connection.execute(
                delete(t.WAITING_ROWS).where(gone),
                [{"of_model": model, "of_epoch": epoch, "of_chunk": chunk} for model, epoch, chunk in empty],
            )

    def _put_records(self, connection: Connection, changes: Changes) -> None:
        encode = msgspec.msgpack.encode
        self._put(connection, t.RUNS, ("run_id",), [
            {"run_id": run.run_id, "model": run.model, "version": run.version, "at_ms": run.ended_at_ms, "body": encode(run)}
            for run in changes.runs
        ])  # fmt: skip
        self._put(connection, t.UNPLACED, ("id",), [
            {"id": one[0], "model": one[1], "version": one[2], "headers": one[3], "value": one[4]} for one in changes.unplaced
        ])  # fmt: skip
        if changes.placed_ids:
            one_by_one = delete(t.UNPLACED).where(t.UNPLACED.c.id == bindparam("placed_id"))  # a list has a largest length
            connection.execute(one_by_one, [{"placed_id": event_id} for event_id in changes.placed_ids])
        self._put(connection, t.SIGNALS, ("signal_id",), [
            {"signal_id": one.signal_id, "model": one.model, "at_ms": one.window_end_ms, "body": encode(one)}
            for one in changes.signals
        ])  # fmt: skip
        self._put(connection, t.DECISIONS, ("decision_id",), [
            {"decision_id": one.decision_id, "model": one.model, "at_ms": one.at_ms, "action": one.action, "body": encode(one)}
            for one in changes.decisions
        ])  # fmt: skip
        self._put(connection, t.INCIDENTS, ("incident_id",), [
            {"incident_id": one.incident_id, "model": one.model, "at_ms": one.at_ms, "is_open": one.is_open,
             "severity": one.severity, "body": encode(one)}
            for one in changes.incidents
        ])  # fmt: skip
        self._put(connection, t.APPROVALS, ("approval_id",), [
            {"approval_id": one.approval_id, "model": one.model, "at_ms": one.asked_at_ms, "state": one.state,
             "body": encoded(one)[0]}
            for one in changes.approvals
        ])  # fmt: skip
        for one in changes.deployments:  # plain insert: a second writer of the same generation must fail
            connection.execute(insert(t.DEPLOYMENTS).values(
                model=one.model, generation=one.generation, at_ms=one.decided_at_ms, body=encode(one)
            ))  # fmt: skip

    def _put_retrains(self, connection: Connection, changes: Changes) -> None:
        self._put(connection, t.RETRAINS, ("key",), [
            {"key": one.key, "model": one.model, "at_ms": one.requested_at_ms, "state": "requested", "attempts": 0,
             "request": msgspec.msgpack.encode(one)}
            for one in changes.requests
        ], is_update=False)  # fmt: skip
        self._put(connection, t.CI_RUNS, ("key",), [
            {"key": run.key, "is_open": not run.has_ended, "body": msgspec.msgpack.encode(run)}
            for run in changes.ci_runs.values()
        ])  # fmt: skip
        for run in changes.ci_runs.values():
            if run.num_begun:
                is_unfinished = (t.RETRAINS.c.key == run.key) & (t.RETRAINS.c.state != "finished")
                connection.execute(update(t.RETRAINS).where(is_unfinished).values(state="running", attempts=run.num_begun))
        for outcome in changes.outcomes:
            connection.execute(
                update(t.RETRAINS).where(t.RETRAINS.c.key == outcome.key)
                .values(state="finished", outcome=msgspec.msgpack.encode(outcome))
            )  # fmt: skip

    def _append_audit(self, connection: Connection, entries: Sequence[AuditEntry]) -> None:
        if not entries:
            return
        last = connection.execute(select(t.AUDIT.c.seq, t.AUDIT.c.hash).order_by(t.AUDIT.c.seq.desc()).limit(1)).first()
        seq, previous = (last.seq, last.hash) if last is not None else (0, GENESIS)
        for entry in entries:
            seq += 1
            body = canonical(entry.body)
            this = row_hash(seq, entry.at_ms, entry.actor, entry.action, entry.subject, body, previous)
            connection.execute(insert(t.AUDIT).values(
                seq=seq, at_ms=entry.at_ms, actor=entry.actor, action=entry.action, subject=entry.subject,
                body=body, previous=previous, hash=this,
            ))  # fmt: skip
            previous = this

    def done(self, event_ids: Sequence[str]) -> None:
        """Outbox entries that were carried out."""
        if event_ids:
            with self._transaction() as connection:
                connection.execute(delete(t.OUTBOX).where(t.OUTBOX.c.event_id.in_(list(event_ids))))

    def let_go(self, floors: Floors, limit: int) -> int:
        """Delete at most `limit` rows that lie before the floors; how many there were. 0: there are no more."""
        num_gone = 0
        with self._transaction() as connection:
            for table, is_old in _old_rows(floors):
                if num_gone >= limit:
                    break
                key = tuple_(*table.primary_key.columns)
                oldest = select(*table.primary_key.columns).where(is_old).limit(limit - num_gone)
                num_gone += connection.execute(delete(table).where(key.in_(oldest))).rowcount
        return num_gone

    def merge_windows(self, model: str, before_ms: int, width_ms: int, limit: int) -> int:
        """Put windows before a moment, a multiple of `width_ms`, into windows of that width; those of about `limit` starts at
        once. How many are no more. What was read of them before must not be written."""
        c = t.WINDOWS.c
        with self._transaction() as connection:
            is_part = (c.model == model) & (c.start_ms < before_ms) & (c.start_ms % width_ms != 0)
            oldest = connection.execute(
                select(c.start_ms).where(is_part).distinct().order_by(c.start_ms).limit(limit)
            ).scalars()
            wide = sorted({start_ms // width_ms * width_ms for start_ms in oldest})
            num_gone = 0
            for start_ms in wide:
                is_in = (c.model == model) & (c.start_ms >= start_ms) & (c.start_ms < start_ms + width_ms)
                rows = connection.execute(select(t.WINDOWS).where(is_in)).all()
                parts = (
                    (WindowKey(row.version, row.slice_index, row.start_ms), np.frombuffer(row.sums, "<f8")) for row in rows
                )
                whole = merged(parts, width_ms=width_ms)
                connection.execute(delete(t.WINDOWS).where(is_in))
                connection.execute(insert(t.WINDOWS), [
                    {"model": model, **key._asdict(), "sums": np.ascontiguousarray(sums, "<f8").tobytes()}
                    for key, sums in whole.items()
                ])  # fmt: skip
                num_gone += len(rows) - len(whole)
        return num_gone

    # --- reading ---

    def offsets(self) -> dict[TopicPartition, int]:
        with self._reading() as connection:
            return {TopicPartition(row.topic, row.part): row.next for row in connection.execute(select(t.OFFSETS))}

    def highest_offsets(self) -> dict[TopicPartition, int]:
        """How far each place was ever read; below it, the bus is being read once more."""
        with self._reading() as connection:
            return {TopicPartition(row.topic, row.part): row.highest for row in connection.execute(select(t.OFFSETS))}

    def floors(self) -> dict[str, int]:
        with self._reading() as connection:
            return {row.name: row.ms for row in connection.execute(select(t.FLOORS))}

    def newest_record_ms(self) -> int:
        """Of the events whose ids are kept; 0 where there are none."""
        with self._reading() as connection:
            return int(connection.execute(select(func.max(t.SEEN_EVENTS.c.at_ms))).scalar() or 0)

    def nth_newest_window_ms(self, model: str, number: int) -> int:
        """Start of the window that `number` - 1 newer ones of its model follow; 0 where there are not so many."""
        c = t.WINDOWS.c
        query = select(c.start_ms).where(c.model == model).distinct().order_by(c.start_ms.desc())
        with self._reading() as connection:
            return int(connection.execute(query.limit(1).offset(number - 1)).scalar() or 0)

    def models(self) -> dict[str, bytes]:
        with self._reading() as connection:
            return {row.model: row.body for row in connection.execute(select(t.MODELS))}

    def harm(self, model: str) -> bytes | None:
        with self._reading() as connection:
            return connection.execute(select(t.HARM.c.body).where(t.HARM.c.model == model)).scalar()

    def has_seen(self, event_ids: Sequence[str]) -> set[str]:
        with self._reading() as connection:
            return set(connection.execute(select(t.SEEN_EVENTS.c.id).where(t.SEEN_EVENTS.c.id.in_(list(event_ids)))).scalars())

    def seen_labels(self, model: str, epoch: str, chunk: int) -> tuple[bytes, int] | None:
        c = t.SEEN_LABELS.c
        query = select(c.bits, c.newest_ms).where(c.model == model, c.epoch == epoch, c.chunk == chunk)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.bits, row.newest_ms)

    def waiting_rows(self, model: str) -> dict[tuple[str, int], bytes]:
        """Of versions that are compared, by epoch and chunk."""
        c = t.WAITING_ROWS.c
        with self._reading() as connection:
            rows = connection.execute(select(c.epoch, c.chunk, c.body).where(c.model == model)).all()
        return {(row.epoch, row.chunk): row.body for row in rows}

    def window(self, model: str, key: WindowKey) -> npt.NDArray[np.float64] | None:
        c = t.WINDOWS.c
        with self._reading() as connection:
            found = connection.execute(
                select(c.sums).where(
                    c.model == model, c.version == key.version, c.slice_index == key.slice_index, c.start_ms == key.start_ms
                )
            ).scalar()
        return None if found is None else np.frombuffer(found, "<f8").copy()

    def windows(self, model: str, start_ms: int, end_ms: int) -> Iterator[tuple[WindowKey, npt.NDArray[np.float64]]]:
        """Windows that start in [start, end), in time order."""
        c = t.WINDOWS.c
        query = select(t.WINDOWS).where(c.model == model, c.start_ms >= start_ms, c.start_ms < end_ms)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(c.start_ms, c.version, c.slice_index)).all()
        for row in rows:
            yield WindowKey(row.version, row.slice_index, row.start_ms), np.frombuffer(row.sums, "<f8")

    def block(self, model: str, version: str, start_ms: int) -> bytes | None:
        """A judged block; None where none is kept."""
        c = t.BLOCKS.c
        with self._reading() as connection:
            query = select(c.body).where(c.model == model, c.version == version, c.start_ms == start_ms)
            return connection.execute(query).scalar()

    def blocks(self, model: str) -> list[bytes]:
        with self._reading() as connection:
            query = select(t.BLOCKS.c.body).where(t.BLOCKS.c.model == model).order_by(t.BLOCKS.c.start_ms)
            return list(connection.execute(query).scalars())

    def run(self, model: str, version: str) -> RunEnd | None:
        """The newest run that made `version`."""
        query = select(t.RUNS.c.body).where(t.RUNS.c.model == model, t.RUNS.c.version == version)
        with self._reading() as connection:
            found = connection.execute(query.order_by(t.RUNS.c.at_ms.desc()).limit(1)).scalar()
        return None if found is None else msgspec.msgpack.decode(found, type=RunEnd)

    def model_of_run(self, run_id: str) -> str | None:
        """Of which model a run is; None where it is not known."""
        with self._reading() as connection:
            return connection.execute(select(t.RUNS.c.model).where(t.RUNS.c.run_id == run_id)).scalar()

    def unplaced(self, model: str, version: str) -> list[tuple[str, bytes, bytes]]:
        c = t.UNPLACED.c
        with self._reading() as connection:
            rows = connection.execute(select(t.UNPLACED).where(c.model == model, c.version == version)).all()
        return [(row.id, row.headers, row.value) for row in rows]

    def retrain(self, key: str) -> RetrainRow | None:
        with self._reading() as connection:
            row = connection.execute(_RETRAINS.where(t.RETRAINS.c.key == key)).first()
        return None if row is None else _retrain_row(row)

    def retrains(self, model: str | None = None, *, unfinished: bool = False) -> list[RetrainRow]:
        query = _RETRAINS.order_by(t.RETRAINS.c.at_ms)
        if model is not None:
            query = query.where(t.RETRAINS.c.model == model)
        if unfinished:
            query = query.where(t.RETRAINS.c.state != "finished")
        with self._reading() as connection:
            return [_retrain_row(row) for row in connection.execute(query)]

    def open_runs(self) -> list[Run]:
        """Runs of retrains that have not ended in their CI."""
        with self._reading() as connection:
            bodies = connection.execute(select(t.CI_RUNS.c.body).where(t.CI_RUNS.c.is_open)).scalars()
            return [msgspec.msgpack.decode(body, type=Run) for body in bodies]

    def outbox(self, limit: int = 200) -> list[OutboxEntry]:
        with self._reading() as connection:
            rows = connection.execute(select(t.OUTBOX).order_by(t.OUTBOX.c.id).limit(limit)).all()
        return [OutboxEntry(event_id=row.event_id, kind=row.kind, body=row.body) for row in rows]

    def num_outbox(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(select(func.count()).select_from(t.OUTBOX)).scalar() or 0)

    def listed(self, kind: str, model: str, limit: int, offset: int) -> list[Any]:
        """Newest first: kind is signals, decisions, deployments or runs."""
        table, decoder = _LISTED[kind]
        # the key settles the order of what is of one moment, so that parts of a list neither repeat nor leave out a row
        order = [table.c.generation] if kind == "deployments" else [table.c.at_ms, *table.primary_key.columns]
        query = select(table.c.body).where(table.c.model == model).order_by(*(one.desc() for one in order))
        query = query.limit(limit).offset(offset)
        with self._reading() as connection:
            return [decoder.decode(body) for body in connection.execute(query).scalars()]

    def incident(self, incident_id: str) -> Incident | None:
        with self._reading() as connection:
            found = connection.execute(select(t.INCIDENTS.c.body).where(t.INCIDENTS.c.incident_id == incident_id)).scalar()
        return None if found is None else msgspec.msgpack.decode(found, type=Incident)

    def incidents(
        self, model: str | None = None, *, is_open: bool | None = None, severity: str | None = None, limit: int, offset: int = 0
    ) -> list[Incident]:
        """The last changed first; of all models, states and severities where none is named."""
        c = t.INCIDENTS.c
        query = select(c.body).order_by(c.at_ms.desc(), c.incident_id.desc()).limit(limit).offset(offset)
        for column, wanted in ((c.model, model), (c.is_open, is_open), (c.severity, severity)):
            if wanted is not None:
                query = query.where(column == wanted)
        with self._reading() as connection:
            return [msgspec.msgpack.decode(body, type=Incident) for body in connection.execute(query).scalars()]

    def approval(self, approval_id: str) -> Approval | None:
        with self._reading() as connection:
            query = select(t.APPROVALS.c.body).where(t.APPROVALS.c.approval_id == approval_id)
            found = connection.execute(query).scalar()
        return None if found is None else msgspec.msgpack.decode(found, type=Approval)

    def approvals(self, model: str | None = None, *, state: str | None = None, limit: int, offset: int = 0) -> list[Approval]:
        """The last asked first; of all models and states where none is named."""
        c = t.APPROVALS.c
        query = select(c.body).order_by(c.at_ms.desc(), c.approval_id.desc()).limit(limit).offset(offset)
        for column, wanted in ((c.model, model), (c.state, state)):
            if wanted is not None:
                query = query.where(column == wanted)
        with self._reading() as connection:
            return [msgspec.msgpack.decode(body, type=Approval) for body in connection.execute(query).scalars()]

    def audited_record(self, subject: str) -> str:
        """The digest that the newest row of the audit log about `subject` names; "" where there is none."""
        c = t.AUDIT.c
        with self._reading() as connection:
            body = connection.execute(select(c.body).where(c.subject == subject).order_by(c.seq.desc()).limit(1)).scalar()
        return "" if body is None else str(msgspec.json.decode(body).get("record", ""))

    def verify_audit(self) -> AuditVerdict:
        """Walk the whole audit log."""
        return verify(self.audit())

    def audit(self) -> Iterator[AuditRow]:
        with self._reading() as connection:
            rows = connection.execution_options(yield_per=_CHUNK_ROWS).execute(select(t.AUDIT).order_by(t.AUDIT.c.seq))
            for row in rows:
                yield AuditRow(**row._mapping)

    # --- connections ---

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A writer's transaction.

        Raises:
            FencedError: Another monitor has taken over.
        """
        with self._database.transaction() as connection:
            take_writers_place(connection, self._epoch)
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.reading() as connection:
            yield connection

    def _put(
        self, connection: Connection, table: Table, key: Sequence[str], rows: list[dict[str, Any]], *, is_update: bool = True
    ) -> None:
        """Insert, or update where the key is there already: both dialects have it, in words of their own."""
        if not rows:
            return
        statement = self._dialect.insert(table)
        changed = [column.name for column in table.columns if column.name not in key and column.name in rows[0]]
        if is_update and changed:
            statement = statement.on_conflict_do_update(
                index_elements=list(key), set_={name: statement.excluded[name] for name in changed}
            )
        else:
            statement = statement.on_conflict_do_nothing(index_elements=list(key))
        connection.execute(statement, rows)


_RETRAINS = select(t.RETRAINS, t.CI_RUNS.c.body.label("run")).select_from(
    t.RETRAINS.outerjoin(t.CI_RUNS, t.CI_RUNS.c.key == t.RETRAINS.c.key)
)
_LISTED: Mapping[str, tuple[Table, msgspec.msgpack.Decoder[Any]]] = {
    "signals": (t.SIGNALS, msgspec.msgpack.Decoder(Signal)),
    "decisions": (t.DECISIONS, msgspec.msgpack.Decoder(Decision)),
    "deployments": (t.DEPLOYMENTS, msgspec.msgpack.Decoder(Deployment)),
    "runs": (t.RUNS, msgspec.msgpack.Decoder(RunEnd)),
}


def _old_rows(floors: Floors) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Tables with the condition of what is let go. The audit log is in none."""
    yield t.SEEN_EVENTS, t.SEEN_EVENTS.c.at_ms < floors.event_ids_ms
    for model, from_ms in floors.windows_ms.items():
        yield t.WINDOWS, (t.WINDOWS.c.model == model) & (t.WINDOWS.c.start_ms < from_ms)
        yield t.SEEN_LABELS, (t.SEEN_LABELS.c.model == model) & (t.SEEN_LABELS.c.newest_ms < from_ms)
    for model, from_ms in floors.records_ms.items():
        yield t.BLOCKS, (t.BLOCKS.c.model == model) & (t.BLOCKS.c.start_ms < from_ms)
        for table in (t.SIGNALS, t.DECISIONS):
            yield table, (table.c.model == model) & (table.c.at_ms < from_ms)
        c = t.INCIDENTS.c
        yield t.INCIDENTS, (c.model == model) & (c.at_ms < from_ms) & ~c.is_open


def _retrain_row(row: Any) -> RetrainRow:
    return RetrainRow(
        key=row.key,
        model=row.model,
        at_ms=row.at_ms,
        state=row.state,
        attempts=row.attempts,
        request=msgspec.msgpack.decode(row.request, type=RetrainRequest),
        outcome=None if row.outcome is None else msgspec.msgpack.decode(row.outcome, type=RetrainOutcome),
        run=None if row.run is None else msgspec.msgpack.decode(row.run, type=Run),
    )
