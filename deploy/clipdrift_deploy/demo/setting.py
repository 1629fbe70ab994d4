"""What the demo replays: a project copied to work in, its rows, the control, and the trainings of the other lives."""

import shutil
from pathlib import Path

import msgspec
import numpy as np

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import RunEnd
from clipdrift_deploy.demo.figures import Month, months_of
from clipdrift_deploy.demo.lives import MonthJob
from clipdrift_deploy.demo.narration import day_of
from clipdrift_deploy.demo.traffic import bootstrap_days
from clipdrift_deploy.moments import parse_moment
from clipdrift_deploy.project import FILE_NAME, Project
from clipdrift_deploy.tasks import load_task
from clipdrift_trainer.tasks.task import Rows, Task, load_as_of
from clipdrift_trainer.training import TrainingConfig, prepare

PACKAGED_PROJECT = Path(__file__).parent / "project"
CONTROL_SUFFIX = "-control"
FOR_EVER_MS = int(np.iinfo(np.int64).max)


class DemoConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo replays. The defaults are the whole year."""

    project: Path = PACKAGED_PROJECT
    """The project that is copied and run."""
    train_from: str = "2013-01-01"
    """First day of the first training."""
    replay_from: str = "2013-03-01"
    """The first training ends and the traffic begins here."""
    replay_until: str = "2014-01-01"
    """The traffic ends before this day."""
    control_days: int = 60
    """Held-out days of the training time that are laid one after another as the control."""
    control_seed: int = 0
    """Of the drawing of these days."""
    num_workers: int = 2
    """Processes that train the other lives, with the lowest priority."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known before the first process starts."""

    config: DemoConfig
    project: Project
    models: tuple[str, ...]
    task: Task
    rows: Rows
    control_rows: Rows
    months: tuple[Month, ...]
    life_jobs: tuple[MonthJob, ...]

    @property
    def num_classes(self) -> int:
        return len(self.task.classes)

    @property
    def training_words(self) -> str:
        return f"{day_of(parse_moment(self.config.train_from))} to {day_of(parse_moment(self.config.replay_from) - 1)}"

    @property
    def replay_words(self) -> str:
        return f"{day_of(int(self.rows.time_ms[0]))} to {day_of(int(self.rows.time_ms[-1]))}"

    def control_of(self, model: str) -> str:
        return model + CONTROL_SUFFIX

    def as_control(self, run: RunEnd) -> RunEnd:
        """The same run under the control's name: its file, its figures, another model."""
        return msgspec.structs.replace(run, model=self.control_of(run.model), run_id=run.run_id + CONTROL_SUFFIX)


def copy_project(source: Path, target: Path) -> Path:
    """A fresh copy of a project; what an earlier demo left at `target` is removed.

    Raises:
        ConfigError: `target` holds something that is no project, and is left alone.
    """
    if target.exists():
        if not (target / FILE_NAME).exists():
            raise ConfigError(f"{target} is no project of an earlier demo and is left alone; give another folder with --out")
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    return target


def set_up(project: Project, config: DemoConfig) -> Setting:
    """Read the rows, draw the control, list the trainings."""
    models = tuple(name for name in project.file.models if not name.endswith(CONTROL_SUFFIX))
    task = load_task(project, models[0])
    train_from, replay_from, replay_until = map(parse_moment, (config.train_from, config.replay_from, config.replay_until))
    rows = load_as_of(task, replay_from, replay_until, FOR_EVER_MS)
    first = prepare(task, TrainingConfig(), train_from, replay_from, replay_from)
    months = tuple(msgspec.structs.replace(month, end_ms=min(month.end_ms, replay_until)) for month in months_of(rows.time_ms))
    return Setting(
        config=config,
        project=project,
        models=models,
        task=task,
        rows=rows,
        control_rows=bootstrap_days(
            first.rows.select(first.held_out), config.control_days, replay_from, seed=config.control_seed
        ),
        months=months,
        life_jobs=tuple(_life_jobs(project, models, months, train_from)),
    )


def _life_jobs(project: Project, models: tuple[str, ...], months: tuple[Month, ...], train_from: int) -> list[MonthJob]:
    """One job a model and month, the longest first. In the first month the stale model itself is the arm "same"."""
    return [
        MonthJob(
            project=project.folder,
            model=model,
            month=month,
            data_start_ms=train_from,
            clip=project.model(model).clip,
            seed=project.model(model).seed,
        )
        for month in reversed(months)
        for model in models
    ]
