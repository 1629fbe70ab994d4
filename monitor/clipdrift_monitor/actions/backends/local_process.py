"""Retraining jobs as processes of this machine, found again through their folders after any crash."""

import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from clipdrift_contract.files import write_whole
from clipdrift_contract.jobs import JobFolder, JobTakenError
from clipdrift_monitor.actions.backends.backend import Attempt, AwayError, CiRun, CiState, tail_of
from clipdrift_monitor.actions.config import LocalConfig

_log = logging.getLogger(__name__)
_TAIL_BYTES = 4_000
_CANCELLED, _PROCESS = "cancelled", "process.json"  # files in a job's folder


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The last process that was started in a folder."""

    attempt: int
    pid: int
    began: str  # as the kernel tells it, so that another process of the same number is known from it; empty: not told


class LocalProcesses:
    """Starts the command that CI would run, one process an attempt, and all attempts in one folder. The folder says how far it
    is, not this object: a process outlives this one, and a restarted monitor finds it by its lock.

    Args:
        root: Folder of all jobs.
        command: What carries out a job; the path of its folder is appended.
        config: What a job may take.
    """

    def __init__(self, root: Path, command: Sequence[str], config: LocalConfig | None = None) -> None:
        self._root = root
        self._command = tuple(command)
        self._config = config or LocalConfig()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def find(self, attempt: Attempt) -> CiRun | None:
        """A process that is at work, of whichever attempt; else what the last process of this attempt left."""
        state, started = self._state(attempt), self._started(attempt)
        if state == "running":
            return self._run(attempt, "running")
        is_of_it = (started.attempt if started else 1) == attempt.number
        return self._run(attempt, "succeeded") if state == "succeeded" and is_of_it else None

    def dispatch(self, attempt: Attempt) -> CiRun:
        """Start a process in the attempt's folder. A command that cannot be started is a job that died at once."""
        self._reap()
        folder = self._folder(attempt)
        try:
            folder.write_request(attempt.request)
            (folder.path / _CANCELLED).unlink(missing_ok=True)
            with folder.log_path.open("ab") as log:
                child = self._spawn((*self._command, str(folder.path)), log)
                started = Started(attempt=attempt.number, pid=child.pid, began=_began(child.pid))
        except OSError as error:
            if not folder.request_path.exists():
                raise AwayError(f"the order of a retrain cannot be written below {self._root}: {error}") from error
            _log.error("retraining job %s cannot be started with %s: %s", attempt.request.key, self._command, error)
            return self._run(attempt, "failed")
        self._children[attempt.request.key] = child
        _bound(child.pid, self._config)
        write_whole(folder.path / _PROCESS, msgspec.json.encode(started))
        _log.info("retraining job %s is process %d", attempt.request.key, child.pid)
        return self._run(attempt, "running")

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        return self._run(attempt, self._state(attempt))

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        """Ask the process and all that it started to end; whatever is there still at the second time is killed."""
        key, started = attempt.request.key, self._started(attempt)
        if started is None or not self._is_alive(started):
            return
        marker = self._folder(attempt).path / _CANCELLED
        how = signal.SIGKILL if marker.exists() else signal.SIGTERM
        marker.touch()
        try:
            os.killpg(started.pid, how)
        except ProcessLookupError:
            return
        _log.info("retraining job %s was told to end", key)

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        path = self._folder(attempt).log_path
        try:
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                end = tail_of(log.read().decode(errors="replace"))
        except OSError:
            return f"there is no log at {path}"
        return f"its log, {path}, ends with: {end or 'nothing'}"

    def close(self) -> None:
        """Nothing: processes go on."""

    def _spawn(self, command: Sequence[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        """A session of its own: it outlives this process, and can be ended with all that it starts."""
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def _run(self, attempt: Attempt, state: CiState) -> CiRun:
        return CiRun(run_id=attempt.request.key, url=self._folder(attempt).log_path.resolve().as_uri(), state=state)

    def _state(self, attempt: Attempt) -> CiState:
        """ "running" also between a process's start and its claim, and while it tells its outcome."""
        self._reap()
        if attempt.request.key in self._children:
            return "running"
        folder = self._folder(attempt)
        state = folder.state()
        if state == "finished":
            try:
                with folder.claim():  # a job of an earlier life, which still publishes, holds its lock
                    return "succeeded"
            except JobTakenError:
                return "running"
        started = self._started(attempt)
        if state == "running" or (started is not None and self._is_alive(started)):
            return "running"
        return "cancelled" if (folder.path / _CANCELLED).exists() else "failed"

    def _is_alive(self, started: Started) -> bool:
        """Whether that very process is there still, whoever's child it is."""
        return bool(started.began) and _began(started.pid) == started.began

    def _started(self, attempt: Attempt) -> Started | None:
        try:
            return msgspec.json.decode((self._folder(attempt).path / _PROCESS).read_bytes(), type=Started)
        except (OSError, msgspec.DecodeError):
            return None

    def _reap(self) -> None:
        """Let go of processes that have ended, so that they do not stay as zombies."""
        self._children = {key: child for key, child in self._children.items() if child.poll() is None}

    def _folder(self, attempt: Attempt) -> JobFolder:
        return JobFolder(self._root, attempt.request.key)


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where that is not told, or it has ended and nobody asked how."""
    try:
        state, *told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else told[18]
    except (OSError, ValueError, IndexError):
        return ""


def _bound(pid: int, config: LocalConfig) -> None:
    """Limits of a process that runs; what it starts from then on inherits them."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, config.nice)
        if sys.platform == "linux":
            if config.memory_mb:
                _limit(pid, resource.RLIMIT_AS, config.memory_mb << 20)
            if config.cpu_hours:
                _limit(pid, resource.RLIMIT_CPU, max(1, round(config.cpu_hours * 3_600)))
    except (OSError, ValueError) as error:  # it has ended already, or may not be bounded
        _log.warning("process %d runs without its limits: %s", pid, error)


def _limit(pid: int, what: int, value: int) -> None:
    resource.prlimit(pid, what, (value, value))
