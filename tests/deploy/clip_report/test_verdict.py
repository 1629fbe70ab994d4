"""The headline, by rules R1 to R4."""

from typing import get_args

import pytest
from made_runs import FAULT, window

from clipdrift_contract.events import ClipSpec, Fault, FaultKind
from clipdrift_deploy.clip_report.figures import course_of
from clipdrift_deploy.clip_report.verdict import ADVICE, Answer, answer_of


def answer(norm: float = 2.0, **changes: object) -> Answer:
    return answer_of(course_of([window(0, norm, **changes)]))


def test_every_fault_has_its_advice() -> None:
    assert set(ADVICE) == set(get_args(FaultKind))


@pytest.mark.parametrize(
    "kind", ["clip_before_backward", "clip_after_step", "double_clip", "wrong_parameters", "scaled_gradients"]
)
def test_a_fault_comes_before_everything_else(kind) -> None:
    found = answer(1.0001, optimizer="Adam", faults=(Fault(kind=kind, step=3, num_steps=50, layer="head"),))
    assert (found.tone, found.headline[:23]) == ("bad", "First mend the training")
    assert "From step 3 on in head" in found.reasons[0]


def test_a_step_now_and_then_that_is_not_finite_is_no_fault_of_the_run() -> None:
    overflow = Fault(kind="half_overflow", step=3, num_steps=1)
    quiet = [window(50 * i) for i in range(20)]
    spoilt = window(1_000, num_nonfinite=1, faults=(overflow,))
    assert answer_of(course_of([*quiet, spoilt])).tone == "good"
    assert answer_of(course_of([window(0, num_nonfinite=3)])).tone == "bad"


def test_a_frozen_layer_says_nothing_of_the_threshold() -> None:
    assert answer(faults=(Fault(kind="frozen_layer", step=0, num_steps=50, layer="a"),)).tone == "good"


def test_steps_that_were_not_as_promised_are_a_fault_without_a_name_too() -> None:
    assert "On 2 of 5 steps" in answer(num_ineffective=2).reasons[0]


def test_adam_with_one_factor_is_never_the_problem_however_much_is_removed() -> None:
    found = answer(1_000.0, optimizer="AdamW")
    assert (found.tone, found.headline) == ("good", "Clipping is not the problem here")
    assert "AdamW divides each step" in found.reasons[1]


def test_adam_with_parts_scaled_apart_is_left_open() -> None:
    found = answer(optimizer="Adam", clip=ClipSpec(kind="agc", max_norm=0.01))
    assert found.tone == "busy"
    assert "clipdrift ablate" in found.next_step


@pytest.mark.parametrize(("norm", "tone"), [(3.9, "good"), (4.0, "busy")])
def test_with_sgd_three_quarters_removed_is_where_a_threshold_may_hold_back(norm, tone) -> None:
    found = answer(norm)
    assert found.tone == tone
    assert ("may hold this model back" in found.headline) is (tone == "busy")


def test_a_few_spikes_that_were_cut_are_no_smaller_learning_rate() -> None:
    calm = [window(50 * i, 0.5) for i in range(9)]
    found = answer_of(course_of([*calm, window(450, 1_000.0)]))
    assert (found.tone, "it cut a few large steps" in found.headline) == ("good", True)


def test_per_sample_clipping_asks_for_calibration_first() -> None:
    assert answer(10.0, clip=ClipSpec(kind="per_sample", max_norm=1.0)).headline == "Look at calibration first"


@pytest.mark.parametrize("changes", [{"clip": ClipSpec()}, {"num_clipped": 0, "norm_removed_sum": 0.0}])
def test_what_changed_nothing_is_not_the_problem(changes) -> None:
    assert "it changed nothing" in answer(**changes).headline


def test_that_clipping_harms_is_never_said_of_one_run() -> None:
    runs = [{"norm": n, "optimizer": o, "clip": ClipSpec(kind=k, max_norm=1.0)} for n in (2.0, 100.0) for o in ("SGD", "Adam")
            for k in ("global_norm", "value", "per_sample", "zclip")]  # fmt: skip
    told = " ".join(" ".join((one.headline, *one.reasons, one.next_step)) for one in (answer(**run) for run in runs))
    assert "harms" not in told
    assert "caused" not in told


def test_faults_are_told_in_their_own_words() -> None:
    assert answer(faults=(FAULT,)).reasons[0] == "From step 0 on: Clipping is called after the optimizer's step."
