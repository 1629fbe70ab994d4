"""Carries an ablation out: first runs that show how large gradients are, the grid, the checks of stability, the result."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ClipKind, ClipSpec
from clipdrift_contract.files import write_whole
from clipdrift_trainer.ablation.grid import OFF, PRESENT, NormScale, first_arms, later_arms
from clipdrift_trainer.ablation.recommendation import (
    AblationPolicy,
    absolute_margin,
    is_raised,
    recommend,
    shortlist,
)
from clipdrift_trainer.ablation.result import AblationResult, ArmFigures, check_later, figures_of
from clipdrift_trainer.ablation.runners import Run, Runner
from clipdrift_trainer.ablation.stability import Stability, judge_stability
from clipdrift_trainer.ablation.store import Store, identity_of, opened
from clipdrift_trainer.ablation.trial import Failure, Job, Study, Trial

RESULT_FILE = "result.json"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the study."""

    model: str
    present: ClipSpec
    start_ms: int
    end_ms: int
    as_of_ms: int
    later_from_ms: int | None = None
    thresholds: tuple[float, ...] = ()
    rules: tuple[tuple[ClipKind, float | None], ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    policy: AblationPolicy = AblationPolicy()

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different and at least one, got {self.seeds!r}")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is, told as each trial is done."""

    job: Job
    found: Trial | Failure
    num_done: int
    num_total: int
    """As far as is known: checks of stability come on top at the end."""
    was_kept: bool
    """Found on disk, made by an earlier start."""
    seconds: float
    unwritten: str = ""
    """Why the trial, or the traceback of one that raised, could not be kept on disk; empty when it was."""


OnStep = Callable[[Step], None]


def ablate(question: Question, study: Study, origin: str, folder: Path, runner: Runner, on_step: OnStep) -> AblationResult:
    """Answer `question`, and keep each trial in `folder` as it is done, so that a start after a kill makes only the rest.

    Args:
        question: Arms, seeds, what a recommendation must show.
        study: Task and rows.
        origin: Digest of the task's code and options.
        folder: See `store`; `result.json` is written there at the end.
        runner: Where trials are made.
        on_step: Told of each trial.

    Raises:
        ConfigError: The folder belongs to another task or other data.
        ClipdriftError: Every first run raised, the folder cannot be used, or the workers died; what is done is kept.
    """
    identity = identity_of(study, origin)
    with opened(folder, identity) as store, runner(study) as run:
        trials = _Trials(store, run, on_step)
        arms, scale = _make_all(question, trials)
        metric = question.policy.gate.metric if study.task.kind != "regression" else "brier"
        figures = figures_of(arms, trials.by_arm, scale, metric, question.policy.gate.slice_min_rows)
        stability = _check_stability(question, figures, trials, metric)
        advice = recommend(figures, question.policy, stability)
        result = AblationResult(
            model=question.model,
            kind=study.task.kind,
            metric=metric,
            margin=absolute_margin(figures, question.policy),
            start_ms=question.start_ms,
            end_ms=question.end_ms,
            as_of_ms=question.as_of_ms,
            later_from_ms=question.later_from_ms,
            identity=identity.digest,
            num_train_rows=len(study.prepared.train),
            num_steps=study.task.num_steps,
            seeds=question.seeds,
            norms=scale,
            arms=figures,
            recommendation=advice,
            later_check=check_later(figures, trials.by_arm, advice.arm, metric),
        )
        _write(folder / RESULT_FILE, result)
    return result


class _Trials:
    """Makes what is not there yet, and remembers all."""

    def __init__(self, store: Store, run: Run, on_step: OnStep) -> None:
        self.by_arm: dict[str, dict[int, Trial | Failure]] = {}
        self._store = store
        self._run = run
        self._on_step = on_step
        self.num_done = 0
        self.num_total = 0

    def make(self, jobs: Sequence[Job]) -> None:
        """All of `jobs`, those first that lie on disk. Trials at another learning rate are not kept by arm."""
        missing = []
        for job in jobs:
            kept = self._store.read(job)
            if kept is None:
                missing.append(job)
            else:
                self._take(job, kept, was_kept=True)
        for job, outcome in self._run(missing):
            unwritten = self._keep(job, outcome.found)
            self._take(job, outcome.found, seconds=outcome.seconds, unwritten=unwritten)

    def _keep(self, job: Job, found: Trial | Failure) -> str:
        """Why it could not be kept: a full disk must not end what has taken hours. Of what raised only the traceback is kept,
        since it is tried again next time."""
        try:
            if isinstance(found, Failure):
                self._store.note(job, found)
            else:
                self._store.write(job, found)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _take(
        self, job: Job, found: Trial | Failure, was_kept: bool = False, seconds: float = 0.0, unwritten: str = ""
    ) -> None:
        self.by_arm.setdefault(_row_of(job), {})[job.seed] = found
        self.num_done += 1
        self._on_step(
            Step(
                job=job, found=found, num_done=self.num_done, num_total=max(self.num_total, self.num_done),
                was_kept=was_kept, seconds=seconds, unwritten=unwritten,
            )
        )  # fmt: skip


def _row_of(job: Job) -> str:
    return job.arm if job.learning_rate_factor == 1.0 else f"{job.arm} at {job.learning_rate_factor:g} times the learning rate"


def _make_all(question: Question, trials: _Trials) -> tuple[tuple[Arm, ...], NormScale | None]:
    """All arms with all seeds; the first seed of the first arms comes before thresholds can be named."""
    first = first_arms(question.present)
    trials.num_total = len(first) * len(question.seeds)
    trials.make([Job(arm=arm.name, clip=arm.clip, seed=question.seeds[0]) for arm in first])
    scale = _scale(trials, question.seeds[0])
    arms = (*first, *later_arms(question.present, scale, question.thresholds, question.rules))
    trials.num_total = len(arms) * len(question.seeds)
    done = {(arm.name, question.seeds[0]) for arm in first}
    trials.make(
        [
            Job(arm=arm.name, clip=arm.clip, seed=seed)
            for seed in question.seeds  # seed by seed, so that every arm has been compared after the first share of the time
            for arm in arms
            if (arm.name, seed) not in done
        ]
    )
    return arms, scale


def _scale(trials: _Trials, seed: int) -> NormScale:
    """From the run without clipping; from the present policy's where that one diverged or raised.

    Raises:
        ClipdriftError: None of them came to an end, so there is nothing to go by.
    """
    found = {name: own[seed] for name, own in trials.by_arm.items()}
    finished = {name: one for name, one in found.items() if isinstance(one, Trial) and one.norm_quantiles is not None}
    if not finished:
        reasons = "; ".join(f"{name}: {one.reason}" for name, one in found.items() if isinstance(one, Failure))
        raise ClipdriftError(f"no first run came to an end, so there is nothing to compare ({reasons or 'no finite norm'})")
    sound = {name: one for name, one in finished.items() if not one.has_diverged and not one.num_nonfinite}
    preferred = sound or finished
    name = OFF if OFF in preferred else next(iter(preferred))
    trial = preferred[name]
    assert trial.norm_quantiles is not None
    own = finished.get(PRESENT)
    return NormScale(
        median=trial.norm_quantiles.p50,
        origin=name,
        own=own.norm_quantiles if own is not None else None,
        num_tensors=trial.num_tensors,
        num_parameters=trial.num_parameters,
    )


def _check_stability(question: Question, figures: Sequence[ArmFigures], trials: _Trials, metric: str) -> dict[str, Stability]:
    """Of each shortlisted arm that raises the bound, in order, until one stands it."""
    policy, by_name = question.policy, {one.arm.name: one for one in figures}
    present, found = figures[0], dict[str, Stability]()
    for name in shortlist(figures, policy):
        one = by_name[name]
        if not is_raised(one, present):
            break
        jobs = [
            Job(arm=name, clip=one.arm.clip, seed=seed, learning_rate_factor=policy.stability.learning_rate_factor)
            for seed in question.seeds[: policy.stability.num_seeds]
        ]
        trials.num_total = trials.num_done + len(jobs)
        trials.make(jobs)
        own = [trial for trial in trials.by_arm[name].values() if isinstance(trial, Trial)]
        hot = [trial for trial in trials.by_arm[_row_of(jobs[0])].values() if isinstance(trial, Trial)]
        reference = present.validation.loss if present.status == "done" and present.validation is not None else None
        found[name] = judge_stability(own, hot, reference, metric, absolute_margin(figures, policy), policy.stability)
        if found[name].is_stable:
            break
    return found


def _write(path: Path, result: AblationResult) -> None:
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(result), indent=1))
    except OSError as error:
        raise ClipdriftError(f"{path} cannot be written ({error.strerror}); make room and start again") from error
