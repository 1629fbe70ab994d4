"""Drives the small project through the real processes: replay in lockstep, receipts, labels; kills and starts what it is told.

Everything goes through what the product offers to anybody: commands, the HTTP interfaces, the bus.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR, SystemClock
from clipdrift_contract.events import PREDICTIONS, LabelBatch, PredictionBatch
from clipdrift_contract.metrics import MetricSet
from clipdrift_deploy import up
from clipdrift_deploy.demo.client import Answer, ServingClient
from clipdrift_deploy.demo.figures import months_of
from clipdrift_deploy.demo.replay import Replay
from clipdrift_deploy.demo.result import count_accuracy
from clipdrift_deploy.demo.story import Listener, Story
from clipdrift_deploy.demo.traffic import Stream
from clipdrift_deploy.demo.watcher import MonitorWatcher, WatcherError
from clipdrift_deploy.project import Environment, Project, open_project
from clipdrift_deploy.tasks import load_task
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.tasks.task import Rows, load_as_of

SOURCE = Path(__file__).parent / "project"
FIRST_DAY = 20_089  # 2025-01-01, as in the project's task
REPLAY_DAY = FIRST_DAY + 21
NUM_REPLAY_DAYS = 38
STEP_HOURS = 4
FOR_EVER_MS = 2**62
PATIENCE_SECONDS = 60.0
PROGRAM = (sys.executable, "-m", "clipdrift_deploy")
T = TypeVar("T")
RowIds = set[tuple[str, int]]  # (life of the serving process, number of the prediction)


def wait_until(claim: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What `claim` says once it says yes; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := claim()):
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s"
        threading.Event().wait(0.02)
    return found


def clipdrift(folder: Path, *words: str) -> str:
    """Run the `clipdrift` command in a project; returns what it printed."""
    ended = subprocess.run(
        [sys.executable, "-m", "clipdrift_deploy", *words, "--project", str(folder)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"clipdrift {' '.join(words)}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def train_project(folder: Path) -> Path:
    """A copy of the project in which each model has its first version."""
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    project = open_project(folder, Environment())
    command = [sys.executable, "-m", "clipdrift_deploy", "train", "--project", str(folder)]
    until = str(np.datetime64(REPLAY_DAY, "D"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # tiny networks: two trainings side by side, not four threads
    trainers = [
        subprocess.Popen([*command, model, "--from", "2025-01-01", "--until", until], env=environment)
        for model in project.file.models
    ]
    assert [one.wait(100) for one in trainers] == [0] * len(trainers)
    return folder


class PatientClient(ServingClient):
    """A client as a careful user writes one: what was not answered is sent again once the server is back."""

    def __init__(self, running: up.Running, before: Callable[[], None], recover: Callable[[], None]) -> None:
        super().__init__(running.serving_url, running.serving_admin_url, running.admin_token)
        self._before = before
        self.recover = recover
        self.receipts: dict[str, list[str]] = {}
        self.num_unanswered_rows = 0

    def infer(self, model: str, rows: Rows) -> Answer | None:
        asked = 0

        def ask() -> Answer | None:
            nonlocal asked
            asked += 1
            self._before()
            return super(PatientClient, self).infer(model, rows)

        answer = self._insist(ask)
        self.num_unanswered_rows += (asked - 1) * len(rows)
        if answer is not None:
            self.receipts.setdefault(model, []).extend(answer.receipts)
        return answer

    def feedback(self, model: str, receipts: Sequence[str], labels: Sequence[int], label_times_ms: Sequence[int]) -> int:
        def hand_in() -> int:
            self._before()
            return super(PatientClient, self).feedback(model, receipts, labels, label_times_ms)

        return self._insist(hand_in)

    def flush(self) -> None:
        self._insist(super().flush)

    def generation(self, model: str) -> int:
        return self._insist(lambda: super(PatientClient, self).generation(model))

    def _insist(self, ask: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except httpx.TransportError:
                assert time.monotonic() < deadline, "serving does not answer"
                self.recover()


class PatientWatcher(MonitorWatcher):
    """Asks again once the monitor is back."""

    def __init__(self, running: up.Running, before: Callable[[], None], recover: Callable[[], None]) -> None:
        super().__init__(running.monitor_url, running.api_token)
        self._before = before
        self._recover = recover

    def progress(self) -> dict[str, Any]:
        self._before()
        try:
            return super().progress()
        except WatcherError:
            self._recover()
            return {"is_idle": False, "models": {}}


@dataclass(frozen=True)
class Outcome:
    """What can be compared between two replays of one model."""

    num_labels: int
    accuracy: dict[str, tuple[int, int]]  # (labels, correct) by slice, as the monitor says
    retrains: dict[str, str]  # verdicts by key
    deployments: list[tuple[int, str]]  # (generation, digest)
    decisions: dict[str, str]  # actions by id


class Loop:
    """Serving and monitor of a fresh copy of the trained project, and a replay of some of its models."""

    def __init__(self, trained: Path, folder: Path, models: Sequence[str], program: Sequence[str] = PROGRAM) -> None:
        self.trained = trained
        shutil.copytree(trained, folder)
        self.project: Project = open_project(folder, Environment())
        self.on_request: list[Callable[[], None]] = []
        self.on_poll: list[Callable[[], None]] = []
        self.on_day: dict[int, Callable[[], None]] = {}
        self.running = up.start(self.project, program=program)
        self.bus = connect(self.project.bus_url)
        self.listener = Listener(self.bus, SystemClock())
        self.client = PatientClient(self.running, lambda: _call(self.on_request), self.recover)
        self.watcher = PatientWatcher(self.running, lambda: _call(self.on_poll), self.recover)
        self.tasks = {model: load_task(self.project, model) for model in models}
        first_ms, end_ms = REPLAY_DAY * MS_PER_DAY, (REPLAY_DAY + NUM_REPLAY_DAYS) * MS_PER_DAY
        self.streams = {
            model: Stream(model, load_as_of(task, first_ms, end_ms, FOR_EVER_MS), len(task.classes))
            for model, task in self.tasks.items()
        }
        self.replay = Replay(
            list(self.streams.values()), self.client, self.watcher, self.listener,
            check=lambda: None, on_events=lambda events: None, patience_seconds=PATIENCE_SECONDS,
        )  # fmt: skip

    def close(self) -> None:
        self.listener.close()
        self.watcher.close()
        self.client.close()
        self.running.stop()
        self.bus.close()

    # --- the replay ---

    def run(self, num_days: int = NUM_REPLAY_DAYS) -> None:
        """Replay from the first day on; with all days, hand in the last labels too."""
        self.replay.await_first_versions(list(self.streams))
        for day in range(num_days):
            if day in self.on_day:
                self.on_day[day]()
            self.live(day)
        if num_days == NUM_REPLAY_DAYS:
            self.replay.finish()

    def live(self, day: int) -> None:
        """One day, in lockstep with the monitor: what it decides of earlier days with the first rows of this one is in service
        before the others are sent."""
        self.send(day, last_hour=STEP_HOURS)
        self.replay.settle()
        self.send(day, first_hour=2 * STEP_HOURS)
        self.replay.settle()

    def send(self, day: int, first_hour: int = STEP_HOURS, last_hour: int = 24) -> None:
        """The traffic and labels of one day, in small requests; returns when they are answered, not when they are counted."""
        start_ms = (REPLAY_DAY + day) * MS_PER_DAY
        for hour in range(first_hour, last_hour + 1, STEP_HOURS):
            for stream in self.streams.values():
                stream.send_until(self.client, start_ms + hour * MS_PER_HOUR)

    # --- kills and restarts ---

    def recover(self, *components: up.Component) -> None:
        """Start again what was killed (of `components`, where some are named), and wait until it is ready."""

        def is_back() -> bool:
            if gone := [one for one in self.running.ended() if one in (components or (one,))]:
                self.running.start(*gone)
            return up.answers(f"{self.running.serving_url}/v2/health/ready")

        wait_until(is_back)

    def end(self, component: up.Component) -> int:
        """Ask a component to end, as an operator does; returns its exit status."""
        os.kill(self.running.pid(component), signal.SIGTERM)
        wait_until(lambda: component in self.running.ended())
        return self.running.ended()[component]

    def job_pids(self) -> list[int]:
        """Processes that carry out a retraining job of this loop, parents before the children they forked."""
        wanted = f"{self.project.jobs}/"
        entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return sorted(int(entry.name) for entry in entries if wanted in _read(entry / "cmdline"))

    # --- what came of it ---

    def story(self, model: str) -> Story:
        self.listener.poll()
        return self.listener.stories[model]

    def outcome(self, model: str) -> Outcome:
        story, progress = self.story(model), self.watcher.progress()["models"][model]
        return Outcome(
            num_labels=progress["num_labels"],
            accuracy=self.watcher.accuracy(model, 0, FOR_EVER_MS),
            retrains={one.request.key: one.outcome.verdict if one.outcome else "" for one in story.retrains},
            deployments=[(number, one.champion.digest) for number, one in sorted(story.deployments.items())],
            decisions={name: one.action for name, one in story.decisions.items()},
        )

    def recount(self, model: str) -> dict[str, tuple[int, int]]:
        """(labels, correct) by slice from the raw rows and the answers that the client got."""
        stream, task = self.streams[model], self.tasks[model]
        rows = stream.rows
        table = count_accuracy(
            model, stream.scores_NK, rows.label, slice_index(task, rows), slice_names(task), months_of(rows.time_ms)
        )
        return {of_slice: counts for (_, month, of_slice), counts in table.items() if not month and counts[0]}

    def acknowledged(self, model: str) -> RowIds:
        """What the answered receipts say."""
        keys = self.project.secrets().receipt_key.split(",")
        book = ReceiptBook(tuple(keys), "0" * 16)
        receipts = [book.verify(token) for token in self.client.receipts[model]]
        return {(one.epoch, one.sequence) for one in receipts}

    def recorded(self, model: str, topic: str = PREDICTIONS) -> RowIds:
        """What is on the bus, each row once."""
        publisher = self.bus.publisher()
        reader = EventReader(self.bus.consumer(None, [topic]), publisher=publisher, metrics=MetricSet(), clock=SystemClock())
        found: RowIds = set()
        while batch := reader.poll(500, 0.0):
            for read in batch:
                if isinstance(read.event, PredictionBatch | LabelBatch) and read.event.model == model:
                    found |= {(read.event.epoch, int(number)) for number in read.event.sequence.array()}
        reader.consumer.close()
        publisher.close()
        return found

    def get(self, path: str) -> Any:
        """JSON of the monitor's interface."""
        answer = httpx.get(self.running.monitor_url + path, timeout=30.0, trust_env=False)
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.json()


MakeLoop = Callable[..., Loop]


def kill(pid: int) -> bool:
    """`kill -9`; whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _call(hooks: Sequence[Callable[[], None]]) -> None:
    for hook in list(hooks):
        hook()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


if __name__ == "__main__":  # to look at a loop by hand: python small_loop.py FOLDER
    target = Path(sys.argv[1])
    began = time.monotonic()
    base = train_project(target / "trained")
    print(f"trained in {time.monotonic() - began:.1f} s")
    loop = Loop(base, target / "loop", ("valve", "steady"))
    try:
        began = time.monotonic()
        loop.run()
        print(f"replayed in {time.monotonic() - began:.1f} s")
        for name in loop.streams:
            print(name, loop.outcome(name))
            print(json.dumps(loop.get(f"/api/v1/models/{name}"), indent=1)[:1500])
            for one in loop.story(name).retrains:
                print(one.request.as_of_ms // MS_PER_DAY - REPLAY_DAY, one.outcome and one.outcome.reasons)
    finally:
        loop.close()
