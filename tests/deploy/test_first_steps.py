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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipdrift_deploy.ports import free_port

pytestmark = [pytest.mark.system, pytest.mark.slow]


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


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


@pytest.fixture
def steps(user: User) -> list[str]:
    """The printed steps; the ports are changed to free ones, as a user would whose ports are taken."""
    printed = user.does("clipdrift init").partition("Next:")[2]
    path = user.folder / "clipdrift.toml"
    path.write_text(re.sub(r"port = \d+", lambda _: f"port = {free_port('127.0.0.1')}", path.read_text()))
    return [re.split(r"\s{2,}", line.strip())[0] for line in printed.splitlines() if line.startswith("  ")]


@pytest.fixture
def running(user: User, steps: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Trained, and `clipdrift up` running, by the first two steps."""
    user.does(steps[0])
    process = user.starts(steps[1])
    yield process
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def test_the_printed_steps_show_a_model_that_is_harmed_repaired_and_can_be_rolled_back(
    user: User, steps: list[str], running: "subprocess.Popen[str]"
) -> None:
    assert running.stdout is not None
    addresses = "".join(iter(running.stdout.readline, "Ctrl-C ends it.\n"))
    serving = addresses.partition("predictions  ")[2].partition("/v2/")[0]

    sent = user.does(f"{steps[2]} {serving} 0")
    assert sent.strip().endswith("30,000 predictions, each with its label")
    first = user.sees("model['num_labels'] == 30_000")
    assert first["validated_accuracy"] > 0.8
    repaired = user.sees("model['generation'] == 2")
    assert repaired["version"] != first["version"] or first["generation"] == 2

    assert "pump" in user.does(steps[3])
    user.does("clipdrift report --out here.html")
    assert (user.folder / "here.html").read_text().count("<svg") >= 3
    assert "is ordered into service" in user.does("clipdrift rollback pump --why 'a test'")
    user.sees("model['generation'] == 3")


def test_ending_up_ends_its_components_too(user: User, steps: list[str], running: "subprocess.Popen[str]") -> None:
    assert running.stdout is not None
    "".join(iter(running.stdout.readline, "Ctrl-C ends it.\n"))

    running.send_signal(signal.SIGTERM)

    assert running.wait(30) == 0
    alive = subprocess.run(["pgrep", "-f", str(user.folder)], capture_output=True, text=True, check=False).stdout
    assert alive == ""
    assert not (user.folder / ".clipdrift/addresses.json").exists()


def test_no_secret_is_in_any_log(user: User, steps: list[str], running: "subprocess.Popen[str]") -> None:
    assert running.stdout is not None
    said = "".join(iter(running.stdout.readline, "Ctrl-C ends it.\n"))
    user.does("clipdrift status")
    secrets = json.loads((user.folder / ".clipdrift/secrets.json").read_text())

    logs = said + "".join(path.read_text() for path in (user.folder / ".clipdrift/logs").iterdir())

    assert len(logs) > 500
    assert not [name for name, secret in secrets.items() if secret in logs]
