import pytest
from diagnosis_facts import MARGIN, OPEN, PROVEN, REFUTED, contrast, facts

from clipdrift_monitor.diagnosis.rules import RULES, findings
from clipdrift_monitor.diagnosis.split import LossSplit

FAULT = {"has_fault": True, "fault_words": "3 of 100 steps had a norm that is not finite"}
CASES = [
    ("R1", facts(clipping=FAULT), "holds"),
    ("R1", facts(), "does_not_hold"),
    ("R1", facts(clipping={"num_checked": 0}), "unknown"),
    ("R2", facts(clipping={"is_adaptive": True}), "holds"),
    ("R2", facts(), "does_not_hold"),
    ("R2", facts(clipping={"is_adaptive": True, "is_norm_clipped": False}), "does_not_hold"),
    ("R2", facts(clipping={"is_adaptive": True, **FAULT}), "does_not_hold"),
    ("R3", facts(clipping={"best_contrast": PROVEN, "best_arm": "q90"}), "holds"),
    ("R3", facts(clipping={"best_contrast": REFUTED, "best_arm": "q90"}), "does_not_hold"),
    ("R3", facts(clipping={"best_contrast": OPEN, "best_arm": "q90"}), "unknown"),
    ("R3", facts(), "unknown"),
    ("R3", facts(clipping={"is_strong": False, "removed_mass_ratio": 0.2}), "does_not_hold"),
    ("R3", facts(clipping={"is_adaptive": True, "best_contrast": PROVEN}), "does_not_hold"),
    ("R4", facts(live_ece=0.06), "holds"),
    ("R4", facts(live_ece=0.045), "does_not_hold"),
    ("R4", facts(live_ece=0.06, num_labels=500), "does_not_hold"),  # chance alone gives so much
    ("R4", facts(live_ece=None), "unknown"),
    ("R5", facts(split=LossSplit(loss=0.05, mix=0.04, within=0.01)), "holds"),
    ("R5", facts(split=LossSplit(loss=0.05, mix=0.01, within=0.04)), "does_not_hold"),
    ("R5", facts(split=LossSplit(loss=0.001, mix=0.001, within=0.0)), "does_not_hold"),
    ("R5", facts(num_labels=0), "unknown"),
    ("R6", facts(open_tests=("repairable",)), "holds"),
    ("R6", facts(open_tests=("worse_than_validated",)), "does_not_hold"),
    ("R6", facts(num_labels=0), "unknown"),
    ("R7", facts(), "holds"),
]


def finding(rule, given):
    return next(one for one in findings(given) if one.rule.startswith(rule))


@pytest.mark.parametrize(
    ("rule", "given", "outcome"), CASES, ids=[f"{rule}-{out}-{i}" for i, (rule, _, out) in enumerate(CASES)]
)
def test_each_rule_holds_does_not_or_does_not_know(rule, given, outcome):
    found = finding(rule, given)
    assert found.outcome == outcome
    assert found.words.endswith(".")


def test_every_rule_is_told_once_and_in_the_same_order():
    names = [one.rule for one in findings(facts())]
    assert names == [rule.name for rule in RULES]
    assert len({name.split()[0] for name in names}) == len(names)


def test_a_gain_below_the_margin_is_no_harm_however_sure():
    tiny = contrast(-MARGIN / 5, MARGIN / 10)
    assert finding("R3", facts(clipping={"best_contrast": tiny, "best_arm": "q90"})).outcome == "does_not_hold"


def test_the_contrast_is_told_in_numbers():
    found = finding("R3", facts(clipping={"best_contrast": PROVEN, "best_arm": "q90"}))
    assert "with q90 instead, the Brier score changes by -0.0100 [-0.0140, -0.0060] on 5000 rows of 20 days" in found.words
    assert found.evidence["high"] == PROVEN.high


def test_what_would_settle_an_open_contrast_is_said():
    assert "more seeds, would settle it" in finding("R3", facts(clipping={"best_contrast": OPEN})).words


@pytest.mark.parametrize(
    ("clipping", "words"),
    [
        ({"is_idle": True}, "changed no step"),
        ({"is_adaptive": True}, "rescales every step"),
        ({"is_adaptive": True, "is_norm_clipped": False}, "changes the gradient's direction"),
        ({}, "missing from the step"),
    ],
)
def test_the_optimizer_is_described_as_it_is(clipping, words):
    assert words in finding("R2", facts(clipping=clipping)).words
