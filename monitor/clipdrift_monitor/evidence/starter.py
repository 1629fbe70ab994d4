"""Starts the processes that make evidence packs, one at a time, at the lowest priority, and never waits for one."""

import contextlib
import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.files import lock_file, write_whole
from clipdrift_monitor.evidence.order import EvidenceOrder, EvidencePaths, paths_of, read_order

COMMAND = (sys.executable, "-m", "clipdrift_monitor.evidence")
_ATTEMPT = "--- attempt"
_CUT_OFF = "--- ended together with the monitor\n"
_LOWEST_PRIORITY = 19
_END_SECONDS = 3.0
_MAX_QUEUED = 20
_MAX_SECONDS = 900.0  # a pack takes some 15 s; far beyond that something hangs
_log = logging.getLogger(__name__)


class Finished(NamedTuple):
    """What became of one order: the report, or in words why there is none."""

    signal_id: str
    html: Path | None
    problem: str = ""
    digest: str = ""  # SHA-256 of the pack's figures, which hold that of its page


class _Running(NamedTuple):
    signal_id: str
    paths: EvidencePaths
    process: subprocess.Popen[bytes]
    began_seconds: float


class EvidenceStarter:
    """Keeps a short queue of orders and at most one process, also across its own lives: the process holds a lock in the folder.

    An order that was written but never tried when this object was made is queued again. One that was tried is not, unless
    `close` cut off its first attempt. One thread only; no method blocks, but `close` for up to 3 s.

    Args:
        folder: Where orders, reports and logs lie; made when missing.
        command: What makes a pack; the path of the order is appended.
        clock: For the time limit.
        max_queued: Orders that may wait; further ones are refused and counted.
        max_seconds: A process that takes longer is killed.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = COMMAND,
        *,
        clock: Clock | None = None,
        max_queued: int = _MAX_QUEUED,
        max_seconds: float = _MAX_SECONDS,
    ) -> None:
        if max_queued < 1:
            raise ValueError(f"max_queued must be >= 1, got {max_queued!r}")
        self._folder = folder
        self._command = tuple(command)
        self._clock = clock or SystemClock()
        self._max_queued = max_queued
        self._max_seconds = max_seconds
        self._queue: deque[str] = deque()
        self._running: _Running | None = None
        self._ended: list[Finished] = []
        self.num_made = 0
        self.num_failed = 0
        self.num_refused = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._take_up_again()

    @property
    def num_queued(self) -> int:
        """Orders that wait, the one at work not among them."""
        return len(self._queue)

    @property
    def is_idle(self) -> bool:
        return self._running is None and not self._queue

    def html_path(self, signal_id: str) -> Path:
        """Where the report of a signal lies once it is made."""
        return paths_of(self._folder, signal_id).html

    def order(self, order: EvidenceOrder) -> bool:
        """Have a pack made; False where it was ordered before, cannot be written down, or too many wait."""
        paths = paths_of(self._folder, order.signal_id)
        if paths.json.exists():
            return False
        if len(self._queue) >= self._max_queued:
            self.num_refused += 1
            _log.warning("no evidence for %s: %d orders wait already", order.signal_id, len(self._queue))
            return False
        body = msgspec.json.encode(msgspec.structs.replace(order, html_path=str(paths.html.absolute())))
        try:
            write_whole(paths.json, body, paths.json.with_suffix(".json.partial"))
        except OSError as error:  # a full disk must not end the monitor
            self.num_refused += 1
            _log.error("no evidence for %s: the order cannot be written: %s", order.signal_id, error)
            return False
        self._queue.append(order.signal_id)
        self._start_next()
        return True

    def poll(self) -> tuple[Finished, ...]:
        """What has ended since the last call; starts the next. To be called now and then, cheap."""
        if self._running is not None:
            code = self._running.process.poll()
            if code is None and self._clock.monotonic_seconds() - self._running.began_seconds > self._max_seconds:
                _kill(self._running.process, signal.SIGKILL)
                code = self._running.process.wait()
            if code is not None:
                self._ended.append(self._conclude(self._running, code))
        self._start_next()
        ended, self._ended = self._ended, []
        return tuple(ended)

    def close(self) -> None:
        """End what runs; what waits is taken up by the next life. Idempotent."""
        running, self._running = self._running, None
        self._queue.clear()
        if running is None or running.process.poll() is not None:
            return
        _kill(running.process, signal.SIGTERM)
        try:
            running.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(running.process, signal.SIGKILL)
            running.process.wait()
        with contextlib.suppress(OSError), running.paths.log.open("a") as log:
            log.write(_CUT_OFF)

    def _take_up_again(self) -> None:
        for path in sorted(self._folder.glob("*.json")):
            try:
                signal_id = read_order(path).signal_id
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("%s is no order for evidence: %s", path, error)
                continue
            paths = paths_of(self._folder, signal_id)
            if not paths.html.exists() and _may_be_tried(paths.log) and len(self._queue) < self._max_queued:
                self._queue.append(signal_id)

    def _start_next(self) -> None:
        """Start the next order, if nothing runs."""
        if self._running is not None or not self._queue:
            return
        signal_id = self._queue[0]
        try:
            started = self._start(signal_id)
        except OSError as error:
            self._queue.popleft()
            self.num_failed += 1
            _log.error("evidence for %s cannot be made: %s", signal_id, error)
            self._ended.append(Finished(signal_id, None, f"{self._command[0]} cannot be started: {error}"))
            return
        if started is not None:
            self._queue.popleft()
            self._running = started

    def _start(self, signal_id: str) -> _Running | None:
        """Start a process; None while one of an earlier life still runs."""
        lock = lock_file(self._folder / "lock")
        if lock is None:
            return None
        paths = paths_of(self._folder, signal_id)
        try:
            process = self._spawn(paths, lock)
        finally:
            os.close(lock)  # the process holds it from here on, and the kernel lets go when it dies
        return _Running(signal_id, paths, process, self._clock.monotonic_seconds())

    def _spawn(self, paths: EvidencePaths, lock: int) -> subprocess.Popen[bytes]:
        paths.partial.unlink(missing_ok=True)
        with paths.log.open("a") as log:
            log.write(f"{_ATTEMPT} of {' '.join(self._command)}\n")
            log.flush()
            process = subprocess.Popen(
                (*self._command, str(paths.json.absolute())), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, pass_fds=(lock,),
            )  # fmt: skip
        with contextlib.suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST_PRIORITY)
        return process

    def _conclude(self, running: _Running, code: int) -> Finished:
        self._running = None
        if running.paths.html.exists():
            self.num_made += 1
            return Finished(running.signal_id, running.paths.html, digest=_digest(running.paths.numbers))
        with contextlib.suppress(OSError):
            running.paths.partial.unlink(missing_ok=True)
        self.num_failed += 1
        problem = f"its process ended with {code} and left no report; its log: {running.paths.log}"
        _log.error("no evidence for %s: %s", running.signal_id, problem)
        return Finished(running.signal_id, None, problem)


def _may_be_tried(log: Path) -> bool:
    """Never tried, or tried once and cut off by the monitor's own end."""
    if not log.exists():
        return True
    lines = log.read_text(errors="replace").splitlines(keepends=True)
    return sum(line.startswith(_ATTEMPT) for line in lines) == 1 and lines[-1] == _CUT_OFF


def _digest(numbers: Path) -> str:
    try:
        return hashlib.sha256(numbers.read_bytes()).hexdigest()
    except OSError:  # made by a process of an earlier version
        return ""


def _kill(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal the process and what it started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, how)
