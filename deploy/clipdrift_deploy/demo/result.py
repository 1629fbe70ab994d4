"""Puts the replay, the lives and the story together into what `result.json` and the report say. Pure calculation."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import ArmResult, ClippingVerdict, Contrast, Signal, Verdict
from clipdrift_deploy.demo.figures import Figures, LifeMonth, Month, Share, figures_of, recovered_share
from clipdrift_deploy.demo.lives import SAME, MonthScores, best_arm
from clipdrift_deploy.demo.story import Retrain, Story
from clipdrift_trainer.evaluation.scores import row_losses

Scores = npt.NDArray[np.float64]
DECIDING_METRIC = "brier"


class AlarmSummary(msgspec.Struct, frozen=True, kw_only=True):
    at: str
    kind: str
    severity: str
    slice: str
    summary: str


class ArmSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of a shadow retrain; the differences are of the Brier score, with 95 % intervals over days."""

    name: str
    clip: str
    removed_mass_ratio: float
    accuracy: float
    nll: float
    against_same: tuple[float, float, float] | None
    against_champion: tuple[float, float, float] | None


class RetrainSummary(msgspec.Struct, frozen=True, kw_only=True):
    at: str
    cause: str
    arms: tuple[ArmSummary, ...]
    winner: str
    verdict: Verdict | None
    reasons: tuple[str, ...]
    promoted: bool
    false_retrain: bool
    nll_gain: float | None  # of the rows it served: predecessor's minus its own, nats a row; None when it was not promoted
    wall_seconds: float


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    stage: str  # shadow, canary 0.1, ...
    at: str


class RolloutSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate on its way into service, and what its retrain was worth, as the monitor measured it."""

    version: str
    steps: tuple[RolloutStep, ...]
    end: str  # promoted, taken out, running
    ended_at: str
    share: float  # of the rows between its first and last step that it answered
    cpu_seconds: float
    worth: str  # worth it, not worth it, measuring, unknown; "": not known
    worth_words: str


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor says a retrain was worth."""

    verdict: str
    words: str


class Control(msgspec.Struct, frozen=True, kw_only=True):
    num_labels: int
    num_alarms: int
    num_retrains: int


class AlwaysMonth(msgspec.Struct, frozen=True, kw_only=True):
    month: str
    always: Figures


class Always(msgspec.Struct, frozen=True, kw_only=True):
    """Retrained every month by rote, with the same clipping."""

    months: tuple[AlwaysMonth, ...]
    num_retrains: int
    cpu_seconds: float
    recovered_share: Share


class ModelResult(msgspec.Struct, frozen=True, kw_only=True):
    months: tuple[LifeMonth, ...]
    alarms: tuple[AlarmSummary, ...]
    retrains: tuple[RetrainSummary, ...]
    diagnosis: ClippingVerdict
    recovered_share: Share
    control: Control
    always: Always
    oracle_arms: dict[str, str]  # by month
    loop_cpu_seconds: float
    rollouts: tuple[RolloutSummary, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`result.json`."""

    wall_seconds: float
    num_predictions: int
    num_labels: int
    serving_errors: int
    live_accuracy_error: float
    models: dict[str, ModelResult]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo gathered on one model."""

    label_N: Scores
    time_ms: npt.NDArray[np.int64]
    live_NK: Scores
    stale_NK: Scores
    version_N: npt.NDArray[np.object_]
    story: Story
    months: tuple[Month, ...]
    lives: dict[str, MonthScores]  # by month
    shadowed: dict[str, Scores]  # by version that was ever replaced: its answers for all rows
    control: Control
    worths: dict[str, Worth] = {}  # by the retrain's key


def model_result(facts: Facts) -> ModelResult:
    """Everything that `result.json` says on one model."""
    arms = {month.name: facts.lives[month.name].scores for month in facts.months}
    best = {month.name: best_arm(arms[month.name], facts.label_N[month.rows]) for month in facts.months}
    lives = tuple(_life_month(facts, month, arms[month.name][best[month.name]]) for month in facts.months)
    return ModelResult(
        months=lives,
        alarms=tuple(_alarm(signal) for signal in facts.story.alarms),
        retrains=tuple(_retrain(facts, one) for one in facts.story.retrains),
        diagnosis=facts.story.clipping_verdict(),
        recovered_share=recovered_share(lives),
        control=facts.control,
        always=_always(facts, lives, arms),
        oracle_arms=best,
        loop_cpu_seconds=sum(one.outcome.cpu_seconds for one in facts.story.retrains if one.outcome),
        rollouts=tuple(_rollouts(facts)),
    )


def write_result(result: Result, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))


def live_accuracy_error(
    told: Mapping[tuple[str, str, str], tuple[int, int]], counted: Mapping[tuple[str, str, str], tuple[int, int]]
) -> float:
    """The largest difference between two tables of (num_labels, num_correct) by model, month and slice, as accuracies.

    A cell that only one table has counts as wholly wrong: 1.
    """
    worst = 0.0
    for cell in told.keys() | counted.keys():
        left, right = told.get(cell, (0, 0)), counted.get(cell, (0, 0))
        if left[0] == right[0] == 0:
            continue
        worst = max(worst, abs(left[1] / left[0] - right[1] / right[0]) if left[0] and right[0] else 1.0)
    return worst


def count_accuracy(
    model: str,
    live_NK: npt.NDArray[Any],
    label_N: Scores,
    slice_N: npt.NDArray[Any],
    names: Sequence[str],
    months: Sequence[Month],
) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(num_labels, num_correct) by (model, month, slice) from raw rows; slice "" and month "" are all together."""
    is_right_N = live_NK.argmax(axis=1) == label_N
    is_answered_N = ~np.isnan(live_NK[:, 0])
    found = {}
    periods = [*((month.name, month.rows) for month in months), ("", slice(0, len(label_N)))]
    for period, rows in periods:
        for index, name in [(None, ""), *enumerate(names)]:
            chosen = is_answered_N[rows] & (True if index is None else slice_N[rows] == index)
            found[model, period, name] = (int(chosen.sum()), int((is_right_N[rows] & chosen).sum()))
    return found


def _life_month(facts: Facts, month: Month, oracle_NK: Scores) -> LifeMonth:
    label_N = facts.label_N[month.rows]
    return LifeMonth(
        month=month.name,
        n=month.num_rows,
        stale=figures_of(facts.stale_NK[month.rows], label_N),
        live=figures_of(facts.live_NK[month.rows], label_N),
        oracle=figures_of(oracle_NK, label_N),
    )


def _always(facts: Facts, lives: Sequence[LifeMonth], arms: Mapping[str, Mapping[str, Scores]]) -> Always:
    by_rote = [figures_of(arms[month.name][SAME], facts.label_N[month.rows]) for month in facts.months]
    as_live = [msgspec.structs.replace(life, live=figures) for life, figures in zip(lives, by_rote, strict=True)]
    retrained = facts.months[1:]  # at the start of the first month the first version has just been trained
    return Always(
        months=tuple(
            AlwaysMonth(month=month.name, always=figures) for month, figures in zip(facts.months, by_rote, strict=True)
        ),
        num_retrains=len(retrained),
        cpu_seconds=sum(facts.lives[month.name].cpu_seconds[SAME] for month in retrained),
        recovered_share=recovered_share(as_live),
    )


def _rollouts(facts: Facts) -> Iterator[RolloutSummary]:
    """One for each candidate that was given a first step."""
    in_order = facts.story.in_order
    for rollout_id in dict.fromkeys(one.rollout_id for one in in_order if one.rollout_id and one.stage):
        mine = [one for one in in_order if one.rollout_id == rollout_id]
        steps, after = [one for one in mine if one.stage], [one for one in mine if not one.stage]
        candidate = next(one for one in (steps[0].canary, steps[0].shadow) if one is not None)
        outcome = next((one for one in facts.story.outcomes.values() if one.candidate_version == candidate.version), None)
        end = "running" if not after else "promoted" if after[0].champion.digest == candidate.digest else "taken out"
        until_ms = after[0].decided_at_ms if after else int(facts.time_ms[-1])
        answered_N = facts.version_N[(facts.time_ms >= steps[0].decided_at_ms) & (facts.time_ms < until_ms)]
        worth = facts.worths.get(outcome.key) if outcome is not None else None
        yield RolloutSummary(
            version=candidate.version,
            steps=tuple(RolloutStep(stage=one.stage, at=format_moment(one.decided_at_ms)) for one in steps),
            end=end,
            ended_at=format_moment(until_ms) if after else "",
            share=float((answered_N == candidate.version).mean()) if len(answered_N) else 0.0,
            cpu_seconds=outcome.cpu_seconds if outcome is not None else 0.0,
            worth=worth.verdict if worth is not None else "",
            worth_words=worth.words if worth is not None else "",
        )


def _alarm(signal: Signal) -> AlarmSummary:
    return AlarmSummary(
        at=format_moment(signal.window_end_ms),
        kind=signal.kind,
        severity=signal.severity,
        slice=signal.slice,
        summary=signal.summary,
    )


def _retrain(facts: Facts, one: Retrain) -> RetrainSummary:
    gain = None if one.deployment is None else _gain_over_predecessor(facts, one)
    outcome = one.outcome
    return RetrainSummary(
        at=format_moment(one.request.as_of_ms),
        cause=one.request.cause,
        arms=tuple(_arm(result) for result in outcome.arms) if outcome else (),
        winner=outcome.winner if outcome else "",
        verdict=outcome.verdict if outcome else None,
        reasons=outcome.reasons if outcome else (),
        promoted=one.deployment is not None,
        false_retrain=gain is not None and gain < 0,
        nll_gain=gain,
        wall_seconds=outcome.wall_seconds if outcome else 0.0,
    )


def _gain_over_predecessor(facts: Facts, one: Retrain) -> float | None:
    """Log loss that the version in service before would have had on the rows that this one served, minus this one's."""
    assert one.outcome is not None
    served_N = facts.version_N == one.outcome.candidate_version
    before = facts.shadowed.get(one.request.champion_version)
    if before is None or not served_N.any():
        return None
    label_N = facts.label_N[served_N]
    return float((row_losses(before[served_N], label_N)[1] - row_losses(facts.live_NK[served_N], label_N)[1]).mean())


def _arm(result: ArmResult) -> ArmSummary:
    overall = result.validation[0]
    return ArmSummary(
        name=result.arm.name,
        clip=describe_clip(result.arm.clip, digits=3),
        removed_mass_ratio=result.removed_mass_ratio,
        accuracy=overall.num_correct / max(1, overall.num_rows),
        nll=overall.nll_sum / max(1, overall.num_rows),
        against_same=_interval(result.against_same),
        against_champion=_interval(result.against_champion),
    )


def _interval(contrasts: Sequence[Contrast]) -> tuple[float, float, float] | None:
    for one in contrasts:
        if one.slice == "" and one.metric == DECIDING_METRIC:
            return one.difference, one.low, one.high
    return None
