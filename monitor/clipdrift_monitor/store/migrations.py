"""How a store gets from each schema version to the next. Forward only; each step is one transaction with its version number, so
a step that was cut off has not happened. A step is text that never changes once a release has it: `tables` may move on.

To add one: change `tables`, append a `Step`, and the test that compares the two says what is missing.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, inspect, select, update

from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.store.tables import SCHEMA

_TYPES = {
    "sqlite": {"bytes": "BLOB", "words": "TEXT", "serial": "INTEGER NOT NULL PRIMARY KEY"},
    # "C": names sort by their bytes, as in SQLite, so sums are added up in one order on both
    "postgresql": {"bytes": "BYTEA", "words": 'TEXT COLLATE "C"', "serial": "SERIAL PRIMARY KEY"},
}


class Step(NamedTuple):
    """Statements that lead to `version` from the one before.

    In a statement stand `{bytes}`, `{words}` and `{serial}` for types that each database names in its own way, and `{now_ms}`
    for the wall time of the migration.
    """

    version: int
    title: str
    statements: Sequence[str]
    only_postgresql: Sequence[str] = ()


_FIRST = """
CREATE TABLE offsets (topic {words} NOT NULL, part INTEGER NOT NULL, next BIGINT NOT NULL, PRIMARY KEY (topic, part));
CREATE TABLE seen_events (id {words} NOT NULL, PRIMARY KEY (id));
CREATE TABLE seen_labels (model {words} NOT NULL, epoch {words} NOT NULL, chunk BIGINT NOT NULL, bits {bytes} NOT NULL,
  PRIMARY KEY (model, epoch, chunk));
CREATE TABLE windows (model {words} NOT NULL, version {words} NOT NULL, slice_index INTEGER NOT NULL, start_ms BIGINT NOT NULL,
  sums {bytes} NOT NULL, PRIMARY KEY (model, version, slice_index, start_ms));
CREATE INDEX windows_by_time ON windows (model, start_ms);
CREATE TABLE blocks (model {words} NOT NULL, version {words} NOT NULL, start_ms BIGINT NOT NULL, body {bytes} NOT NULL,
  PRIMARY KEY (model, version, start_ms));
CREATE TABLE models (model {words} NOT NULL, body {bytes} NOT NULL, PRIMARY KEY (model));
CREATE TABLE harm (model {words} NOT NULL, body {bytes} NOT NULL, PRIMARY KEY (model));
CREATE TABLE runs (run_id {words} NOT NULL, model {words} NOT NULL, version {words} NOT NULL, at_ms BIGINT NOT NULL,
  body {bytes} NOT NULL, PRIMARY KEY (run_id));
CREATE INDEX runs_by_version ON runs (model, version);
CREATE TABLE unplaced (id {words} NOT NULL, model {words} NOT NULL, version {words} NOT NULL, headers {bytes} NOT NULL,
  value {bytes} NOT NULL, PRIMARY KEY (id));
CREATE INDEX unplaced_by_version ON unplaced (model, version);
CREATE TABLE signals (signal_id {words} NOT NULL, model {words} NOT NULL, at_ms BIGINT NOT NULL, body {bytes} NOT NULL,
  PRIMARY KEY (signal_id));
CREATE INDEX signals_by_time ON signals (model, at_ms);
CREATE TABLE decisions (decision_id {words} NOT NULL, model {words} NOT NULL, at_ms BIGINT NOT NULL, action {words} NOT NULL,
  body {bytes} NOT NULL, PRIMARY KEY (decision_id));
CREATE INDEX decisions_by_time ON decisions (model, at_ms);
CREATE TABLE retrains ("key" {words} NOT NULL, model {words} NOT NULL, at_ms BIGINT NOT NULL, state {words} NOT NULL,
  attempts INTEGER NOT NULL, request {bytes} NOT NULL, outcome {bytes}, PRIMARY KEY ("key"));
CREATE TABLE deployments (model {words} NOT NULL, generation INTEGER NOT NULL, at_ms BIGINT NOT NULL, body {bytes} NOT NULL,
  PRIMARY KEY (model, generation));
CREATE TABLE outbox (id {serial}, event_id {words} NOT NULL, kind {words} NOT NULL, body {bytes} NOT NULL, UNIQUE (event_id));
CREATE TABLE audit (seq INTEGER NOT NULL, at_ms BIGINT NOT NULL, actor {words} NOT NULL, action {words} NOT NULL,
  subject {words} NOT NULL, body {words} NOT NULL, previous {words} NOT NULL, hash {words} NOT NULL, PRIMARY KEY (seq))
"""
# What a store of version 1 on PostgreSQL bounded in length, and SQLite never did.
_BOUNDED = (
    ("offsets", "topic"), ("seen_events", "id"), ("seen_labels", "model"), ("seen_labels", "epoch"), ("windows", "model"),
    ("windows", "version"), ("blocks", "model"), ("blocks", "version"), ("models", "model"), ("harm", "model"),
    ("runs", "run_id"), ("runs", "model"), ("runs", "version"), ("unplaced", "id"), ("unplaced", "model"),
    ("unplaced", "version"), ("signals", "signal_id"), ("signals", "model"), ("decisions", "decision_id"),
    ("decisions", "model"), ("decisions", "action"), ("retrains", '"key"'), ("retrains", "model"), ("retrains", "state"),
    ("deployments", "model"), ("outbox", "event_id"), ("outbox", "kind"), ("audit", "actor"), ("audit", "action"),
    ("audit", "subject"), ("audit", "previous"), ("audit", "hash"),
)  # fmt: skip
STEPS: Sequence[Step] = (
    Step(1, "what the first release had", tuple(_FIRST.split(";"))),
    Step(
        2,
        "one writer at a time; what is let go after its time; incidents",
        (
            "CREATE TABLE writer (id INTEGER NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL, owner {words} NOT NULL,"
            " beat BIGINT NOT NULL)",
            "INSERT INTO writer VALUES (1, 0, '', 0)",
            "CREATE TABLE floors (name {words} NOT NULL PRIMARY KEY, ms BIGINT NOT NULL)",
            "ALTER TABLE offsets ADD COLUMN highest BIGINT NOT NULL DEFAULT 0",
            "UPDATE offsets SET highest = next",
            # when these came is not known: they are kept as long as what comes now
            "ALTER TABLE seen_events ADD COLUMN at_ms BIGINT NOT NULL DEFAULT 0",
            "UPDATE seen_events SET at_ms = {now_ms}",
            "CREATE INDEX seen_events_by_time ON seen_events (at_ms)",
            "ALTER TABLE seen_labels ADD COLUMN newest_ms BIGINT NOT NULL DEFAULT 0",
            "UPDATE seen_labels SET newest_ms = {now_ms}",
            "CREATE INDEX seen_labels_by_time ON seen_labels (model, newest_ms)",
            "CREATE TABLE incidents (incident_id {words} NOT NULL PRIMARY KEY, model {words} NOT NULL, at_ms BIGINT NOT NULL,"
            " is_open BOOLEAN NOT NULL, severity {words} NOT NULL, body {bytes} NOT NULL)",
            "CREATE INDEX incidents_by_time ON incidents (model, at_ms)",
        ),
        tuple(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {{words}}" for table, column in _BOUNDED),
    ),
    Step(
        3,
        "approvals; retrains as their CI runs them; rows of versions that are compared",
        (
            'CREATE TABLE ci_runs ("key" {words} NOT NULL PRIMARY KEY, is_open BOOLEAN NOT NULL, body {bytes} NOT NULL)',
            "CREATE TABLE waiting_rows (model {words} NOT NULL, epoch {words} NOT NULL, chunk BIGINT NOT NULL,"
            " body {bytes} NOT NULL, PRIMARY KEY (model, epoch, chunk))",
            "CREATE TABLE approvals (approval_id {words} NOT NULL PRIMARY KEY, model {words} NOT NULL, at_ms BIGINT NOT NULL,"
            " state {words} NOT NULL, body {bytes} NOT NULL)",
            "CREATE INDEX approvals_by_time ON approvals (model, at_ms)",
        ),
    ),
)
NEWEST = STEPS[-1].version


def found_version(connection: Connection) -> int:
    """The schema version of what the connection leads to; 0 for an empty database.

    Raises:
        ConfigError: The database belongs to another program, or to a newer version of this one.
    """
    names = set(inspect(connection).get_table_names())
    if "schema_version" not in names:
        if names:
            raise ConfigError(
                f"the database holds tables of another program ({', '.join(sorted(names)[:5])}); give the store one of its own"
            )
        return 0
    found = int(connection.execute(select(SCHEMA.c.version)).scalar() or 0)
    if found > NEWEST:
        raise ConfigError(
            f"the store was written by a newer Clipdrift (schema {found}, this one knows {NEWEST}): upgrade this one, or "
            "restore a backup that it made itself (`clipdrift store restore FILE --force`); a store never goes back"
        )
    return found


def step_up(connection: Connection, step: Step, now_ms: int) -> None:
    """Carry out one step within the connection's transaction, its number with it."""
    dialect = connection.dialect.name
    words = {**_TYPES[dialect], "now_ms": str(now_ms)}
    statements = [*step.statements, *(step.only_postgresql if dialect == "postgresql" else ())]
    if step.version == 1:
        connection.exec_driver_sql("CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (0)")
    for statement in statements:
        connection.exec_driver_sql(statement.format_map(words))
    connection.execute(update(SCHEMA).values(version=step.version))
