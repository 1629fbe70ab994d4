"""GitLab's pipeline file is carried out by gitlab-ci-local: a real retrain, told to a monitor of a few lines."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from node import tool
from small_loop import REPLAY_DAY, SOURCE

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Arm, ClipSpec, RetrainRequest
from clipdrift_deploy.ci_job.job import INCONCLUSIVE
from clipdrift_deploy.pipeline_files import write_pipeline

pytestmark = [pytest.mark.ci, pytest.mark.timeout(200)]
KEY = "12345e67"  # looks like a number
CLIP = ClipSpec(kind="global_norm", max_norm=0.5)
REQUEST = RetrainRequest(
    key=KEY, model="steady", cause="drift", decision_id="d1", requested_at_ms=0, as_of_ms=REPLAY_DAY * MS_PER_DAY,
    data_start_ms=(REPLAY_DAY - 20) * MS_PER_DAY, champion_version="v1", champion_uri="", champion_digest="",
    champion_clip=CLIP, generation=1, arms=(Arm(name="same", clip=CLIP),),
)  # fmt: skip


class Monitor(ThreadingHTTPServer):
    """Gives one order to who asks first and keeps what it is told; it has no file of the model in service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Calls)
        self.owner = ""
        self.tokens: set[str] = set()
        self.outcome: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Calls(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(404, {"error": "no file is kept"})

    def do_POST(self) -> None:
        monitor, told = self.server, json.loads(self.rfile.read(int(self.headers["content-length"])))
        monitor.tokens.add(self.headers["authorization"])
        if self.path.endswith("/claim"):
            monitor.owner = monitor.owner or told["run"]
            if monitor.owner != told["run"]:
                return self.answer(409, {"error": "another run has it"})
            return self.answer(200, {"request": msgspec.to_builtins(REQUEST), "attempt": told["attempt"], "beat_seconds": 60})
        if self.path.endswith("/outcome"):
            monitor.outcome = told
            return self.answer(200, {"is_taken": True, "words": ""})
        return self.answer(200, {})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the tests' screen."""


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project with its pipeline, committed."""
    folder = tmp_path / "plant"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    write_pipeline(folder, "gitlab")
    for words in (
        ("init", "--quiet", "--initial-branch", "main"), ("add", "--all"),
        ("-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "--message", "x"),
        ("remote", "add", "origin", "git@gitlab.example:plants/valves.git"),
    ):  # fmt: skip
        subprocess.run(["git", "-C", folder, *words], check=True)
    return folder


def run_pipeline(repository: Path, monitor: Monitor, key: str = KEY) -> subprocess.CompletedProcess[str]:
    inputs = {"model": "steady", "key": key, "attempt": "2"}
    (repository / ".gitlab-ci-local-inputs.yml").write_text(f"---\n{json.dumps(inputs)}\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # what pip is to install is installed there
    given = [f"CLIPDRIFT_MONITOR_URL={monitor.url}", "CLIPDRIFT_API_TOKEN=the-key"]
    return subprocess.run(
        [*tool("gitlab-ci-local/dist/index.js"), "--force-shell-executor", *(w for one in given for w in ("--variable", one))],
        cwd=repository, env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        timeout=150,
    )  # fmt: skip


def test_the_pipeline_retrains_tells_its_outcome_and_keeps_the_report_also_when_the_job_fails(repository, monitor) -> None:
    ended = run_pipeline(repository, monitor)

    said = ended.stdout + ended.stderr
    assert f"FAIL {INCONCLUSIVE}" in said, said[-3000:]
    assert monitor.owner.startswith("gitlab-")
    assert monitor.tokens == {"Bearer the-key"}
    assert (monitor.outcome["outcome"]["key"], monitor.outcome["outcome"]["attempt"]) == (KEY, 2)
    assert monitor.outcome["outcome"]["verdict"] == "inconclusive", "there was no model in service to compare with"
    (kept,) = repository.rglob("artifacts/**/summary.md")
    assert "Retrain of steady" in kept.read_text()


def test_a_pipeline_that_was_started_twice_does_nothing_the_second_time(repository, monitor) -> None:
    monitor.owner = "gitlab-of-the-first"

    ended = run_pipeline(repository, monitor)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "duplicate, nothing to do: another run has it" in ended.stdout
    assert monitor.outcome == {}


def test_a_pipeline_that_no_monitor_ordered_has_no_job(repository, monitor) -> None:
    ended = run_pipeline(repository, monitor, key="")

    assert "clipdrift retrain" not in ended.stdout
    assert monitor.owner == ""
