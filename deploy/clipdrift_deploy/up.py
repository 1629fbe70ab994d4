"""Starts the components of a project as processes of their own, waits until they are ready, stops them."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, NoReturn
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from clipdrift_contract.errors import ClipdriftError
from clipdrift_deploy.ports import free_port, require_port, url_of
from clipdrift_deploy.project import Project
from clipdrift_deploy.wiring import Listener, listeners

Component = Literal["serving", "monitor"]
ADDRESSES = "addresses.json"
_PROGRAM = (sys.executable, "-m", "clipdrift_deploy")
_COMMAND: dict[Component, str] = {"serving": "serve", "monitor": "monitor"}
_SETTING = {"serving": "[serving] port", "admin": "[serving] admin_port", "monitor": "[monitor] port"}
_log = logging.getLogger(__name__)


class StartError(ClipdriftError):
    """A component did not become ready; the message holds the end of its log."""


class Running:
    """Components that were started by `start`: their addresses, and how to end them. A context manager."""

    def __init__(self, project: Project, chosen: Mapping[str, Listener], program: Sequence[str] = _PROGRAM) -> None:
        secrets = project.secrets()
        self.project = project
        self.serving_url = url_of(*chosen["serving"])
        self.serving_admin_url = url_of(*chosen["admin"])
        self.monitor_url = url_of(*chosen["monitor"])
        self.admin_token = secrets.admin_token
        self.api_token = secrets.api_token
        self._ports = {name: listener.port for name, listener in chosen.items()}
        self._program = program
        self._processes: dict[Component, subprocess.Popen[bytes]] = {}
        self._files = ExitStack()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *components: Component, ready_seconds: float = 60.0) -> None:
        """Start components, all at once, and wait until each of them answers.

        Raises:
            StartError: One ended, or did not answer in time.
        """
        for component in components:
            self._spawn(component)
        deadline = time.monotonic() + ready_seconds
        for component in components:
            self._await(component, deadline, ready_seconds)

    def _spawn(self, component: Component) -> None:
        self.project.logs.mkdir(parents=True, exist_ok=True)
        log = self._files.enter_context(self.log_path(component).open("ab"))
        command = [*self._program, _COMMAND[component], "--project", str(self.project.folder)]
        if component == "serving":
            command += ["--port", str(self._ports["serving"]), "--admin-port", str(self._ports["admin"])]
        else:
            command += ["--port", str(self._ports["monitor"])]
        self._processes[component] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def _await(self, component: Component, deadline: float, ready_seconds: float) -> None:
        process, log_path = self._processes[component], self.log_path(component)
        health = f"{self.serving_url}/v2/health/live" if component == "serving" else f"{self.monitor_url}/healthz"
        while not answers(health):
            has_ended = process.poll() is not None
            if has_ended or time.monotonic() > deadline:
                state = f"ended with status {process.returncode}" if has_ended else f"was not ready in {ready_seconds:.0f} s"
                raise StartError(f"{component} {state}; the end of {log_path}:\n{_tail(log_path)}")
            time.sleep(0.02)
        _log.info("%s is ready (pid %d)", component, process.pid)

    def log_path(self, component: Component) -> Path:
        """Where all that the component printed is, also from earlier starts."""
        return self.project.logs / f"{component}.log"

    def pid(self, component: Component) -> int:
        return self._processes[component].pid

    def kill(self, component: Component) -> None:
        """`kill -9`, as a crash would; for tests of recovery."""
        self._processes[component].kill()
        self._processes[component].wait()

    def leave_addresses(self) -> None:
        """Write the addresses to where `clipdrift status` and its sisters find them, for as long as this runs."""
        addresses = {"serving": self.serving_url, "admin": self.serving_admin_url, "monitor": self.monitor_url}
        partial = self.project.state / f"addresses.{os.getpid()}"
        partial.write_text(json.dumps(addresses | {"pid": os.getpid()}))
        partial.replace(self.project.state / ADDRESSES)

    def _forget_addresses(self) -> None:
        path = self.project.state / ADDRESSES
        with suppress(OSError, ValueError):
            if json.loads(path.read_text()).get("pid") == os.getpid():
                path.unlink()

    def ended(self) -> dict[Component, int]:
        """Components that ended by themselves, with their exit status."""
        return {name: code for name, process in self._processes.items() if (code := process.poll()) is not None}

    def stop(self, timeout_seconds: float = 15.0) -> None:
        """Ask every component to drain and end; end it by force when it does not. Idempotent."""
        self._forget_addresses()
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
    ports: Mapping[str, int] | None = None,
    program: Sequence[str] = _PROGRAM,
) -> Running:
    """Start `components` of `project` and return when each of them answers.

    Args:
        project: The checked project.
        components: Which to start.
        ports: Of "serving", "admin" and "monitor"; what is missing gets a free port.
        program: The `clipdrift` command; for tests.

    Raises:
        ConfigError: A setting is wrong, or a port that was asked for is taken.
        StartError: One did not come up; the others are stopped.
    """
    hosts = {name: listener.host for name, listener in listeners(project).items()}
    require_ports(project, ports or {})
    chosen = {name: Listener(host, (ports or {}).get(name) or free_port(host)) for name, host in hosts.items()}
    running = Running(project, chosen, program)
    try:
        running.start(*components)
    except BaseException:
        running.stop()
        raise
    running.leave_addresses()
    return running


def keep_running(
    running: Running, tell: Callable[[str], None], *, max_restarts: int = 5, poll_seconds: float = 0.5
) -> NoReturn:
    """Watch for ever; start what ended by itself again, and say so.

    Raises:
        StartError: Something ended more often than `max_restarts` times, or did not come up again.
    """
    num_restarts = 0
    while True:
        for component, status in running.ended().items():
            words = f"{component} ended by itself with status {status}, see {running.log_path(component)}"
            if num_restarts >= max_restarts:
                raise StartError(f"{words}; it was started again {num_restarts} times and is given up")
            num_restarts += 1
            tell(f"{words}; starting it again")
            running.start(component)
        time.sleep(poll_seconds)


def require_ports(project: Project, ports: Mapping[str, int]) -> None:
    """Check that `ports` are free.

    Raises:
        ConfigError: One is taken; the message names the setting that changes it.
    """
    for name, listener in listeners(project).items():
        if name in ports:
            require_port(listener.host, ports[name], _SETTING[name])


def configured_ports(project: Project) -> dict[str, int]:
    """The ports that the project's settings name.

    Raises:
        ConfigError: A setting is wrong.
    """
    return {name: listener.port for name, listener in listeners(project).items()}


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with a success."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=2.0) as answer:  # a proxy knows nothing of this machine's ports
            return bool(200 <= answer.status < 300)
    except (URLError, OSError):
        return False


def _tail(path: Path, num_lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-num_lines:])
