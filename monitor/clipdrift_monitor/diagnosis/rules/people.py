"""P1 and P2: what people and the model do to each other. Both need something declared or recorded, and are unknown without."""

import math

from clipdrift_contract.events import EvidenceRow, RuleFinding
from clipdrift_monitor.diagnosis.rules.rule import SURE, Facts, Rule, binomial_variance, finding, probability_above

_P1, _P2 = "P1 feedback loop", "P2 approvals without reading"
_MANY_FOLLOW = 0.2  # of the labels: with fewer, accuracy is off by less than a fifth of the errors
_WORDS_PER_SECOND = 238 / 60  # silent reading of non-fiction (Brysbaert 2019)
_SKIMMED = 0.5  # of the time that reading takes: faster is not reading
_MIN_APPROVALS = 5


def _feedback(facts: Facts) -> RuleFinding:
    explored = facts.slices.get(facts.exploration_slice)
    rest = [one for name, one in facts.slices.items() if name != facts.exploration_slice]
    num_live, num_before = sum(one.num_live for one in rest), sum(one.num_validated for one in rest)
    if not facts.exploration_slice or explored is None or not explored.num_live or not num_live or not num_before:
        return finding(
            _P1, None,
            "No slice is declared in which the model's answer was not acted upon, or it has no labels yet; without one, labels "
            "that follow predictions look like accuracy.",
            "Nobody can tell whether the model is right or is made right by those who follow it.",
            would_change="A slice of cases decided without the model (`[policy.diagnosis] exploration_slice`).",
        )  # fmt: skip
    agreement, validated = (
        sum(one.num_live_correct for one in rest) / num_live,
        sum(one.num_validated_correct for one in rest) / num_before,
    )
    gap = agreement - explored.live
    usual = validated - explored.validated if explored.num_validated else 0.0
    error = math.sqrt(binomial_variance(agreement, num_live) + binomial_variance(explored.live, explored.num_live))
    likely = probability_above(gap - usual, 0.0, error)
    # agreement = s + (1 - s) * (agreement without the model), s the share of labels that follow
    following = max(0.0, (gap - usual) / max(1e-9, 1 - (agreement - (gap - usual))))
    holds = likely >= SURE and following >= _MANY_FOLLOW
    return finding(
        _P1, holds,
        f"Predictions agree with labels in {agreement:.1%} of rows, and in {explored.live:.1%} of the rows of "
        f"{facts.exploration_slice}, which the model did not decide; about {following:.0%} of the labels follow it.",
        "The answers that the model is checked with are partly its own."
        if holds else "The model is about as good where nobody followed it.",
        confidence=likely if holds else 1 - likely,
        would_change="Labels made without knowing the prediction."
        if holds else f"More than {_MANY_FOLLOW:.0%} of labels that follow.",
        rows=(
            EvidenceRow(name="agreement gap", value=round(gap, 4), unit="share", bound=round(usual, 4)),
            EvidenceRow(name="labels that follow the prediction", value=round(following, 4), unit="share", bound=_MANY_FOLLOW),
        ),
    )  # fmt: skip


def _approvals(facts: Facts) -> RuleFinding:
    known = facts.approvals or ()
    if len(known) < _MIN_APPROVALS:
        return finding(
            _P2, None, f"There are {len(known)} recorded approvals; {_MIN_APPROVALS} are needed to say anything.",
            "Too few decisions by people to say how they are made.", would_change="More approvals in the audit log.",
        )  # fmt: skip
    unread = [one for one in known if one.seconds < _SKIMMED * one.num_words / _WORDS_PER_SECOND]
    share = len(unread) / len(known)
    likely = probability_above(share, 0.5, math.sqrt(binomial_variance(share, len(known))))
    holds = likely >= 0.9
    reading = sum(one.num_words for one in known) / len(known) / _WORDS_PER_SECOND
    return finding(
        _P2, holds,
        f"{len(unread)} of {len(known)} approvals came in less than half the time that reading takes ({reading:.0f} s).",
        "People say yes before they can have read what they say yes to." if holds else "People take the time to read.",
        confidence=likely if holds else 1 - likely,
        would_change="Approvals that take as long as reading does." if holds else "More approvals within seconds.",
        rows=(
            EvidenceRow(name="approvals faster than reading", value=round(share, 3), unit="share", bound=0.5),
            EvidenceRow(name="reading time", value=round(reading, 1), unit="seconds"),
        ),
    )  # fmt: skip


RULES = (
    Rule(_P1, "agreement beside a slice decided without the model (randomised decisions: Bottou et al. 2013)", _feedback),
    Rule(_P2, "reading speed of 238 words a minute (Brysbaert 2019)", _approvals),
)  # fmt: skip
