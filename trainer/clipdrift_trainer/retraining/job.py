"""The retraining job: what CI runs, or a local process. It may be killed at any moment and started again under the same key."""

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ArmResult, GradWindow, RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.jobs import JobFolder, JobTakenError
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.evaluation.scores import Floats, score_slices
from clipdrift_trainer.export import digest_of, read_artifact, score_rows
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.recording.sinks import WindowSink
from clipdrift_trainer.registry import Registry
from clipdrift_trainer.retraining.contrast import contrasts, pick
from clipdrift_trainer.retraining.gate import GatePolicy, GateVerdict, judge
from clipdrift_trainer.retraining.selection import SAME, select
from clipdrift_trainer.tasks.fitting import Fit, predict_logits, to_scores
from clipdrift_trainer.tasks.task import Rows, Task, encode
from clipdrift_trainer.training import Finished, Order, Prepared, TrainingConfig, finish, fit_order, prepare

_log = logging.getLogger(__name__)


class RetrainingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a retraining job runs."""

    training: TrainingConfig = TrainingConfig()
    gate: GatePolicy = GatePolicy()
    max_workers: int = 2
    """Arms trained at the same time, each in a process with one thread."""


class _Fitted(msgspec.Struct, frozen=True, kw_only=True):
    arm: Arm
    seed: int
    fit: Fit
    windows: list[GradWindow]
    scores: Floats


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
) -> RetrainOutcome | None:
    """Carry out the order in `folder`; None when another process is doing so.

    An order that is finished is only published again. Whatever goes wrong with the task, the data or the model in service makes
    an outcome "inconclusive" that says so: an order always ends.
    """
    try:
        with folder.claim():
            outcome = folder.read_outcome()
            run_end: RunEnd | None = None
            if outcome is None:
                outcome, run_end = _carry_out(
                    folder, task, config, artifacts, registry, publisher, clock, metrics, code_revision
                )  # fmt: skip
                if run_end is not None:
                    # before the outcome: whoever sees the outcome must already know the version
                    publisher.publish(run_end, event_id=f"run-end-{outcome.key}")
                    publisher.flush(30.0)
                folder.write_outcome(outcome)
            publisher.publish(outcome, event_id=f"retrain-outcome-{outcome.key}")
            publisher.flush(30.0)
            return outcome
    except JobTakenError:
        _log.info("job %s is being carried out by another process", folder.path.name)
        return None


def _carry_out(
    folder: JobFolder,
    task: Task,
    config: RetrainingConfig,
    artifacts: Path,
    registry: Registry,
    publisher: EventPublisher,
    clock: Clock,
    metrics: MetricSet,
    code_revision: str,
) -> tuple[RetrainOutcome, RunEnd | None]:
    request = folder.read_request()
    started, started_cpu, started_at_ms = time.monotonic(), time.process_time(), clock.now_ms()
    try:
        champion = _champion_bytes(request)
        prepared = prepare(task, config.training, request.data_start_ms, request.as_of_ms, request.as_of_ms)
        _log.info("%s: %d rows, %d held out", request.model, len(prepared.rows), len(prepared.held_out))
        fitted = _fit_arms(task, prepared, request, config.max_workers)
        results, winner, verdict = _judge_arms(task, config, prepared, request, fitted, champion)
        best = next(one for one in fitted if one.arm.name == winner and one.seed == request.seeds[0])
        sink = WindowSink(publisher, metrics, task.num_steps)
        for window in best.windows:
            sink(window)
        done = finish(
            task, config.training, _order(request, best, code_revision), prepared, best.fit,
            run_id=_run_id(request, best), started_at_ms=started_at_ms,
            artifacts=artifacts, registry=registry, publisher=None, clock=clock,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001  an order must end with a reason, whatever the user's task raises
        _log.exception("retrain %s of %s did not come to a verdict", request.key, request.model)
        reason = f"{type(error).__name__}: {error}; the whole story is in {folder.log_path}"
        return _outcome(request, clock, started, started_cpu, GateVerdict(verdict="inconclusive", reasons=(reason,))), None
    named = tuple(_with_artifact(result, done) if result.arm.name == winner else result for result in results)
    outcome = _outcome(request, clock, started, started_cpu, verdict, named, winner, done)
    _log.info("%s: arm %s, %s: %s", request.model, winner, verdict.verdict, "; ".join(verdict.reasons))
    return outcome, done.run_end


def _champion_bytes(request: RetrainRequest) -> bytes:
    path = Path(url2pathname(urlsplit(request.champion_uri).path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClipdriftError(
            f"the model in service cannot be read at {path} ({error}); restore it, or deploy another"
        ) from error
    if digest_of(content) != request.champion_digest:
        raise ClipdriftError(f"{path} is not the file that was deployed: its digest is {digest_of(content)}")
    return content


# --- fitting the arms ---


def _fit_arms(task: Task, prepared: Prepared, request: RetrainRequest, max_workers: int) -> list[_Fitted]:
    """Every arm with every seed, on the same rows."""
    jobs = [(arm, seed) for seed in request.seeds for arm in request.arms]
    if max_workers < 2 or len(jobs) < 2:
        return [_fit_arm(task, prepared, request, arm, seed) for arm, seed in jobs]
    _Shared.task, _Shared.prepared, _Shared.request = task, prepared, request
    # fork: the rows and the user's task are there at once, nothing is pickled; no thread of torch has been started yet
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(max_workers, len(jobs)), mp_context=context, initializer=_one_thread) as pool:
        return list(pool.map(_fit_shared, jobs))


class _Shared:
    """What forked workers inherit."""

    task: Task
    prepared: Prepared
    request: RetrainRequest


def _one_thread() -> None:
    torch.set_num_threads(1)


def _fit_shared(job: tuple[Arm, int]) -> _Fitted:
    return _fit_arm(_Shared.task, _Shared.prepared, _Shared.request, *job)


def _fit_arm(task: Task, prepared: Prepared, request: RetrainRequest, arm: Arm, seed: int) -> _Fitted:
    with _single_threaded():
        windows: list[GradWindow] = []
        order = Order(
            model=request.model, start_ms=request.data_start_ms, end_ms=request.as_of_ms, as_of_ms=request.as_of_ms,
            clip=arm.clip, seed=seed, arm=arm.name, retrain_key=request.key,
        )  # fmt: skip
        fitted = fit_order(task, prepared, order, f"{request.key[:16]}-{arm.name}-{seed}", on_window=windows.append)
        held_out = prepared.rows.select(prepared.held_out)
        logits = predict_logits(fitted.module, encode(task, held_out, prepared.vocabularies))
    _log.info("%s: arm %s, seed %d is fitted (pid %d)", request.model, arm.name, seed, os.getpid())
    return _Fitted(arm=arm, seed=seed, fit=fitted, windows=windows, scores=to_scores(logits, task.kind))


@contextmanager
def _single_threaded() -> Iterator[None]:
    """The number of threads changes the order of sums, and with it the weights: a run that is done again must give the same."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


# --- judging them ---


def _judge_arms(
    task: Task,
    config: RetrainingConfig,
    prepared: Prepared,
    request: RetrainRequest,
    fitted: Sequence[_Fitted],
    champion: bytes,
) -> tuple[list[ArmResult], str, GateVerdict]:
    held_out = prepared.rows.select(prepared.held_out)
    slices_N, names = slice_index(task, held_out), slice_names(task)
    by_arm = {arm.name: [one for one in fitted if one.arm.name == arm.name] for arm in request.arms}
    if SAME not in by_arm:
        raise ValueError(f"a retrain needs the arm {SAME!r} to compare with, got {sorted(by_arm)}")
    fresh = _fresh_rows(request, held_out)
    champion_scores = score_rows(champion, task.features, held_out.select(fresh))
    results = []
    for name, runs in by_arm.items():
        scores = [run.scores for run in runs]
        same = [run.scores for run in by_arm[SAME]]
        results.append(
            ArmResult(
                arm=runs[0].arm,
                run_id=f"{request.key[:16]}-{name}",
                version="",
                artifact_uri="",
                artifact_digest="",
                removed_mass_ratio=float(np.mean([run.fit.removed_mass_ratio for run in runs])),
                validation=score_slices(scores[0], held_out.label, slices_N, names, task.kind),
                against_same=()
                if name == SAME
                else contrasts(scores, same, held_out.label, held_out.time_ms, slices_N, names, task.kind),
                against_champion=contrasts(
                    [one[fresh] for one in scores],
                    [champion_scores],
                    held_out.label[fresh],
                    held_out.time_ms[fresh],
                    slices_N[fresh],
                    names,
                    task.kind,
                ),
                seeds=tuple(run.seed for run in runs),
            )
        )
    metric = "brier" if task.kind == "regression" else config.gate.metric
    winner = select({result.arm.name: result.against_same for result in results if result.against_same}, metric)
    won = next(result for result in results if result.arm.name == winner)
    _log.info("%s: winner %s, %s", request.model, winner, pick(won.against_champion, metric))
    return results, winner, judge(won.against_champion, msgspec.structs.replace(config.gate, metric=metric))


def _fresh_rows(request: RetrainRequest, held_out: Rows) -> npt.NDArray[np.bool_]:
    """Held-out rows newer than all data of the model in service: neither model was trained on them."""
    path = Path(url2pathname(urlsplit(request.champion_uri).path))
    is_fresh: npt.NDArray[np.bool_] = held_out.time_ms >= read_artifact(path).lineage.data_end_ms
    return is_fresh


# --- the outcome ---


def _order(request: RetrainRequest, best: _Fitted, code_revision: str) -> Order:
    return Order(
        model=request.model, start_ms=request.data_start_ms, end_ms=request.as_of_ms, as_of_ms=request.as_of_ms,
        clip=best.arm.clip, seed=best.seed, arm=best.arm.name, retrain_key=request.key, code_revision=code_revision,
    )  # fmt: skip


def _run_id(request: RetrainRequest, best: _Fitted) -> str:
    return f"{request.key[:16]}-{best.arm.name}-{best.seed}"


def _with_artifact(result: ArmResult, done: Finished) -> ArmResult:
    return msgspec.structs.replace(
        result, run_id=done.run_end.run_id, version=done.run_end.version,
        artifact_uri=done.run_end.artifact_uri, artifact_digest=done.run_end.artifact_digest,
    )  # fmt: skip


def _outcome(
    request: RetrainRequest,
    clock: Clock,
    started: float,
    started_cpu: float,
    verdict: GateVerdict,
    arms: tuple[ArmResult, ...] = (),
    winner: str = "",
    done: Finished | None = None,
) -> RetrainOutcome:
    children = os.times()
    return RetrainOutcome(
        key=request.key,
        model=request.model,
        finished_at_ms=clock.now_ms(),
        verdict=verdict.verdict,
        reasons=verdict.reasons,
        arms=arms,
        winner=winner,
        candidate_version=done.run_end.version if done else "",
        candidate_uri=done.run_end.artifact_uri if done else "",
        candidate_digest=done.run_end.artifact_digest if done else "",
        candidate_run_id=done.run_end.run_id if done else "",
        wall_seconds=time.monotonic() - started,
        cpu_seconds=time.process_time() - started_cpu + children.children_user + children.children_system,
    )
