"""A file of one event a line, in CloudEvents' JSON form, that any tool can read. It is written while a run lasts, and may be
read while it grows.

Source: CloudEvents 1.0.2, JSON Event Format, section 2; JSON Lines.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.envelope import JSON, decode, encode
from clipdrift_contract.errors import PoisonError, RetryableError
from clipdrift_contract.events import GradWindow, RunEnd
from clipdrift_contract.files import lock_file
from clipdrift_trainer.recording.sinks.sink import Telemetry, event_id

_log = logging.getLogger(__name__)
_READ_BYTES = 1024 * 1024
FsyncPolicy = Literal["never", "at_the_end", "always"]


class _Line(msgspec.Struct):
    """CloudEvents attributes beside the event itself."""

    id: str
    type: str
    source: str
    time: str
    subject: str
    data: msgspec.Raw
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


class _Identity(msgspec.Struct):
    id: str


class LinesSink:
    """Appends events to a JSON Lines file. An event that is in the file already is not written again.

    A line that a crash cut off is removed when the file is opened again: its event was not acknowledged, so it comes again. A
    file that was deleted or moved away is made anew. One process at a time writes to a file.

    Args:
        path: The file; its folder is made when missing.
        fsync: When the disk is told to keep what was written, against a loss of power: never, at the end, or after each batch
            of windows (always). What was written survives the process in any case.
        clock: Dates the lines.
    """

    name = "jsonl"
    needs_every_window = True

    def __init__(self, path: Path, *, fsync: FsyncPolicy = "at_the_end", clock: Clock | None = None) -> None:
        self.path = path
        self.target = str(path.absolute())
        self._fsync = fsync
        self._clock = clock or SystemClock()
        self._file: int | None = None
        self._ids: set[str] = set()

    def beside(self, target: str) -> "LinesSink":
        """The same for another file, such as the one of a run that was killed."""
        return LinesSink(Path(target), fsync=self._fsync, clock=self._clock)

    def send(self, events: Sequence[Telemetry]) -> None:
        try:
            file = self._open()
            for event in events:
                if event_id(event) not in self._ids:
                    self._append(file, event)
            if self._fsync == "always":
                os.fsync(file)
        except OSError as error:
            raise RetryableError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        if self._file is None:
            return
        if self._fsync != "never":
            with suppress(OSError):  # a pipe or a device has nothing to keep
                os.fsync(self._file)
        os.close(self._file)
        self._file = None

    def _append(self, file: int, event: Telemetry) -> None:
        line = encode_line(event, self._clock.now_ms())
        end = os.lseek(file, 0, os.SEEK_END)
        if os.write(file, line) != len(line):
            os.ftruncate(file, end)
            raise OSError("the disk is full")
        self._ids.add(event_id(event))

    def _open(self) -> int:
        if self._file is not None and not self._was_taken_away():
            return self._file
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        made = lock_file(self.path)
        if made is None:
            raise RetryableError(f"another process writes to {self.path}")
        self._file = made
        self._ids = _heal(made)
        return made

    def _was_taken_away(self) -> bool:
        assert self._file is not None
        try:
            return self.path.stat().st_ino != os.fstat(self._file).st_ino
        except FileNotFoundError:
            return True


class LinesReader:
    """Reads the events of a JSON Lines file, also while it is written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
        >>> sink = LinesSink(path)
        >>> sink.send([GradWindow(run_id="r", model="m", started_at_ms=0, ended_at_ms=9, step_first=0, num_steps=50,
        ...                       num_clipped=7)])
        >>> sink.close()
        >>> reader = LinesReader(path)
        >>> [window.num_clipped for window in reader.read()], reader.read()
        ([7], [])
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_unreadable = 0
        """Whole lines that were no event of a training; they are skipped."""
        self.num_events = 0
        """Lines that were one."""
        self._offset = 0

    def read(self) -> list[Telemetry]:
        """Events of the whole lines that came since the last call. A last line without its end is left for the next call.

        A file that is shorter than before was begun anew, and is read from its start.

        Raises:
            OSError: The file is not there or cannot be read.
        """
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._offset = 0
            file.seek(self._offset)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return []
        self._offset += len(whole) + 1
        events = [event for line in whole.split(b"\n") if line.strip() and (event := self._event(line)) is not None]
        self.num_events += len(events)
        return events

    def _event(self, line: bytes) -> Telemetry | None:
        try:
            return decode_line(line)
        except PoisonError as error:
            if not self.num_unreadable:
                _log.warning("a line of %s is skipped: %s; others like it are only counted", self.path, error)
            self.num_unreadable += 1
            return None


def encode_line(event: Telemetry, time_ms: int) -> bytes:
    """The event as one line with its end.

    Raises:
        ValueError: A number in it is not finite: JSON cannot say so.
    """
    identity = event_id(event)
    headers, value = encode(event, event_id=identity, source="trainer", time_ms=time_ms, content_type=JSON)
    line = _Line(
        id=identity,
        type=headers["ce_type"].decode(),
        source="trainer",
        time=headers["ce_time"].decode(),
        subject=event.model,
        data=msgspec.Raw(value),
    )
    encoded = msgspec.json.encode(line) + b"\n"
    try:
        decode_line(encoded)
    except PoisonError as error:
        raise ValueError(f"{identity} has a number that is not finite, which JSON cannot say: {error}") from error
    return encoded


def decode_line(line: bytes) -> Telemetry:
    """The event of one line.

    Raises:
        PoisonError: The line is no JSON, or no event of a training.
    """
    try:
        read: Any = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PoisonError(f"a line is no CloudEvent: {error}") from error
    headers = {
        "ce_id": read.id.encode(),
        "ce_source": read.source.encode(),
        "ce_type": read.type.encode(),
        "ce_time": read.time.encode(),
        "content-type": JSON.encode(),
    }
    _, event = decode(headers, bytes(read.data))
    if not isinstance(event, GradWindow | RunEnd):
        raise PoisonError(f"{read.type} is no event of a training")
    return event


def _heal(file: int) -> set[str]:
    """Ids of the events in the file; what stands behind its last whole line is cut off."""
    ids: set[str] = set()
    at, rest, size = 0, b"", os.fstat(file).st_size
    while at < size and (data := os.pread(file, _READ_BYTES, at)):
        at += len(data)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            with suppress(msgspec.DecodeError):
                ids.add(msgspec.json.decode(line, type=_Identity).id)
    if rest:
        _log.warning("a line that was cut off (%d bytes) is removed", len(rest))
        os.ftruncate(file, at - len(rest))
    return ids
