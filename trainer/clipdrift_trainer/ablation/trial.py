"""One trial: one clipping policy with one seed, fitted and judged. All trials of a seed start from the same weights and see the
same batches in the same order, since `tasks.fitting.fit` draws both from the seed alone."""

import inspect
import time
import traceback
from collections.abc import Mapping
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_contract.events import ClipSpec, GradWindow, NormQuantiles
from clipdrift_trainer.ablation.sums import DaySums, sum_by_day
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.tasks.fitting import fit, predict_logits, to_scores
from clipdrift_trainer.tasks.task import Rows, Task, encode
from clipdrift_trainer.training import Prepared, TrainingConfig, fit_temperature_on, split_held_out
from clipdrift_trainer.workers import single_threaded

_MANY_PIECES = 40  # of the run whose mean norms are kept


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """What all trials share."""

    task: Task
    training: TrainingConfig
    prepared: Prepared
    later: Rows | None = None
    """Rows of later months: they judge, and nothing is ever chosen by them."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that is to be made."""

    arm: str
    clip: ClipSpec
    seed: int
    learning_rate_factor: float = 1.0
    """The learning rate of the task's optimizer is multiplied by this: above 1 in checks of stability."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that is done. Nothing in it is chance: the same job gives the same bytes."""

    clip: ClipSpec
    seed: int
    learning_rate_factor: float
    optimizer: str
    learning_rate: float
    num_parameters: int
    num_tensors: int
    num_steps: int
    num_nonfinite: int
    removed_mass_ratio: float
    clip_rate_ratio: float
    norm_quantiles: NormQuantiles | None
    norm_means: tuple[float, ...]
    """Mean norm before clipping, window by window; a window without a finite norm is left out."""
    validation: DaySums | None
    """None: the model's answers were not finite, so it has diverged."""
    later: DaySums | None = None

    @property
    def has_diverged(self) -> bool:
        return self.validation is None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A trial that raised."""

    reason: str
    trace: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job, and how long it took."""

    found: Trial | Failure
    seconds: float


def attempt(study: Study, job: Job) -> Outcome:
    """Carry out `job`; whatever the user's task or a rule raises is a `Failure`, since the other jobs must go on."""
    began = time.monotonic()
    try:
        found: Trial | Failure = run_trial(study, job)
    except Exception as error:  # noqa: BLE001  the user's code may raise anything
        found = Failure(reason=_reason(study.task, error), trace="".join(traceback.format_exception(error)))
    return Outcome(found=found, seconds=time.monotonic() - began)


def _reason(task: Task, error: Exception) -> str:
    """One line: what was raised, and where in the file of the task."""
    what = f"{type(error).__name__}: {error}"
    try:
        own = inspect.getfile(type(task))
    except (TypeError, OSError):  # a class without a file
        return what
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    return f"{what} (in {frames[-1].name}, line {frames[-1].lineno} of the task)" if frames else what


def run_trial(study: Study, job: Job) -> Trial:
    """Fit and judge, on one thread."""
    prepared, means = study.prepared, _Means()
    task = study.task if job.learning_rate_factor == 1.0 else cast(Task, _Hotter(study.task, job.learning_rate_factor))
    with single_threaded():
        fitted = fit(
            task, prepared.rows.select(prepared.train), prepared.vocabularies, job.clip, job.seed,
            run_id="ablation", on_window=means.add,
        )  # fmt: skip
        validation, later = _judge(study, job.clip, fitted.module)
    return Trial(
        clip=job.clip,
        seed=job.seed,
        learning_rate_factor=job.learning_rate_factor,
        optimizer=fitted.optimizer,
        learning_rate=fitted.learning_rate,
        num_parameters=fitted.num_parameters,
        num_tensors=sum(1 for _ in fitted.module.parameters()),
        num_steps=fitted.total.num_steps,
        num_nonfinite=fitted.total.num_nonfinite,
        removed_mass_ratio=fitted.removed_mass_ratio,
        clip_rate_ratio=fitted.clip_rate_ratio,
        norm_quantiles=fitted.norm_quantiles,
        norm_means=means.found,
        validation=validation,
        later=later,
    )


class _Means:
    """Collects the mean norm of each window."""

    def __init__(self) -> None:
        self._windows: list[float] = []

    def add(self, window: GradWindow) -> None:
        num_finite = window.num_steps - window.num_nonfinite
        if num_finite and np.isfinite(window.norm_sum):
            self._windows.append(window.norm_sum / num_finite)

    @property
    def found(self) -> tuple[float, ...]:
        if not self._windows:
            return ()
        pieces = np.array_split(np.array(self._windows), min(_MANY_PIECES, len(self._windows)))
        return tuple(float(piece.mean()) for piece in pieces)


class _Hotter:
    """A task with a higher learning rate; everything else is the task's own."""

    def __init__(self, task: Task, factor: float) -> None:
        self._task = task
        self._factor = factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        made = self._task.optimizer(module)
        for group in made.param_groups:
            group["lr"] *= self._factor
        return made


def _judge(study: Study, clip: ClipSpec, module: nn.Module) -> tuple[DaySums | None, DaySums | None]:
    """Sums over the held-out rows that may judge, and over the later rows; calibrated as the export would be."""
    task, vocabularies = study.task, study.prepared.vocabularies
    held_out = study.prepared.rows.select(study.prepared.held_out)
    logits = _logits(task, module, held_out, vocabularies)
    if not np.isfinite(logits).all():
        return None, None
    fitting, judging = split_held_out(task, study.training.for_clip(clip), held_out)
    temperature = fit_temperature_on(logits, held_out, fitting)
    span = label_span(task, study.prepared)
    validation = _sums(task, to_scores(logits, task.kind, temperature)[judging], held_out.select(judging), span)
    if study.later is None:
        return validation, None
    later_logits = _logits(task, module, study.later, vocabularies)
    if not np.isfinite(later_logits).all():
        return validation, None
    return validation, _sums(task, to_scores(later_logits, task.kind, temperature), study.later, span)


def _logits(task: Task, module: nn.Module, rows: Rows, vocabularies: Mapping[str, tuple[str, ...]]) -> npt.NDArray[np.float32]:
    return predict_logits(module, encode(task, rows, vocabularies))


def _sums(task: Task, scores_NK: Floats, rows: Rows, span: float) -> DaySums:
    return sum_by_day(scores_NK, rows.label, rows.time_ms, slice_index(task, rows), slice_names(task), task.kind, span)


def label_span(task: Task, prepared: Prepared) -> float:
    """The unit of regression errors: the 1 to 99 % span of the training labels; 1 for classes."""
    if task.kind != "regression":
        return 1.0
    low, high = (float(q) for q in np.quantile(prepared.rows.label[prepared.train], (0.01, 0.99)))
    return high - low if high > low else 1.0
