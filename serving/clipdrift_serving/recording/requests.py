"""Which receipts belong to a caller's own request id, so that labels can come back under that id alone.

One SQLite file in the spool's folder, shared by the serving processes of one host, written by a thread of each. Memory does not
grow with the number of open predictions; the file is bounded by their age and their number, the oldest go first. Ids are kept
as hashes. What is kept of a prediction is its receipt before it was signed; it is signed when it is asked for, with the key of
then.
"""

import contextlib
import logging
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ConfigError
from clipdrift_serving.dataplane.receipts import Receipt, ReceiptBook, ReceiptError, Unsigned, row_bytes
from clipdrift_serving.recording.recorder import Predicted

FILE_NAME = "requests.db"
_ID_BYTES = 16
_BUSY_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 5.0
_MAX_FRESH = 100_000  # requests in memory while the file cannot be written
_MAX_HELD = 1024  # turns of the loop
_MAX_DELETED = 20_000  # in one transaction, so that none takes long
_MAX_ASKED = 500  # ids in one query: SQLite allows 32,766 variables, older ones 999
_CACHE_KIB = 8 * 1024
_SCHEMA = """
CREATE TABLE IF NOT EXISTS origin (id INTEGER PRIMARY KEY, prefix BLOB NOT NULL, tail BLOB NOT NULL, UNIQUE (prefix, tail));
CREATE TABLE IF NOT EXISTS request (
  number INTEGER PRIMARY KEY, id BLOB NOT NULL, at_ms INTEGER NOT NULL, origin INTEGER NOT NULL, rows BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS request_id ON request (id);
"""
_log = logging.getLogger(__name__)


class RequestBookConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[serving.request_ids]`: how long a label may come back under the caller's own request id."""

    max_requests: int = 1_000_000
    """Most requests with an id that are kept; the oldest go. 0: none is kept, and keeping them costs nothing."""
    max_age_seconds: int = 90 * 86_400
    """How long a request with an id is kept."""

    def __post_init__(self) -> None:
        for name, least in (("max_requests", 0), ("max_age_seconds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"serving.request_ids.{name} must be >= {least}, got {getattr(self, name)!r}")


class RequestFigures(NamedTuple):
    """What the book holds and what it had to let go."""

    num_open: int  # requests in the file, of all processes
    num_waiting: int  # requests in this process's memory, on their way to the file
    num_expired: int  # deleted by this process: too old
    num_evicted: int  # deleted by this process: too many
    num_dropped: int  # never kept by this process: the file could not be written for too long
    num_bytes: int  # of the file and its log


class _Kept(NamedTuple):
    """The rows of one request: `rows` is what is between prefix and tail in each receipt, one behind the other."""

    prefix: bytes
    tail: bytes
    rows: bytes


class RequestBook:
    """Keeps receipts by request id. All but its own thread's work is called from one thread, the event loop's.

    Args:
        folder: Made when missing; shared by the processes of one host, on a local disk.
        receipts: Packs and signs.
        clock: Says when a request came.
        config: Bounds.

    Raises:
        ConfigError: The file cannot be made or opened.
    """

    def __init__(self, folder: Path, receipts: ReceiptBook, clock: Clock, config: RequestBookConfig) -> None:
        self._path = folder / FILE_NAME
        self._receipts = receipts
        self._clock = clock
        self._config = config
        self._held: list[Predicted] = []
        self._fresh: dict[bytes, list[_Kept]] = {}  # by hashed id: not yet in the file
        self._queue: list[tuple[bytes, int, _Kept]] = []
        self._num_fresh = 0
        self._num_open = self._num_expired = self._num_evicted = self._num_dropped = 0
        self._is_writing = self._is_closing = False
        self._changed = threading.Condition()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._reading = _opened(self._path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"request ids need a file that can be written, {self._path} is none: {error}") from error
        self._thread = threading.Thread(target=self._write_all, name="request-ids", daemon=True)
        self._thread.start()

    def remember(self, predicted: Predicted) -> None:
        """Keep a reference to rows with request ids until `flush`, which it calls itself if nobody does; never raises."""
        if self._config.max_requests and any(request_id for request_id, _ in predicted.request_ids):
            self._held.append(predicted)
            if len(self._held) >= _MAX_HELD:
                self.flush()

    def flush(self) -> None:
        """Pack what is held and hand it to the writing thread; found by `find` from now on."""
        held, self._held = self._held, []
        for predicted in held:
            try:
                self._hand_over(predicted)
            except Exception:  # noqa: BLE001  rows that cannot be packed must not end the keeping of others
                _log.exception("request ids of %s are dropped", predicted.model)
                self._num_dropped += sum(1 for request_id, _ in predicted.request_ids if request_id)

    def find(self, model: str, asked: Sequence[tuple[str, int]]) -> list[str | ReceiptError]:
        """Receipts by request id and row within the request (0 is the first), in the order in which they were asked for.

        In the place of one that cannot be told stands a ReceiptError, with the reason "unknown_request" (none, or none any
        more), "ambiguous_request" (the id was used more than once) or "bad_value" (the request had no such row).

        What another process of this host answered in the last tenth of a second may not be there yet.
        """
        self.flush()
        ids = [_hashed(model, request_id) for request_id, _ in asked]
        kept = self._look_up(set(ids))
        found: list[str | ReceiptError] = []
        unsigned: dict[tuple[bytes, bytes], list[tuple[int, bytes]]] = defaultdict(list)
        for place, (hashed_id, (request_id, row)) in enumerate(zip(ids, asked, strict=True)):
            one = _told(request_id, row, kept.get(hashed_id, set()))
            if isinstance(one, ReceiptError):
                found.append(one)
                continue
            found.append("")
            prefix, tail, row_of_it = one
            unsigned[prefix, tail].append((place, row_of_it))
        for (prefix, tail), rows in unsigned.items():
            tokens = self._receipts.sign(Unsigned(prefix, [row for _, row in rows], tail))
            for (place, _), token in zip(rows, tokens, strict=True):
                found[place] = token
        return found

    def answers(self, model: str, request_id: str) -> list[list[Receipt]]:
        """What was answered under a request id, the rows of each answer in their order: none where nothing is kept, several
        where the id was used again, or where further versions or outputs saw the request too."""
        self.flush()
        hashed_id = _hashed(model, request_id)
        found = []
        for prefix, tail, rows in sorted(self._look_up({hashed_id}).get(hashed_id, ())):
            width = row_bytes(rows)
            split = [rows[start : start + width] for start in range(0, len(rows), width)]
            found.append([self._receipts.verify(token) for token in self._receipts.sign(Unsigned(prefix, split, tail))])
        return found

    def figures(self) -> RequestFigures:
        """Counts for metrics; `num_open` as of the last write of this process."""
        num_bytes = sum(path.stat().st_size for path in _files(self._path) if path.exists())
        with self._changed:
            return RequestFigures(
                self._num_open, self._num_fresh, self._num_expired, self._num_evicted, self._num_dropped, num_bytes
            )

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until everything remembered so far is in the file; whether it is."""
        self.flush()
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._is_writing, timeout_seconds)

    def close(self) -> None:
        """Write what is left and stop; what cannot be written within some seconds is lost, and counted."""
        self.drain(_CLOSE_SECONDS)
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_SECONDS + _BUSY_SECONDS)
        self._reading.close()

    # --- the loop's thread --------------------------------------------------------------------------------------------------

    def _hand_over(self, predicted: Predicted) -> None:
        scores_NK = predicted.scores
        packed = self._receipts.pack(
            predicted.model, predicted.version, predicted.role, predicted.generation, predicted.sequence,
            predicted.event_time_ms, predicted.slice_index, predicted.predicted,
            scores_NK[:, :0] if scores_NK.shape[1] == 1 else scores_NK,  # a value: the receipt holds it exactly already
        )  # fmt: skip
        now_ms, start = self._clock.now_ms(), 0
        with self._changed:
            for request_id, num_rows in predicted.request_ids:
                end = start + num_rows
                if request_id and self._num_fresh >= _MAX_FRESH:
                    self._num_dropped += 1
                elif request_id:
                    kept = _Kept(packed.prefix, packed.tail, b"".join(packed.rows[start:end]))
                    hashed_id = _hashed(predicted.model, request_id)
                    self._fresh.setdefault(hashed_id, []).append(kept)
                    self._queue.append((hashed_id, now_ms, kept))
                    self._num_fresh += 1
                start = end
            self._changed.notify_all()

    def _look_up(self, ids: set[bytes]) -> dict[bytes, set[_Kept]]:
        """What is kept under each id. Memory first: what is written meanwhile is then found in the file, and twice is once."""
        found: dict[bytes, set[_Kept]] = defaultdict(set)
        with self._changed:
            for hashed_id in ids & self._fresh.keys():
                found[hashed_id].update(self._fresh[hashed_id])
        ordered = sorted(ids)
        for start in range(0, len(ordered), _MAX_ASKED):
            part = ordered[start : start + _MAX_ASKED]
            marks = ",".join("?" * len(part))
            query = (
                f"SELECT r.id, o.prefix, o.tail, r.rows FROM request r JOIN origin o ON o.id = r.origin WHERE r.id IN ({marks})"  # noqa: S608  marks only
            )
            try:
                for hashed_id, *kept in self._reading.execute(query, part):
                    found[hashed_id].add(_Kept(*kept))
            except sqlite3.Error as error:
                _log.error("request ids cannot be looked up in %s now: %s", self._path, error)
                break
        return found

    # --- the writing thread -------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        origins: dict[tuple[bytes, bytes], int] = {}
        last_error = ""
        while (batch := self._next()) is not None:
            try:
                connection = connection or _opened(self._path)
                with _transaction(connection):
                    _insert(connection, batch, origins)
                    num_expired, num_evicted = self._delete(connection)
                    num_open = _num_open(connection)
            except sqlite3.Error as error:
                origins.clear()  # what was rolled back is not there
                if last_error != str(error):
                    _log.warning("%s cannot be written now (%s); %d request ids wait", self._path, error, len(batch))
                last_error = str(error)
                self._put_back(batch)
                continue
            last_error = ""
            self._written(batch, num_expired, num_evicted, num_open)
        if connection is not None:
            connection.close()

    def _next(self) -> list[tuple[bytes, int, _Kept]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if self._is_closing:
                self._num_dropped += len(self._queue)
                return None
            batch, self._queue = self._queue, []
            self._is_writing = True
            return batch

    def _put_back(self, batch: list[tuple[bytes, int, _Kept]]) -> None:
        with self._changed:
            self._queue = batch + self._queue
            self._is_writing = False
            self._changed.wait_for(lambda: self._is_closing, _RETRY_SECONDS)

    def _written(self, batch: Iterable[tuple[bytes, int, _Kept]], num_expired: int, num_evicted: int, num_open: int) -> None:
        with self._changed:
            for hashed_id, _, kept in batch:
                same = self._fresh[hashed_id]
                same.remove(kept)
                if not same:
                    del self._fresh[hashed_id]
                self._num_fresh -= 1
            self._num_expired += num_expired
            self._num_evicted += num_evicted
            self._num_open = num_open
            self._is_writing = False
            self._changed.notify_all()

    def _delete(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Let the oldest go; how many because of their age and of their number."""
        oldest_ms = self._clock.now_ms() - self._config.max_age_seconds * 1000
        old = "SELECT number FROM request ORDER BY number LIMIT ?"
        num_expired = connection.execute(
            f"DELETE FROM request WHERE number IN ({old}) AND at_ms < ?",  # noqa: S608  a constant
            (_MAX_DELETED, oldest_ms),
        ).rowcount if _is_oldest_before(connection, oldest_ms) else 0  # fmt: skip
        num_excess = min(_MAX_DELETED, _num_open(connection) - self._config.max_requests)
        num_evicted = 0
        if num_excess > 0:
            num_evicted = connection.execute(f"DELETE FROM request WHERE number IN ({old})", (num_excess,)).rowcount  # noqa: S608
        return num_expired, num_evicted


def _hashed(model: str, request_id: str) -> bytes:
    return blake2b(f"{model}\0{request_id}".encode(errors="surrogatepass"), digest_size=_ID_BYTES).digest()


def _told(request_id: str, row: int, kept: set[_Kept]) -> tuple[bytes, bytes, bytes] | ReceiptError:
    """Prefix, tail and the row itself, or why there is none."""
    if not kept:
        return ReceiptError("unknown_request", f"no prediction of this model is kept under the request id {request_id[:100]!r}")
    if len(kept) > 1:
        return ReceiptError(
            "ambiguous_request", f"the request id {request_id[:100]!r} was used {len(kept)} times; send the receipt instead"
        )
    (one,) = kept
    width = row_bytes(one.rows)
    if not 0 <= row < len(one.rows) // width:
        return ReceiptError("bad_value", f"request {request_id[:100]!r} has rows 0..{len(one.rows) // width - 1}, got {row}")
    return one.prefix, one.tail, one.rows[row * width : (row + 1) * width]


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made when missing; one that is damaged is put aside."""
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        aside = path.with_suffix(".damaged")
        _log.error("%s is damaged (%s) and put aside as %s: labels under older request ids are unknown", path, error, aside)
        for file in _files(path):
            with contextlib.suppress(FileNotFoundError):
                file.replace(file.with_name(file.name.replace(FILE_NAME, aside.name)))
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        with _transaction(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _files(path: Path) -> list[Path]:
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _insert(
    connection: sqlite3.Connection, batch: Sequence[tuple[bytes, int, _Kept]], origins: dict[tuple[bytes, bytes], int]
) -> None:
    rows = []
    for hashed_id, at_ms, (prefix, tail, of_request) in batch:
        number = origins.get((prefix, tail))
        if number is None:
            connection.execute("INSERT OR IGNORE INTO origin (prefix, tail) VALUES (?,?)", (prefix, tail))
            (number,) = connection.execute("SELECT id FROM origin WHERE prefix=? AND tail=?", (prefix, tail)).fetchone()
            origins[prefix, tail] = number
        rows.append((hashed_id, at_ms, number, of_request))
    connection.executemany("INSERT INTO request (id, at_ms, origin, rows) VALUES (?,?,?,?)", rows)


def _num_open(connection: sqlite3.Connection) -> int:
    """Requests in the file: numbers are given in order and let go in order, so that nothing need be counted."""
    first, last = connection.execute("SELECT (SELECT min(number) FROM request), (SELECT max(number) FROM request)").fetchone()
    return 0 if first is None else last - first + 1


def _is_oldest_before(connection: sqlite3.Connection, at_ms: int) -> bool:
    found = connection.execute("SELECT at_ms FROM request ORDER BY number LIMIT 1").fetchone()
    return found is not None and found[0] < at_ms
