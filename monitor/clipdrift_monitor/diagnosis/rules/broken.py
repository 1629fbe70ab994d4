"""B1 to B6 and L1 to L5: features and labels that are broken rather than drifting. What was found is told; the search itself
is the work of diagnosis/broken.py and diagnosis/labels.py."""

from collections.abc import Callable
from typing import NamedTuple

from clipdrift_contract.events import EvidenceRow, RuleFinding
from clipdrift_monitor.diagnosis.faults import LABELS, Found
from clipdrift_monitor.diagnosis.rules.rule import Facts, Rule, finding

SKEW = "training_serving_skew"
_NO_TIME_DAYS = 7.0  # between the newest training row and the first block: the world does not change its units in a week


class _Kind(NamedTuple):
    """A fault and how it is told."""

    name: str
    fault: str
    source: str
    plain: str
    would_change: str


_BINS = "Dirichlet-multinomial evidence of the block's bins under each explanation (diagnosis/broken.py)"
_RATES = "beta-binomial evidence of the labels by score under each explanation (diagnosis/labels.py)"
_KINDS = (
    _Kind("B1 schema change", "schema_change", f"{_BINS}; missing and unknown values by their share",
          "One of the model's inputs has stopped coming, or comes in a form that it does not know.",
          "Values that come as before."),
    _Kind("B2 unit change", "unit_change", f"{_BINS}; 21 usual conversions of units",
          "One of the model's inputs comes in another unit than before.", "The conversion undone where the value is made."),
    _Kind("B3 shifted feature", "shifted_feature", f"{_BINS}; offsets up to the width of the reference's bins",
          "One of the model's inputs is off by the same amount everywhere, as from a wrongly set instrument.",
          "Other inputs that moved on the same day: then it is more likely the world."),
    _Kind("B4 constant feature", "constant_feature", _BINS,
          "One of the model's inputs is stuck at one value.", "Values that vary within a block again."),
    _Kind("B5 stale feature", "stale_feature", "lower tail of Pearson's chi-square: more alike than two samples ever are",
          "One of the model's inputs repeats old values instead of new ones.", "Values that differ from the earlier block's."),
    _Kind("L1 labels turned round", "labels_flipped", _RATES,
          "The answers that the model is checked with have yes and no exchanged.",
          "A few labels looked up by hand: if they are right as they are, the world has turned round."),
    _Kind("L2 labels of one class only", "labels_one_class", _RATES,
          "All answers that the model is checked with are the same.", "A label of the other class."),
    _Kind("L3 labels of a class missing", "labels_missing_for_class",
          "labels of each class when they are due, beside past blocks",
          "Answers of one kind no longer arrive, so the model cannot be judged fairly.",
          "Those labels coming after all: then they are late, not lost."),
    _Kind("L4 labels of a class late", "labels_delayed_by_class", "labels that came after their block was judged, by class",
          "Answers of one kind arrive later than the others, so the newest days look different from what they are.",
          "A longer label horizon (`monitor.label_horizon_ms`)."),
    _Kind("L5 labels joined to other predictions", "labels_misjoined", _RATES,
          "The answers do not belong to the questions: two lists were put together wrongly.",
          "A few labels looked up by hand: if they belong where they are, the model lost all it knew at once."),
)  # fmt: skip


def is_skew(facts: Facts, found: Found) -> bool:
    """There from the version's first block on, before the world could have changed."""
    return found.is_from_first and found.subject != LABELS and (facts.days_to_first_block or 0.0) <= _NO_TIME_DAYS


def _rule(kind: _Kind) -> Rule:
    def judge(facts: Facts) -> RuleFinding:
        found = [one for one in facts.faults if one.kind == kind.fault]
        return _told(kind, facts, found, "labels" if kind.name.startswith("L") else "features")

    return Rule(kind.name, kind.source, judge)


def _told(kind: _Kind, facts: Facts, found: list[Found], what: str) -> RuleFinding:
    if found:
        most = max(found, key=lambda one: one.confidence)
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return finding(
            kind.name, True, f"{_sentence(most.words)[:-1]}{more}.", kind.plain, confidence=most.confidence,
            would_change=kind.would_change, rows=most.rows,
        )  # fmt: skip
    known = {one.words for one in facts.faults}
    others = [words for words in facts.drift.broken if words not in known]
    if kind.fault == "schema_change" and others:
        words = f"{'; '.join(others)}."
        return finding(kind.name, True, words, kind.plain, confidence=0.99, would_change=kind.would_change)
    if not facts.is_searched:
        return finding(
            kind.name, None, f"There were too few blocks before this one to know how {what} usually are.",
            "Too early to say.", would_change="Three blocks of the version in service.",
        )  # fmt: skip
    unsure = max((one.confidence for one in facts.faults), default=0.0)
    return finding(
        kind.name, False, f"Nothing of the kind was found in the {what} of the newest block.", "Nothing of the kind was found.",
        confidence=1 - unsure / 10, would_change=f"A block whose {what} that explanation foretells better than any other.",
    )  # fmt: skip


def _skew(facts: Facts) -> RuleFinding:
    name = "B6 training-serving skew"
    found = [one for one in facts.faults if is_skew(facts, one)]
    gap = facts.days_to_first_block
    row = EvidenceRow(name="days from training to the first block", value=gap or 0.0, unit="days", bound=_NO_TIME_DAYS)
    if gap is None:
        return finding(
            name, None, "When the training's newest row was made is not known.", "Cannot be said for this model.",
            would_change="A run that records its data's time.",
        )  # fmt: skip
    if not found:
        return finding(
            name, False, "What the first blocks of this version looked like is what validation looked like.",
            "The model gets in service what it got in training.", confidence=0.9 if facts.is_searched else 0.5,
            would_change="A feature that differs from validation in the version's first block already.", rows=(row,),
        )  # fmt: skip
    most = max(found, key=lambda one: one.confidence)
    return finding(
        name, True, f"From the first block of this version on, {most.words}: serving does not make it as training did.",
        "In service the model is fed something else than it learned from, from its first day on.",
        confidence=most.confidence, would_change="The same rows through both pipelines with the same result.",
        rows=(row, *most.rows),
    )  # fmt: skip


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


_make: Callable[[_Kind], Rule] = _rule
RULES = (
    *(_make(kind) for kind in _KINDS[:5]),
    Rule("B6 training-serving skew", "a fault that is there in the version's first block already", _skew),
    *(_make(kind) for kind in _KINDS[5:]),
)
FAULT_OF = {kind.name.split()[0]: kind.fault for kind in _KINDS} | {"B6": SKEW}
