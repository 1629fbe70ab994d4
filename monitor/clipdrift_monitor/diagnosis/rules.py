"""Rules R1 to R7: each says whether it holds, on which evidence, and in which words.

Source: the experiment of 1,920 trained models behind docs/design/monitor.md; a rule that the evidence at hand cannot decide is
"unknown".
"""

import math
from collections.abc import Mapping

import msgspec

from clipdrift_contract.events import RuleFinding
from clipdrift_monitor.clipping.evidence import ClippingEvidence
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.split import LossSplit
from clipdrift_monitor.risk.harm import Statement

_CALIBRATION_JUMP = 0.03
_CHANCE_BINS = 15  # of the calibration error
_SPLIT_LOSS = 0.005  # below, there is no loss worth splitting


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a diagnosis looks at, as values."""

    clipping: ClippingEvidence
    split: LossSplit
    drift: DriftReport
    statements: Mapping[str, Statement]
    open_tests: tuple[str, ...]
    validated_ece: float
    live_ece: float | None
    num_labels: int
    margin: float
    falls: Mapping[str, float] = {}
    """Validated minus live accuracy of each slice that has enough labels on both sides."""


def _signed(share: float) -> str:
    """With sign and three digits, and no minus before a zero."""
    return f"{round(share, 3) + 0.0:+.3f}"


def findings(facts: Facts) -> tuple[RuleFinding, ...]:
    """All rules, in their order."""
    return tuple(rule(facts) for rule in (_r1, _r2, _r3, _r4, _r5, _r6, _r7))


def _r1(facts: Facts) -> RuleFinding:
    rule = "R1 training fault"
    if facts.clipping.has_fault:
        words = f"The training itself was faulty: {facts.clipping.fault_words}."
        return RuleFinding(rule=rule, outcome="holds", words=words)
    if not facts.clipping.num_checked:
        words = "No step was checked: recording the run would tell whether clipping did what it promised."
        return RuleFinding(rule=rule, outcome="unknown", words=words)
    words = f"All {facts.clipping.num_checked} steps that were checked did what clipping promised."
    return RuleFinding(rule=rule, outcome="does_not_hold", words=words)


def _r2(facts: Facts) -> RuleFinding:
    clipping = facts.clipping
    holds = clipping.is_adaptive and clipping.is_norm_clipped and not clipping.has_fault
    if clipping.is_idle:
        words = "Clipping changed no step of this run."
    elif holds:
        words = "The optimizer rescales every step by its own size, so one factor on all gradients changes next to nothing."
    elif clipping.is_adaptive and not clipping.is_norm_clipped:
        words = "Clipping each entry changes the gradient's direction, which no optimizer makes up for."
    else:
        words = "The optimizer takes gradients at their size, so what clipping removes is missing from the step."
    return RuleFinding(rule="R2 adaptive optimizer", outcome="holds" if holds else "does_not_hold", words=words)


def _r3(facts: Facts) -> RuleFinding:
    rule = "R3 threshold acts as learning rate"
    clipping, contrast = facts.clipping, facts.clipping.best_contrast
    evidence = {"removed_mass_ratio": clipping.removed_mass_ratio, "clip_rate_ratio": clipping.clip_rate_ratio}
    share, steps = clipping.removed_mass_ratio, clipping.clip_rate_ratio
    removed = f"Clipping removed {share:.0%} of the gradient mass, on {steps:.0%} of the steps"
    if clipping.is_adaptive or not clipping.is_strong:
        why = "the optimizer makes up for it" if clipping.is_adaptive else "too little to act as a smaller learning rate"
        return RuleFinding(rule=rule, outcome="does_not_hold", words=f"{removed}; {why}.", evidence=evidence)
    if contrast is None:
        words = f"{removed}; only a shadow retrain with another threshold can tell whether that harms."
        return RuleFinding(rule=rule, outcome="unknown", words=words, evidence=evidence)
    evidence |= {"difference": contrast.difference, "low": contrast.low, "high": contrast.high}
    interval = f"{contrast.difference:+.4f} [{contrast.low:+.4f}, {contrast.high:+.4f}]"
    words = (
        f"{removed}. Trained again on the same data and seed with {clipping.best_arm} instead, the Brier score changes by "
        f"{interval} on {contrast.num_rows} rows of {contrast.num_blocks} days."
    )
    if contrast.high < 0 and contrast.difference <= -facts.margin:
        return RuleFinding(rule=rule, outcome="holds", words=words, evidence=evidence)
    is_settled = contrast.low > -facts.margin
    if not is_settled:
        words += " More held-out days, or more seeds, would settle it."
    return RuleFinding(rule=rule, outcome="does_not_hold" if is_settled else "unknown", words=words, evidence=evidence)


def _r4(facts: Facts) -> RuleFinding:
    if facts.live_ece is None:
        return RuleFinding(
            rule="R4 calibration", outcome="unknown", words="There are no labels due yet to judge the probabilities by."
        )
    # an honest model shows up to so much on so many labels: mean |gap| of a normal with p (1 - p) <= 1/4 in every bin
    chance = math.sqrt(_CHANCE_BINS / (2 * math.pi * max(1, facts.num_labels)))
    holds = facts.live_ece - facts.validated_ece > max(_CALIBRATION_JUMP, chance)
    words = f"Calibration error is {facts.live_ece:.3f} now, {facts.validated_ece:.3f} at validation."
    evidence = {"live_ece": facts.live_ece, "validated_ece": facts.validated_ece, "chance": chance}
    return RuleFinding(rule="R4 calibration", outcome="holds" if holds else "does_not_hold", words=words, evidence=evidence)


def _r5(facts: Facts) -> RuleFinding:
    rule, split = "R5 mix shift", facts.split
    if not facts.num_labels:
        return RuleFinding(rule=rule, outcome="unknown", words="There are no labels due yet to split a loss of accuracy by.")
    holds = split.loss > _SPLIT_LOSS and split.mix > split.within
    words = f"Of {_signed(split.loss)} lost accuracy, {_signed(split.mix)} come from other rows than before (the slices' mix)."
    return RuleFinding(rule=rule, outcome="holds" if holds else "does_not_hold", words=words, evidence={"mix": split.mix})


def _r6(facts: Facts) -> RuleFinding:
    split, repairable = facts.split, facts.statements.get("repairable")
    holds = "repairable" in facts.open_tests
    if not holds and not facts.num_labels:
        words = "There are no labels due yet to compare the model with a repaired one."
        return RuleFinding(rule="R6 drift within slices", outcome="unknown", words=words)
    gain = repairable.effect if repairable is not None else 0.0
    words = (
        f"Within the slices {_signed(split.within)} accuracy is lost; the best simple repair gains {gain:.4f} Brier score a "
        "prediction."
    )
    return RuleFinding(
        rule="R6 drift within slices", outcome="holds" if holds else "does_not_hold", words=words,
        evidence={"within": split.within, "gain": gain},
    )  # fmt: skip


def _r7(facts: Facts) -> RuleFinding:
    words = "Whatever is trained must beat the model in service on rows that neither has seen; the gate holds it to that."
    return RuleFinding(
        rule="R7 gate on the incumbent", outcome="holds", words=words, evidence={"num_labels": float(facts.num_labels)}
    )
