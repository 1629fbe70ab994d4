"""The facts about clipping that a diagnosis may use.

Removed mass decides nothing by itself: the same threshold takes three quarters of the gradient at every learning rate, harms at
a low one and helps at a high one. Only a shadow retrain of the same data and seeds with another policy tells.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from clipdrift_contract.events import ArmResult, ClippingVerdict, Contrast, FaultKind, RetrainOutcome, RunEnd
from clipdrift_contract.optimizers import COMMON_FACTOR, is_adaptive

STRONG_REMOVAL = 0.75  # no run in the evidence lost a point of accuracy below this (R3)
MOST_STEPS = 0.5  # cut in fewer, by a few large norms, a run keeps its learning rate in the median
FEW_NONFINITE = 0.01  # of the steps: an overflow now and then, which AMP's scaler answers, is no fault
_MISUSE: frozenset[FaultKind] = frozenset({"double_clip", "wrong_parameters", "scaled_gradients"})  # the others are counted
SAME = "same"
Standing = Literal["better", "not better", "open"]


class ClippingEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the run of the version in service, and of the last shadow retrain of that version."""

    is_adaptive: bool
    """The optimizer rescales every step, so a common factor on the gradient cancels (R2)."""
    is_norm_clipped: bool
    """One factor scales all gradients of a step (`COMMON_FACTOR`)."""
    is_strong: bool
    """At least three quarters of the gradient mass was removed (R3)."""
    has_fault: bool
    """Non-finite steps, or steps that the optimizer did not consume as clipped (R1)."""
    removed_mass_ratio: float
    clip_rate_ratio: float
    is_idle: bool = False
    """Clipping was off, or changed no step of the run."""
    num_checked: int = 0
    """Steps on which the norm that the optimizer consumed was compared with what clipping promised."""
    fault_words: str = ""
    best_arm: str = ""
    best_contrast: Contrast | None = None
    """The other arm that is proven best, or else seems best, minus "same" in Brier score, overall; None before any shadow
    retrain."""


def evidence_of(run: RunEnd, outcome: RetrainOutcome | None) -> ClippingEvidence:
    """The evidence from the run in service and, when there was one, the shadow retrain that was ordered for it."""
    faults = []
    if run.num_nonfinite > FEW_NONFINITE * run.num_steps:
        faults.append(f"{run.num_nonfinite} of {run.num_steps} steps had a norm that is not finite")
    if run.num_ineffective:
        faults.append(
            f"on {run.num_ineffective} of {run.num_checked} steps checked the optimizer saw other gradients than clipping left"
        )
    faults += [fault.words for fault in run.faults if fault.kind in _MISUSE]
    arm, contrast = _best_arm(outcome.arms) if outcome is not None else ("", None)
    return ClippingEvidence(
        is_adaptive=is_adaptive(run.optimizer),
        is_norm_clipped=run.clip.kind in COMMON_FACTOR,
        is_strong=run.removed_mass_ratio >= STRONG_REMOVAL and run.clip_rate_ratio >= MOST_STEPS,
        has_fault=bool(faults),
        removed_mass_ratio=run.removed_mass_ratio,
        clip_rate_ratio=run.clip_rate_ratio,
        is_idle=run.clip.kind == "off" or (run.num_steps > 0 and not run.clip_rate_ratio),
        num_checked=run.num_checked,
        fault_words="; ".join(faults),
        best_arm=arm,
        best_contrast=contrast,
    )


def verdict_of(evidence: ClippingEvidence, margin: float) -> ClippingVerdict:
    """What clipping has to do with the harm, as far as can be told.

    "implicated" needs a shadow retrain in which another policy beats the old one on the same data by more than chance and by
    more than `margin`. It is never said with an adaptive optimizer and a common factor on all gradients, nor where clipping
    changed no step.
    """
    is_harmless = evidence.is_idle or (evidence.is_adaptive and evidence.is_norm_clipped)
    if is_harmless and not evidence.has_fault:
        return "not_implicated"
    if evidence.best_contrast is None:
        return "unknown"
    standing = standing_of(evidence.best_contrast, margin)
    if standing == "open":
        return "associated" if evidence.is_strong else "unknown"
    return "implicated" if standing == "better" else "not_implicated"


def standing_of(contrast: Contrast, margin: float) -> Standing:
    """Whether one clipping policy is better than another: by more than chance, and by `margin` of Brier score at least.

    Example:
        >>> less = Contrast(slice="", num_rows=400, num_blocks=10, metric="brier", difference=-0.02, low=-0.03, high=-0.01)
        >>> standing_of(less, 0.0005), standing_of(less, 0.025), standing_of(less, 0.04)
        ('better', 'open', 'not better')
    """
    if contrast.high < 0 and contrast.difference <= -margin:
        return "better"
    return "not better" if contrast.low > -margin else "open"


def strongest(verdicts: Sequence[ClippingVerdict]) -> ClippingVerdict:
    """The verdict on a model over all its retrains: one proof is enough."""
    ranked: tuple[ClippingVerdict, ...] = ("implicated", "associated", "not_implicated")
    return next((verdict for verdict in ranked if verdict in verdicts), "unknown")


def _best_arm(arms: Sequence[ArmResult]) -> tuple[str, Contrast | None]:
    found = []
    for result in arms:
        overall = next((one for one in result.against_same if one.metric == "brier" and one.slice == ""), None)
        if result.arm.name != SAME and overall is not None:
            found.append((result.arm.name, overall))
    # a proven arm goes before one that looks better by chance
    return min(found, key=lambda one: (one[1].high >= 0, one[1].difference), default=("", None))
