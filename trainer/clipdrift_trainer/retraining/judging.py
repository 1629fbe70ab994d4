"""Which arm wins, and whether the winner may take the place of the model in service: values in, values out."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import ArmResult, Contrast
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.scores import Floats, score_slices
from clipdrift_trainer.retraining.arms import FittedArm
from clipdrift_trainer.retraining.contrast import contrasts, losses_by_metric
from clipdrift_trainer.retraining.gate import GatePolicy, GateVerdict, judge
from clipdrift_trainer.retraining.selection import SAME, select


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out rows that judge, in columns of length N, and what the model in service says to the fresh ones."""

    kind: TaskKind
    label: Floats
    time_ms: npt.NDArray[np.int64]
    slice_index: npt.NDArray[np.int16]
    slice_names: tuple[str, ...]
    is_fresh: npt.NDArray[np.bool_]  # newer than all data of the model in service: neither model was trained on them
    champion_scores: Floats  # [number of fresh rows, K]
    label_span: float = 1.0  # regression: losses are in units of its square


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Each arm's figures, the winner's name, the gate's verdict on it."""

    results: tuple[ArmResult, ...]
    winner: str
    verdict: GateVerdict


def judge_arms(fitted: Sequence[FittedArm], rows: HeldOut, policy: GatePolicy) -> Judgement:
    """Compare the arms with "same" on all held-out rows, the winner with the model in service on the fresh ones.

    All seeds speak when arms are compared; of the winner only the first seed is exported, so it alone faces the gate. An arm
    that answers NaN or infinity has diverged: it has no figures and cannot win.

    Raises:
        ClipdriftError: Every arm has diverged.
        ValueError: There is no arm "same".
    """
    by_arm: dict[str, list[FittedArm]] = {}
    for one in fitted:
        by_arm.setdefault(one.arm.name, []).append(one)
    if SAME not in by_arm:
        raise ValueError(f"a retrain needs the arm {SAME!r} to compare with, got {sorted(by_arm)}")
    sound = {name: runs for name, runs in by_arm.items() if all(np.isfinite(run.scores).all() for run in runs)}
    if not sound:
        raise ClipdriftError(f"every arm diverged ({', '.join(by_arm)}): lower the task's learning rate")
    metric = "brier" if rows.kind == "regression" else policy.metric
    results = {name: _result(runs, by_arm, sound, rows) for name, runs in by_arm.items()}
    winner = _winner(results, sound, rows, metric)
    verdict = judge(results[winner].against_champion, msgspec.structs.replace(policy, metric=metric))
    lost = tuple(f"arm {name} diverged and is out" for name in by_arm if name not in sound)
    return Judgement(
        results=tuple(results.values()),
        winner=winner,
        verdict=msgspec.structs.replace(verdict, reasons=(*verdict.reasons, *lost)),
    )


def _winner(results: Mapping[str, ArmResult], sound: Mapping[str, Sequence[FittedArm]], rows: HeldOut, metric: str) -> str:
    if SAME in sound:
        return select({name: results[name].against_same for name in sound if name != SAME}, metric)
    mean_loss = {
        name: float(np.mean([_losses(run.scores, rows)[metric].mean() for run in runs])) for name, runs in sound.items()
    }
    return min(mean_loss, key=lambda name: mean_loss[name])


def _result(
    runs: Sequence[FittedArm],
    by_arm: Mapping[str, Sequence[FittedArm]],
    sound: Mapping[str, Sequence[FittedArm]],
    rows: HeldOut,
) -> ArmResult:
    first = runs[0]
    is_sound = first.arm.name in sound
    is_compared = is_sound and SAME in sound and first.arm.name != SAME
    return ArmResult(
        arm=first.arm,
        run_id="",
        version="",
        artifact_uri="",
        artifact_digest="",
        removed_mass_ratio=float(np.mean([run.fit.removed_mass_ratio for run in runs])),
        validation=score_slices(first.scores, rows.label, rows.slice_index, rows.slice_names, rows.kind) if is_sound else (),
        against_same=_against_same(runs, by_arm[SAME], rows) if is_compared else (),
        against_champion=_against_champion(first, rows) if is_sound else (),
        seeds=tuple(run.seed for run in runs),
    )


def _against_same(runs: Sequence[FittedArm], same: Sequence[FittedArm], rows: HeldOut) -> tuple[Contrast, ...]:
    return contrasts(
        [_losses(run.scores, rows) for run in runs], [_losses(run.scores, rows) for run in same],
        rows.time_ms, rows.slice_index, rows.slice_names,
    )  # fmt: skip


def _against_champion(run: FittedArm, rows: HeldOut) -> tuple[Contrast, ...]:
    fresh, span = rows.is_fresh, rows.label_span
    label = rows.label[fresh]
    return contrasts(
        [losses_by_metric(run.scores[fresh], label, rows.kind, span)],
        [losses_by_metric(rows.champion_scores, label, rows.kind, span)],
        rows.time_ms[fresh], rows.slice_index[fresh], rows.slice_names,
    )  # fmt: skip


def _losses(scores: Floats, rows: HeldOut) -> dict[str, Floats]:
    return losses_by_metric(scores, rows.label, rows.kind, rows.label_span)
