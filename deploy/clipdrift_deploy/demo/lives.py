"""The lives beside the loop: retrained every month, by rote or by an oracle that knows the best arm in hindsight.

The trainings run in processes of their own with the lowest priority, so that the replay has the machine when it needs it.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.pool import AsyncResult
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from clipdrift_contract.events import Arm, ClipSpec
from clipdrift_deploy.demo.figures import Month, figures_of
from clipdrift_deploy.project import Environment, open_project
from clipdrift_deploy.tasks import load_task
from clipdrift_trainer.retraining.candidates import threshold_candidates
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.task import encode, load_as_of
from clipdrift_trainer.training import Order, TrainingConfig, fit_order, prepare

SAME = "same"
Scores = npt.NDArray[np.float64]


class MonthJob(msgspec.Struct, frozen=True, kw_only=True):
    """Train every arm of one model on all that was known at the start of a month; predict that month."""

    project: Path
    model: str
    month: Month
    data_start_ms: int
    clip: ClipSpec
    seed: int


class MonthScores(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions for one month by arm, and what they cost."""

    model: str
    month: str
    scores: dict[str, Scores]
    cpu_seconds: dict[str, float]


class Lives:
    """A pool of low-priority workers. A context manager: leaving it ends what still runs."""

    def __init__(self, num_workers: int) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(num_workers, initializer=_step_back)
        self._ordered: list[AsyncResult[MonthScores]] = []

    def __enter__(self) -> "Lives":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()

    def order(self, jobs: Sequence[MonthJob]) -> None:
        """Queue `jobs`; the first given are the first done."""
        self._ordered += [self._pool.apply_async(train_month, (job,)) for job in jobs]

    @property
    def num_done(self) -> int:
        return sum(one.ready() for one in self._ordered)

    @property
    def num_ordered(self) -> int:
        return len(self._ordered)

    def results(self, patience_seconds: float = 300.0) -> dict[tuple[str, str], MonthScores]:
        """All results by model and month; waits for them, and raises what a training raised.

        Raises:
            multiprocessing.TimeoutError: A training took longer than `patience_seconds`, or its process was killed.
        """
        found = [one.get(patience_seconds) for one in self._ordered]
        return {(one.model, one.month): one for one in found}


def train_month(job: MonthJob) -> MonthScores:
    """Carry out one job; runs in a worker process."""
    task = load_task(open_project(job.project, Environment()), job.model)
    as_of_ms = job.month.start_ms
    prepared = prepare(task, TrainingConfig(), job.data_start_ms, as_of_ms, as_of_ms)
    rows = load_as_of(task, job.month.start_ms, job.month.end_ms, np.iinfo(np.int64).max)
    tensors = encode(task, rows, prepared.vocabularies)
    scores: dict[str, Scores] = {}
    seconds: dict[str, float] = {}

    def train(arm: Arm) -> tuple[Arm, ...]:
        started = time.process_time()
        order = Order(
            model=job.model, start_ms=job.data_start_ms, end_ms=as_of_ms, as_of_ms=as_of_ms, clip=arm.clip, seed=job.seed
        )
        fitted = fit_order(task, prepared, order, run_id=f"{job.model}-{job.month.name}-{arm.name}")
        scores[arm.name] = to_scores(predict_logits(fitted.module, tensors), task.kind)
        seconds[arm.name] = time.process_time() - started
        return threshold_candidates(job.clip, fitted.norm_quantiles, fitted.optimizer)

    for arm in train(Arm(name=SAME, clip=job.clip)):
        if arm.name != SAME:
            train(arm)
    return MonthScores(model=job.model, month=job.month.name, scores=scores, cpu_seconds=seconds)


def best_arm(scores: Mapping[str, Scores], label_N: npt.NDArray[np.float64]) -> str:
    """The arm with the lowest log loss on these rows, in hindsight."""
    return min(scores, key=lambda name: figures_of(scores[name], label_N).nll)


def _step_back() -> None:
    """One thread, and only what nobody else wants of the machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo itself, which then ends its workers
    torch.set_num_threads(1)
    os.nice(19)
    with suppress(OSError):  # where the kernel groups processes by session, niceness counts within a group only
        Path("/proc/self/autogroup").write_text("19")
