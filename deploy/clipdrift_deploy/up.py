"""Starts the components of a project as processes of their own, waits until they are ready, stops them."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.request import urlopen

from clipdrift_contract.errors import ClipdriftError
from clipdrift_deploy.project import Project

Component = Literal["serving", "monitor"]
_log = logging.getLogger(__name__)
_COMMAND: dict[Component, str] = {"serving": "serve", "monitor": "monitor"}


class StartError(ClipdriftError):
    """A component did not become ready; the message holds the end of its log."""


class Running:
    """Components that were started by `start`: their addresses, and how to end them. A context manager."""

    def __init__(self, project: Project, ports: dict[str, int], host: str) -> None:
        secrets = project.secrets()
        self.project = project
        self.serving_url = f"http://{host}:{ports['serving']}"
        self.serving_admin_url = f"http://{host}:{ports['admin']}"
        self.monitor_url = f"http://{host}:{ports['monitor']}"
        self.admin_token = secrets.admin_token
        self.api_token = secrets.api_token
        self._ports = ports
        self._processes: dict[Component, subprocess.Popen[bytes]] = {}
        self._files = ExitStack()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, component: Component, *, ready_seconds: float = 60.0) -> None:
        """Start one component and wait until it answers.

        Raises:
            StartError: It ended, or did not answer in time.
        """
        self.project.logs.mkdir(parents=True, exist_ok=True)
        log_path = self.project.logs / f"{component}.log"
        log = self._files.enter_context(log_path.open("ab"))
        command = [sys.executable, "-m", "clipdrift_deploy", _COMMAND[component], "--project", str(self.project.folder)]
        if component == "serving":
            command += ["--port", str(self._ports["serving"]), "--admin-port", str(self._ports["admin"])]
        else:
            command += ["--port", str(self._ports["monitor"])]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._processes[component] = process
        health = f"{self.serving_url}/v2/health/live" if component == "serving" else f"{self.monitor_url}/healthz"
        deadline = time.monotonic() + ready_seconds
        while not answers(health):
            if process.poll() is not None or time.monotonic() > deadline:
                state = (
                    f"ended with {process.returncode}" if process.poll() is not None else f"not ready in {ready_seconds:.0f} s"
                )
                raise StartError(f"{component} {state}; the end of {log_path}:\n{_tail(log_path)}")
            time.sleep(0.02)
        _log.info("%s is ready (pid %d)", component, process.pid)

    def pid(self, component: Component) -> int:
        return self._processes[component].pid

    def kill(self, component: Component) -> None:
        """`kill -9`, as a crash would; for tests of recovery."""
        self._processes[component].kill()
        self._processes[component].wait()

    def ended(self) -> dict[Component, int]:
        """Components that ended by themselves, with their exit status."""
        return {name: code for name, process in self._processes.items() if (code := process.poll()) is not None}

    def stop(self, timeout_seconds: float = 15.0) -> None:
        """Ask every component to drain and end; end it by force when it does not. Idempotent."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_seconds
        for name, process in self._processes.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.warning("%s did not end in %.0f s and is killed", name, timeout_seconds)
                process.kill()
                process.wait()
        self._files.close()


def start(
    project: Project,
    components: Sequence[Component] = ("serving", "monitor"),
    *,
    host: str = "127.0.0.1",
    ports: dict[str, int] | None = None,
) -> Running:
    """Start `components` of `project` and return when each of them answers.

    Args:
        project: The checked project.
        components: Which to start, in this order.
        host: Where they listen.
        ports: Of "serving", "admin" and "monitor"; what is missing gets a free port.

    Raises:
        StartError: One did not come up; the others are stopped.
    """
    chosen = {name: (ports or {}).get(name) or free_port(host) for name in ("serving", "admin", "monitor")}
    running = Running(project, chosen, host)
    try:
        for component in components:
            running.start(component)
    except BaseException:
        running.stop()
        raise
    write_addresses(project, running)
    return running


def write_addresses(project: Project, running: Running) -> None:
    """Leave the addresses where `clipdrift status` and its sisters find them."""
    addresses = {"serving": running.serving_url, "admin": running.serving_admin_url, "monitor": running.monitor_url}
    partial = project.state / f"addresses.{os.getpid()}"
    partial.write_text(json.dumps(addresses))
    partial.replace(project.state / "addresses.json")


def free_port(host: str) -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with a success."""
    try:
        with urlopen(url, timeout=2.0) as answer:  # noqa: S310  the address is our own
            return bool(200 <= answer.status < 300)
    except (URLError, OSError):
        return False


def _tail(path: Path, num_lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-num_lines:])
