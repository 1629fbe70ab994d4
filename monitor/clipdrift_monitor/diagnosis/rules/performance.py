"""R4 to R10: where the lost accuracy went, from labels that are due."""

import math
from typing import NamedTuple

from clipdrift_contract.events import EvidenceRow, RuleFinding
from clipdrift_monitor.diagnosis.rules.rule import (
    SURE,
    Facts,
    Probabilities,
    Rule,
    binomial_variance,
    error_of,
    finding,
    probability_above,
    signed,
)

_R4, _R5, _R6, _R7 = "R4 calibration", "R5 mix shift", "R6 drift within slices", "R7 gate on the incumbent"
_R8, _R9, _R10 = "R8 calibration only", "R9 under-trained slice in a mix shift", "R10 one slice fell alone"
_CALIBRATION_JUMP = 0.03
_CHANCE_BINS = 15  # of the calibration error
_CHANCE_SPREAD = math.sqrt((math.pi / 2 - 1) / _CHANCE_BINS)  # sd over mean of a sum of 15 half-normals
_SPLIT_LOSS = 0.005  # below, there is no loss worth splitting
_LIKELY = 0.9
PLAIN_GAIN = 0.01  # Brier score by recalibration that is worth a word before any harm is proven
_NEARLY_ALL = 0.7  # of the lost Brier score that a recalibration must bring back
_RANKING_FALL = 0.02  # of the AUC: what is accepted as kept
_MAY_BE_KEPT = 0.05  # probability from which it may be kept
PLAIN_MIX = 0.01  # of accuracy: a shift of the mix that is worth a word before any harm is proven, or beside another cause
_FEW_TRAINED = 0.5  # of the share that a slice has now: with less it grew beyond what the model was trained for
_LARGE_FALL = 0.15  # of accuracy; below, a slice's fall may be chance or a bad week
_MIN_SLICE_LABELS = 200
_NO_LABELS = "Labels that are due."


def _calibration(facts: Facts) -> RuleFinding:
    if facts.live_ece is None:
        return finding(
            _R4, None, "There are no labels due yet to judge the probabilities by.",
            "Too early to say whether the model is honest about how sure it is.", would_change=_NO_LABELS,
        )  # fmt: skip
    # an honest model shows up to so much on so many labels: mean |gap| of a normal with p (1 - p) <= 1/4 in every bin
    chance = math.sqrt(_CHANCE_BINS / (2 * math.pi * max(1, facts.num_labels)))
    bound, rise = max(_CALIBRATION_JUMP, chance), facts.live_ece - facts.validated_ece
    holds = rise > bound
    likely = probability_above(rise, bound, chance * _CHANCE_SPREAD)
    return finding(
        _R4, holds, f"Calibration error is {facts.live_ece:.3f} now, {facts.validated_ece:.3f} at validation.",
        "The model is surer, or less sure, than it should be." if holds else "The model is about as sure as it should be.",
        confidence=likely if holds else 1 - likely,
        would_change=f"A rise of the calibration error {'below' if holds else 'above'} {bound:.3f}.",
        rows=(
            EvidenceRow(name="live_ece", value=facts.live_ece, unit="probability", bound=facts.validated_ece + bound),
            EvidenceRow(name="validated_ece", value=facts.validated_ece, unit="probability"),
            EvidenceRow(name="chance", value=chance, unit="probability"),
        ),
    )  # fmt: skip


def _mix(facts: Facts) -> RuleFinding:
    split = facts.split
    if not facts.num_labels:
        return finding(
            _R5, None, "There are no labels due yet to split a loss of accuracy by.", "Too early to say who is affected.",
            would_change=_NO_LABELS,
        )  # fmt: skip
    holds = split.loss > _SPLIT_LOSS and split.mix > split.within
    likely = probability_above(split.mix - split.within, 0.0, _split_error(facts))
    words = f"Of {signed(split.loss)} lost accuracy, {signed(split.mix)} come from other rows than before (the slices' mix)."
    return finding(
        _R5, holds, words,
        "Other cases come in than the model was tried on, and more of those that it always was worse at."
        if holds else "The model is not worse because of which cases come in.",
        confidence=likely if holds else 1 - likely,
        would_change="Slices with the shares they had at validation." if holds else "A mix term above the within-slice term.",
        rows=(
            EvidenceRow(name="mix", value=split.mix, unit="accuracy", bound=split.within),
            EvidenceRow(name="within", value=split.within, unit="accuracy"),
            EvidenceRow(name="loss", value=split.loss, unit="accuracy", bound=_SPLIT_LOSS),
        ),
    )  # fmt: skip


class _Shares(NamedTuple):
    """A slice's share of the rows, validated and live, and the binomial variance of its accuracy."""

    before: float
    now: float
    variance_before: float
    variance_now: float


def _shares(facts: Facts) -> list[_Shares]:
    """Of the slices that have rows on both sides."""
    slices = [one for one in facts.slices.values() if one.num_validated and one.num_live]
    num_before, num_now = sum(one.num_validated for one in slices), sum(one.num_live for one in slices)
    return [
        _Shares(
            one.num_validated / num_before, one.num_live / num_now, binomial_variance(one.validated, one.num_validated),
            binomial_variance(one.live, one.num_live),
        )
        for one in slices
    ]  # fmt: skip


def _split_error(facts: Facts) -> float:
    """Standard error of mix - within, by the binomial spread of each slice's accuracies; rows as independent."""
    shares = _shares(facts)
    variance = sum((p - 2 * q) ** 2 * before + q**2 * now for p, q, before, now in shares)
    return math.sqrt(variance) if shares else 1.0  # nothing by slice: no more than a coin's say


def probability_of_mix(facts: Facts) -> float:
    """That the mix alone took more than half of what is worth a word, by the validated accuracies' binomial errors."""
    shares = _shares(facts)
    variance = sum((p - q) ** 2 * before for p, q, before, _ in shares)
    return probability_above(facts.split.mix, PLAIN_MIX / 2, math.sqrt(variance)) if shares else 0.0


def _within(facts: Facts) -> RuleFinding:
    split, repairable = facts.split, facts.statements.get("repairable")
    is_proven = "repairable" in facts.open_tests
    holds = is_proven or is_dishonest(facts)
    if not holds and not facts.num_labels:
        return finding(
            _R6, None, "There are no labels due yet to compare the model with a repaired one.",
            "Too early to say whether a repair would help.", would_change=_NO_LABELS,
        )  # fmt: skip
    gain = repairable.effect if repairable is not None else 0.0
    rows = [
        EvidenceRow(name="within", value=split.within, unit="accuracy"),
        EvidenceRow(name="gain", value=gain, unit="Brier score", bound=0.0),
    ]
    confidence = 0.5
    if repairable is not None:
        rows.append(EvidenceRow(name="evidence", value=repairable.level, unit="e-value", bound=repairable.bound))
        confidence = probability_of_gain(facts)
    return finding(
        _R6, holds,
        f"Within the slices {signed(split.within)} accuracy is lost; the best simple repair gains {gain:.4f} Brier score a "
        f"prediction{'' if is_proven or not holds else ', by its interval, which no test has proven yet'}.",
        "The world has changed in a way that even a simple correction would partly make good."
        if holds else "No simple correction is proven to do better than the model.",
        confidence=confidence if holds else 1 - confidence,
        would_change="The evidence of the test falling back." if holds else "More days in which a repaired model does better.",
        rows=rows,
    )  # fmt: skip


def probability_of_gain(facts: Facts) -> float:
    """That a simple repair gains: by its interval over blocks, or, as long as there is none, by its evidence at even odds."""
    one = facts.statements.get("repairable")
    if one is None:
        return 0.5
    if one.effect_low is None or one.effect_high is None:
        return one.level / (1 + one.level)
    return probability_above(one.effect, 0.0, error_of(one.effect_low, one.effect_high))


def is_dishonest(facts: Facts) -> bool:
    """Harm that harder days do not explain.

    They leave an honest model honest; here the calibration error rose beyond chance, or a recalibration brings nearly all back,
    and it would have gained day by day, though no test has proven that yet.
    """
    calibration = _calibration(facts)
    is_off = calibration.outcome == "holds" and calibration.confidence >= SURE
    is_off = is_off or (_calibration_only(facts).outcome == "holds" and regained(facts) >= PLAIN_GAIN)
    return bool(facts.open_tests) and is_off and max(probability_of_gain(facts), probability_regained(facts)) >= _LIKELY


def regained(facts: Facts) -> float:
    """Brier score that a recalibration brings back; 0 where that is not known."""
    one = facts.probabilities
    return 0.0 if one is None else one.live_brier - one.recalibrated_brier


def lost_brier(facts: Facts) -> float:
    """Brier score lost since validation; 0 where that is not known."""
    one = facts.probabilities
    return 0.0 if one is None else one.live_brier - one.validated_brier


def _gate(facts: Facts) -> RuleFinding:
    return finding(
        _R7, True,
        "Whatever is trained must beat the model in service on rows that neither has seen; the gate holds it to that.",
        "A new model has to prove that it is better before it serves anybody.",
        confidence=1.0, would_change="Nothing: in the experiment, models in service beat nearly every retrain on one data set.",
        rows=(EvidenceRow(name="num_labels", value=float(facts.num_labels), unit="labels"),),
    )  # fmt: skip


def _calibration_only(facts: Facts) -> RuleFinding:
    one = facts.probabilities
    if one is None or one.validated_auc is None or one.live_auc is None:
        return finding(
            _R8, None, "Ranking and probabilities can be told apart for two classes only, with labels of both.",
            "Cannot be said for this model.", would_change="Labels of both classes.",
        )  # fmt: skip
    lost, regained = one.live_brier - _as_hard_now(one), one.live_brier - one.recalibrated_brier
    share = regained / lost if lost > 0 else (1.0 if regained > _SPLIT_LOSS else 0.0)
    error = math.sqrt(_auc_variance(one.live_auc, one.num_hits, one.num_misses) * 2)  # of both sides, taken as equally many
    kept = probability_above(one.live_auc, one.validated_auc - _RANKING_FALL, error)
    holds = share >= _NEARLY_ALL and kept >= _MAY_BE_KEPT and regained > _SPLIT_LOSS / 2
    return finding(
        _R8, holds,
        f"The AUC is {one.live_auc:.3f} now and {one.validated_auc:.3f} at validation; of {lost:+.4f} Brier score lost beyond "
        f"what the event's share explains, a recalibration brings {regained:.4f} back.",
        "The model still sorts cases in the right order; only its percentages are off, and those can be corrected."
        if holds else "More is amiss than the percentages, or nothing is.",
        confidence=probability_regained(facts) if holds else max(1 - kept, min(1.0, 1 - share / 2)),
        would_change="A fall of the AUC." if holds else "A recalibration that brings back nearly all, with the AUC kept.",
        rows=(
            EvidenceRow(name="live AUC", value=one.live_auc, bound=one.validated_auc - _RANKING_FALL),
            EvidenceRow(name="share that recalibration brings back", value=round(share, 3), unit="share", bound=_NEARLY_ALL),
        ),
    )  # fmt: skip


def _as_hard_now(one: Probabilities) -> float:
    """The validated Brier score were the event as common as it is now: a score with the same skill over the base rate."""
    num_labels = one.num_hits + one.num_misses
    if one.validated_rate is None or not 0 < one.validated_rate < 1 or not num_labels:
        return one.validated_brier
    rate = one.num_hits / num_labels
    return one.validated_brier * rate * (1 - rate) / (one.validated_rate * (1 - one.validated_rate))


def probability_regained(facts: Facts) -> float:
    """That a recalibration would gain more than one gained at validation already: by its error over blocks, or, as long as
    there is none, by the test of repairs.

    Source: the reliability term of the Brier score is at least the squared calibration error (Jensen's inequality).
    """
    one = facts.probabilities
    if one is None or one.regained_error is None:
        return probability_of_gain(facts)
    return probability_above(regained(facts), facts.validated_ece**2, one.regained_error)


def _auc_variance(auc: float, num_hits: int, num_misses: int) -> float:
    """Source: Hanley, McNeil 1982, equation 1 with the exponential approximation of Q1 and Q2."""
    if not num_hits or not num_misses:
        return 1.0
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    total = auc * (1 - auc) + (num_hits - 1) * (q1 - auc**2) + (num_misses - 1) * (q2 - auc**2)
    return max(0.0, total) / (num_hits * num_misses)


def _under_trained(facts: Facts) -> RuleFinding:
    total_train = sum(one.num_train for one in facts.slices.values())
    total_live = sum(one.num_live for one in facts.slices.values())
    total_before = sum(one.num_validated for one in facts.slices.values())
    if not total_train or not total_live or not total_before:
        return finding(
            _R9, None, "How many rows of each slice were trained on is not known.", "Cannot be said for this model.",
            would_change="A run that records its training rows by slice.",
        )  # fmt: skip
    mean = sum(one.num_validated_correct for one in facts.slices.values()) / total_before
    grown = [
        (name, one, one.num_train / total_train, one.num_live / total_live)
        for name, one in facts.slices.items()
        if one.num_validated and one.num_live / total_live > one.num_validated / total_before
    ]
    scored = [
        (
            probability_above(mean - one.validated, 0.0, math.sqrt(binomial_variance(one.validated, one.num_validated))),
            name,
            one,
            p,
            q,
        )
        for name, one, p, q in grown
        if p < _FEW_TRAINED * q and p < 1 / (2 * len(facts.slices))
    ]
    likely, name, one, p, q = max(scored, key=lambda found: found[0], default=(0.0, "", None, 0.0, 0.0))
    mix_holds = facts.split.loss > _SPLIT_LOSS and facts.split.mix > facts.split.within
    holds = one is not None and likely >= SURE and mix_holds
    if one is None or not holds:
        return finding(
            _R9, False, "No slice that grew was trained on few rows and was worse than the others already at validation.",
            "No group of cases was neglected in training and has become common since.",
            confidence=1 - likely, would_change="A mix shift towards a slice that had few rows in training.",
        )  # fmt: skip
    return finding(
        _R9, True,
        f"Slice {name} was {p:.1%} of the training rows and is {q:.1%} now; at validation it was at {one.validated:.3f} where "
        f"the whole was at {mean:.3f}. Clipping takes part in that only if a shadow retrain lifts this slice.",
        f"Cases of the kind {name} were rare when the model learned, it never was good at them, and now there are many.",
        confidence=likely, would_change="A shadow retrain on the newest labels in which the slice stays where it was.",
        rows=(
            EvidenceRow(name="share of training rows", value=round(p, 4), unit="share", bound=round(_FEW_TRAINED * q, 4)),
            EvidenceRow(name="share now", value=round(q, 4), unit="share"),
            EvidenceRow(name="validated accuracy", value=round(one.validated, 4), unit="accuracy", bound=round(mean, 4)),
        ),
    )  # fmt: skip


def _fell_alone(facts: Facts) -> RuleFinding:
    if len(facts.falls) < 2:
        return finding(
            _R10, None, "There are no two slices with enough labels to compare.", "Too few cases to compare groups.",
            would_change=f"{_MIN_SLICE_LABELS} labels in two slices, at validation and now.",
        )  # fmt: skip
    worst, fall = max(facts.falls.items(), key=lambda one: one[1])
    others = max(one for name, one in facts.falls.items() if name != worst)
    holds = fall >= _LARGE_FALL and others <= fall / 3
    known = facts.slices.get(worst)
    error = math.sqrt(
        binomial_variance(known.validated, known.num_validated) + binomial_variance(known.live, known.num_live)
    ) if known is not None else math.sqrt(0.5 / _MIN_SLICE_LABELS)  # fmt: skip
    likely = probability_above(fall, max(3 * others, _LARGE_FALL / 2), error)
    return finding(
        _R10, holds,
        f"{worst} fell by {fall:.0%}, no other slice by more than {max(0.0, others):.0%}.",
        f"The model got worse for {worst} and for nobody else." if holds else "No group got worse on its own.",
        confidence=likely if holds else 1 - likely,
        would_change="Other slices that fall too." if holds else f"A slice that alone loses {_LARGE_FALL:.0%}.",
        rows=(
            EvidenceRow(name="largest fall", value=round(fall, 4), unit="accuracy", bound=_LARGE_FALL),
            EvidenceRow(name="next largest fall", value=round(others, 4), unit="accuracy", bound=round(fall / 3, 4)),
        ),
    )  # fmt: skip


RULES = (
    Rule(_R4, "expected calibration error (Guo et al. 2017) beside what chance gives on so many labels", _calibration),
    Rule(_R5, "exact split of the lost accuracy by slice (diagnosis/split.py)", _mix),
    Rule(_R6, "the paired test against challengers that are kept on production labels (docs/reference/detectors.md)", _within),
    Rule(_R7, "the same experiment: models in service beat nearly every retrain on one of four data sets", _gate),
    Rule(_R8, "Murphy 1973: a score parts into ranking and reliability; AUC error of Hanley, McNeil 1982", _calibration_only),
    Rule(_R9, "the same experiment: harm of clipping goes through rare slices whose share grows", _under_trained),
    Rule(_R10, "accuracy by slice, validated and live, with binomial errors", _fell_alone),
)  # fmt: skip
