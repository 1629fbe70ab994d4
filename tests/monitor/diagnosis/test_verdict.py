import itertools

import msgspec
import pytest
from diagnosis_facts import OPEN, PROVEN, REFUTED, facts, statement

from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.rules import RULES
from clipdrift_monitor.diagnosis.split import LossSplit
from clipdrift_monitor.diagnosis.verdict import diagnose

REPAIRABLE = {"open_tests": ("repairable",)}
MIX = LossSplit(loss=0.05, mix=0.04, within=0.01)
BROKEN = DriftReport(broken=("hour is missing in 99% of rows (reference 0%)",))


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (facts(), "none"),
        (facts(open_tests=("sudden_break",)), "harder_days"),
        (facts(open_tests=("worse_than_validated",)), "harder_days"),
        (facts(**REPAIRABLE), "drift"),
        (facts(**REPAIRABLE, live_ece=0.1), "calibration"),
        (facts(**REPAIRABLE, live_ece=0.1, split=MIX), "mix_shift"),
        (facts(**REPAIRABLE, split=MIX, clipping={"best_contrast": PROVEN}), "clipping"),
        (facts(**REPAIRABLE, clipping={"has_fault": True, "best_contrast": PROVEN}), "training_fault"),
        (facts(**REPAIRABLE, drift=BROKEN, clipping={"has_fault": True}), "data_broken"),
        (facts(split=MIX, live_ece=0.1), "none"),
    ],
)
def test_the_cause_is_the_first_that_the_facts_support(given, cause):
    assert diagnose(given).cause == cause


def test_clipping_is_implicated_only_by_a_shadow_retrain():
    for strong, adaptive, norm, fault in itertools.product([False, True], repeat=4):
        clipping = {"is_strong": strong, "is_adaptive": adaptive, "is_norm_clipped": norm, "has_fault": fault}
        assert diagnose(facts(**REPAIRABLE, clipping=clipping)).clipping in ("unknown", "not_implicated")
    assert diagnose(facts(**REPAIRABLE, clipping={"best_contrast": PROVEN})).clipping == "implicated"


@pytest.mark.parametrize("contrast", [None, PROVEN, REFUTED, OPEN])
def test_with_an_adaptive_optimizer_and_no_fault_clipping_is_never_implicated(contrast):
    found = diagnose(facts(**REPAIRABLE, clipping={"is_adaptive": True, "best_contrast": contrast}))
    assert found.clipping == "not_implicated"
    assert found.cause == "drift"


def test_harm_without_a_proven_repair_does_not_claim_that_none_would_help():
    found = diagnose(facts(open_tests=("sudden_break",)))
    assert "no retrain would help" not in found.words
    assert "shadow retrain" in found.would_tell


def test_a_slice_that_fell_alone_is_named():
    found = diagnose(facts(open_tests=("sudden_break",), falls={"harbour": 0.6, "north": 0.01, "south": -0.02}))
    assert (found.cause, "harbour fell by 60%" in found.words) == ("slice_drift", True)


@pytest.mark.parametrize(
    "falls", [{"harbour": 0.6}, {"harbour": 0.6, "north": 0.3}, {"harbour": 0.1, "north": 0.0}, {}], ids=str
)
def test_a_fall_of_one_slice_among_falling_ones_or_a_small_one_is_harder_days(falls):
    assert diagnose(facts(open_tests=("sudden_break",), falls=falls)).cause == "harder_days"


def test_a_gain_that_chance_hardly_explains_leaves_the_cause_unknown():
    hopeful = msgspec.structs.replace(statement("repairable", 0.02), effect_low=0.004, effect_high=0.036)
    given = facts(open_tests=("sudden_break",), statements={"repairable": hopeful}, live_ece=0.05)  # neither kept nor risen
    assert diagnose(given).cause == "unknown"
    assert diagnose(msgspec.structs.replace(given, live_ece=0.02)).cause == "harder_days"
    assert diagnose(msgspec.structs.replace(given, live_ece=0.2)).cause == "calibration"


def test_what_is_unknown_says_what_would_tell():
    unknown = diagnose(facts(**REPAIRABLE))
    assert (unknown.clipping, "shadow retrain" in unknown.would_tell) == ("unknown", True)
    assert diagnose(facts(**REPAIRABLE, clipping={"best_contrast": REFUTED})).would_tell == ""


def test_a_diagnosis_carries_its_split_and_its_findings():
    found = diagnose(facts(**REPAIRABLE, split=MIX))
    assert (found.accuracy_loss, found.mix_term, found.within_term) == (0.05, 0.04, 0.01)
    assert len(found.findings) == len(RULES)
    assert "not known yet" in found.words
