"""Retraining jobs as processes of this machine, found again through their folders after any crash."""

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import RetrainRequest
from clipdrift_contract.jobs import JobFolder, JobState, JobTakenError

_log = logging.getLogger(__name__)
_NUM_LOG_LINES = 3
_MAX_LOG_WORDS = 500


class LocalProcesses:
    """Starts the command that CI would run, one process a job. The job's folder says how far it is, not this object.

    Args:
        root: Folder of all jobs.
        command: What carries out a job; the path of its folder is appended.
    """

    def __init__(self, root: Path, command: Sequence[str]) -> None:
        self._root = root
        self._command = tuple(command)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def order(self, request: RetrainRequest) -> None:
        """Leave the order in its folder; the same order twice changes nothing.

        Raises:
            RetryableError: The folder cannot be written.
        """
        try:
            self._folder(request.key).write_request(request)
        except OSError as error:
            raise RetryableError(f"the order of a retrain cannot be written below {self._root}: {error}") from error

    def start(self, key: str) -> None:
        """Start a process for the job. It outlives this one: a restarted monitor finds it by its lock."""
        self._reap()
        folder = self._folder(key)
        try:
            with folder.log_path.open("ab") as log:
                self._children[key] = subprocess.Popen(
                    (*self._command, str(folder.path)), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:  # no such command, no memory: a job that died at once
            _log.error("retraining job %s cannot be started with %s: %s", key, self._command, error)
            return
        _log.info("retraining job %s is process %d", key, self._children[key].pid)

    def state(self, key: str) -> JobState:
        """How far the job is; "running" also between its start and its claim, and while it tells its outcome."""
        self._reap()
        if key in self._children:
            return "running"
        folder = self._folder(key)
        state = folder.state()
        if state == "finished":
            try:
                with folder.claim():  # a job of an earlier life, which still publishes, holds its lock
                    return state
            except JobTakenError:
                return "running"
        return state

    def log_words(self, key: str) -> str:
        """Where the job's log is, and its last lines."""
        path = self._folder(key).log_path
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            return f"there is no log at {path}"
        end = " / ".join(line.strip() for line in lines[-_NUM_LOG_LINES:])[-_MAX_LOG_WORDS:]
        return f"its log, {path}, ends with: {end or 'nothing'}"

    def _reap(self) -> None:
        """Let go of processes that have ended, so that they do not stay as zombies."""
        self._children = {key: child for key, child in self._children.items() if child.poll() is None}

    def _folder(self, key: str) -> JobFolder:
        return JobFolder(self._root, key)
