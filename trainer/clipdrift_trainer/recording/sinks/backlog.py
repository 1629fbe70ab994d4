"""What one sink has not taken yet, in order: in a file, so that a killed run loses nothing, and in memory while no file can be
written."""

import logging
import os
from collections import deque
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Protocol
from urllib.parse import quote, unquote

import msgspec

from clipdrift_contract.events import GradWindow, RunEnd
from clipdrift_contract.files import lock_file
from clipdrift_trainer.recording.sinks.sink import Sink, Telemetry

_log = logging.getLogger(__name__)
_HEAD = Struct("<IB")  # length of the body, and which event it is
_KINDS: tuple[type[Telemetry], ...] = (GradWindow, RunEnd)
_DECODERS = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)
_encode = msgspec.msgpack.Encoder().encode
_SUFFIX = ".spool"
_COMPACT_BYTES = 4 * 1024 * 1024
_MOST_TARGET = 180
MAX_SPOOL_BYTES = 64 * 1024 * 1024
MAX_IN_MEMORY = 1_000


class Waiting(Protocol):
    """Events that wait for a sink. Its owner holds a lock around every call."""

    def append(self, event: Telemetry) -> bool:
        """Keep `event`; False: there was no room, it is lost."""
        ...

    def first(self, limit: int) -> list[Telemetry]:
        """Up to `limit` events that have waited longest."""
        ...

    def forget(self, count: int) -> None:
        """Those of the last `first` that are delivered, from the front."""
        ...

    def __len__(self) -> int: ...

    def num_in_file(self) -> int:
        """Those of them that outlive this process."""
        ...

    def close(self) -> None:
        """Let go of the file; an empty one is deleted."""
        ...


class Newest:
    """Keeps the newest event alone, for a sink that needs no other.

    Example:
        >>> newest = Newest()
        >>> newest.forget(1)
        >>> len(newest), newest.first(5)
        (0, [])
    """

    def __init__(self) -> None:
        self._event: Telemetry | None = None
        self._given: Telemetry | None = None

    def append(self, event: Telemetry) -> bool:
        self._event = event
        return True

    def first(self, limit: int) -> list[Telemetry]:
        self._given = self._event
        return [] if self._event is None else [self._event]

    def forget(self, count: int) -> None:
        if self._event is self._given:
            self._event = None

    def __len__(self) -> int:
        return self._event is not None

    def num_in_file(self) -> int:
        return 0

    def close(self) -> None: ...


class Backlog:
    """Events of one sink: appended to a file, deleted from it once the sink has them.

    What `append` kept survives `kill -9` (not a loss of power). While the file cannot be written (disk full, folder gone),
    events wait in memory instead.

    Args:
        path: The file; made when missing, its folder too; what it holds already comes first. None: memory alone.
        max_bytes: Most bytes that may wait in the file; what comes beyond is lost.
        max_in_memory: Most events that may wait in memory.
        lock: The file's descriptor, where the caller has locked it already.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_bytes: int = MAX_SPOOL_BYTES,
        max_in_memory: int = MAX_IN_MEMORY,
        lock: int | None = None,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_in_memory = max_in_memory
        self._memory: deque[Telemetry] = deque()
        self._file = lock
        self._start = self._end = 0
        self._ends: deque[int] = deque()  # where each waiting record ends
        self._is_failing = False
        if lock is not None:
            self._read_what_is_there()

    def append(self, event: Telemetry) -> bool:
        if self._path is not None and not self._memory:  # order: what waits in memory is older
            try:
                return self._write(event)
            except OSError as error:
                if not self._is_failing:
                    _log.warning("%s cannot be written (%s): telemetry waits in memory", self._path, error)
                self._is_failing = True
        if len(self._memory) >= self._max_in_memory:
            return False
        self._memory.append(event)
        return True

    def first(self, limit: int) -> list[Telemetry]:
        found: list[Telemetry] = []
        start = self._start
        for end in list(self._ends)[:limit]:
            event = self._read(start, end)
            if event is None and found:
                return found  # what came before the damage goes first
            if event is None:
                self.forget(1)
            else:
                found.append(event)
            start = end
        if len(found) == len(self._ends):
            found += list(self._memory)[: limit - len(found)]
        return found

    def forget(self, count: int) -> None:
        for _ in range(min(count, len(self._ends))):
            self._start = self._ends.popleft()
            count -= 1
        for _ in range(min(count, len(self._memory))):
            self._memory.popleft()
        if not self._ends and self._end:
            self._empty()
        elif self._start > max(_COMPACT_BYTES, self._end - self._start):
            self._move_to_front()

    def __len__(self) -> int:
        return len(self._ends) + len(self._memory)

    def num_in_file(self) -> int:
        return len(self._ends)

    def close(self) -> None:
        if self._file is None:
            return
        assert self._path is not None
        try:
            if not self._ends and not _is_gone(self._file, self._path):
                self._path.unlink(missing_ok=True)
            os.close(self._file)
        except OSError as error:
            _log.warning("%s cannot be deleted: %s", self._path, error)
        self._file = None

    def _write(self, event: Telemetry) -> bool:
        body = _encode(event)
        record = _HEAD.pack(len(body), _KINDS.index(type(event))) + body
        if self._end - self._start + len(record) > self._max_bytes:
            return False
        self._open()
        assert self._file is not None
        if os.pwrite(self._file, record, self._end) != len(record):
            raise OSError("the disk is full")
        self._end += len(record)
        self._ends.append(self._end)
        self._is_failing = False
        return True

    def _open(self) -> None:
        """The file, ready to be written: made anew where somebody deleted it, with what it held."""
        assert self._path is not None
        if self._file is not None and not _is_gone(self._file, self._path):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        made = lock_file(self._path)
        if made is None:
            raise OSError("another process has locked it")
        if self._file is None:
            self._file = made
            self._read_what_is_there()
        else:
            _log.warning("%s was deleted; what waits is written anew", self._path)
            self._copy_to(made)
            self._switch_to(made)

    def _empty(self) -> None:
        assert self._file is not None
        try:
            os.ftruncate(self._file, 0)
        except OSError as error:  # what is delivered stays in front of what comes, and might come again at the next start
            _log.warning("%s cannot be emptied: %s", self._path, error)
        else:
            self._start = self._end = 0

    def _move_to_front(self) -> None:
        """Give back the room of what is delivered. A crash leaves the old file or the new one, each whole."""
        assert self._path is not None
        beside = self._path.with_suffix(".moving")
        try:
            beside.unlink(missing_ok=True)
            made = lock_file(beside)
            assert made is not None
            self._copy_to(made)
            beside.replace(self._path)
        except OSError as error:
            _log.warning("%s cannot be made smaller: %s", self._path, error)
        else:
            self._switch_to(made)

    def _copy_to(self, made: int) -> None:
        """Write what waits into another file; closes that where there is no room."""
        assert self._file is not None
        data = os.pread(self._file, self._end - self._start, self._start)
        if os.pwrite(made, data, 0) != len(data):
            os.close(made)
            raise OSError("the disk is full")

    def _switch_to(self, made: int) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = made
        self._ends = deque(end - self._start for end in self._ends)
        self._start, self._end = 0, self._end - self._start

    def _read(self, start: int, end: int) -> Telemetry | None:
        """The record at a place; None where the file was damaged from outside."""
        try:
            assert self._file is not None
            return _decode(os.pread(self._file, end - start, start))
        except (OSError, ValueError, msgspec.DecodeError) as error:
            _log.error("a record of %s cannot be read (%s) and is lost", self._path, error)
            return None

    def _read_what_is_there(self) -> None:
        """Find the whole records of an earlier life; what a crash cut off at the end is dropped."""
        assert self._file is not None
        size, at = os.fstat(self._file).st_size, 0
        while at + _HEAD.size <= size:
            length, kind = _HEAD.unpack(os.pread(self._file, _HEAD.size, at))
            if kind >= len(_KINDS) or at + _HEAD.size + length > size:
                break
            at += _HEAD.size + length
            self._ends.append(at)
        self._end = at
        if size > at:
            _log.warning("the last %d bytes of %s are no whole record and are dropped", size - at, self._path)
            os.ftruncate(self._file, at)


def spool_path(folder: Path, life: str, sink: Sink) -> Path:
    """Where events of one process's life wait for one sink."""
    return folder / f"{life}.{_place(sink)}{_SUFFIX}"


def left_behind(folder: Path, sink: Sink) -> list[Backlog]:
    """What processes that are gone have left for the place that `sink` is, the oldest first; files of processes that live are
    left alone, and so are those for another place of its kind."""
    found = []
    for path in sorted(folder.glob(f"*.{_place(sink)}{_SUFFIX}"), key=_age):
        try:
            lock = lock_file(path)
            if lock is None:
                continue
            if _is_gone(lock, path):  # its owner ended between our look and our lock
                os.close(lock)
                continue
            found.append(Backlog(path, lock=lock))
        except OSError as error:
            _log.warning("%s cannot be read and stays where it is: %s", path, error)
    return found


def other_targets(folder: Path, sink: Sink) -> list[str]:
    """The targets of further places of the same kind that something waits for."""
    quoted = {path.name.removesuffix(_SUFFIX).partition("@")[2] for path in folder.glob(f"*.{sink.name}@*{_SUFFIX}")}
    return sorted({unquote(one) for one in quoted} - {sink.target})


def _place(sink: Sink) -> str:
    """A name for files of which one place is one and another place another."""
    if not sink.target:
        return sink.name
    quoted = quote(sink.target, safe="")
    is_short = len(quoted) <= _MOST_TARGET  # a longer one has no file's name, and is known again but not read back
    return f"{sink.name}@{quoted}" if is_short else f"{sink.name}-{sha256(quoted.encode()).hexdigest()[:32]}"


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _is_gone(file: int, path: Path) -> bool:
    """Whether `path` is no longer the file that is open."""
    try:
        return path.stat().st_ino != os.fstat(file).st_ino
    except OSError:
        return True


def _decode(record: bytes) -> Telemetry:
    """The event of one record; raises ValueError or DecodeError where it is none."""
    if len(record) < _HEAD.size:
        raise ValueError("the file is shorter than what was written to it")
    _, kind = _HEAD.unpack_from(record)
    if kind >= len(_KINDS):
        raise ValueError(f"there is no event of kind {kind}")
    event: Telemetry = _DECODERS[kind].decode(memoryview(record)[_HEAD.size :])
    return event
