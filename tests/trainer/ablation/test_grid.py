import pytest

from clipdrift_contract.events import ClipSpec, NormQuantiles
from clipdrift_trainer.ablation.grid import MULTIPLES, NormScale, first_arms, later_arms, multiple_of
from clipdrift_trainer.clipping.rules import RULES, make_clipper

SCALE = NormScale(
    median=2.0, origin="off", own=NormQuantiles(p10=1.0, p50=1.5, p90=3.3, p99=4.0), num_tensors=4, num_parameters=100
)
PRESENT = ClipSpec(kind="global_norm", max_norm=0.05)


def test_the_present_policy_comes_first_and_no_clipping_beside_it() -> None:
    assert [(arm.name, arm.clip) for arm in first_arms(PRESENT)] == [("present", PRESENT), ("off", ClipSpec(kind="off"))]
    assert [arm.name for arm in first_arms(ClipSpec())] == ["present"]


def test_thresholds_are_multiples_of_the_median_norm() -> None:
    arms = later_arms(PRESENT, SCALE)

    bounds = [arm.clip.max_norm for arm in arms if arm.clip.kind == "global_norm"]
    assert bounds == [*(2.0 * multiple for multiple in MULTIPLES), 3.3]
    assert [arm.name for arm in arms][-2:] == ["AutoClip, 10th percentile", "q90"]
    assert multiple_of(arms[2].clip, SCALE) == pytest.approx(0.1)


def test_a_policy_is_tried_once_under_whatever_name() -> None:
    arms = later_arms(PRESENT, SCALE, thresholds=[0.05, 3.3, 3.3])

    assert [arm.clip.max_norm for arm in arms if arm.clip.kind == "global_norm"] == [3.3]


@pytest.mark.parametrize("kind", sorted(set(RULES) - {"off"}))
def test_every_rule_can_be_asked_for_without_a_bound(kind: str) -> None:
    arm = later_arms(PRESENT, SCALE, thresholds=[7.0], rules=[(kind, None)])[-1]

    make_clipper(arm.clip)


def test_a_rule_is_given_its_bound() -> None:
    arm = later_arms(PRESENT, SCALE, thresholds=[7.0], rules=[("value", 0.01)])[-1]

    assert (arm.name, arm.clip) == ("value 0.01", ClipSpec(kind="value", max_norm=0.01))


def test_thresholds_that_differ_late_have_names_of_their_own() -> None:
    arms = later_arms(PRESENT, SCALE, thresholds=[0.12345671, 0.12345672])

    assert [arm.name for arm in arms[:2]] == ["global norm 0.12345671", "global norm 0.12345672"]


def test_another_rule_is_refused_beside_a_per_sample_bound() -> None:
    with pytest.raises(ValueError, match="privacy"):
        later_arms(ClipSpec(kind="per_sample", max_norm=1.0), SCALE, rules=[("zclip", None)])


def test_a_per_sample_bound_is_varied_as_such_and_never_taken_away() -> None:
    private = ClipSpec(kind="per_sample", max_norm=1.0, options={"noise_multiplier": 1.1})

    assert [arm.name for arm in first_arms(private)] == ["present"]
    arms = later_arms(private, SCALE)
    assert {arm.clip.kind for arm in arms} == {"per_sample"}
    assert all(arm.clip.options == private.options for arm in arms)
    assert [arm.clip.max_norm for arm in arms] == [m for m in MULTIPLES if m != 1.0]


def test_gradients_of_no_size_are_refused_with_what_it_means() -> None:
    nothing = NormScale(median=0.0, origin="off", own=None, num_tensors=1, num_parameters=1)
    with pytest.raises(ValueError, match="nothing learns"):
        later_arms(PRESENT, nothing)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_a_threshold_that_is_no_positive_number_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="positive number"):
        later_arms(PRESENT, SCALE, thresholds=[bound])
