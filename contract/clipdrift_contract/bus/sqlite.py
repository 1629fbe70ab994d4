"""The embedded bus: an append-only log in one SQLite file, shared by processes of one machine.

Write-ahead log with group commit: `publish` puts a record into a bounded queue, one thread writes what has gathered in one
transaction. A crash of the process loses nothing that `flush` acknowledged; a loss of power may lose the last transactions
unless `durable` is set (then each commit waits for the disk).
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from clipdrift_contract.bus.log import AssignedHook, Consumer, Publisher, Record, RevokedHook, TopicPartition
from clipdrift_contract.bus.partitioner import partition_of
from clipdrift_contract.errors import ClipdriftError, ConfigError, RetryableError

_APPLICATION_ID = 0x436C6472  # "Cldr", so that another program's file is never taken for a bus
_SCHEMA_VERSION = 1
_DEFAULT_PARTITIONS = 4
_MAX_QUEUED = 100_000
_MAX_BATCH = 2_000
_BUSY_SECONDS = 5.0
_IDLE_POLL_SECONDS = 0.02
_MEMBER_TIMEOUT_SECONDS = 10.0
_HEARTBEAT_SECONDS = 1.0
_NOT_JOINED = -1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  topic TEXT NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  key BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (topic, part, off)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (topic TEXT NOT NULL, part INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, part));
CREATE TABLE IF NOT EXISTS offsets (
  grp TEXT NOT NULL, topic TEXT NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL, PRIMARY KEY (grp, topic, part));
CREATE TABLE IF NOT EXISTS members (
  grp TEXT NOT NULL, member TEXT NOT NULL, topics BLOB NOT NULL, seen REAL NOT NULL, PRIMARY KEY (grp, member));
CREATE TABLE IF NOT EXISTS epochs (grp TEXT PRIMARY KEY, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_log = logging.getLogger(__name__)
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class SqliteBus:
    """A bus in one file. Safe for many threads and processes of one machine (not over a network file system).

    Args:
        path: The file; made when missing.
        num_partitions: Partitions of each topic; an existing file keeps its own number.
        durable: Wait for the disk at each commit, so that a loss of power loses nothing acknowledged.

    Raises:
        ConfigError: The file is there and is no bus.
    """

    def __init__(self, path: Path, *, num_partitions: int = _DEFAULT_PARTITIONS, durable: bool = False) -> None:
        if num_partitions < 1:
            raise ValueError(f"num_partitions must be >= 1, got {num_partitions!r}")
        self._path = path
        self._durable = durable
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opening(path):
            _refuse_foreign(path)
            connection = open_file(path, durable=durable)
            try:
                self._num_partitions = _prepare(connection, path, num_partitions)
            finally:
                connection.close()

    def publisher(self) -> Publisher:
        return SqlitePublisher(self._path, num_partitions=self._num_partitions, durable=self._durable)

    def consumer(
        self,
        group: str | None,
        topics: Sequence[str],
        *,
        on_assigned: AssignedHook | None = None,
        on_revoked: RevokedHook | None = None,
    ) -> Consumer:
        return SqliteConsumer(self._path, group, topics, self._num_partitions, on_assigned, on_revoked)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Topics need no creation here."""

    def num_partitions(self, topic: str) -> int:
        return self._num_partitions

    def close(self) -> None:
        """Publishers and consumers own their connections; nothing is left to close."""


def open_file(path: Path, *, durable: bool = False) -> sqlite3.Connection:
    """A connection with the settings that every user of the file shares."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    with contextlib.suppress(sqlite3.OperationalError):  # another process is switching the mode at this moment
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, num_partitions: int) -> int:
    """Make the tables where they are missing; returns the file's number of partitions."""
    with transaction(connection):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute("INSERT OR IGNORE INTO settings VALUES ('schema', ?)", (str(_SCHEMA_VERSION),))
        connection.execute("INSERT OR IGNORE INTO settings VALUES ('num_partitions', ?)", (str(num_partitions),))
    settings = dict(connection.execute("SELECT name, value FROM settings").fetchall())
    if int(settings["schema"]) > _SCHEMA_VERSION:
        raise ConfigError(f"{path} was written by a newer Clipdrift (schema {settings['schema']}); upgrade this one")
    return int(settings["num_partitions"])


def _refuse_foreign(path: Path) -> None:
    """Look without changing anything: even the switch to a write-ahead log would be a change to another program's file."""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        # In this order: another process that makes the bus at this moment sets both in one transaction.
        is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    finally:
        connection.close()
    if not is_new and application_id != _APPLICATION_ID:
        raise ConfigError(f"{path} is a database of another program, not a bus; name another file")


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RetryableError(f"bus {path} cannot be opened now: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{path} is no bus or is damaged ({error}); move it away, or name another file") from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back after some errors, such as a full disk
            connection.execute("ROLLBACK")
        raise


class _Queued(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    timestamp_ms: int
    key: bytes
    headers: bytes
    value: bytes


class SqlitePublisher:
    """Appends through one writing thread. A locked or missing file is waited out; the queue is bounded."""

    def __init__(self, path: Path, *, num_partitions: int, durable: bool, max_queued: int = _MAX_QUEUED) -> None:
        self._path = path
        self._durable = durable
        self._num_partitions = num_partitions
        self._max_queued = max_queued
        self._queue: deque[_Queued] = deque()
        self._num_published = 0
        self._num_written = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._last_error = ""
        self._thread = threading.Thread(target=self._write_all, name="bus-writer", daemon=True)
        self._thread.start()

    def publish(self, topic: str, key: bytes, headers: Mapping[str, bytes], value: bytes, *, timestamp_ms: int) -> None:
        partition = partition_of(key, self._num_partitions)
        queued = _Queued(topic, partition, timestamp_ms, bytes(key), _encode_headers(dict(headers)), bytes(value))
        with self._changed:
            if self._is_closing:
                raise ClipdriftError("this publisher is closed")
            if len(self._queue) >= self._max_queued:
                raise RetryableError(
                    f"{len(self._queue)} records wait for {self._path} already: {self._last_error or 'too slow'}"
                )
            self._queue.append(queued)
            self._num_published += 1
            self._changed.notify_all()

    def flush(self, timeout_seconds: float) -> None:
        with self._changed:
            target = self._num_published
            if not self._changed.wait_for(lambda: self._num_written >= target, timeout_seconds):
                missing = target - self._num_written
                raise RetryableError(
                    f"{missing} records not written after {timeout_seconds} s: {self._last_error or 'too slow'}"
                )

    def num_queued(self) -> int:
        with self._changed:
            return len(self._queue)

    def close(self, timeout_seconds: float = 10.0) -> None:
        with contextlib.suppress(RetryableError):
            self.flush(timeout_seconds)
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        while batch := self._next_batch():
            try:
                connection = connection or open_file(self._path, durable=self._durable)
                with transaction(connection):
                    _append(connection, batch)
            except sqlite3.Error as error:
                if self._last_error != str(error):  # said once, not ten times a second
                    _log.warning("bus %s cannot be written now (%s); %d records wait", self._path, error, len(self._queue))
                self._last_error = str(error)
                time.sleep(0.1)
                continue
            with self._changed:
                for _ in batch:
                    self._queue.popleft()
                self._num_written += len(batch)
                self._last_error = ""
                self._changed.notify_all()
        if connection is not None:
            connection.close()

    def _next_batch(self) -> list[_Queued]:
        """What has gathered; waits while there is nothing; empty at the end. The records stay queued until they are written."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if self._is_closing and self._last_error:
                return []
            return [self._queue[i] for i in range(min(len(self._queue), _MAX_BATCH))]


def _append(connection: sqlite3.Connection, batch: Iterable[_Queued]) -> None:
    heads: dict[tuple[str, int], int] = {}
    rows = []
    for record in batch:
        place = (record.topic, record.partition)
        if place not in heads:
            found = connection.execute("SELECT next FROM heads WHERE topic=? AND part=?", place).fetchone()
            heads[place] = found[0] if found else 0
        rows.append((*place, heads[place], record.timestamp_ms, record.key, record.headers, record.value))
        heads[place] += 1
    connection.executemany("INSERT INTO log VALUES (?,?,?,?,?,?,?)", rows)
    connection.executemany(
        "INSERT INTO heads VALUES (?,?,?) ON CONFLICT (topic, part) DO UPDATE SET next=excluded.next",
        [(*place, head) for place, head in heads.items()],
    )


class SqliteConsumer:
    """Reads the log, alone (group None) or as a member of a group. One thread only."""

    def __init__(
        self,
        path: Path,
        group: str | None,
        topics: Sequence[str],
        num_partitions: int,
        on_assigned: AssignedHook | None,
        on_revoked: RevokedHook | None,
    ) -> None:
        if not topics:
            raise ValueError("a consumer needs at least one topic")
        self._path = path
        with self._away_is_retryable():
            self._connection = open_file(path)
        self._group = group
        self._topics = tuple(dict.fromkeys(topics))
        self._num_partitions = num_partitions
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._member = f"{os.getpid()}-{_home()}-{os.urandom(6).hex()}"
        self._epoch = _NOT_JOINED
        self._last_heartbeat = 0.0
        self._positions: dict[TopicPartition, int] = {}
        self._turn = 0
        self._read_version: int | None = None  # of the file when everything in it had been read
        self._last_lag = 0
        self._is_closed = False

    def poll(self, max_records: int = 500, timeout_seconds: float = 1.0) -> Sequence[Record]:
        deadline = time.monotonic() + timeout_seconds
        pause = 0.001
        while True:
            try:
                records = self._read_news(max_records)
            except sqlite3.OperationalError as error:
                _log.warning("bus %s cannot be read now: %s", self._path, error)
                records = []
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            time.sleep(min(pause, left))
            pause = min(pause * 2, _IDLE_POLL_SECONDS)

    def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        if self._group is None:
            return
        chosen = dict(self._positions if offsets is None else offsets)
        try:
            with transaction(self._connection):
                if self._current_epoch() != self._epoch:
                    raise RetryableError(f"group {self._group} is rebalancing; poll again")
                self._connection.executemany(
                    "INSERT INTO offsets VALUES (?,?,?,?) ON CONFLICT (grp, topic, part) DO UPDATE SET off=excluded.off",
                    [(self._group, *place, offset) for place, offset in chosen.items()],
                )
        except sqlite3.OperationalError as error:
            raise RetryableError(f"bus {self._path} cannot be written now: {error}") from error

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._check_assigned(place)
        self._positions[place] = offset
        self._read_version = None

    def seek_to_time(self, time_ms: int) -> None:
        with self._away_is_retryable():
            self._keep_membership()
            for place in self._positions:
                row = self._connection.execute(
                    "SELECT min(off) FROM log WHERE topic=? AND part=? AND at_ms>=?", (*place, time_ms)
                ).fetchone()
                self._positions[place] = row[0] if row[0] is not None else self._head(place)
            self._read_version = None

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._positions)

    def position(self, place: TopicPartition) -> int:
        self._check_assigned(place)
        return self._positions[place]

    def committed(self, place: TopicPartition) -> int | None:
        with self._away_is_retryable():
            return self._committed(place)

    def lag(self) -> int:
        if self._epoch == _NOT_JOINED:
            return max(1, self._last_lag)
        try:
            if self._data_version() == self._read_version:
                self._last_lag = 0
                return 0
            self._last_lag = sum(max(0, self._head(place) - position) for place, position in self._positions.items())
        except sqlite3.OperationalError as error:
            _log.warning("the lag is not known now: %s", error)
            return max(1, self._last_lag)
        return self._last_lag

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._group is not None:
            with contextlib.suppress(sqlite3.OperationalError), transaction(self._connection):
                self._connection.execute("DELETE FROM members WHERE grp=? AND member=?", (self._group, self._member))
                self._next_epoch()
        self._connection.close()

    # --- reading ---

    def _read_news(self, max_records: int) -> list[Record]:
        """What is new; asks one cheap question where nobody has written since everything was read."""
        is_heartbeat_due = self._group is not None and time.time() - self._last_heartbeat >= _HEARTBEAT_SECONDS
        version = self._data_version()
        if version == self._read_version and not is_heartbeat_due:
            return []
        self._keep_membership()
        records = self._read(max_records)
        self._read_version = version if len(records) < max_records else None
        return records

    def _data_version(self) -> int:
        """A number that changes whenever another connection has written to the file."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _read(self, max_records: int) -> list[Record]:
        records: list[Record] = []
        places = sorted(self._positions)
        for i in range(len(places)):  # a busy partition must not starve the others: begin with another each time
            place = places[(self._turn + i) % len(places)]
            wanted = max_records - len(records)
            if wanted <= 0:
                break
            rows = self._connection.execute(
                "SELECT off, at_ms, key, headers, value FROM log WHERE topic=? AND part=? AND off>=? ORDER BY off LIMIT ?",
                (*place, self._positions[place], wanted),
            ).fetchall()
            records += [
                Record(
                    topic=place.topic, partition=place.partition, offset=offset, timestamp_ms=at_ms,
                    key=key, headers=_decode_headers(headers), value=value,
                )
                for offset, at_ms, key, headers, value in rows
            ]  # fmt: skip
            if rows:
                self._positions[place] = rows[-1][0] + 1
        self._turn += 1
        return records

    def _committed(self, place: TopicPartition) -> int | None:
        row = self._connection.execute(
            "SELECT off FROM offsets WHERE grp=? AND topic=? AND part=?", (self._group, *place)
        ).fetchone()
        return None if row is None else int(row[0])

    @contextlib.contextmanager
    def _away_is_retryable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise RetryableError(f"bus {self._path} cannot be used now: {error}") from error

    def _head(self, place: TopicPartition) -> int:
        row = self._connection.execute("SELECT next FROM heads WHERE topic=? AND part=?", place).fetchone()
        return int(row[0]) if row else 0

    def _check_assigned(self, place: TopicPartition) -> None:
        if place not in self._positions:
            raise ValueError(f"{place} is not assigned to this consumer; it has {sorted(self._positions)}")

    # --- membership ---

    def _keep_membership(self) -> None:
        if self._group is None:
            if self._epoch == _NOT_JOINED:
                self._assign([TopicPartition(t, p) for t in self._topics for p in range(self._num_partitions)])
                self._epoch = 0
            return
        now = time.time()
        if now - self._last_heartbeat >= _HEARTBEAT_SECONDS:
            self._heartbeat(now)
        epoch = self._current_epoch()
        if epoch != self._epoch:
            self._revoke()
            self._epoch = _NOT_JOINED  # a hook that raises is asked again at the next poll
            self._assign(self._share())
            self._epoch = epoch

    def _heartbeat(self, now: float) -> None:
        with transaction(self._connection):
            gone = self._connection.execute(
                "DELETE FROM members WHERE grp=? AND seen<?", (self._group, now - _MEMBER_TIMEOUT_SECONDS)
            ).rowcount
            known = self._connection.execute(
                "UPDATE members SET seen=? WHERE grp=? AND member=?", (now, self._group, self._member)
            ).rowcount
            if not known:
                gone += self._remove_dead()
                topics = msgspec.msgpack.encode(self._topics)
                self._connection.execute("INSERT INTO members VALUES (?,?,?,?)", (self._group, self._member, topics, now))
            if gone or not known:
                self._next_epoch()
        self._last_heartbeat = now

    def _remove_dead(self) -> int:
        """Members whose process was killed need not be waited for, where process ids tell."""
        rows = self._connection.execute("SELECT member FROM members WHERE grp=?", (self._group,)).fetchall()
        dead = [(self._group, member) for (member,) in rows if _is_dead(member)]
        self._connection.executemany("DELETE FROM members WHERE grp=? AND member=?", dead)
        return len(dead)

    def _next_epoch(self) -> None:
        self._connection.execute(
            "INSERT INTO epochs VALUES (?, 1) ON CONFLICT (grp) DO UPDATE SET epoch=epoch+1", (self._group,)
        )

    def _current_epoch(self) -> int:
        row = self._connection.execute("SELECT epoch FROM epochs WHERE grp=?", (self._group,)).fetchone()
        return int(row[0]) if row else 0

    def _share(self) -> list[TopicPartition]:
        """Every partition of one number goes to one member, so that predictions and their labels stay together."""
        rows = self._connection.execute(
            "SELECT member, topics FROM members WHERE grp=? ORDER BY member", (self._group,)
        ).fetchall()
        members = {member: msgspec.msgpack.decode(topics, type=tuple[str, ...]) for member, topics in rows}
        mine = []
        for topic in self._topics:
            readers = [member for member, topics in members.items() if topic in topics]
            mine += [TopicPartition(topic, p) for p in range(self._num_partitions) if readers[p % len(readers)] == self._member]
        return mine

    def _revoke(self) -> None:
        places: Collection[TopicPartition] = tuple(self._positions)
        if places and self._on_revoked is not None:
            self._on_revoked(places)
        self._positions = {}

    def _assign(self, places: Sequence[TopicPartition]) -> None:
        chosen = dict(self._on_assigned(places)) if places and self._on_assigned is not None else {}
        started = {}
        for place in places:
            started[place] = chosen[place] if place in chosen else self._committed(place) or 0
        self._positions = started
        self._read_version = None


def _home() -> str:
    """Names the space in which process ids are unique: this boot, this container; "" where it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _is_dead(member: str) -> bool:
    pid, _, rest = member.partition("-")
    home = rest.rpartition("-")[0]
    if not home or home != _home():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
