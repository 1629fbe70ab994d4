"""Which policies are worth a training."""

import math

import pytest

from clipdrift_contract.events import Arm, ClipSpec, NormQuantiles
from clipdrift_trainer.retraining.candidates import threshold_candidates

NORMS = NormQuantiles(p10=0.5, p50=1.0, p90=3.5, p99=9.0)


def bounds(arms: tuple[Arm, ...]) -> dict[str, float | None]:
    return {arm.name: arm.clip.max_norm for arm in arms}


def test_a_tight_bound_may_go_to_the_norms_or_half_way() -> None:
    arms = threshold_candidates(ClipSpec(kind="global_norm", max_norm=0.035), NORMS, "SGD")

    assert bounds(arms) == {"same": 0.035, "half": pytest.approx(math.sqrt(0.035 * 3.5)), "q90": 3.5}
    assert {arm.clip.kind for arm in arms} == {"global_norm"}


def test_near_the_norms_there_is_no_room_for_one_between() -> None:
    assert bounds(threshold_candidates(ClipSpec(kind="global_norm", max_norm=1.0), NORMS, "SGD")) == {"same": 1.0, "q90": 3.5}


@pytest.mark.parametrize("kind", ["global_norm", "autoclip", "off"])
def test_with_an_adaptive_optimizer_a_common_factor_is_left_alone(kind: str) -> None:
    assert list(bounds(threshold_candidates(ClipSpec(kind=kind, max_norm=0.01), NORMS, "AdamW"))) == ["same"]  # type: ignore[arg-type]


def test_what_an_adaptive_optimizer_does_not_take_out_again_is_tried() -> None:
    value = ClipSpec(kind="value", max_norm=0.01)

    assert list(bounds(threshold_candidates(value, NORMS, "Adam"))) == ["same", "autoclip_p10", "q90"]


def test_arms_of_per_sample_clipping_stay_per_sample_and_keep_what_else_was_set() -> None:
    by_layer = ClipSpec(kind="per_sample", max_norm=0.01, options={"bound": "per_layer", "noise_multiplier": 0.0})

    arms = threshold_candidates(by_layer, NORMS, "Adam")

    assert [arm.name for arm in arms] == ["same", "half", "q90"]
    assert {(arm.clip.kind, arm.clip.options["bound"]) for arm in arms} == {("per_sample", "per_layer")}


def test_private_training_tries_nothing_since_each_arm_would_spend_the_same_rows_again() -> None:
    private = ClipSpec(kind="per_sample", max_norm=0.01, options={"noise_multiplier": 1.1})

    assert list(bounds(threshold_candidates(private, NORMS, "SGD"))) == ["same"]


def test_a_run_without_a_bound_of_one_number_tries_autoclip_once() -> None:
    assert list(bounds(threshold_candidates(ClipSpec(), NORMS, "SGD"))) == ["same", "autoclip_p10", "q90"]
    assert list(bounds(threshold_candidates(ClipSpec(kind="autoclip"), NORMS, "SGD"))) == ["same", "q90"]


def test_without_norms_only_the_policy_in_service_is_left() -> None:
    zero = NormQuantiles(p10=0.0, p50=0.0, p90=0.0, p99=0.0)

    for norms in (None, zero):
        assert list(bounds(threshold_candidates(ClipSpec(kind="global_norm", max_norm=1.0), norms, "SGD"))) == ["same"]


def test_no_clipping_is_never_proposed() -> None:
    kinds = ("global_norm", "value", "autoclip", "per_sample", "agc")
    arms = [arm for kind in kinds for arm in threshold_candidates(ClipSpec(kind=kind, max_norm=1.0), NORMS, "SGD")]

    assert "off" not in {arm.clip.kind for arm in arms}
