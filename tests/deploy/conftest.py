"""A small project on disk that the tests of the composition root share."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.envelope import decode
from clipdrift_contract.events import RETRAINING, TRAINING
from clipdrift_deploy.cli import app
from clipdrift_deploy.project import Environment, Project, open_project

TOML = """
[project]
name = "pumps"
registry_url = "none"

[models.pump]
task = "small_task:Small"
clip = {kind = "global_norm", max_norm = 0.5}
seed = 3
"""
TASK = '''
import numpy as np
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec, SliceSpec
from clipdrift_trainer.tasks.task import BaseTask, Rows

DAY = 86_400_000


class Small(BaseTask):
    """High pressure means failure; every label is known an hour later. Fifty rows a day, each day of its own seed."""

    classes = ("fine", "failed")
    features = (FeatureSpec(name="pressure", kind="numeric"), FeatureSpec(name="site", kind="categorical"))
    slices = SliceSpec(feature="site", categories=("north", "south"))
    num_steps = 100
    batch_size = 32

    def __init__(self, breaks_at=""):
        self.breaks_at = breaks_at

    def load(self, start_ms, end_ms, as_of_ms):
        if self.breaks_at == "load":
            raise KeyError("state")
        days = range(max(0, start_ms // DAY), min(60, -(-end_ms // DAY)))
        pieces = [self.day(day) for day in days]
        columns = [np.concatenate([piece[i] for piece in pieces]) for i in range(5)]
        pressure, site, label, time_ms, label_time_ms = columns
        known = (time_ms >= start_ms) & (time_ms < end_ms) & (label_time_ms <= as_of_ms)
        return Rows({"pressure": pressure, "site": site}, label, time_ms, label_time_ms).select(known)

    def day(self, day):
        generator = np.random.default_rng(day)
        pressure = generator.normal(size=50).astype(np.float32)
        label = (generator.random(50) < 1 / (1 + np.exp(-3 * pressure))).astype(np.float64)
        time_ms = day * DAY + np.arange(50, dtype=np.int64) * (DAY // 50)
        return pressure, generator.choice(np.array(["north", "south"], object), 50), label, time_ms, time_ms + DAY // 24

    def build(self, context):
        return Net()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, features):
        return self.layer(features["pressure"][:, None]) + 0.0 * features["site"][:, None]
'''


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


MakeProject = Callable[..., Project]


@pytest.fixture
def make_project(tmp_path: Path) -> Iterator[MakeProject]:
    """Writes a project below `tmp_path` and opens it; `toml` is added to the file, `task` replaces the task's text."""
    path_before = list(sys.path)

    def make(toml: str = "", *, task: str = TASK, environment: Environment | None = None) -> Project:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        (folder / "clipdrift.toml").write_text(TOML + toml)
        (folder / "small_task.py").write_text(task)
        return open_project(folder, environment or Environment())

    yield make
    sys.path[:] = path_before
    sys.modules.pop("small_task", None)


Command = Callable[..., Result]


@pytest.fixture
def clipdrift() -> Iterator[Command]:
    """The command, called with words and an environment. It sets logging up for a process of its own; here that does not
    outlive the test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    runner = CliRunner()

    def call(*arguments: object, environment: dict[str, str] | None = None) -> Result:
        return runner.invoke(app, [str(one) for one in arguments], env=environment or {})

    yield call
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def small_task() -> str:
    """The text of the project's task, to be changed."""
    return TASK


@pytest.fixture
def events_of() -> Callable[[Project], list[tuple[str, Any]]]:
    """Id and event of all that trainings and retrains of a project put on its bus."""

    def read(project: Project) -> list[tuple[str, Any]]:
        bus = connect(project.bus_url)
        consumer = bus.consumer(None, (TRAINING, RETRAINING))
        found = []
        while records := consumer.poll(500, 0.05):
            found += [decode(record.headers, record.value) for record in records]
        consumer.close()
        bus.close()
        return [(envelope.id, event) for envelope, event in found]

    return read
