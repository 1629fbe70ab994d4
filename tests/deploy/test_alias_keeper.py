"""The registry's aliases are moved after a deployment, and what moves them cannot harm the monitor."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.events import Deployment, ServedVersion
from clipdrift_deploy.alias_keeper import AliasKeeper, sync_command
from clipdrift_deploy.project import Environment, Project


@pytest.fixture
def project(make_project: Any, tmp_path: Path) -> Project:
    (tmp_path / "mlflow.db").write_bytes(b"")
    made: Project = make_project(environment=Environment(registry_url=f"sqlite:///{tmp_path / 'mlflow.db'}"))
    made.state.mkdir(parents=True, exist_ok=True)
    return made


def deploy(project: Project, generation: int) -> None:
    bus = connect(project.bus_url)
    publisher = EventPublisher(bus.publisher(), source="test", clock=SystemClock())
    served = ServedVersion(version=f"v{generation}", uri="file:///v", digest="sha256:v")
    publisher.publish(
        Deployment(model="pump", generation=generation, champion=served, decided_at_ms=0), event_id=f"d{generation}"
    )
    publisher.flush(10.0)
    publisher.close()
    bus.close()


def writes(path: Path, status: int = 0) -> list[str]:
    """A command that leaves a line, says something, and ends with this status."""
    return [sys.executable, "-c", f"open({str(path)!r}, 'a').write('moved\\n'); print('said'); raise SystemExit({status})"]


def wait_until(claim: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, f"not in {seconds} s"
        threading.Event().wait(0.02)


def moves(path: Path) -> int:
    return path.read_text().count("moved") if path.exists() else 0


def test_aliases_are_moved_at_the_start_and_after_each_deployment(project: Project, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with AliasKeeper(project, writes(told), rest_seconds=0.0):
        wait_until(lambda: moves(told) == 1)
        deploy(project, 1)
        wait_until(lambda: moves(told) == 2)
        deploy(project, 2)
        wait_until(lambda: moves(told) == 3)


def test_many_deployments_within_the_rest_are_one_move(project: Project, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with AliasKeeper(project, writes(told), rest_seconds=3_000.0):
        wait_until(lambda: moves(told) == 1)
        for generation in (1, 2, 3):
            deploy(project, generation)
        threading.Event().wait(2.5)  # two polls
    assert moves(told) == 1


def test_a_move_that_fails_is_a_line_in_the_log_and_the_next_is_tried(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = tmp_path / "told"
    with AliasKeeper(project, writes(told, status=2), rest_seconds=0.0):
        wait_until(lambda: moves(told) == 1)
        deploy(project, 1)
        wait_until(lambda: moves(told) == 2)
    assert "the registry's aliases were not moved: said" in caplog.text


def test_a_move_that_hangs_is_ended_with_the_monitor(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "began"
    hangs = [sys.executable, "-c", f"import time; open({str(path)!r}, 'w').close(); time.sleep(600)"]

    with AliasKeeper(project, hangs, rest_seconds=0.0) as keeper:
        wait_until(path.exists)

    assert keeper._child is not None
    assert keeper._child.returncode == -15
    assert not keeper._thread.is_alive()


@pytest.mark.parametrize("url", ["none", "sqlite:///{folder}/nowhere.db"])
def test_where_there_is_no_registry_nothing_is_started(make_project: Any, tmp_path: Path, url: str) -> None:
    project = make_project(environment=Environment(registry_url=url.format(folder=tmp_path)))
    project.state.mkdir(parents=True, exist_ok=True)
    told = tmp_path / "told"

    with AliasKeeper(project, writes(told), rest_seconds=0.0):
        threading.Event().wait(1.5)

    assert moves(told) == 0


@pytest.mark.slow
def test_the_real_command_leaves_quietly_where_nothing_was_deployed(project: Project, caplog: Any, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "mlflow.db").unlink()
    import os
    import subprocess

    environment = os.environ | {"CLIPDRIFT_REGISTRY_URL": project.registry_url}
    ended = subprocess.run(sync_command(project), capture_output=True, text=True, check=False, env=environment)

    assert (ended.returncode, "the aliases stand where the deployments say" in ended.stdout) == (0, True), ended.stderr
