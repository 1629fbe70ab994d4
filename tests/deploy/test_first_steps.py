"""What a new user does: init in an empty folder, then exactly the steps that it prints, then report and rollback."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipdrift_deploy.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]


class User:
    """Somebody at a terminal in an empty folder, with `clipdrift` on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLIPDRIFT_")}
        self.environment = inherited | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def does(self, command: str) -> str:
        ended = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def starts(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(shlex.split(command), cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)

    def status(self) -> dict[str, Any]:
        models: list[dict[str, Any]] = json.loads(self.does("clipdrift status --json"))
        return models[0]

    def sees(self, claim: str, seconds: float = 60.0) -> dict[str, Any]:
        """Asks for the status until `claim`, an expression over it, holds."""
        deadline = time.monotonic() + seconds
        while not eval(claim, {"model": (model := self.status())}):
            assert time.monotonic() < deadline, f"not in {seconds} s: {claim}; {model}"
            threading.Event().wait(0.3)
        return model

    def is_told_the_addresses(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout is not None
        told = ""
        while line := process.stdout.readline():
            told += line
            if line.startswith("Ctrl-C"):
                return told
        raise AssertionError(f"`clipdrift up` ended with {process.wait()}: {told}")

    def begins(self) -> list[str]:
        """Init; returns the printed steps. The ports are changed to free ones, as by a user whose ports are taken."""
        printed = self.does("clipdrift init").partition("Next:")[2]
        path = self.folder / "clipdrift.toml"
        path.write_text(re.sub(r"port = \d+", lambda _: f"port = {free_port('127.0.0.1')}", path.read_text()))
        return [re.split(r"\s{2,}", line.strip())[0] for line in printed.splitlines() if line.startswith("  ")]


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


@pytest.fixture
def start(user: User) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts a command; what still runs after the test is ended."""
    started: list[subprocess.Popen[str]] = []

    def keep(command: str) -> "subprocess.Popen[str]":
        started.append(user.starts(command))
        return started[-1]

    yield keep
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_the_printed_steps_show_a_model_that_is_harmed_repaired_and_can_be_rolled_back(user: User, start) -> None:
    train, up, send, status = user.begins()
    user.does(train)
    addresses = user.is_told_the_addresses(start(up))
    serving = addresses.partition("predictions  ")[2].partition("/v2/")[0]

    assert user.does(f"{send} {serving} 0").strip().endswith("30,000 predictions, each with its label")
    first = user.sees("model['num_labels'] == 30_000")
    assert first["validated_accuracy"] > 0.8
    user.sees("model['generation'] == 2")

    assert "pump" in user.does(status)
    user.does("clipdrift report --out here.html")
    assert (user.folder / "here.html").read_text().count("<svg") >= 3
    assert "is ordered into service" in user.does("clipdrift rollback pump --why 'a test'")
    user.sees("model['generation'] == 3")

    secrets = json.loads((user.folder / ".clipdrift/secrets.json").read_text())
    logs = [path for path in (user.folder / ".clipdrift").rglob("*") if path.suffix in (".log", ".txt")]
    assert {path.name for path in logs} >= {"serving.log", "monitor.log", "log.txt"}
    assert not [(path, name) for path in logs for name, secret in secrets.items() if secret in path.read_text()]


def test_ending_up_ends_its_components_too(user: User, start) -> None:
    user.begins()
    process = start("clipdrift up")
    assert "pump has no version yet" in user.is_told_the_addresses(process)

    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    assert subprocess.run(["pgrep", "-f", str(user.folder)], capture_output=True, text=True, check=False).stdout == ""
    assert not (user.folder / ".clipdrift/addresses.json").exists()
