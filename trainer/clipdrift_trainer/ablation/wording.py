"""How a recommendation puts its figures into sentences. Decides nothing."""

from collections.abc import Sequence

from clipdrift_contract.clipping import describe_clip
from clipdrift_trainer.ablation.result import ArmFigures, SetFigures
from clipdrift_trainer.evaluation.paired import Paired

_LOSSES = {"brier": "Brier score", "nll": "log loss", "error": "error rate"}


def loss(metric: str, *, is_value: bool) -> str:
    """What the deciding loss is called."""
    return "squared error" if is_value else _LOSSES[metric]


def extent(found: Paired) -> str:
    """How much evidence there was."""
    return f"{found.num_seeds} seed{'' if found.num_seeds == 1 else 's'}, {found.num_days} days"


def gain(one: ArmFigures, present: ArmFigures, level: float, number: int, metric: str) -> str:
    """By how much an arm is better, with the interval at `level`, which holds for `number` comparisons together."""
    found, mine, theirs = one.gain, one.validation, present.validation
    assert found is not None
    assert mine is not None
    assert theirs is not None
    half = found.half_width(level)
    has_accuracy = mine.accuracy is not None and theirs.accuracy is not None
    accuracy = f", accuracy {mine.accuracy:.4f} instead of {theirs.accuracy:.4f}" if has_accuracy else ""
    return (
        f"On held-out days its {loss(metric, is_value=mine.accuracy is None)} is {mine.loss:.4f} instead of {theirs.loss:.4f}: "
        f"{found.difference:+.4f}, between {found.difference - half:+.4f} and {found.difference + half:+.4f} "
        f"(95 % for all {number} comparisons together; {extent(found)}){accuracy}."
    )


def removed_mass(one: ArmFigures, present: ArmFigures) -> str:
    """What the two policies take away."""
    return (
        f"The present policy removes {present.removed_mass_ratio or 0:.0%} of the gradient norm, this one "
        f"{one.removed_mass_ratio or 0:.0%}."
    )


def as_good(others: Sequence[ArmFigures], slack: float) -> str:
    """Which arms are as good as the recommended one; empty where none is."""
    if not others:
        return ""
    names = ", ".join(describe_clip(other.arm.clip) for other in others)
    return (
        f"Within {slack:.4f} of the best are also: {names}. Of these, this one clips most, so it still holds an outlier back."
    )


def harmless(before: SetFigures, after: SetFigures) -> str:
    """That slices and calibration do not pay for it."""
    words = "No slice is proven worse beyond its margin"
    if before.ece is None or after.ece is None:
        return words + "."
    return f"{words}; the calibration error is {after.ece:.4f} instead of {before.ece:.4f}."


def equivalence(present: ArmFigures, tried: Sequence[ArmFigures], margin: float, metric: str) -> str:
    """That no threshold that was tried leaves the margin."""
    bounds = [one.arm.clip.max_norm for one in tried if one.arm.clip.max_norm is not None]
    gains = [one.gain for one in tried if one.gain is not None]
    assert present.validation is not None
    largest = max(abs(one.difference) + one.half_width() for one in gains)
    return (
        f"With every threshold from {min(bounds):g} to {max(bounds):g} the "
        f"{loss(metric, is_value=present.validation.accuracy is None)} stays within {largest:.4f} of the present policy's "
        f"{present.validation.loss:.4f} (95 % intervals included; {extent(gains[0])}). Less than {margin:.4f} is taken to mean "
        "nothing."
    )


def adaptive(present: ArmFigures) -> str:
    """Why a bound of the total norm costs nothing with Adam."""
    return (
        f"{present.optimizer} divides by the gradient's own size, so a bound of the total norm cancels out: that the present "
        f"policy removes {present.removed_mass_ratio or 0:.0%} of the norm costs nothing by itself."
    )


def nothing_better(*, is_open: bool) -> str:
    """Why the present policy stays; open: an arm that looks worse might, by its interval, still be better."""
    return "No other policy looks better" if is_open else "No other policy can be better by more than the margin"


def any_of(tried: Sequence[ArmFigures]) -> str:
    """That every threshold that was tried does."""
    bounds = [one.arm.clip.max_norm for one in tried if one.arm.clip.max_norm is not None]
    return f"any threshold from {min(bounds):g} to {max(bounds):g} does"


def without(unclipped: ArmFigures | None, *, is_as_good: bool) -> str:
    """How training without clipping did beside thresholds that all do, as the end of a sentence; None: nobody tried."""
    if unclipped is None:
        return ""
    if is_as_good:
        return ", and so does none at all"
    if unclipped.status != "done" or unclipped.gain is None:
        return f", and none at all {'diverges' if unclipped.status == 'diverged' else 'did not come to an end'}"
    is_worse = unclipped.gain.difference - unclipped.gain.half_width() > 0
    return ", and none at all is worse" if is_worse else "; whether none at all does is open"
