"""The diagnosis: a first cause and what contributes, a verdict on clipping, in words for an engineer and for anybody, how sure
that is, and what would change it."""

from collections.abc import Sequence
from typing import NamedTuple

from clipdrift_contract.events import ClippingVerdict, Diagnosis, RuleFinding
from clipdrift_monitor.clipping.evidence import verdict_of
from clipdrift_monitor.diagnosis.rules import Facts, findings
from clipdrift_monitor.diagnosis.rules.broken import FAULT_OF, SKEW, is_skew
from clipdrift_monitor.diagnosis.rules.performance import (
    PLAIN_GAIN,
    PLAIN_MIX,
    lost_brier,
    probability_of_gain,
    probability_of_mix,
    probability_regained,
    regained,
)
from clipdrift_monitor.diagnosis.rules.rule import SURE

_CLIPPING_WORDS: dict[ClippingVerdict, str] = {
    "implicated": "Gradient clipping holds this model back: trained on the same data with another threshold it is better.",
    "associated": "Clipping took most of the gradient, but training with another threshold did not prove to help.",
    "not_implicated": "Gradient clipping has nothing to do with it.",
    "unknown": "Whether gradient clipping has anything to do with it is not known yet.",
}
_WOULD_TELL = "A shadow retrain with another threshold, on the same data and seed, would tell."
_PART = 0.25  # of the lost Brier score that clipping must explain to be the first cause of a harm
_HELPS = 1 / 3  # of the lost Brier score that a recalibration must bring back before a repair seems to help
_SMALL = 0.005  # Brier score: no loss worth a word
_FORETOLD = 0.5  # of the lost accuracy that the model's own scores foretell on days that are merely hard
_CONTRIBUTES = 0.9  # confidence from which a second cause is named


class _Cause(NamedTuple):
    cause: str
    words: str
    plain: str
    confidence: float
    fault: str = ""
    would_change: str = ""


def diagnose(facts: Facts) -> Diagnosis:
    """What is wrong, as far as the facts tell."""
    rules = findings(facts)
    holding = {one.rule.split()[0]: one for one in rules if one.outcome == "holds"}
    clipping = _on_clipping(facts)
    first = _first(facts, rules, holding, clipping)
    return Diagnosis(
        cause=first.cause,
        fault=first.fault,
        clipping=clipping,
        words=first.words if first.cause == "none" else f"{first.words} {_clipping_words(facts, clipping)}",
        plain=first.plain,
        confidence=round(first.confidence, 4),
        would_tell=_would_tell(facts, first.cause, clipping),
        would_change=first.would_change,
        contributing=_contributing(facts, holding, clipping, first),
        accuracy_loss=facts.split.loss,
        mix_term=facts.split.mix,
        within_term=facts.split.within,
        findings=rules,
    )


def _on_clipping(facts: Facts) -> ClippingVerdict:
    """What this version's training and its shadow retrain say; where they leave it open, what all versions say."""
    verdict, association = verdict_of(facts.clipping, facts.margin), facts.association
    if verdict != "unknown" or association is None or association.verdict == "implicated":  # that takes a shadow retrain
        return verdict
    return association.verdict


def _clipping_words(facts: Facts, clipping: ClippingVerdict) -> str:
    told = facts.association
    return told.words if told is not None and told.verdict == clipping else _CLIPPING_WORDS[clipping]


def _would_tell(facts: Facts, cause: str, clipping: ClippingVerdict) -> str:
    if cause == "none":
        return ""
    if cause in ("harder_days", "slice_drift", "unknown"):
        return "A shadow retrain on the newest labels would tell whether a new version does better."
    if clipping not in ("unknown", "associated"):
        return ""
    told = facts.association
    return told.would_tell if told is not None and told.would_tell else _WOULD_TELL


# --- the first cause ---


def _first(facts: Facts, rules: Sequence[RuleFinding], holding: dict[str, RuleFinding], clipping: ClippingVerdict) -> _Cause:
    broken = _broken(facts, holding)
    if broken:
        return broken[0]
    if "R1" in holding:
        return _of(holding["R1"], "training_fault")
    if facts.open_tests:
        return _of_repairable(facts, holding, clipping) if "R6" in holding else _of_harm(facts, holding, rules)
    return _without_harm(facts, holding, clipping)


def _without_harm(facts: Facts, holding: dict[str, RuleFinding], clipping: ClippingVerdict) -> _Cause:
    """What is known by other evidence while no test of harm has passed its bound."""
    if clipping == "implicated" and "R3" in holding:
        return _of(holding["R3"], "clipping", "No harm is proven since validation; the model is worse than it could be.")
    if "R5" in holding and holding["R5"].confidence >= SURE and facts.split.mix >= PLAIN_MIX:
        return _of_mix(holding)
    if "P1" in holding:
        return _of(holding["P1"], "feedback_loop")
    if "R8" in holding and regained(facts) >= PLAIN_GAIN and probability_regained(facts) >= SURE:
        return _of(holding["R8"], "calibration", "The probabilities are no longer honest; the ranking is as good as it was.")
    return _Cause(
        "none", "Nothing is proven to be wrong.", "Nothing is proven to be wrong.", _confidence_in_health(facts),
        would_change="A harm test whose evidence passes its bound.",
    )  # fmt: skip


def _of(finding: RuleFinding, cause: str, words: str = "", fault: str = "") -> _Cause:
    text = f"{words} {finding.words}" if words else finding.words
    return _Cause(cause, text, finding.plain, finding.confidence, fault, finding.would_change)


def _broken(facts: Facts, holding: dict[str, RuleFinding]) -> list[_Cause]:
    """Faults of features and labels that hold: skew first, which explains every other feature's fault; then the surest."""
    rules = [name for name in FAULT_OF if name in holding and name != "B6"]
    skewed = {one.kind for one in facts.faults if is_skew(facts, one)}
    later = {one.kind for one in facts.faults if not is_skew(facts, one)}
    if "B6" in holding:
        rules = [name for name in rules if FAULT_OF[name] in later or FAULT_OF[name] not in skewed]
    rules.sort(key=lambda name: (name.startswith("L"), -holding[name].confidence))
    found = [(SKEW, holding["B6"])] if "B6" in holding else []
    found += [(FAULT_OF[name], holding[name]) for name in rules]
    words = "What comes in looks broken; a retrain would learn the fault."
    if not facts.open_tests and not facts.drift.broken:
        words = "What comes in may be broken, which harms nobody so far."
    return [_of(finding, "data_broken", words, fault) for fault, finding in found]


def _of_repairable(facts: Facts, holding: dict[str, RuleFinding], clipping: ClippingVerdict) -> _Cause:
    if clipping == "implicated" and "R3" in holding and _is_material(facts):
        words = "The model is worse than a simple repair would be, and its clipping threshold is part of the reason."
        return _of(holding["R3"], "clipping", words)
    if "R10" in holding:
        return _of(holding["R10"], "slice_drift", "Its rows no longer mean what they did.")
    if "R5" in holding:
        return _of_mix(holding)
    if "P1" in holding:
        return _of(holding["P1"], "feedback_loop")
    # with more than two classes nothing is known of the ranking
    calibration = holding.get("R8") or (holding.get("R4") if facts.probabilities is None else None)
    if calibration is not None:
        return _of(calibration, "calibration", "The world has moved on, and the probabilities are no longer honest.")
    return _of(holding["R6"], "drift", _moved(facts))


def _is_material(facts: Facts) -> bool:
    """What another threshold would gain is a good part of what was lost; where it is not, clipping contributes."""
    contrast = facts.clipping.best_contrast
    return contrast is None or -contrast.difference >= _PART * lost_brier(facts)


def _moved(facts: Facts) -> str:
    moved = [one.subject for one in facts.faults]
    names = f" ({', '.join(moved[:3])} moved at once)" if moved else ""
    return f"The world has moved away from what the model learned{names}."


def _of_mix(holding: dict[str, RuleFinding]) -> _Cause:
    if "R9" in holding:
        return _of(
            holding["R9"], "mix_shift", "The rows that come now are not those the model was good at.", "under_trained_slice"
        )
    return _of(holding["R5"], "mix_shift", "The rows that come now are not those the model was good at.")


def _of_harm(facts: Facts, holding: dict[str, RuleFinding], rules: Sequence[RuleFinding]) -> _Cause:
    """Of harm that no simple repair is proven to mend."""
    if "R10" in holding:
        return _of(holding["R10"], "slice_drift", "What is lost is lost in one slice; its rows no longer mean what they did.")
    if "R5" in holding:
        return _of_mix(holding)
    if _is_over(facts):
        return _Cause(
            "none", "A test of harm is open, but the newest blocks together lost nothing since validation.",
            "Something looked worse for a while; it does not any more.", _confidence_in_health(facts),
            would_change="A loss over all blocks of the view.",
        )  # fmt: skip
    if _may_help(facts, rules):
        return _Cause(
            "unknown", "The model is worse than when it was validated. A simple repair seems to help, which is not proven yet.",
            "The model got worse. Why is not known yet.", 0.0, would_change="More days of labels.",
        )  # fmt: skip
    return _Cause(
        "harder_days",
        "These days are harder than any that validation saw; no simple repair (recalibration, base rate) is proven to help.",
        "Cases are harder than they used to be; another model would probably do no better.",
        1 - probability_of_gain(facts), would_change="A simple repair that is proven to help.",
    )  # fmt: skip


def _is_over(facts: Facts) -> bool:
    """Neither errors nor the Brier score are worse over the view than at validation, and nothing broke at once."""
    is_as_right = facts.num_labels > 0 and bool(facts.slices) and facts.split.loss <= 0
    return is_as_right and "sudden_break" not in facts.open_tests and lost_brier(facts) <= _SMALL


def _may_help(facts: Facts, rules: Sequence[RuleFinding]) -> bool:
    """A simple repair gains by its interval, and neither honest probabilities nor hard rows speak against it."""
    is_honest = any(
        one.rule.startswith("R4") and one.outcome == "does_not_hold" and one.confidence >= _CONTRIBUTES for one in rules
    )
    repairable = facts.statements.get("repairable")
    if is_honest or _is_hard_by_its_scores(facts) or repairable is None:
        return False
    return repairable.effect_low is not None and repairable.effect_low > 0


def _is_hard_by_its_scores(facts: Facts) -> bool:
    """The scores foretell most of the loss themselves, and to recalibrate them brings little back."""
    one = facts.probabilities
    if one is None or one.foretold_loss is None:
        return False
    is_foretold = one.foretold_loss >= _FORETOLD * facts.split.loss > 0
    return is_foretold and regained(facts) < _HELPS * lost_brier(facts)


def _confidence_in_health(facts: Facts) -> float:
    """One minus the chance, at even odds before, that harm explains the evidence: e / (1 + e), e what the test with the most
    evidence has over what an alarm needs."""
    shares = [min(1.0, one.level / one.bound) for one in facts.statements.values() if one.bound > 0]
    return 1 - max(shares, default=0.5) / (1 + max(shares, default=0.5))


# --- what contributes ---


def _contributing(facts: Facts, holding: dict[str, RuleFinding], clipping: ClippingVerdict, first: _Cause) -> tuple[str, ...]:
    """Other causes that hold by their own evidence. Broken inputs or labels spoil what is measured with them, so beside them
    only what does not rest on it is named."""
    found = [one.fault for one in _broken(facts, holding)]
    found += ["training_fault"] if "R1" in holding else []
    if clipping == "implicated" and "R3" in holding:
        found.append("clipping")
    if facts.open_tests:
        sure = {name for name, one in holding.items() if one.confidence >= _CONTRIBUTES}
        found += ["slice_drift"] if "R10" in sure else []
        found += ["under_trained_slice"] if "R9" in sure else []
        found += ["calibration"] if "R8" in sure and not found else []
    is_labelled = not any(name.startswith("L") for name in holding)
    if first.cause != "none" and is_labelled and facts.split.mix >= PLAIN_MIX and probability_of_mix(facts) >= SURE:
        found.append("mix_shift")
    found += ["feedback_loop"] if "P1" in holding else []
    found += ["approvals_without_reading"] if "P2" in holding else []
    return tuple(dict.fromkeys(one for one in found if one not in (first.fault, first.cause)))
