"""The arms of an ablation as rows: in which order, and how their figures are written."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.events import Contrast
from clipdrift_deploy.moments import exact_moment
from clipdrift_trainer.ablation import wording
from clipdrift_trainer.ablation.grid import PRESENT
from clipdrift_trainer.ablation.result import AblationResult, ArmFigures, SetFigures

TABLE_COLUMNS = (
    "policy",
    "norm removed",
    "steps clipped",
    "accuracy",
    "loss",
    "loss minus present’s",
    "calibration",
    "worst slice",
)


class Figure(NamedTuple):
    """One figure of an arm on one set of rows."""

    name: str
    is_better_higher: bool | None
    value: Callable[[SetFigures], float | None]
    contrast: Callable[[SetFigures], Contrast | None]
    """Against the present policy, in the sign of the loss."""


def loss_name(result: AblationResult) -> str:
    """What the deciding loss is called."""
    return wording.loss(result.metric, is_value=result.kind == "regression")


def figures_of(result: AblationResult) -> tuple[Figure, ...]:
    """What is drawn and tabled, in order: the loss that decides, and for classes accuracy, log loss and calibration too."""
    loss = Figure(loss_name(result), False, lambda one: one.loss, lambda one: _pick(one, result.metric, ""))
    if result.kind == "regression":
        worst = Figure("squared error of the worst slice", False, lambda one: one.worst_slice.loss, _worst("brier"))
        return (loss, worst)
    accuracy = Figure("accuracy", True, lambda one: one.accuracy, lambda one: _pick(one, "error", ""))
    nll = Figure("log loss", False, lambda one: one.nll, lambda one: _pick(one, "nll", ""))
    ece = Figure("calibration error", False, lambda one: one.ece, lambda one: _pick(one, "ece", ""))
    worst = Figure("accuracy of the worst slice", True, lambda one: one.worst_slice.accuracy, _worst("error"))
    return tuple(one for one in (loss, accuracy, nll, ece, worst) if one is loss or one.name != loss.name)


def _worst(metric: str) -> Callable[[SetFigures], Contrast | None]:
    return lambda one: _pick(one, metric, one.worst_slice.slice)


def _pick(figures: SetFigures, metric: str, slice_name: str) -> Contrast | None:
    found = [one for one in figures.against_present if (one.metric, one.slice) == (metric, slice_name)]
    return found[0] if found else None


def by_bound(arms: Sequence[ArmFigures]) -> list[ArmFigures]:
    """Bounds of the norm from tight to loose, then other rules, then no clipping."""
    return sorted(arms, key=lambda one: (one.arm.clip.kind == "off", not has_bound(one), one.arm.clip.max_norm or 0.0))


def has_bound(one: ArmFigures) -> bool:
    """Whether it stands on the axis of thresholds."""
    return one.arm.clip.kind in ("global_norm", "per_sample") and one.arm.clip.max_norm is not None


def name_of(one: ArmFigures) -> str:
    """How a row calls its arm."""
    words = describe_clip(one.arm.clip)
    if one.arm.name == PRESENT:
        return f"{words} (present)"
    return words if one.arm.name in ("off", words) else f"{words} ({one.arm.name})"


def cells(one: ArmFigures) -> tuple[str, ...]:
    """The figures of one arm on held-out days, as texts: what clipping did, accuracy, loss, difference, calibration, worst
    slice."""
    done = (percent(one.removed_mass_ratio), percent(one.clip_rate_ratio))
    if one.validation is None:
        return (*done, one.status, "", "", "", "")
    worst = one.validation.worst_slice
    worst_figure = number(worst.accuracy if worst.accuracy is not None else worst.loss)
    return (
        *done,
        number(one.validation.accuracy),
        number(one.validation.loss),
        gain_words(one),
        number(one.validation.ece),
        f"{worst.slice} {worst_figure}",
    )


def gain_words(one: ArmFigures) -> str:
    """The paired difference of the loss, and half of its 95 % interval."""
    if one.gain is None:
        return "-"
    half = one.gain.half_width()
    return f"{one.gain.difference:+.4f} ±{half:.4f}" if one.gain.is_known else f"{one.gain.difference:+.4f}"


def contrast_words(found: Contrast | None, *, is_turned: bool = False) -> str:
    """As `gain_words`; turned where a figure is better when higher and the loss is lower."""
    if found is None:
        return "-"
    difference, half = -found.difference if is_turned else found.difference, (found.high - found.low) / 2
    return f"{difference:+.4f} ±{half:.4f}" if found.num_blocks >= 2 else f"{difference:+.4f}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def window_words(result: AblationResult) -> str:
    """Which data it was, in words."""
    end = result.end_ms if result.later_from_ms is None else result.later_from_ms
    words = f"data from {exact_moment(result.start_ms)} to before {exact_moment(end)}"
    if result.later_from_ms is not None:
        words += f", later months to before {exact_moment(result.end_ms)}"
    return words
