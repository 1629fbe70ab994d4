"""Which arm wins, and whether the winner may take the place of the model in service: values in, values out."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import ArmResult, ClipSpec, Contrast, GateCheck
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.blocks import Days
from clipdrift_trainer.evaluation.scores import Floats, score_slices
from clipdrift_trainer.retraining.arms import FittedArm
from clipdrift_trainer.retraining.contrast import contrasts, difference, losses_by_metric
from clipdrift_trainer.retraining.gate import (
    GatePolicy,
    GateVerdict,
    judge,
    loss_checks,
    slice_verdict,
    time_order_check,
    verdict_of,
)
from clipdrift_trainer.retraining.selection import SAME, select
from clipdrift_trainer.retraining.stability import instability


class JudgingRows(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows that nothing under judgement was trained on, in columns of length N."""

    kind: TaskKind
    label: Floats
    time_ms: npt.NDArray[np.int64]
    slice_index: npt.NDArray[np.int16]
    slice_names: tuple[str, ...]
    label_span: float = 1.0  # regression: losses are in units of its square


class HeldOut(JudgingRows, frozen=True, kw_only=True):
    """The held-out rows of a candidate, and what the model in service says to the fresh ones."""

    is_fresh: npt.NDArray[np.bool_]  # new to the model in service too, with labels that are all in: see `may_judge`
    champion_scores: Floats  # [number of fresh rows, K]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Each arm's figures, the winner's name, and what is to be said of those that were out."""

    results: tuple[ArmResult, ...]
    winner: str
    notes: tuple[str, ...] = ()


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Each arm's figures, the winner's name, what the gate checked of it, and its verdict."""

    results: tuple[ArmResult, ...]
    winner: str
    verdict: GateVerdict
    checks: tuple[GateCheck, ...] = ()


def choose_arm(shadows: Sequence[FittedArm], rows: JudgingRows, policy: GatePolicy) -> Choice:
    """Choose the policy of a retrain, by arms that were trained on older days and are judged on the newest.

    All seeds speak. Three kinds of arm cannot win: one that answers NaN or infinity has diverged; one that may clip less than
    "same" and did not stay stable is not trusted; one that is proven worse than "same" on a slice, by more than the gate's
    margin, would only be stopped there. Where "same" diverged the lowest loss wins.

    Raises:
        ClipdriftError: No arm can be trusted: those that did not diverge were unstable.
        ValueError: There is no arm "same".
    """
    by_arm: dict[str, list[FittedArm]] = {}
    for one in shadows:
        by_arm.setdefault(one.arm.name, []).append(one)
    if SAME not in by_arm:
        raise ValueError(f"a retrain needs the arm {SAME!r} to compare with, got {sorted(by_arm)}")
    sound = {name: runs for name, runs in by_arm.items() if all(np.isfinite(run.scores).all() for run in runs)}
    if not sound:
        raise ClipdriftError(f"every arm diverged ({', '.join(by_arm)}): lower the task's learning rate")
    notes = [f"arm {name} diverged and is out" for name in by_arm if name not in sound]
    unstable = {
        name: why for name, runs in sound.items() if (why := _why_unstable(runs, by_arm[SAME], is_same_sound=SAME in sound))
    }
    notes += [f"arm {name} is out: {why}" for name, why in unstable.items()]
    losses = {name: [_losses(run.scores, rows) for run in runs] for name, runs in sound.items()}
    results = {name: _result(runs, rows, losses.get(name), losses.get(SAME)) for name, runs in by_arm.items()}
    metric = "brier" if rows.kind == "regression" else policy.metric
    harmful = {name: worse for name in sound if (worse := _worse_slices(results[name].against_same, metric, policy))}
    notes += [f"arm {name} is out: worse than {SAME} on {', '.join(worse)}" for name, worse in harmful.items()]
    trusted = {name: [one[metric] for one in losses[name]] for name in sound if name not in unstable and name not in harmful}
    if not trusted:
        raise ClipdriftError(f"no arm can be trusted ({'; '.join(notes)}): lower the task's learning rate")
    return Choice(results=tuple(results.values()), winner=_winner(trusted, rows.time_ms), notes=tuple(notes))


def judge_candidate(candidate: FittedArm, rows: HeldOut, policy: GatePolicy) -> tuple[tuple[Contrast, ...], GateVerdict]:
    """The candidate against the model in service on the fresh held-out rows: contrasts, and the verdict by the loss alone."""
    if not np.isfinite(candidate.scores).all():
        return (), GateVerdict(verdict="inconclusive", reasons=("the candidate diverged: lower the task's learning rate",))
    found = against_champion(candidate.scores, rows)
    return found, judge(found, _by_metric(policy, rows))


def against_champion(scores_NK: Floats, rows: HeldOut) -> tuple[Contrast, ...]:
    """Contrasts of a model minus the model in service on the fresh rows, from its finite answers to all held-out rows."""
    fresh, span = rows.is_fresh, rows.label_span
    label = rows.label[fresh]
    return contrasts(
        [losses_by_metric(scores_NK[fresh], label, rows.kind, span)],
        [losses_by_metric(rows.champion_scores, label, rows.kind, span)],
        rows.time_ms[fresh], rows.slice_index[fresh], rows.slice_names,
    )  # fmt: skip


def judgement_of(
    choice: Choice,
    candidate: FittedArm,
    rows: HeldOut,
    policy: GatePolicy,
    *,
    of_shadow: Sequence[Contrast] = (),
    measured: Sequence[GateCheck] = (),
) -> Judgement:
    """The whole: what the shadows showed of every arm, and what the gate says to the winner, fitted on all days.

    Args:
        choice: Between the arms.
        candidate: The winner, with finite answers to the held-out rows.
        rows: Those rows.
        policy: What a candidate must show.
        of_shadow: The winner's shadow minus the model in service on the newest days; empty where there is none.
        measured: The other checks, see `measure_checks`.
    """
    found, by_metric = against_champion(candidate.scores, rows), _by_metric(policy, rows)
    results = tuple(
        msgspec.structs.replace(one, against_champion=found) if one.arm.name == choice.winner else one for one in choice.results
    )
    checks = (*loss_checks(found, by_metric), *time_order_check(of_shadow, by_metric), *measured)
    verdict = verdict_of(checks, policy)
    verdict = msgspec.structs.replace(verdict, reasons=(*verdict.reasons, *choice.notes))
    return Judgement(results=results, winner=choice.winner, verdict=verdict, checks=checks)


def _by_metric(policy: GatePolicy, rows: JudgingRows) -> GatePolicy:
    return msgspec.structs.replace(policy, metric="brier") if rows.kind == "regression" else policy


def only_arm(candidate: FittedArm, rows: JudgingRows) -> Choice:
    """The choice where there is one arm alone: nothing to choose, its figures are those of its held-out rows."""
    losses = [_losses(candidate.scores, rows)] if np.isfinite(candidate.scores).all() else None
    return Choice(results=(_result([candidate], rows, losses, None),), winner=candidate.arm.name)


def _why_unstable(runs: Sequence[FittedArm], same: Sequence[FittedArm], *, is_same_sound: bool) -> str:
    """Why an arm that may clip less than "same" is not trusted; "" where nothing speaks against it.

    Whether it clips less is not asked of its telemetry: norms that explode below a loose bound are clipped most of all.
    """
    clip, old = runs[0].arm.clip, same[0].arm.clip
    if _is_surely_as_tight(clip, old):
        return ""
    which = "looser bound" if clip.kind == old.kind else "other rule"
    found = (instability(run.windows, beside.windows if is_same_sound else ()) for run, beside in zip(runs, same, strict=True))
    return next((f"with its {which} {why}" for why in found if why), "")


def _is_surely_as_tight(clip: ClipSpec, old: ClipSpec) -> bool:
    """Bounds of different kinds cannot be compared."""
    if clip.kind != old.kind or clip.max_norm is None or old.max_norm is None:
        return clip == old
    return clip.max_norm <= old.max_norm


def _worse_slices(against_same: Sequence[Contrast], metric: str, policy: GatePolicy) -> list[str]:
    slices = [one for one in against_same if one.slice and one.metric == metric]
    return [one.slice for one in slices if slice_verdict(one, policy) == "fail"]


def _winner(trusted: Mapping[str, Sequence[Floats]], time_ms: npt.NDArray[np.int64]) -> str:
    """By the losses that decide, one array a seed."""
    if SAME in trusted:
        days = Days(time_ms)
        return select({name: difference(losses, trusted[SAME], days) for name, losses in trusted.items() if name != SAME})
    mean_loss = {name: float(np.mean(losses)) for name, losses in trusted.items()}
    return min(mean_loss, key=lambda name: mean_loss[name])


def _result(
    runs: Sequence[FittedArm],
    rows: JudgingRows,
    losses: Sequence[Mapping[str, Floats]] | None,
    of_same: Sequence[Mapping[str, Floats]] | None,
) -> ArmResult:
    """An arm's figures; without `losses` it diverged, without those `of_same` there is nothing to compare it with."""
    first = runs[0]
    against_same: tuple[Contrast, ...] = ()
    if losses is not None and of_same is not None and first.arm.name != SAME:
        against_same = contrasts(losses, of_same, rows.time_ms, rows.slice_index, rows.slice_names)
    scored = score_slices(first.scores, rows.label, rows.slice_index, rows.slice_names, rows.kind) if losses is not None else ()
    return ArmResult(
        arm=first.arm,
        run_id="",
        version="",
        artifact_uri="",
        artifact_digest="",
        removed_mass_ratio=float(np.mean([run.fit.removed_mass_ratio for run in runs])),
        validation=scored,
        against_same=against_same,
        seeds=tuple(run.seed for run in runs),
    )


def _losses(scores: Floats, rows: JudgingRows) -> dict[str, Floats]:
    return losses_by_metric(scores, rows.label, rows.kind, rows.label_span)
