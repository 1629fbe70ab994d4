"""The spool: events are appended to a file first and go to the bus from there, by a thread, in order.

What `append` returned for survives a crash of the process (not a loss of power): a restarted server sends what the file still
holds, under the same event ids, so that the monitor sees a duplicate where the first copy had arrived after all.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812  the module calls it so

import msgspec

from clipdrift_contract import metrics as names
from clipdrift_contract.bus.log import Publisher
from clipdrift_contract.clock import Clock
from clipdrift_contract.envelope import IdSource, encode, topic_of
from clipdrift_contract.errors import ClipdriftError, ConfigError, RetryableError
from clipdrift_contract.events import LabelBatch, PredictionBatch, key_of
from clipdrift_contract.metrics import MetricSet

_LENGTH = Struct("<I")
_MAX_RECORD_BYTES = 64 * 1024 * 1024
_RETRY_SECONDS = 0.2
_TRIES_A_WORD = 150  # half a minute of tries for each line in the log
_FLUSH_SECONDS = 5.0
_GATHER_SECONDS = 0.1  # a transaction of the bus costs as much for ten events as for one
_CHUNK = 200
_READ_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_COMPACT_BYTES = 16 * 1024 * 1024
_log = logging.getLogger(__name__)


class SpoolFullError(RetryableError):
    """The bus has been away for so long that the disk budget is used up."""


class _DamagedError(ClipdriftError):
    """The file does not hold what was written to it."""


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    topic: str
    key: bytes
    headers: dict[str, bytes]
    value: bytes
    timestamp_ms: int


_encode_entry = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(_Entry).decode


class Spool:
    """Appends events to `folder/events.spool` and forwards them. `append` may be called from any thread and does one write.

    Args:
        folder: Made when missing; one process at a time.
        publisher: The bus.
        source: CloudEvents source of the events.
        epoch: Identity of this process's life: prefix of event ids.
        clock: Dates the events.
        metrics: For SERVING_SPOOL_BYTES.
        max_bytes: Most bytes that may wait.

    Raises:
        ConfigError: The folder cannot be made or written.
    """

    def __init__(
        self, folder: Path, publisher: Publisher, *, source: str, epoch: str, clock: Clock, metrics: MetricSet, max_bytes: int
    ) -> None:
        self._path = folder / "events.spool"
        self._publisher = publisher
        self._source = source
        self._ids = IdSource(prefix=epoch)
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes_gauge = metrics.gauge(names.SERVING_SPOOL_BYTES)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"the spool needs a folder that it can write, {folder} is none: {error}") from error
        self._end = _end_of_whole_records(self._path)
        if (num_cut := self._path.stat().st_size - self._end) > 0:
            _log.warning(
                "the last %d bytes of %s are no whole record (a crash, or damage) and are dropped", num_cut, self._path
            )
        os.ftruncate(self._file, self._end)  # a crash may have left half a record, which nobody was told about
        if self._end:
            _log.info("%d bytes of the last life are sent again", self._end)
        self._forwarded = 0
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # for those who drain
        self._hurry = threading.Condition(lock)  # for the forwarding thread
        self._num_rewrites = 0  # of the file: places within it that were known before mean nothing after
        self._is_closing = False
        self._num_draining = 0  # callers that wait for the bus: then nothing is gathered
        self._thread = threading.Thread(target=self._forward_all, name="spool", daemon=True)
        self._thread.start()

    def append(self, event: PredictionBatch | LabelBatch) -> None:
        """Write one event; it will reach the bus, now or after a restart.

        Raises:
            SpoolFullError: The disk budget is used up, or the disk is full; nothing was written.
        """
        now_ms = self._clock.now_ms()
        headers, value = encode(event, event_id=self._ids.next(), source=self._source, time_ms=now_ms)
        body = _encode_entry(_Entry(topic_of(event), key_of(event), headers, value, now_ms))
        record = _LENGTH.pack(len(body)) + body
        with self._changed:
            waiting = self._end - self._forwarded
            if waiting + len(record) > self._max_bytes:
                raise SpoolFullError(f"{waiting} bytes wait for the bus already, the budget is {self._max_bytes}")
            try:
                self._reopen_if_removed()
                written = os.pwrite(self._file, record, self._end)
            except OSError as error:
                raise SpoolFullError(f"the spool {self._path} cannot be written: {error}") from error
            if written != len(record):
                raise SpoolFullError(f"the disk of {self._path} is full")
            self._end += len(record)
            self._bytes_gauge.set(self._end - self._forwarded)

    def drain(self, timeout_seconds: float) -> None:
        """Wait until the bus has acknowledged everything appended before this call; raises RetryableError when it has not in
        time."""
        with self._changed:
            self._num_draining += 1
            self._hurry.notify_all()
            try:
                if not self._changed.wait_for(lambda: self._forwarded >= self._end, timeout_seconds):
                    waiting = self._end - self._forwarded
                    raise RetryableError(f"{waiting} bytes still wait for the bus after {timeout_seconds} s")
            finally:
                self._num_draining -= 1

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Forward what can be forwarded and stop; what is left is sent by the next life."""
        with contextlib.suppress(RetryableError):
            self.drain(timeout_seconds)
        with self._changed:
            self._is_closing = True
            self._hurry.notify_all()
        self._thread.join(timeout_seconds + _FLUSH_SECONDS)
        os.close(self._file)

    def _forward_all(self) -> None:
        num_failures = 0
        while (place := self._next()) is not None:
            start, end, num_rewrites = place
            try:
                reached = self._forward(start, end)
            except _DamagedError as error:
                reached = end
                _log.error("%s was damaged from outside (%s): %d bytes of recordings are lost", self._path, error, end - start)
            except Exception as error:  # noqa: BLE001  whatever it is, what comes later must not lie here for ever
                if num_failures % _TRIES_A_WORD == 0:
                    is_known = isinstance(error, RetryableError)
                    _log.warning(
                        "the bus is away (%s); %d bytes wait in %s", error, end - start, self._path, exc_info=not is_known
                    )
                num_failures += 1
                time.sleep(_RETRY_SECONDS)
                continue
            num_failures = 0
            self._let_go(reached, num_rewrites)

    def _next(self) -> tuple[int, int, int] | None:
        """What is to be forwarded: start and end, and the number of rewrites for which they hold. None: this is the end."""
        with self._changed:
            while not self._is_closing:
                # a timer wakes it, not each append: a thread that waits for the interpreter slows down the one that has it
                if not (self._num_draining and self._forwarded < self._end):
                    self._hurry.wait(_GATHER_SECONDS)
                if self._forwarded < self._end and not self._is_closing:
                    return self._forwarded, self._end, self._num_rewrites
        return None

    def _let_go(self, reached: int, num_rewrites: int) -> None:
        """Forget what the bus has acknowledged."""
        with self._changed:
            if self._num_rewrites != num_rewrites:  # it was deleted and written anew meanwhile: what was sent is sent again
                return
            self._forwarded = reached
            if self._forwarded == self._end:  # all of it is on the bus: begin again with an empty file
                os.ftruncate(self._file, 0)
                self._forwarded = self._end = 0
            must_compact = self._forwarded > max(_COMPACT_BYTES, self._end - self._forwarded)
            self._bytes_gauge.set(self._end - self._forwarded)
            self._changed.notify_all()
        if must_compact:
            with contextlib.suppress(OSError):  # the file grows on meanwhile, and the next turn tries again
                self._compact()

    def _reopen_if_removed(self) -> None:
        """A file that somebody deleted would be written on unseen, and lost with the process."""
        if os.fstat(self._file).st_nlink:
            return
        _log.warning("%s was deleted; what waits is written anew", self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._compact()

    def _compact(self) -> None:
        """Keep only what still waits: under steady load the file is never sent to its end. A crash leaves either file whole.

        In pieces, and what is appended meanwhile last: whoever appends waits for the last piece only.
        """
        beside = self._path.with_suffix(".compacting")
        made = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with self._changed:
                old, start, end, num_rewrites = self._file, self._forwarded, self._end, self._num_rewrites
            copied = start
            while end - copied > _PIECE_BYTES:
                copied += _copy(old, copied, made, _PIECE_BYTES)
            with self._changed:
                if self._num_rewrites != num_rewrites:  # it was deleted and written anew meanwhile
                    return
                while copied < self._end:
                    copied += _copy(old, copied, made, min(_PIECE_BYTES, self._end - copied))
                beside.replace(self._path)
                self._file, made = made, old
                self._forwarded, self._end = 0, copied - start
                self._num_rewrites += 1
        finally:
            os.close(made)

    def _forward(self, start: int, end: int) -> int:
        """Publish the records of [start, end), a chunk of them at most; returns where it stopped once all are acknowledged."""
        reached = start
        for _, (entry, after) in zip(range(_CHUNK), _records(self._file, start, end), strict=False):
            self._publisher.publish(entry.topic, entry.key, entry.headers, entry.value, timestamp_ms=entry.timestamp_ms)
            reached = after
        self._publisher.flush(_FLUSH_SECONDS)
        return reached


def _copy(source: int, start: int, target: int, num_bytes: int) -> int:
    """Append a piece to another file; how much of it. Raises OSError where there is nothing to copy."""
    data = os.pread(source, num_bytes, start)
    if not data:
        raise OSError("the file is shorter than what was written to it")
    return os.write(target, data)


def _records(file: int, start: int, end: int) -> Iterator[tuple[_Entry, int]]:
    """Records and where each ends: those that one read brings, at least one."""
    data = os.pread(file, min(end - start, _READ_BYTES), start)
    at = 0
    while at < len(data) or not at:
        try:
            (length,) = _LENGTH.unpack_from(data, at)
            after = at + _LENGTH.size + length
            if after > len(data) and at:
                return
            if after > len(data):  # larger than one read
                data = os.pread(file, _LENGTH.size + min(length, _MAX_RECORD_BYTES), start)
            entry = _decode_entry(memoryview(data)[at + _LENGTH.size : after])
        except (StructError, msgspec.DecodeError) as error:
            if at and len(data) - at < _LENGTH.size and start + len(data) < end:
                return  # the length of the next one is cut off by the read
            raise _DamagedError(f"byte {start + at}: {error}") from error
        at = after
        yield entry, start + at


def _end_of_whole_records(path: Path) -> int:
    """Where the last whole record ends: behind it lies what a crash cut off."""
    end, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while end + _LENGTH.size <= size:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            if length > _MAX_RECORD_BYTES or end + _LENGTH.size + length > size:
                break
            try:
                _decode_entry(file.read(length))
            except msgspec.DecodeError:
                break
            end += _LENGTH.size + length
    return end
