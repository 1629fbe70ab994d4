"""The diagnosis: one cause, one verdict on clipping, in words for anybody, and what would settle what is unknown."""

from clipdrift_contract.events import ClippingVerdict, Diagnosis
from clipdrift_monitor.clipping.evidence import verdict_of
from clipdrift_monitor.diagnosis.rules import Facts, findings

_CLIPPING_WORDS: dict[ClippingVerdict, str] = {
    "implicated": "Gradient clipping holds this model back: trained on the same data with another threshold it is better.",
    "associated": "Clipping took most of the gradient, but training with another threshold did not prove to help.",
    "not_implicated": "Gradient clipping has nothing to do with it.",
    "unknown": "Whether gradient clipping has anything to do with it is not known yet.",
}
_LARGE_FALL = 0.15  # of accuracy; below, a slice's fall may be chance or a bad week
_WOULD_TELL = "A shadow retrain with another threshold, on the same data and seed, would tell."


def diagnose(facts: Facts) -> Diagnosis:
    """What is wrong, as far as the facts tell."""
    rules = findings(facts)
    holding = {finding.rule.split()[0] for finding in rules if finding.outcome == "holds"}
    clipping = verdict_of(facts.clipping, facts.margin)
    cause, words = _cause(facts, holding, clipping)
    return Diagnosis(
        cause=cause,
        clipping=clipping,
        words=words if cause == "none" else f"{words} {_CLIPPING_WORDS[clipping]}",
        would_tell=_would_tell(cause, clipping),
        accuracy_loss=facts.split.loss,
        mix_term=facts.split.mix,
        within_term=facts.split.within,
        findings=rules,
    )


def _would_tell(cause: str, clipping: ClippingVerdict) -> str:
    if cause == "none":
        return ""
    if cause in ("harder_days", "slice_drift", "unknown"):
        return "A shadow retrain on the newest labels would tell whether a new version does better."
    return _WOULD_TELL if clipping == "unknown" else ""


def _cause(facts: Facts, holding: set[str], clipping: ClippingVerdict) -> tuple[str, str]:
    if facts.drift.broken:
        return "data_broken", f"The data look broken: {'; '.join(facts.drift.broken)}. A retrain would learn the fault."
    if "R1" in holding:
        return "training_fault", f"The training itself was faulty: {facts.clipping.fault_words}."
    if "repairable" in facts.open_tests:
        return _cause_of_repairable(holding, clipping)
    return _cause_of_harm(facts) if facts.open_tests else ("none", "Nothing is proven to be wrong.")


def _cause_of_harm(facts: Facts) -> tuple[str, str]:
    """Of harm that no simple repair is proven to mend."""
    repairable, alone = facts.statements.get("repairable"), _slice_that_fell_alone(facts)
    if alone:
        words = f"What is lost is lost in one slice: {alone} fell by {facts.falls[alone]:.0%}, the others did not."
        return "slice_drift", f"{words} Its rows no longer mean what they did."
    if repairable is not None and repairable.effect_low is not None and repairable.effect_low > 0:
        return (
            "unknown",
            "The model is worse than when it was validated. A simple repair seems to help, which is not proven yet.",
        )
    return "harder_days", (
        "These days are harder than any that validation saw; no simple repair (recalibration, base rate) is proven to help."
    )


def _slice_that_fell_alone(facts: Facts) -> str:
    """The slice that lost much accuracy while all others lost a third of that or less; "" where there is none."""
    if len(facts.falls) < 2:
        return ""
    worst = max(facts.falls, key=lambda name: facts.falls[name])
    others = max(fall for name, fall in facts.falls.items() if name != worst)
    return worst if facts.falls[worst] >= _LARGE_FALL and others <= facts.falls[worst] / 3 else ""


def _cause_of_repairable(holding: set[str], clipping: ClippingVerdict) -> tuple[str, str]:
    if clipping == "implicated":
        return "clipping", "The model is worse than a simple repair would be, and its clipping threshold is part of the reason."
    if "R5" in holding:
        return "mix_shift", "The rows that come now are not those the model was good at."
    if "R4" in holding:
        return "calibration", "The world has moved away from what the model learned; its probabilities are no longer honest."
    return "drift", "The world has moved away from what the model learned."
