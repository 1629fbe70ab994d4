"""Retraining jobs as processes of this machine, found again through their folders after any crash."""

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clipdrift_contract.events import RetrainRequest
from clipdrift_contract.jobs import JobFolder, JobState

_log = logging.getLogger(__name__)


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
        """Leave the order in its folder; the same order twice changes nothing."""
        self._folder(request.key).write_request(request)

    def start(self, key: str) -> None:
        """Start a process for the job. It outlives this one: a restarted monitor finds it by its lock."""
        folder = self._folder(key)
        with folder.log_path.open("ab") as log:
            self._children[key] = subprocess.Popen(
                (*self._command, str(folder.path)), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        _log.info("retraining job %s is process %d", key, self._children[key].pid)

    def state(self, key: str) -> JobState:
        """How far the job is; "running" also in the moment between its start and its claim."""
        child = self._children.get(key)
        if child is not None:
            if child.poll() is None:
                return "running"
            del self._children[key]
        return self._folder(key).state()

    def end_of_log(self, key: str, num_lines: int = 5) -> str:
        path = self._folder(key).log_path
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return " / ".join(lines[-num_lines:])

    def log_path(self, key: str) -> Path:
        return self._folder(key).log_path

    def _folder(self, key: str) -> JobFolder:
        return JobFolder(self._root, key)
