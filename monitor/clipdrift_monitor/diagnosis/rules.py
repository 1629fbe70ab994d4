"""Rules R1 to R7: each says whether it holds, on which evidence, and in which words.

Source: the experiment of 1,920 trained models behind docs/design/monitor.md; a rule that the evidence at hand cannot decide is
"unknown".
"""

from collections.abc import Mapping

import msgspec

from clipdrift_contract.events import RuleFinding
from clipdrift_monitor.clipping.evidence import ClippingEvidence
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.split import LossSplit
from clipdrift_monitor.risk.harm import Statement

_CALIBRATION_JUMP = 0.03


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


def findings(facts: Facts) -> tuple[RuleFinding, ...]:
    """All rules, in their order."""
    return tuple(rule(facts) for rule in (_r1, _r2, _r3, _r4, _r5, _r6, _r7))


def _r1(facts: Facts) -> RuleFinding:
    holds = facts.clipping.has_fault
    words = (
        f"The training itself was faulty: {facts.clipping.fault_words}."
        if holds
        else "Every step that was checked did what clipping promised."
    )
    return RuleFinding(rule="R1 training fault", outcome="holds" if holds else "does_not_hold", words=words)


def _r2(facts: Facts) -> RuleFinding:
    clipping = facts.clipping
    holds = clipping.is_adaptive and clipping.is_norm_clipped and not clipping.has_fault
    words = (
        "The optimizer rescales every step by its own size, so scaling all gradients by one factor changes next to nothing."
        if holds
        else "The optimizer takes gradients at their size, so what clipping removes is missing from the step."
    )
    return RuleFinding(rule="R2 adaptive optimizer", outcome="holds" if holds else "does_not_hold", words=words)


def _r3(facts: Facts) -> RuleFinding:
    rule = "R3 threshold acts as learning rate"
    clipping, contrast = facts.clipping, facts.clipping.best_contrast
    evidence = {"removed_mass_ratio": clipping.removed_mass_ratio, "clip_rate_ratio": clipping.clip_rate_ratio}
    removed = f"Clipping removed {clipping.removed_mass_ratio:.0%} of the gradient mass"
    if clipping.is_adaptive or not clipping.is_strong:
        why = "the optimizer makes up for it" if clipping.is_adaptive else "too little to act as a smaller learning rate"
        return RuleFinding(rule=rule, outcome="does_not_hold", words=f"{removed}; {why}.", evidence=evidence)
    if contrast is None:
        words = f"{removed}; only a shadow retrain with another threshold can tell whether that harms."
        return RuleFinding(rule=rule, outcome="unknown", words=words, evidence=evidence)
    evidence |= {"difference": contrast.difference, "low": contrast.low, "high": contrast.high}
    holds = contrast.high < 0 and contrast.difference <= -facts.margin
    interval = f"{contrast.difference:+.4f} [{contrast.low:+.4f}, {contrast.high:+.4f}]"
    words = (
        f"{removed}. Trained again on the same data and seed with {clipping.best_arm} instead, the Brier score changes by "
        f"{interval} on {contrast.num_rows} rows of {contrast.num_blocks} days."
    )
    return RuleFinding(rule=rule, outcome="holds" if holds else "does_not_hold", words=words, evidence=evidence)


def _r4(facts: Facts) -> RuleFinding:
    if facts.live_ece is None:
        return RuleFinding(
            rule="R4 calibration", outcome="unknown", words="There are no labels yet to judge the probabilities by."
        )
    holds = facts.live_ece - facts.validated_ece > _CALIBRATION_JUMP
    words = f"Calibration error is {facts.live_ece:.3f} now, {facts.validated_ece:.3f} at validation."
    evidence = {"live_ece": facts.live_ece, "validated_ece": facts.validated_ece}
    return RuleFinding(rule="R4 calibration", outcome="holds" if holds else "does_not_hold", words=words, evidence=evidence)


def _r5(facts: Facts) -> RuleFinding:
    split = facts.split
    holds = split.loss > 0.005 and split.mix > split.within
    words = f"Of {split.loss:+.3f} lost accuracy, {split.mix:+.3f} come from other rows than before (the slices' mix)."
    return RuleFinding(
        rule="R5 mix shift", outcome="holds" if holds else "does_not_hold", words=words, evidence={"mix": split.mix}
    )


def _r6(facts: Facts) -> RuleFinding:
    split, repairable = facts.split, facts.statements.get("repairable")
    holds = "repairable" in facts.open_tests
    gain = repairable.effect if repairable is not None else 0.0
    words = (
        f"Within the slices {split.within:+.3f} accuracy is lost; the best simple repair gains {gain:.4f} Brier score a "
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
