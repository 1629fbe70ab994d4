"""Keeps the registry's aliases where the monitor's deployments say, for as long as the monitor runs.

MLflow takes seconds and some 80 MB to import, so a process of its own moves them, at low priority: soon after a deployment,
and once an hour, since somebody may have moved one by hand.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import DEPLOYMENTS
from clipdrift_deploy.project import Project

_POLL_SECONDS = 1.0
_REST_SECONDS = 30.0  # between two moves: a rollout's steps, and what is read at the start, are one
_AGAIN_SECONDS = 3_600.0
_NICENESS = 15
_log = logging.getLogger(__name__)


def sync_command(project: Project) -> tuple[str, ...]:
    return (sys.executable, "-m", "clipdrift_deploy", "versions", "--sync", "--project", str(project.folder))


class AliasKeeper:
    """One thread. A context manager; does nothing where the project has no registry.

    Args:
        project: The checked project.
        command: Moves the aliases; for tests.
        rest_seconds: Least time between two moves.
        clock: For tests.
    """

    def __init__(
        self,
        project: Project,
        command: Sequence[str] = (),
        rest_seconds: float = _REST_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        self._project = project
        self._command = tuple(command) or sync_command(project)
        self._rest_seconds = rest_seconds
        self._clock = clock or SystemClock()
        self._is_ending = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep, name="aliases", daemon=True)

    def __enter__(self) -> "AliasKeeper":
        if self._project.registry_url:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ending.set()
        child = self._child
        if child is not None:
            with suppress(ProcessLookupError):
                child.terminate()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def _keep(self) -> None:
        try:
            while not self._is_ending.is_set():
                try:
                    self._follow()
                except RetryableError as error:
                    _log.info("the registry's aliases wait for the bus: %s", error)
                    self._is_ending.wait(_POLL_SECONDS)
        except Exception:  # the monitor watches on without it
            _log.exception("the registry's aliases are followed no more")
            raise

    def _follow(self) -> None:
        bus = connect(self._project.bus_url)
        bus.ensure_topics([DEPLOYMENTS])
        consumer = bus.consumer(None, [DEPLOYMENTS])
        moved_at, is_due = float("-inf"), False
        try:
            while not self._is_ending.is_set():
                is_due = bool(consumer.poll(500, _POLL_SECONDS)) or is_due
                rested = self._clock.monotonic_seconds() - moved_at
                if (is_due and rested >= self._rest_seconds) or rested >= _AGAIN_SECONDS:
                    self._move()
                    moved_at, is_due = self._clock.monotonic_seconds(), False
        finally:
            consumer.close()
            bus.close()

    def _move(self) -> None:
        if not self._has_registry():
            return
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._child.pid, _NICENESS)
        said, _ = self._child.communicate()
        if self._child.returncode and not self._is_ending.is_set():
            _log.warning("the registry's aliases were not moved: %s", said.strip()[-500:])
        else:
            _log.info("registry: %s", said.strip())

    def _has_registry(self) -> bool:
        """A server, or a file that a training has made: two that make it at once would be in each other's way."""
        name = self._project.registry_url.removeprefix("sqlite:///")
        return name == self._project.registry_url or Path(name).exists()
