"""Whether a store can be relied on: its schema, its file, its audit log, and that what it holds can be read."""

import hashlib
from collections.abc import Collection, Iterator

import msgspec
from sqlalchemy import Connection, func, inspect, select

from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store import migrations
from clipdrift_monitor.store import tables as t
from clipdrift_monitor.store.audit import AuditRow, AuditVerdict, verify
from clipdrift_monitor.store.database import Database

_CHUNK_ROWS = 5_000
_MAX_PROBLEMS = 20


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; `problems` is empty where all is well."""

    schema: int
    newest_schema: int
    database: str
    num_rows: dict[str, int]
    audit: AuditVerdict
    problems: tuple[str, ...]


def check(database: Database) -> StoreReport:
    """Look at everything, at one moment, and change nothing. Takes as long as reading the audit log does.

    Raises:
        ConfigError: There is no store.
        RetryableError: The store is away.
    """
    with database.snapshot() as connection:
        version = migrations.found_version(connection)
        names = inspect(connection).get_table_names()
        num_rows = {
            table.name: int(connection.execute(select(func.count()).select_from(table)).scalar() or 0)
            for table in t.METADATA.sorted_tables
            if table.name in names
        }
        if not version:
            audit = verify(())
            problems = ["the database is empty: there is no store yet"]
        else:
            audit = verify(_audit_rows(connection))
            problems = [*_file_problems(connection), *_reading_problems(connection), *_approval_problems(connection, names)]
    if not audit.is_intact:
        problems.append(f"the audit log is broken at row {audit.broken_at}: {audit.reason}")
    return StoreReport(
        schema=version, newest_schema=migrations.NEWEST, database=database.dialect, num_rows=num_rows, audit=audit,
        problems=tuple(problems[:_MAX_PROBLEMS]),
    )  # fmt: skip


def _audit_rows(connection: Connection) -> Iterator[AuditRow]:
    rows = connection.execution_options(yield_per=_CHUNK_ROWS).execute(select(t.AUDIT).order_by(t.AUDIT.c.seq))
    return (AuditRow(**row._mapping) for row in rows)


def _approval_problems(connection: Connection, names: Collection[str]) -> list[str]:
    """Approvals that are not what the newest row of the audit log about them says."""
    if t.APPROVALS.name not in names:
        return []
    is_about_one = t.AUDIT.c.action.startswith("approval: ")
    named = {
        row.subject: (row.seq, msgspec.json.decode(row.body).get("record", ""))
        for row in connection.execute(select(t.AUDIT).where(is_about_one).order_by(t.AUDIT.c.seq))
    }
    kept = {row.approval_id: hashlib.sha256(row.body).hexdigest() for row in connection.execute(select(t.APPROVALS))}
    problems = []
    for approval_id in sorted(named | kept):
        seq, digest = named.get(approval_id, (0, ""))
        if approval_id not in kept:
            problems.append(f"approval {approval_id} is missing: row {seq} of the audit log says that there is one")
        elif not seq:
            problems.append(f"approval {approval_id} is nowhere in the audit log: it was not made by a monitor")
        elif digest != kept[approval_id]:
            problems.append(f"approval {approval_id} was changed: it is not what row {seq} of the audit log says of it")
    return problems


def _file_problems(connection: Connection) -> list[str]:
    """What SQLite says of its own file; PostgreSQL checks its pages itself, where it was told to."""
    if connection.dialect.name != "sqlite":
        return []
    told = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(10)")]
    return [] if told == ["ok"] else [f"the file is damaged: {line}" for line in told]


def _reading_problems(connection: Connection) -> list[str]:
    problems = []
    for row in connection.execute(select(t.MODELS)):
        try:
            msgspec.msgpack.decode(row.body, type=ModelState)
        except msgspec.MsgspecError as error:
            problems.append(f"the state of model {row.model} cannot be read: {error}")
    return problems
