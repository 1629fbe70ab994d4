"""One database by its address: opened, brought to the newest schema, its errors in our words. SQLite and PostgreSQL."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from clipdrift_contract.errors import ClipdriftError, ConfigError, RetryableError
from clipdrift_monitor.store import migrations
from clipdrift_monitor.store import tables as t

_BUSY_SECONDS = 10
_AGAIN_SECONDS = 0.02
_STUCK_SECONDS = 30  # a writer that froze within a transaction (a paused machine) keeps others out for no longer
_CONNECT_SECONDS = 5
_MIGRATION_LOCK = 0x436C6472  # "Cldr"
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
# SQLSTATEs of outages that SQLAlchemy does not count among them: read-only after a failover, a server that is going down
_OUTAGES = ("25006", "57P01", "57P02", "57P03", "57P04")
# by words of the driver's message: what an operator does; the monitor tries again by itself
_ADVICE = {
    ("disk is full", "No space left", "could not extend file"): "make room where {shown} lies; the monitor goes on by itself",
    ("readonly database", "read-only transaction"): "let the monitor write to {shown} and the folder around it; after a "
    "failover of PostgreSQL, name the server that takes writes",
    ("database is locked", "lock timeout"): "another process holds {shown} for longer than a write takes; end it",
    ("authentication failed", "does not exist"): "check user, password and database name of {shown} in monitor.store_url",
    ("connection failed", "failed to resolve", "connection timeout", "timeout expired", "terminating connection"): "check that "
    "the server of {shown} runs and can be reached from here",
}


class FencedError(RetryableError):
    """Another monitor writes to this store now; what this one holds in memory is worth nothing any more."""


class Database:
    """Connections to one database. Thread-safe.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/NAME`.
        migrate: Bring it to the newest schema; otherwise an older one is left as it is, for whoever looks at it only.
        must_exist: A SQLite file that is not there is an error, and not made.

    Raises:
        ConfigError: The address is wrong, a driver is not installed, or the database belongs to another program or version.
        RetryableError: The database is away.
    """

    def __init__(self, url: str, *, migrate: bool = True, must_exist: bool = False) -> None:
        self.shown = re.sub(r"://[^/@]*@", "://***@", url)  # a password is never printed
        self._engine = _open(url, self.shown)
        name = self._engine.url.database
        if must_exist and self.dialect == "sqlite" and not Path(name or "").is_file():
            raise ConfigError(f"there is no store at {self.shown}")
        try:
            self.schema_version = self._migrate() if migrate else self._look()
        except BaseException:
            self._engine.dispose()
            raise

    @property
    def dialect(self) -> str:
        """ "sqlite" or "postgresql"."""
        return self._engine.dialect.name

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All that is written within, or nothing. The writer's place is taken before anything is read, so nobody writes
        between what is read and what is written."""
        with self._errors(), self._engine.connect() as idle:
            connection = idle.execution_options(is_write=True)
            connection.begin()
            yield connection
            connection.commit()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Each statement sees what is committed."""
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """All statements see one moment, however long they take; writers go on."""
        with self._errors(), self._engine.connect() as idle:
            connection = idle
            if self.dialect == "postgresql":
                connection = idle.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def _look(self) -> int:
        with self.reading() as connection:
            return migrations.found_version(connection)

    def _migrate(self) -> int:
        """Take the steps that are missing; of several processes that open a store at once, one."""
        while True:
            with self.transaction() as connection:
                if self.dialect == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
                found = migrations.found_version(connection)
                if found == migrations.NEWEST:
                    return found
                migrations.step_up(connection, migrations.STEPS[found], int(time.time() * 1000))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            raise RetryableError(f"the store cannot be used now: {error.orig}{self._advice(str(error.orig))}") from error
        except IntegrityError as error:
            raise RetryableError(f"another monitor wrote to the store first: {error.orig}") from error
        except DBAPIError as error:
            if error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _OUTAGES:
                raise RetryableError(f"the store went away: {error.orig}{self._advice(str(error.orig))}") from error
            raise

    def _advice(self, problem: str) -> str:
        found = next((advice for words, advice in _ADVICE.items() if any(word in problem for word in words)), "")
        return f"; {found.format(shown=self.shown)}" if found else ""


def take_writers_place(connection: Connection, epoch: int | None) -> None:
    """Lock the row that every writer locks first. SQLite has locked the whole file already.

    Raises:
        FencedError: A monitor that took over later than in `epoch` writes now.
    """
    found = connection.execute(select(t.WRITER.c.epoch).with_for_update()).scalar()
    if epoch is not None and found != epoch:
        raise FencedError("another monitor has taken over; this one stands by")


def _open(url: str, shown: str) -> Engine:
    try:
        parsed = make_url(url)
        driver = _DRIVERS.get(parsed.drivername, parsed.drivername)
        if driver.split("+")[0] not in ("sqlite", "postgresql"):
            raise ClipdriftError(f"a store is SQLite or PostgreSQL, not {parsed.drivername!r}")
        parsed = parsed.set(drivername=driver)
        engine = create_engine(parsed) if driver.startswith("sqlite") else _open_postgresql(parsed)
    except ModuleNotFoundError as error:
        raise ConfigError(f"store address {shown!r} needs {error.name}: pip install 'clipdrift[postgresql]'") from error
    except Exception as error:
        raise ConfigError(f"store address {shown!r} is not understood: {error}") from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, shown)
    return engine


def _open_postgresql(url: URL) -> Engine:
    """Bounded waits everywhere, so that a server that is away or stuck becomes an error and not a silence; what the address
    says itself wins."""
    waits = {
        "connect_timeout": str(_CONNECT_SECONDS), "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
        "application_name": "clipdrift",
        "options": f"-c lock_timeout={_BUSY_SECONDS}s -c idle_in_transaction_session_timeout={_STUCK_SECONDS}s"
        " -c timezone=UTC -c client_encoding=UTF8",
    }  # fmt: skip
    given = {name: value for name, value in waits.items() if name not in url.query}
    engine = create_engine(url.update_query_dict(given), pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def _check(connection: Any, _: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise ConfigError(f"the database has encoding {encoding}; a store needs UTF8: CREATE DATABASE ... ENCODING 'UTF8'")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Readers and the writer do not wait for each other. Of two that open a new file at once SQLite refuses one without
    waiting, whatever its timeout."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_SECONDS)


def _prepare_sqlite(engine: Engine, shown: str) -> None:
    """Check that the file can be one of ours, and set up every connection to it.

    Raises:
        ConfigError: The folder is not there, or the file is no database.
    """
    name = engine.url.database or ":memory:"
    if name != ":memory:" and not Path(name).parent.is_dir():
        raise ConfigError(f"store address {shown!r}: there is no folder {str(Path(name).parent)!r}; make it first")
    if Path(name).is_dir():
        raise ConfigError(f"store address {shown!r} names a folder; it must name a file in it")

    @event.listens_for(engine, "connect")
    def _set(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun by hand below: the driver's own begin too late
        try:
            connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.OperationalError as error:
            raise RetryableError(f"the store cannot be opened now: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"store address {shown!r} is not a store: {error}; "
                "move it away, and the monitor starts anew from what the bus still holds"
            ) from error

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("is_write") else "BEGIN")
