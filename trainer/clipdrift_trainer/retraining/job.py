"""The retraining job: what CI runs, or a local process. It may be killed at any moment and started again under the same key."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import ArmResult, GradProbe, RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder, JobTakenError
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.version_files import file_at
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.export import Artifact, parse_artifact
from clipdrift_trainer.probing.champion import probe_champion
from clipdrift_trainer.probing.probe import with_seen
from clipdrift_trainer.quality.checking import QualityError
from clipdrift_trainer.quality.policy import QualityPolicy
from clipdrift_trainer.recording.sinks import WindowSink
from clipdrift_trainer.registering.card import CardGate, CardParent
from clipdrift_trainer.registering.describing import Describing, describe_version
from clipdrift_trainer.registry import NoRegistry, Registry
from clipdrift_trainer.retraining.arms import (
    FittedArm,
    Work,
    fit_arms,
    in_time_order,
    of_one_arm,
    order_of,
    run_id_of,
    training_for,
)
from clipdrift_trainer.retraining.checks.data import check_data
from clipdrift_trainer.retraining.contestants import case_of, held_out_of, judging_rows_of, served_scores
from clipdrift_trainer.retraining.gate import GatePolicy, GateVerdict
from clipdrift_trainer.retraining.judging import Choice, Judgement, against_champion, choose_arm, judgement_of, only_arm
from clipdrift_trainer.retraining.measuring import measure_checks
from clipdrift_trainer.retraining.selection import SAME
from clipdrift_trainer.tasks.task import Rows, Task
from clipdrift_trainer.training import Prepared, TrainingConfig, finish, inspect, prepare
from clipdrift_trainer.validation_file import read_validation
from clipdrift_trainer.workers import single_threaded

_log = logging.getLogger(__name__)
_FLUSH_SECONDS = 30.0


class RetrainingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a retraining job runs."""

    training: TrainingConfig = TrainingConfig()
    """How days are held out."""
    gate: GatePolicy = GatePolicy()
    """What a candidate must show."""
    max_workers: int = 2
    """Arms trained at the same time, each in a process with one thread."""
    quality: QualityPolicy = QualityPolicy()
    """What the rows must stand; they are checked while the arms train, on the first core that is free."""

    def __post_init__(self) -> None:
        if self.max_workers < 1:
            raise ValueError(f"max_workers must be >= 1, got {self.max_workers!r}")


@dataclass(frozen=True)
class _Job:
    """One order and all that is needed to carry it out."""

    request: RetrainRequest
    log_path: Path
    task: Task
    config: RetrainingConfig
    artifacts: Path
    registry: Registry
    publisher: EventPublisher
    clock: Clock
    metrics: MetricSet
    code_revision: str
    describing: Describing | None


def run_retrain(
    folder: JobFolder,
    task: Task,
    config: RetrainingConfig,
    *,
    artifacts: Path,
    registry: Registry,
    publisher: EventPublisher,
    clock: Clock,
    metrics: MetricSet,
    code_revision: str = "unknown",
    describing: Describing | None = None,
) -> RetrainOutcome | None:
    """Carry out the order in `folder`; None when another process is doing so.

    An order that is finished is only published again. Whatever goes wrong with the task, the data or the model in service makes
    an outcome "inconclusive" that says so: an order always ends. What was found is on disk before it is published, the winner's
    `RunEnd` goes out before the outcome, and both have ids made from the key, so readers count them once. `describing` says how
    the candidate is described and signed; None: it is not.

    Raises:
        ClipdriftError: The folder holds no readable order.
        RetryableError: The bus is away; start the job again, it will only publish.
    """
    try:
        with folder.claim():
            if folder.read_outcome() is None:
                request = _read_order(folder)
                job = _Job(
                    request, folder.log_path, task, config, artifacts, registry, publisher, clock, metrics, code_revision,
                    describing,
                )  # fmt: skip
                outcome, run_end = _carry_out(job)
                if run_end is not None:
                    folder.write_run_end(run_end)
                folder.write_outcome(outcome)
            return _publish(folder, publisher)
    except JobTakenError:
        _log.info("job %s is being carried out by another process", folder.path.name)
        return None


def _read_order(folder: JobFolder) -> RetrainRequest:
    try:
        return folder.read_request()
    except (OSError, msgspec.DecodeError) as error:
        raise ClipdriftError(
            f"{folder.request_path} is no readable order ({error}); whoever ordered it must write it"
        ) from error


def _publish(folder: JobFolder, publisher: EventPublisher) -> RetrainOutcome:
    outcome = folder.read_outcome()
    assert outcome is not None
    run_end = folder.read_run_end()
    if run_end is not None and run_end.version == outcome.candidate_version:
        publisher.publish(run_end, event_id=f"run-end-{outcome.key}")
        # not in one go: the two go to different topics, and whoever sees the outcome must already know the version
        publisher.flush(_FLUSH_SECONDS)
    publisher.publish(outcome, event_id=f"retrain-outcome-{outcome.key}")
    publisher.flush(_FLUSH_SECONDS)
    return outcome


def _carry_out(job: _Job) -> tuple[RetrainOutcome, RunEnd | None]:
    request, spent = job.request, _Spent()
    try:
        with single_threaded():
            judgement, run_end, probe = _retrain(job)
    except QualityError as error:
        return _outcome(job, spent, _unfit(error, job.config.gate), None, None), None
    except Exception as error:  # noqa: BLE001  an order must end with a reason, whatever the user's task raises
        _log.exception("retrain %s of %s did not come to a verdict", request.key, request.model)
        kind = "" if isinstance(error, ClipdriftError) else f"{type(error).__name__}: "
        reason = f"{kind}{error}; the whole story is in {job.log_path}"
        lost = Judgement(results=(), winner="", verdict=GateVerdict(verdict="inconclusive", reasons=(reason,)))
        return _outcome(job, spent, lost, None, None), None
    verdict = judgement.verdict
    _log.info("%s: arm %s, %s: %s", request.model, judgement.winner, verdict.verdict, "; ".join(verdict.reasons))
    return _outcome(job, spent, judgement, run_end, probe), run_end


def _unfit(error: QualityError, policy: GatePolicy) -> Judgement:
    """Rows that are not fit to train on are the fault of no provider: the gate's check of the data fails."""
    _log.error("%s", error)
    checks = check_data(error.checks, msgspec.structs.replace(policy.data, role="decisive"))
    return Judgement(results=(), winner="", verdict=GateVerdict(verdict="fail", reasons=(str(error),)), checks=checks)


def _retrain(job: _Job) -> tuple[Judgement, RunEnd, GradProbe | None]:
    request, task, policy = job.request, job.task, job.config.gate
    training = training_for(request.arms, job.config.training)
    started_at_ms = job.clock.now_ms()
    champion, content = _read_champion(request, task)
    prepared = prepare(task, training, request.data_start_ms, request.as_of_ms, request.as_of_ms)
    _log.info("%s: %d rows, %d held out", request.model, len(prepared.rows), len(prepared.held_out))
    work = Work(task=task, training=training, prepared=prepared, request=request)
    inspected: list[Prepared] = []
    foretold: list[GradProbe | None] = []

    def meanwhile() -> None:
        job.registry.prepare()
        inspected.append(inspect(task, prepared, job.config.quality, profile=champion.profile, clip=request.champion_clip))
        foretold.append(_foretell(job, champion, content, prepared.rows))

    held_out = held_out_of(work, champion, content)
    older = in_time_order(work) if len(request.arms) > 1 or policy.time_order.always else None
    if older is not None and len(request.arms) > 1:
        shadows = fit_arms(older, job.config.max_workers, meanwhile)
        choice = choose_arm(shadows, judging_rows_of(older, champion), policy)
        (best,) = fit_arms(of_one_arm(work, choice.winner), max_workers=1, meanwhile=_nothing)
        fitted = shadows
    else:
        fitted = fit_arms(of_one_arm(work, request.arms[0].name), max_workers=1, meanwhile=meanwhile)
        (best,) = fitted
        choice = only_arm(best, held_out)
        shadows = fit_arms(of_one_arm(older, choice.winner), max_workers=1, meanwhile=_nothing) if older is not None else []
    if not np.isfinite(best.scores).all():
        raise ClipdriftError("the candidate diverged: lower the task's learning rate")
    _send_windows(job, best)
    done = finish(
        task, training, order_of(request, best.arm, best.seed, job.code_revision), inspected[0], best.fit,
        run_id=run_id_of(request, best.arm, best.seed), started_at_ms=started_at_ms,
        artifacts=job.artifacts, registry=NoRegistry(), publisher=None, clock=job.clock,
        in_service=read_validation(champion.path.parent),
    )  # fmt: skip
    served = msgspec.structs.replace(best, scores=served_scores(work, done))
    measured = measure_checks(case_of(work, served, done, held_out, champion, content, inspected[0].checks), policy)
    of_shadow = against_champion(_shadow(choice, shadows), held_out_of(older, champion, content)) if older is not None else ()
    judgement = judgement_of(choice, served, held_out, policy, of_shadow=of_shadow, measured=measured)
    described = _described(job, done.run_end, judgement)
    registered = msgspec.structs.replace(described, registry_uri=job.registry.register(described))
    return judgement, registered, _with_seen(foretold[0], fitted)


def _described(job: _Job, run: RunEnd, judgement: Judgement) -> RunEnd:
    if job.describing is None:
        return run
    verdict = judgement.verdict
    gate = CardGate(verdict=verdict.verdict, reasons=verdict.reasons, checks=judgement.checks)
    parent = CardParent(version=job.request.champion_version, digest=job.request.champion_digest)
    return describe_version(run, job.describing, gate=gate, parent=parent)


def _shadow(choice: Choice, shadows: Sequence[FittedArm]) -> Floats:
    """What the winner answers that was trained on older days alone, with the seed that will be exported."""
    return next(one.scores for one in shadows if one.arm.name == choice.winner)


def _foretell(job: _Job, champion: Artifact, content: bytes, rows: Rows) -> GradProbe | None:
    """The gradient probe of the model in service. It is for the record alone, so one that fails never fails the retrain."""
    request = job.request
    try:
        return probe_champion(
            job.task, champion, content, rows, request.champion_clip, at_ms=job.clock.now_ms(), seed=request.seeds[0]
        )
    except Exception as error:  # noqa: BLE001  whatever the user's task raises
        _log.warning("%s: no gradient probe: %s", request.model, error, exc_info=not isinstance(error, ClipdriftError))
        return None


def _with_seen(probe: GradProbe | None, fitted: Sequence[FittedArm]) -> GradProbe | None:
    """Beside what was foretold, what the first steps of the retrain with the same rule showed."""
    same = next((one for one in fitted if one.arm.name == SAME), None)
    return probe if probe is None or same is None else with_seen(probe, same.windows)


def _read_champion(request: RetrainRequest, task: Task) -> tuple[Artifact, bytes]:
    path = file_at(request.champion_uri)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClipdriftError(
            f"the model in service cannot be read at {path} ({error}); restore it, or deploy another"
        ) from error
    champion = parse_artifact(path, content)
    if champion.digest != request.champion_digest:
        raise ClipdriftError(
            f"{path} is not the file that was deployed: its digest is {champion.digest}, not {request.champion_digest}; "
            "restore it, or deploy another"
        )
    classes = () if task.kind == "regression" else task.classes
    if (champion.profile.task, champion.profile.classes) != (task.kind, classes):
        raise ClipdriftError(
            f"the task is now {task.kind} with classes {classes}, the model in service is {champion.profile.task} with "
            f"{champion.profile.classes}: they cannot be compared; train a new model under a new name"
        )
    lacking = {one.spec.name for one in champion.profile.features} - {spec.name for spec in task.features}
    if lacking:
        raise ClipdriftError(
            f"the model in service needs features that the task no longer gives: {sorted(lacking)}; give them again, or "
            "train a new model under a new name"
        )
    return champion, content


def _nothing() -> None:
    """What is done while the last arm trains."""


def _send_windows(job: _Job, best: FittedArm) -> None:
    """Only the winner's telemetry is published: the others are no runs that anybody will meet again."""
    with WindowSink(job.publisher, job.metrics, job.task.num_steps) as sink:
        for window in best.windows:
            sink(window)


class _Spent:
    """Time since it was made, of this process and of the children that have ended."""

    def __init__(self) -> None:
        self._started, self._cpu = time.monotonic(), _cpu_seconds()

    def wall_seconds(self) -> float:
        return time.monotonic() - self._started

    def cpu_seconds(self) -> float:
        return _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _outcome(job: _Job, spent: _Spent, judgement: Judgement, run_end: RunEnd | None, probe: GradProbe | None) -> RetrainOutcome:
    request = job.request
    named = tuple(
        _with_artifact(result, run_end) if run_end is not None and result.arm.name == judgement.winner else result
        for result in judgement.results
    )
    return RetrainOutcome(
        key=request.key,
        model=request.model,
        finished_at_ms=job.clock.now_ms(),
        verdict=judgement.verdict.verdict,
        reasons=judgement.verdict.reasons,
        arms=named,
        winner=judgement.winner,
        candidate_version=run_end.version if run_end else "",
        candidate_uri=run_end.artifact_uri if run_end else "",
        candidate_digest=run_end.artifact_digest if run_end else "",
        candidate_run_id=run_end.run_id if run_end else "",
        wall_seconds=spent.wall_seconds(),
        cpu_seconds=spent.cpu_seconds(),
        probe=probe,
        checks=judgement.checks,
        card_digest=run_end.card_digest if run_end else "",
        is_signed=run_end is not None and run_end.is_signed,
    )


def _with_artifact(result: ArmResult, run_end: RunEnd) -> ArmResult:
    return msgspec.structs.replace(
        result, run_id=run_end.run_id, version=run_end.version,
        artifact_uri=run_end.artifact_uri, artifact_digest=run_end.artifact_digest,
    )  # fmt: skip
