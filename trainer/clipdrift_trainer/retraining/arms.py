"""Fits every arm with every seed on the same rows, in processes of one thread each."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import msgspec
import numpy as np

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Arm, GradWindow, RetrainRequest
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.tasks.fitting import Fit, predict_logits, to_scores
from clipdrift_trainer.tasks.split import split_newest
from clipdrift_trainer.tasks.task import Task, encode, vocabularies_of
from clipdrift_trainer.training import (
    Order,
    Prepared,
    TooFewRowsError,
    TrainingConfig,
    fit_order,
    fit_temperature_on,
    split_held_out,
)
from clipdrift_trainer.workers import forked_workers, single_threaded, unpack

_log = logging.getLogger(__name__)
_NUM_PROGRESS_LINES = 4


class FittedArm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm with one seed, fitted."""

    arm: Arm
    seed: int
    fit: Fit
    windows: list[GradWindow]
    scores: Floats  # calibrated as the export will be, of the held-out rows that may judge


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What all arms share."""

    task: Task
    training: TrainingConfig  # see `training_for`
    prepared: Prepared
    request: RetrainRequest


def run_id_of(request: RetrainRequest, arm: Arm, seed: int) -> str:
    """The same each time that the order is carried out."""
    return f"{request.key}-{arm.name}-{seed}"


def order_of(request: RetrainRequest, arm: Arm, seed: int, code_revision: str = "unknown") -> Order:
    return Order(
        model=request.model, start_ms=request.data_start_ms, end_ms=request.as_of_ms, as_of_ms=request.as_of_ms,
        clip=arm.clip, seed=seed, arm=arm.name, retrain_key=request.key, code_revision=code_revision,
    )  # fmt: skip


def training_for(arms: Sequence[Arm], training: TrainingConfig) -> TrainingConfig:
    """The settings that all arms share: where one needs a temperature all get one, so that all are judged on the same rows."""
    for arm in arms:
        training = training.for_clip(arm.clip)
    return training


def in_time_order(work: Work) -> Work:
    """The same work on the older of its training days, to be judged on the newest quarter of them: what comes after is what
    counts. The days held out have no part in it: the gate judges on them, and must see no arm picked for its luck there.

    Raises:
        TooFewRowsError: There is only one training day.
    """
    rows = work.prepared.rows
    older, newest = split_newest(rows.time_ms, work.prepared.train)
    if not len(older):
        raise TooFewRowsError(
            f"{len(rows)} rows on {len(np.unique(rows.time_ms // MS_PER_DAY))} days are too few: choosing between arms takes "
            "two days to train on beside those held out"
        )
    vocabularies = vocabularies_of(work.task, rows.select(older))
    prepared = msgspec.structs.replace(work.prepared, train=older, held_out=newest, vocabularies=vocabularies)
    return msgspec.structs.replace(work, prepared=prepared)


def of_one_arm(work: Work, name: str) -> Work:
    """The same work with one arm and the first seed: what will be exported."""
    request = work.request
    arm = next(one for one in request.arms if one.name == name)
    return msgspec.structs.replace(work, request=msgspec.structs.replace(request, arms=(arm,), seeds=request.seeds[:1]))


def fit_arms(work: Work, max_workers: int, meanwhile: Callable[[], None]) -> list[FittedArm]:
    """Every arm with every seed, in the order seed by seed, the same whatever `max_workers` is.

    Args:
        work: What to fit on; its module must be made of classes that can be imported when `max_workers` is above 1.
        max_workers: Processes at the same time; below 2 all is done here.
        meanwhile: Called here once, as soon as a core is free.
    """
    jobs = [(arm, seed) for seed in work.request.seeds for arm in work.request.arms]
    num_workers = min(max_workers, len(jobs))
    if num_workers < 2:
        meanwhile()
        return [_fit_arm(work, arm, seed) for arm, seed in jobs]
    with forked_workers(work, num_workers) as workers:
        futures = [workers.submit(_fit_arm, arm, seed) for arm, seed in jobs]
        _wait_for_free_core(futures, num_workers)
        meanwhile()
        return [unpack(future) for future in futures]


def _wait_for_free_core(futures: Sequence[Future[bytes]], num_workers: int) -> None:
    left = set(futures)
    while len(left) >= num_workers:
        _, left = wait(left, return_when=FIRST_COMPLETED)


def _fit_arm(work: Work, arm: Arm, seed: int) -> FittedArm:
    task, prepared = work.task, work.prepared
    with single_threaded():
        windows: list[GradWindow] = []
        run_id = run_id_of(work.request, arm, seed)
        fitted = fit_order(
            task, prepared, order_of(work.request, arm, seed), run_id,
            on_window=windows.append, on_progress=_progress_lines(work.request.model, arm.name, seed),
        )  # fmt: skip
        held_out = prepared.rows.select(prepared.held_out)
        logits = predict_logits(fitted.module, encode(task, held_out, prepared.vocabularies))
        fitting, judging = split_held_out(task, work.training, held_out)
        temperature = fit_temperature_on(logits, held_out, fitting)
    return FittedArm(arm=arm, seed=seed, fit=fitted, windows=windows, scores=to_scores(logits, task.kind, temperature)[judging])


def _progress_lines(model: str, arm: str, seed: int) -> Callable[[int, int], None]:
    said = 0

    def say(done: int, total: int) -> None:
        nonlocal said
        quarter = _NUM_PROGRESS_LINES * done // max(1, total)
        if quarter > said:
            said = quarter
            _log.info("%s: arm %s, seed %d: %d of %d steps", model, arm, seed, done, total)

    return say
