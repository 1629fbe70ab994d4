"""Is clipping the problem here? What one run alone can say, by rules R1 to R4; and what to do about each fault."""

from typing import Literal

import msgspec

from clipdrift_contract.clipping import percent
from clipdrift_contract.events import Fault, FaultKind
from clipdrift_contract.optimizers import COMMON_FACTOR, is_adaptive
from clipdrift_deploy.clip_report.figures import Course
from clipdrift_monitor.clipping.evidence import FEW_NONFINITE, MOST_STEPS, STRONG_REMOVAL

Tone = Literal["good", "busy", "bad", "plain"]

_ASIDE: frozenset[FaultKind] = frozenset({"nan", "inf", "half_overflow", "frozen_layer"})
"""Faults that say nothing of the threshold: a step now and then that is not finite, a layer that gets no gradient."""

ADVICE: dict[FaultKind, str] = {
    "clip_before_backward": "Clip between backward() and step(): before backward there is nothing to clip.",
    "clip_after_step": "Clip between backward() and step(): after the step the gradients have been used already.",
    "clip_missing": "Call the clipping between backward() and step(), in every branch of the loop.",
    "double_clip": "Clip once, when the last micro-batch of an accumulation is in: earlier parts are otherwise clipped again.",
    "wrong_parameters": "Give the clipping the same parameters as the optimizer, after all layers have been made.",
    "half_overflow": "Take norms in float32, or train in bfloat16, or lower the loss scale.",
    "nan": "Look at the batch and the layer named here: a division by zero, a log of zero, or a value missing in the data.",
    "inf": "Look at the batch and the layer named here; lower the learning rate, or let the loss scaler skip such steps.",
    "frozen_layer": "If it should learn: see that forward uses it, that requires_grad is on, and that nothing detaches it.",
    "scaled_gradients": "Call scaler.unscale_(optimizer) before clipping: the bound was compared with scaled gradients.",
    "not_as_promised": "Something changes gradients between clipping and step(), or the optimizer steps other parameters.",
}
"""What to do about each kind of fault."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The headline, its reasons, and what would settle it where one run cannot."""

    headline: str
    tone: Tone
    reasons: tuple[str, ...]
    next_step: str = ""


def answer_of(course: Course, temperature: float = 1.0) -> Answer:
    """Whether clipping is the problem, as far as one run can tell. That it harms is never said: only a training of the same
    data with another policy shows that.

    Args:
        course: Of the run.
        temperature: That the model divides its scores by; 1: none.
    """
    wrong = _wrong(course)
    if wrong:
        return Answer(
            headline="First mend the training: gradients were not what they should have been",
            tone="bad",
            reasons=(*wrong, "Until that is mended, the figures below say little about the threshold."),
            next_step="The faults are listed below, each with what to do.",
        )
    return _answer_of_healthy(course, temperature)


def _answer_of_healthy(course: Course, temperature: float) -> Answer:
    share, steps = percent(course.removed_mass_ratio), percent(course.clip_rate_ratio)
    removed = f"Clipping removed {share} of the gradient norm, on {steps} of the steps."
    rescales = is_adaptive(course.optimizer)
    if course.clip.kind == "off" or not course.num_clipped:
        why = "Clipping was off." if course.clip.kind == "off" else "No step was above the bound."
        return Answer(headline="Clipping is not the problem here: it changed nothing", tone="good", reasons=(why,))
    if course.clip.kind == "per_sample":
        return _answer_by_sample(course, temperature)
    if rescales and course.clip.kind in COMMON_FACTOR:
        return Answer(
            headline="Clipping is not the problem here",
            tone="good",
            reasons=(
                removed,
                f"{course.optimizer} divides each step by the size of the gradients, so one factor on all of them cancels "
                "(R2). A high clip rate or removed share is no sign of harm with it.",
            ),
        )
    if rescales:
        return Answer(
            headline="This run alone cannot tell whether clipping matters",
            tone="busy",
            reasons=(
                removed,
                f"{course.optimizer} makes up for a common factor, but {course.clip.kind.replace('_', ' ')} scales parts of "
                "the gradient apart and so changes its direction.",
            ),
            next_step="clipdrift ablate trains the model with other policies on the same data and seeds.",
        )
    return _answer_by_size(course, removed)


def _answer_by_sample(course: Course, temperature: float) -> Answer:
    is_repaired = temperature != 1.0
    return Answer(
        headline="Look at calibration first",
        tone="busy",
        reasons=(
            f"Clipping removed {percent(course.removed_mass_ratio)} of the samples' gradient norms.",
            "Samples were clipped one by one. That leaves accuracy nearly as it is and makes probabilities worse (R4)"
            + (f"; the model's temperature of {temperature:.3g} takes back what one factor can." if is_repaired else "."),
        ),
        next_step="See below what the temperature gained, and whether probabilities keep their word now."
        if is_repaired
        else "Compare log loss and calibration error with a run of a larger bound; recalibrate before retraining.",
    )


def _answer_by_size(course: Course, removed: str) -> Answer:
    """For optimizers that take gradients at their size."""
    takes = (
        f"{course.optimizer or 'This optimizer'} takes gradients at their size, so what is removed is missing from the step."
    )
    if course.removed_mass_ratio >= STRONG_REMOVAL and course.clip_rate_ratio < MOST_STEPS:
        return Answer(
            headline="Clipping is unlikely to be the problem here: it cut a few large steps",
            tone="good",
            reasons=(
                removed,
                "So the share is large because single norms were: most steps were left as they are, and a threshold that acts "
                "as a smaller learning rate would have cut most of them.",
            ),
            next_step="Look at the spikes below: a few rows are often behind them.",
        )
    if course.removed_mass_ratio >= STRONG_REMOVAL:
        return Answer(
            headline="Clipping may hold this model back: the threshold acts as a smaller learning rate",
            tone="busy",
            reasons=(
                removed,
                f"{takes} From about {percent(STRONG_REMOVAL)} on, models in our evidence began to lose accuracy, rare slices "
                "first; at a learning rate that is too high the same threshold helps (R3).",
            ),
            next_step="clipdrift ablate trains it with other policies on the same data and seeds, and tells which it is.",
        )
    return Answer(
        headline="Clipping is unlikely to be the problem here",
        tone="good",
        reasons=(removed, f"{takes} Below {percent(STRONG_REMOVAL)} no model in our evidence lost a point of accuracy to it."),
        next_step="Where a model was under-trained, look at the learning rate and the number of steps before the threshold.",
    )


def _wrong(course: Course) -> tuple[str, ...]:
    """What was certainly wrong (R1)."""
    found = [_fault_words(fault) for fault in course.faults if fault.kind not in _ASIDE]
    if course.num_nonfinite > FEW_NONFINITE * course.num_steps:
        found.append(f"{course.num_nonfinite:,} of {course.num_steps:,} steps had a norm that is not finite.")
    if course.num_ineffective and not found:
        found.append(
            f"On {course.num_ineffective:,} of {course.num_checked:,} steps that were checked the optimizer took other "
            "gradients than clipping had left."
        )
    return tuple(found)


def _fault_words(fault: Fault) -> str:
    where = f" in {fault.layer}" if fault.layer else ""
    what = fault.words or fault.kind.replace("_", " ")
    return f"From step {fault.step:,} on{where}: {what[0].upper()}{what[1:]}" + ("" if what.endswith(".") else ".")
