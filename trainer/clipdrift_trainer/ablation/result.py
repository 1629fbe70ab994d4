"""What an ablation found: `result.json`. Every figure is a mean over seeds; every difference is paired, with its interval."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from clipdrift_contract.events import Arm, ClipSpec, Contrast
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.ablation.grid import OFF, PRESENT, NormScale, multiple_of
from clipdrift_trainer.ablation.paired import CALIBRATION, paired
from clipdrift_trainer.ablation.sums import DaySums
from clipdrift_trainer.ablation.trial import Failure, Trial
from clipdrift_trainer.evaluation.paired import Paired

VERSION = 1
Status = Literal["done", "diverged", "failed"]
Verdict = Literal["does_not_matter", "keep", "use", "cannot_tell"]
Trials = Mapping[str, Mapping[int, Trial | Failure]]
"""What became of every arm with every seed."""


class SliceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One slice's mean figures; accuracy is None for regression."""

    slice: str
    num_rows: int
    loss: float
    accuracy: float | None


class SetFigures(msgspec.Struct, frozen=True, kw_only=True):
    """An arm on one set of rows (held-out days, or later months). Regression knows only the loss, in units of the label's span
    squared."""

    num_rows: int
    num_days: int
    loss: float
    """The loss that decides: see `AblationResult.metric`."""
    accuracy: float | None
    nll: float | None
    ece: float | None
    worst_slice: SliceFigures
    slices: tuple[SliceFigures, ...]
    against_present: tuple[Contrast, ...]
    """This arm minus the present policy: per metric and slice, and the calibration error (ece)."""
    against_off: tuple[Contrast, ...]


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One arm. Figures are over the seeds that came to an end; an arm of which one did not is never recommended."""

    arm: Arm
    status: Status
    reason: str = ""
    seeds: tuple[int, ...] = ()
    multiple_of_median: float | None = None
    optimizer: str = ""
    learning_rate: float = 0.0
    removed_mass_ratio: float | None = None
    clip_rate_ratio: float | None = None
    num_nonfinite: int = 0
    gain: Paired | None = None
    """Of the loss that decides, on held-out days, against the present policy."""
    validation: SetFigures | None = None
    later: SetFigures | None = None


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer in plain words, with its evidence."""

    verdict: Verdict
    arm: str
    """What to train with: "present" unless the verdict is "use"."""
    clip: ClipSpec
    headline: str
    reasons: tuple[str, ...]
    more_seeds: int | None = None
    """Verdict "cannot_tell": so many seeds more would probably tell; None where seeds alone would not."""


class LaterCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How the recommendation did on rows that had no part in it."""

    best: str
    """The arm with the lowest loss on the later rows."""
    best_loss: float
    recommended_loss: float
    regret: Contrast
    """Recommended minus best; the best was chosen on these very rows, so this is what it could be at most."""


class AblationResult(msgspec.Struct, frozen=True, kw_only=True):
    """`result.json`. The same task, data and settings give the same bytes, however often the work was interrupted."""

    version: int = VERSION
    model: str
    kind: TaskKind
    metric: str
    """The loss that decides: brier, nll or error."""
    margin: float
    """Differences within this are taken to mean nothing, in units of the loss."""
    start_ms: int
    end_ms: int
    as_of_ms: int
    later_from_ms: int | None
    identity: str
    num_train_rows: int
    num_steps: int
    seeds: tuple[int, ...]
    norms: NormScale | None
    arms: tuple[ArmFigures, ...]
    recommendation: Recommendation
    later_check: LaterCheck | None


def figures_of(
    arms: Sequence[Arm], trials: Trials, scale: NormScale | None, metric: str, slice_min_rows: int = 0
) -> tuple[ArmFigures, ...]:
    """The figures of each arm, in the order of `arms`.

    Args:
        arms: With "present" among them.
        trials: What became of them; seeds that are missing have not been tried.
        scale: For bounds in medians.
        metric: The loss that decides.
        slice_min_rows: A slice with fewer rows is no worst slice.
    """
    return tuple(_figures(arm, trials, scale, metric, slice_min_rows) for arm in arms)


def _figures(arm: Arm, trials: Trials, scale: NormScale | None, metric: str, slice_min_rows: int) -> ArmFigures:
    own = trials[arm.name]
    finished = {seed: one for seed, one in own.items() if isinstance(one, Trial)}
    sound = {seed: one for seed, one in finished.items() if not one.has_diverged}
    status, reason = _status(own, finished, sound)
    multiple = multiple_of(arm.clip, scale) if scale is not None else None
    found = ArmFigures(arm=arm, status=status, reason=reason, seeds=tuple(sorted(sound)), multiple_of_median=multiple)
    if finished:
        first = next(iter(finished.values()))
        found = msgspec.structs.replace(
            found,
            optimizer=first.optimizer,
            learning_rate=first.learning_rate,
            removed_mass_ratio=float(np.mean([one.removed_mass_ratio for one in finished.values()])),
            clip_rate_ratio=float(np.mean([one.clip_rate_ratio for one in finished.values()])),
            num_nonfinite=sum(one.num_nonfinite for one in finished.values()),
        )
    if not sound:
        return found
    return msgspec.structs.replace(
        found,
        gain=_gain(arm.name, trials, metric),
        validation=_set(arm.name, trials, "validation", metric, slice_min_rows),
        later=_set(arm.name, trials, "later", metric, slice_min_rows),
    )


def _status(
    own: Mapping[int, Trial | Failure], finished: Mapping[int, Trial], sound: Mapping[int, Trial]
) -> tuple[Status, str]:
    failures = {seed: one.reason for seed, one in own.items() if isinstance(one, Failure)}
    if failures:
        seed, reason = next(iter(failures.items()))
        return "failed", f"{len(failures)} of {len(own)} seeds raised; seed {seed}: {reason}"
    if len(sound) < len(own):
        lost = [str(seed) for seed in finished if seed not in sound]
        return "diverged", f"the answers were not finite with seed {', '.join(lost)}"
    return "done", ""


def _gain(name: str, trials: Trials, metric: str) -> Paired | None:
    mine, theirs = _common(name, PRESENT, trials, "validation")
    return paired(mine, theirs, metric) if mine and name != PRESENT else None


def _common(name: str, other: str, trials: Trials, which: str) -> tuple[list[DaySums], list[DaySums]]:
    """The sums of two arms for the seeds that both came to an end with."""
    first, second = _sums(trials.get(name, {}), which), _sums(trials.get(other, {}), which)
    seeds = sorted(set(first) & set(second))
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def _sums(own: Mapping[int, Trial | Failure], which: str) -> dict[int, DaySums]:
    found = {seed: getattr(one, which) for seed, one in own.items() if isinstance(one, Trial)}
    return {seed: sums for seed, sums in found.items() if sums is not None}


def _set(name: str, trials: Trials, which: str, metric: str, slice_min_rows: int) -> SetFigures | None:
    sums = list(_sums(trials[name], which).values())
    if not sums or not sums[0].num_rows:
        return None
    first = sums[0]
    slices = tuple(_slice(sums, one, metric) for one in first.slices if first.counts_DC()[:, first.columns(one)].sum() > 0)
    large = [one for one in slices if one.num_rows >= slice_min_rows]
    is_values = "error" not in first.metrics
    return SetFigures(
        num_rows=first.num_rows,
        num_days=len(first.days),
        loss=_mean(sums, metric),
        accuracy=None if is_values else 1.0 - _mean(sums, "error"),
        nll=None if is_values else _mean(sums, "nll"),
        ece=None if is_values else float(np.mean([one.calibration_error() for one in sums])),
        worst_slice=max(large or slices, key=lambda one: one.loss),
        slices=slices,
        against_present=_contrasts(name, PRESENT, trials, which),
        against_off=_contrasts(name, OFF, trials, which),
    )


def _slice(sums: Sequence[DaySums], name: str, metric: str) -> SliceFigures:
    num_rows = int(sums[0].counts_DC()[:, sums[0].columns(name)].sum())
    accuracy = 1.0 - _mean(sums, "error", name) if "error" in sums[0].metrics else None
    return SliceFigures(slice=name, num_rows=num_rows, loss=_mean(sums, metric, name), accuracy=accuracy)


def _mean(sums: Sequence[DaySums], metric: str, slice_name: str = "") -> float:
    return float(np.mean([one.mean(metric, slice_name) for one in sums]))


def _contrasts(name: str, other: str, trials: Trials, which: str) -> tuple[Contrast, ...]:
    mine, theirs = _common(name, other, trials, which)
    if not mine or name == other:
        return ()
    slices = ["", *(one for one in mine[0].slices if mine[0].counts_DC()[:, mine[0].columns(one)].sum() > 0)]
    found = [paired(mine, theirs, metric, one).contrast(one, metric) for one in slices for metric in mine[0].metrics]
    if mine[0].gaps:
        found.append(paired(mine, theirs, CALIBRATION).contrast("", CALIBRATION))
    return tuple(found)


def check_later(arms: Sequence[ArmFigures], trials: Trials, recommended: str, metric: str) -> LaterCheck | None:
    """How the recommended arm did on the later rows; None where there are none, or its answers on them were not finite with
    every seed. Arms of which that is true are no match for it either."""
    judged = {
        one.arm.name: one.later
        for one in arms
        if one.later is not None and one.status == "done" and len(_sums(trials[one.arm.name], "later")) == len(one.seeds)
    }
    if recommended not in judged:
        return None
    best = min(judged, key=lambda name: judged[name].loss)
    mine, theirs = _common(recommended, best, trials, "later")
    return LaterCheck(
        best=best,
        best_loss=judged[best].loss,
        recommended_loss=judged[recommended].loss,
        regret=paired(mine, theirs, metric).contrast("", metric),
    )
