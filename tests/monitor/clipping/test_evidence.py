import itertools

import pytest

from clipdrift_contract.events import Arm, ArmResult, ClipSpec, Contrast, Fault, RetrainOutcome, RunEnd
from clipdrift_monitor.clipping.evidence import evidence_of, strongest, verdict_of

MARGIN = 0.0005


def run(**changes):
    fields = {
        "run_id": "r", "model": "m", "version": "v", "started_at_ms": 0, "ended_at_ms": 1, "data_start_ms": 0, "data_end_ms": 1,
        "as_of_ms": 1, "data_digest": "", "code_revision": "", "seed": 0, "optimizer": "SGD", "learning_rate": 0.1,
        "clip": ClipSpec(kind="global_norm", max_norm=0.05), "num_steps": 100, "removed_mass_ratio": 0.9,
        "clip_rate_ratio": 1.0, "num_checked": 10,
    }  # fmt: skip
    return RunEnd(**{**fields, **changes})


def arm(name, difference=None, half=0.001, metric="brier", part=""):
    contrasts = () if difference is None else (
        Contrast(slice=part, num_rows=9, num_blocks=3, metric=metric, difference=difference, low=difference - half,
                 high=difference + half),
    )  # fmt: skip
    return ArmResult(
        arm=Arm(name=name, clip=ClipSpec()), run_id="r", version="v", artifact_uri="", artifact_digest="",
        removed_mass_ratio=0.0, validation=(), against_same=contrasts,
    )  # fmt: skip


def outcome(*arms):
    return RetrainOutcome(key="k", model="m", finished_at_ms=1, verdict="fail", reasons=(), arms=arms)


def verdict(*arms, **changes):
    return verdict_of(evidence_of(run(**changes), outcome(*arms) if arms else None), MARGIN)


def test_removed_mass_alone_implicates_nothing():
    assert verdict(removed_mass_ratio=0.999) == "unknown"


def test_a_few_large_steps_that_are_cut_are_no_smaller_learning_rate():
    assert evidence_of(run(clip_rate_ratio=0.5), None).is_strong
    assert not evidence_of(run(removed_mass_ratio=0.97, clip_rate_ratio=0.17), None).is_strong


@pytest.mark.parametrize(
    ("kind", "has_fault"),
    [("double_clip", True), ("wrong_parameters", True), ("scaled_gradients", True), ("frozen_layer", False)],
)
def test_clipping_that_is_used_wrongly_is_a_fault_of_the_training_and_a_layer_without_gradient_is_none(kind, has_fault):
    found = evidence_of(run(faults=(Fault(kind=kind, step=0, num_steps=9, words="what is wrong"),)), None)
    assert (found.has_fault, found.fault_words) == (has_fault, "what is wrong" if has_fault else "")


def test_a_better_arm_beyond_chance_and_margin_implicates():
    assert verdict(arm("same"), arm("q90", -0.01)) == "implicated"


@pytest.mark.parametrize(
    ("difference", "half", "expected"),
    [
        (-0.01, 0.02, "associated"),  # may be chance
        (-0.0001, 0.00005, "not_implicated"),  # sure, and below the margin
        (0.002, 0.001, "not_implicated"),  # the other arm is worse
        (0.0, 0.0004, "not_implicated"),
    ],
)
def test_a_contrast_that_proves_nothing_implicates_nothing(difference, half, expected):
    assert verdict(arm("q90", difference, half)) == expected


def test_weak_removal_with_an_open_contrast_is_unknown():
    assert verdict(arm("q90", -0.01, 0.02), removed_mass_ratio=0.3) == "unknown"


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Lion"])
@pytest.mark.parametrize("kind", ["global_norm", "autoclip", "zclip", "quantile"])
def test_an_adaptive_optimizer_is_never_implicated_without_a_fault(optimizer, kind):
    changes = {"optimizer": optimizer, "clip": ClipSpec(kind=kind, max_norm=1.0)}
    for difference, half in itertools.product((-0.5, -0.01, 0.01), (0.001, 1.0)):
        assert verdict(arm("q90", difference, half), **changes) == "not_implicated"
    assert verdict(arm("q90", -0.01), **changes, num_nonfinite=3) == "implicated"


def test_an_adaptive_optimizer_with_clipped_entries_may_be_implicated():
    assert verdict(arm("q90", -0.01), optimizer="Adam", clip=ClipSpec(kind="value", max_norm=0.1)) == "implicated"


@pytest.mark.parametrize(
    "changes",
    [{"clip": ClipSpec(kind="off")}, {"clip_rate_ratio": 0.0, "removed_mass_ratio": 0.0}],
    ids=["off", "never reached"],
)
def test_clipping_that_changed_no_step_is_not_implicated(changes):
    assert verdict(**changes) == "not_implicated"
    assert verdict(arm("q90", -0.01), **changes) == "not_implicated"


def test_a_proven_arm_goes_before_one_that_looks_better_by_chance():
    found = evidence_of(run(), outcome(arm("same"), arm("lucky", -0.05, 0.2), arm("q90", -0.01), arm("p10", -0.004)))
    assert found.best_arm == "q90"
    assert verdict_of(found, MARGIN) == "implicated"


def test_without_a_proven_arm_the_best_looking_one_keeps_the_question_open():
    assert evidence_of(run(), outcome(arm("tight", 0.0, 0.0001), arm("wide", -0.01, 0.2))).best_arm == "wide"


def test_only_the_overall_brier_score_of_another_arm_counts():
    arms = (arm("same", -0.9), arm("by_slice", -0.9, part="EWR"), arm("by_error", -0.9, metric="error"), arm("died"))
    assert evidence_of(run(), outcome(*arms)).best_contrast is None


def test_faults_are_told_in_numbers():
    found = evidence_of(run(num_nonfinite=2, num_ineffective=4), None)
    assert found.has_fault
    assert "2 of 100 steps" in found.fault_words
    assert "4 of 10 steps checked" in found.fault_words
    assert not evidence_of(run(), None).has_fault


def test_an_overflow_now_and_then_is_no_fault():
    assert not evidence_of(run(num_nonfinite=1), None).has_fault
    assert evidence_of(run(num_nonfinite=2), None).has_fault


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((), "unknown"),
        (("unknown", "not_implicated"), "not_implicated"),
        (("not_implicated", "associated"), "associated"),
        (("associated", "implicated", "not_implicated"), "implicated"),
    ],
)
def test_one_proof_is_enough_over_all_retrains(verdicts, expected):
    assert strongest(verdicts) == expected
