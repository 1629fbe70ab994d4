import re
from pathlib import Path

import msgspec
import pytest
from diagnosis_facts import MARGIN, OPEN, PROVEN, REFUTED, contrast, facts

from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.faults import LABELS, Found
from clipdrift_monitor.diagnosis.rules import RULES, Approval, Probabilities, SliceFacts, findings
from clipdrift_monitor.diagnosis.rules.broken import FAULT_OF
from clipdrift_monitor.diagnosis.split import LossSplit

SLICES = {
    "north": SliceFacts(num_validated=2000, num_validated_correct=1700, num_live=2000, num_live_correct=1700, num_train=5000),
    "south": SliceFacts(num_validated=2000, num_validated_correct=1700, num_live=2000, num_live_correct=1700, num_train=5000),
}
RARE = {
    "north": SliceFacts(num_validated=3600, num_validated_correct=3200, num_live=1200, num_live_correct=1050, num_train=9700),
    "isles": SliceFacts(num_validated=400, num_validated_correct=200, num_live=2800, num_live_correct=1400, num_train=300),
}
EXPLORED = {
    "north": SliceFacts(num_validated=2000, num_validated_correct=1600, num_live=2000, num_live_correct=1900),
    "dealt": SliceFacts(num_validated=500, num_validated_correct=400, num_live=500, num_live_correct=400),
}
ODDS_UP = Probabilities(
    validated_brier=0.12, live_brier=0.18, recalibrated_brier=0.14, validated_auc=0.85, live_auc=0.85, num_hits=2500,
    num_misses=2500, validated_rate=0.2, regained_error=0.004,
)  # fmt: skip
SLOW, QUICK = Approval(num_words=400, seconds=120.0), Approval(num_words=400, seconds=5.0)


def broken(kind, subject="price", **changes):
    one = Found(kind=kind, subject=subject, words=f"{subject} is off", confidence=0.97, since_ms=2_000)
    return facts(faults=(msgspec.structs.replace(one, **changes),), is_searched=True, days_to_first_block=0.5)


SEARCHED = facts(is_searched=True, days_to_first_block=0.5)
KINDS = [
    ("B1", "schema_change"), ("B2", "unit_change"), ("B3", "shifted_feature"), ("B4", "constant_feature"),
    ("B5", "stale_feature"), ("L1", "labels_flipped"), ("L2", "labels_one_class"), ("L3", "labels_missing_for_class"),
    ("L4", "labels_delayed_by_class"), ("L5", "labels_misjoined"),
]  # fmt: skip
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
    ("R8", facts(probabilities=ODDS_UP), "holds"),
    ("R8", facts(probabilities=msgspec.structs.replace(ODDS_UP, live_auc=0.75)), "does_not_hold"),
    ("R8", facts(probabilities=msgspec.structs.replace(ODDS_UP, recalibrated_brier=0.179)), "does_not_hold"),
    ("R8", facts(), "unknown"),
    ("R8", facts(probabilities=msgspec.structs.replace(ODDS_UP, live_auc=None)), "unknown"),
    ("R9", facts(slices=RARE, split=LossSplit(loss=0.2, mix=0.18, within=0.02)), "holds"),
    ("R9", facts(slices=RARE), "does_not_hold"),  # nothing was lost by it
    ("R9", facts(slices=SLICES, split=LossSplit(loss=0.2, mix=0.18, within=0.02)), "does_not_hold"),
    ("R9", facts(), "unknown"),
    ("R10", facts(slices=SLICES, falls={"north": 0.3, "south": 0.02}), "holds"),
    ("R10", facts(slices=SLICES, falls={"north": 0.3, "south": 0.2}), "does_not_hold"),
    ("R10", facts(slices=SLICES, falls={"north": 0.3}), "unknown"),
    *((rule, broken(kind, LABELS if rule[0] == "L" else "price"), "holds") for rule, kind in KINDS),
    *((rule, SEARCHED, "does_not_hold") for rule, _ in KINDS),
    *((rule, facts(), "unknown") for rule, _ in KINDS),
    ("B1", facts(drift=DriftReport(broken=("hour is missing in 99% of rows (reference 0%)",))), "holds"),
    ("B6", broken("unit_change", is_from_first=True), "holds"),
    ("B6", broken("unit_change"), "does_not_hold"),
    ("B6", msgspec.structs.replace(broken("unit_change", is_from_first=True), days_to_first_block=30.0), "does_not_hold"),
    ("B6", broken("labels_flipped", LABELS, is_from_first=True), "does_not_hold"),
    ("B6", facts(), "unknown"),
    ("P1", facts(slices=EXPLORED, exploration_slice="dealt"), "holds"),
    ("P1", facts(slices={"north": SLICES["north"], "dealt": SLICES["south"]}, exploration_slice="dealt"), "does_not_hold"),
    ("P1", facts(slices=EXPLORED), "unknown"),
    ("P1", facts(slices=EXPLORED, exploration_slice="nowhere"), "unknown"),
    ("P2", facts(approvals=(QUICK,) * 8), "holds"),
    ("P2", facts(approvals=(SLOW,) * 8), "does_not_hold"),
    ("P2", facts(approvals=(QUICK,) * 4), "unknown"),
    ("P2", facts(), "unknown"),
]


def finding(rule, given):
    return next(one for one in findings(given) if one.rule.split()[0] == rule)


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


def test_each_rule_has_a_case_that_holds_and_one_that_does_not_and_is_unknown_where_it_can_be():
    known = {rule.name.split()[0]: {outcome for one, _, outcome in CASES if one == rule.name.split()[0]} for rule in RULES}
    all_three = {"holds", "does_not_hold", "unknown"}
    assert {name for name, outcomes in known.items() if outcomes != all_three} == {"R2", "R7"}
    assert (known["R2"], known["R7"]) == ({"holds", "does_not_hold"}, {"holds"})


def test_the_reference_names_every_rule_and_no_other():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "diagnosis.md").read_text()
    told = [name for cell in re.findall(r"^\| ([RBLP]\d.*?) \|", page, re.MULTILINE) for name in re.findall(r"[RBLP]\d+", cell)]
    assert sorted(told) == sorted(rule.name.split()[0] for rule in RULES)


@pytest.mark.parametrize(("rule", "kind"), KINDS)
def test_a_fault_that_is_found_is_told_by_its_own_rule_alone(rule, kind):
    said = findings(broken(kind, LABELS if rule[0] == "L" else "price"))
    holding = [one for one in said if one.outcome == "holds" and one.rule[0] in "BL"]
    assert [one.rule.split()[0] for one in holding] == [rule]
    assert (holding[0].confidence, FAULT_OF[rule]) == (0.97, kind)


def test_a_more_common_event_is_harder_to_foretell_and_that_is_no_lost_skill():
    """Share of the event from 0.2 to 0.5: the Brier score of an equally skilled score grows by 0.25 / 0.16."""
    as_hard = msgspec.structs.replace(ODDS_UP, live_brier=0.12 * 0.25 / 0.16 + 0.02, recalibrated_brier=0.12 * 0.25 / 0.16)
    assert "of +0.0200 Brier score lost" in finding("R8", facts(probabilities=as_hard)).words
    assert finding("R8", facts(probabilities=as_hard)).evidence["share that recalibration brings back"] == pytest.approx(1.0)


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
