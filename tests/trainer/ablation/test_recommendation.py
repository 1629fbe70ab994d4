"""Every answer from made-up figures: twenty days, a Brier score of 0.2 under the present policy, so a margin of 0.004."""

import math

import msgspec
import pytest

from clipdrift_contract.events import Arm, ClipSpec, Contrast
from clipdrift_trainer.ablation.recommendation import AblationPolicy, recommend, seeds_needed, shortlist
from clipdrift_trainer.ablation.result import ArmFigures, SetFigures, SliceFigures
from clipdrift_trainer.ablation.stability import Stability
from clipdrift_trainer.evaluation.paired import Paired

POLICY = AblationPolicy()
STABLE, SHAKY = Stability(is_stable=True, reasons=("calm",)), Stability(is_stable=False, reasons=("its norms grow",))


def gain_of(difference: float, spread: float, seed_share: float = 0.0) -> Paired:
    """With the standard error `spread`, of which `seed_share` of the variance comes from seeds."""
    return Paired(
        difference=difference, day_variance=(1 - seed_share) * spread**2, seed_variance=seed_share * spread**2,
        num_days=20, num_seeds=5, num_rows=9000,
    )  # fmt: skip


def arm(
    name: str, clip: ClipSpec, difference: float = 0.0, spread: float = 0.0003, *,
    removed: float = 0.0, multiple: float | None = None, against: tuple[Contrast, ...] = (), optimizer: str = "SGD",
    seed_share: float = 0.0, **changes,
) -> ArmFigures:  # fmt: skip
    worst = SliceFigures(slice="all", num_rows=9000, loss=0.2, accuracy=0.7)
    figures = SetFigures(
        num_rows=9000, num_days=20, loss=0.2 + difference, accuracy=0.7, nll=0.6, ece=0.02, worst_slice=worst, slices=(worst,),
        against_present=against, against_off=(),
    )  # fmt: skip
    made = ArmFigures(
        arm=Arm(name=name, clip=clip), status="done", seeds=(0, 1, 2, 3, 4), optimizer=optimizer, learning_rate=0.01,
        removed_mass_ratio=removed, clip_rate_ratio=1.0, multiple_of_median=multiple, validation=figures,
        gain=None if name == "present" else gain_of(difference, spread, seed_share),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def threshold(bound: float, difference: float, spread: float = 0.0003, **others) -> ArmFigures:
    """An arm of global norm where the median norm is 1."""
    spec = ClipSpec(kind="global_norm", max_norm=bound)
    return arm(f"c{bound:g}", spec, difference, spread, **({"multiple": bound, "removed": max(0.0, 1 - bound)} | others))


def present(bound: float = 0.2, **others) -> ArmFigures:
    return arm("present", ClipSpec(kind="global_norm", max_norm=bound), **({"multiple": bound, "removed": 0.8} | others))


def off(difference: float, spread: float = 0.0003) -> ArmFigures:
    return arm("off", ClipSpec(kind="off"), difference, spread)


def worse(slice_name: str, metric: str, difference: float) -> Contrast:
    return Contrast(
        slice=slice_name, num_rows=3000, num_blocks=20, metric=metric, difference=difference,
        low=difference * 0.5, high=difference * 1.5,
    )  # fmt: skip


def test_where_no_threshold_leaves_the_margin_clipping_does_not_matter() -> None:
    found = recommend([present(), threshold(0.1, 0.001), threshold(1, -0.001), threshold(10, -0.001), off(-0.001)], POLICY)

    assert (found.verdict, found.arm) == ("does_not_matter", "present")
    assert "Clipping does not matter here" in found.headline


def test_that_needs_the_whole_interval_of_every_threshold() -> None:
    wide = threshold(10, -0.001, spread=0.003)
    assert recommend([present(), threshold(0.1, 0.001), threshold(1, -0.001), wide], POLICY).verdict != "does_not_matter"


EQUAL = (threshold(0.1, 0.001), threshold(1, -0.001), threshold(10, -0.001))  # what is left of these names is a margin of 0.004


@pytest.mark.parametrize(
    ("unclipped", "words"),
    [
        (off(0.3), "none at all is worse"),
        (msgspec.structs.replace(off(0.0), status="diverged", validation=None, gain=None), "none at all diverges"),
        (msgspec.structs.replace(off(0.0), status="failed", validation=None, gain=None), "none at all did not come to an end"),
        (off(0.001, spread=0.01), "whether none at all does is open"),
        (off(-0.02), "whether none at all does is open"),
    ],
    ids=["worse", "diverged", "failed", "open", "better"],
)
def test_clipping_matters_where_none_at_all_is_not_proven_as_good_though_any_threshold_does(
    unclipped: ArmFigures, words: str
) -> None:
    found = recommend([present(), unclipped, *EQUAL], POLICY)

    assert (found.verdict, found.arm) == ("keep", "present")
    assert found.headline.startswith("Keep global norm 0.2: any threshold from 0.1 to 10 does")
    assert words in found.headline


def test_any_private_bound_may_do_and_nothing_is_said_of_none_at_all() -> None:
    bounds = [arm(f"p{bound}", ClipSpec(kind="per_sample", max_norm=bound), 0.001) for bound in (0.1, 10.0)]

    found = recommend([arm("present", ClipSpec(kind="per_sample", max_norm=1.0)), *bounds], POLICY)

    assert (found.verdict, found.headline) == ("keep", "Keep per sample 1: any threshold from 0.1 to 10 does.")


def test_another_rule_that_is_proven_better_goes_before_thresholds_that_all_do() -> None:
    other = arm("AGC", ClipSpec(kind="agc"), -0.05, removed=0.9)

    found = recommend([present(), off(0.0), *EQUAL, other], POLICY)

    assert (found.verdict, found.headline) == ("use", "Use AGC instead of global norm 0.2.")


@pytest.mark.parametrize("changes", [{"removed": 0.1}, {"removed": 0.9, "against": (worse("JFK", "brier", 0.05),)}])
def test_a_better_rule_that_does_not_stand_every_check_is_named_where_any_threshold_does(changes: dict) -> None:
    other = arm("AGC", ClipSpec(kind="agc"), -0.05, **changes)

    found = recommend([present(), off(0.0), *EQUAL, other], POLICY)

    assert (found.verdict, found.headline) == (
        "keep", "Keep global norm 0.2: any threshold from 0.1 to 10 does, and so does none at all.",
    )  # fmt: skip
    assert "AGC" in found.reasons[0]


def test_a_threshold_that_is_within_the_margin_is_no_reason_to_change() -> None:
    nearly = threshold(1, -0.00350, spread=0.0002)
    assert shortlist([present(), off(0.0), threshold(0.1, 0.001), nearly, threshold(10, 0.0)], POLICY) == ()


def test_that_is_not_said_of_a_narrow_range_of_thresholds() -> None:
    assert recommend([present(), threshold(1, 0.0), threshold(5, 0.0)], POLICY).verdict == "keep"


def test_bounds_far_below_the_norms_may_do_harm_and_clipping_still_does_not_matter() -> None:
    arms = [present(), threshold(0.01, 0.05), threshold(0.1, 0.001), threshold(10, 0.001), off(0.001)]
    assert recommend(arms, POLICY).verdict == "does_not_matter"


def test_a_policy_that_is_proven_better_and_stable_is_recommended() -> None:
    found = recommend([present(), threshold(0.1, 0.01), threshold(1, -0.01)], POLICY, {"c1": STABLE})

    assert (found.verdict, found.arm, found.clip.max_norm) == ("use", "c1", 1.0)
    assert found.headline == "Use global norm 1 instead of global norm 0.2."
    assert "0.1900 instead of 0.2000" in found.reasons[0]


def test_of_arms_that_are_as_good_as_the_best_the_one_that_clips_most_is_taken() -> None:
    arms = [present(), threshold(0.5, -0.008), threshold(1, -0.0098), threshold(3, -0.01), threshold(10, -0.01)]
    assert shortlist(arms, POLICY)[0] == "c1"


def test_no_clipping_is_never_recommended_however_much_better_it_is() -> None:
    arms = [present(), threshold(0.1, 0.02), off(-0.05)]

    found = recommend(arms, POLICY, {"off": STABLE})

    assert (found.verdict, found.arm) == ("keep", "present")
    assert any("is not recommended" in words for words in found.reasons)


@pytest.mark.parametrize("stability", [{}, {"c1": SHAKY}])
def test_a_bound_is_not_raised_without_a_check_of_stability_that_it_stands(stability: dict[str, Stability]) -> None:
    found = recommend([present(), threshold(0.1, 0.02), threshold(1, -0.01)], POLICY, stability)

    assert (found.verdict, found.arm) == ("keep", "present")
    assert any("c1 lets more through" in words for words in found.reasons)


def test_a_tighter_policy_needs_no_check_of_stability() -> None:
    found = recommend([present(10, removed=0.0), threshold(0.3, -0.01), threshold(3, 0.0)], POLICY)
    assert (found.verdict, found.arm) == ("use", "c0.3")


def test_the_next_best_is_taken_where_the_best_is_not_stable() -> None:
    arms = [present(), threshold(0.1, 0.02), threshold(0.5, -0.008), threshold(3, -0.012)]

    found = recommend(arms, POLICY, {"c3": SHAKY, "c0.5": STABLE})

    assert found.arm == "c0.5"
    assert any(words.startswith("Not chosen: c3") for words in found.reasons)


@pytest.mark.parametrize(
    "against",
    [worse("JFK", "brier", 0.05), worse("", "nll", 0.02), worse("", "ece", 0.03)],
)
def test_a_better_loss_does_not_buy_a_worse_slice_or_calibration(against: Contrast) -> None:
    arms = [present(), threshold(0.1, 0.02), threshold(1, -0.01, against=(against,))]

    found = recommend(arms, POLICY, {"c1": STABLE})

    assert (found.verdict, found.arm) == ("keep", "present")
    assert any("better as a whole, but" in words for words in found.reasons)


def test_ten_comparisons_need_more_than_one() -> None:
    spread = 0.01 / 2.5  # 95 % alone needs 2.09 standard errors, and for ten together 3.2
    alone = [present(), threshold(1, -0.01, spread)]
    crowd = [*alone, *(threshold(0.1 + i / 100, 0.02) for i in range(9))]

    assert shortlist(alone, POLICY) == ("c1",)
    assert shortlist(crowd, POLICY) == ()


def test_a_proven_gain_within_the_margin_is_not_worth_a_change() -> None:
    found = recommend([present(), threshold(0.1, 0.02), threshold(1, -0.002)], POLICY, {"c1": STABLE})
    assert (found.verdict, found.arm) == ("keep", "present")


def test_adam_with_a_bound_of_the_total_norm_is_left_alone() -> None:
    arms = [present(optimizer="AdamW"), threshold(0.1, 0.001), threshold(1, -0.01), threshold(10, 0.001)]

    found = recommend(arms, POLICY, {"c1": STABLE})

    assert (found.verdict, found.arm) == ("keep", "present")
    assert "AdamW divides by the gradient's own size" in found.reasons[0]
    assert "worth a look by a person" in found.reasons[1]


@pytest.mark.parametrize("optimizer", ["RMSprop", "Lion", "Adagrad"])
@pytest.mark.parametrize("kind", ["global_norm", "autoclip", "zclip", "quantile"])
def test_every_optimizer_that_takes_a_common_factor_out_is_left_alone_with_every_rule_that_is_one(
    optimizer: str, kind: str
) -> None:
    first = arm("present", ClipSpec(kind=kind, max_norm=0.2), removed=0.8, optimizer=optimizer)

    found = recommend([first, threshold(0.1, 0.02), threshold(1, -0.01)], POLICY, {"c1": STABLE})

    assert (found.verdict, found.arm) == ("keep", "present")


def test_an_optimizer_is_not_known_by_a_part_of_its_name() -> None:
    arms = [present(optimizer="Adamless"), threshold(0.1, 0.02), threshold(1, -0.01)]
    assert recommend(arms, POLICY, {"c1": STABLE}).arm == "c1"


def test_adam_may_be_told_to_take_a_rule_that_changes_the_gradients_direction() -> None:
    other = arm("value 0.1", ClipSpec(kind="value", max_norm=0.1), -0.05, removed=0.9)
    arms = [present(optimizer="Adam"), threshold(0.1, 0.02), threshold(1, -0.01), other]

    found = recommend(arms, POLICY, {"c1": STABLE})

    assert (found.verdict, found.arm) == ("use", "value 0.1")


def test_one_seed_with_adam_is_not_said_to_show_what_chance_does() -> None:
    arms = [
        msgspec.structs.replace(one, seeds=(0,), gain=one.gain and msgspec.structs.replace(one.gain, num_seeds=1))
        for one in (present(optimizer="Adam"), threshold(0.1, 0.02), threshold(10, -0.1))
    ]

    found = recommend(arms, POLICY)

    assert (found.verdict, found.arm) == ("keep", "present")
    assert "One seed does not show what is chance" in found.reasons[1]


def test_adam_with_another_rule_or_with_lost_steps_is_judged_like_the_rest() -> None:
    value = arm("present", ClipSpec(kind="value", max_norm=0.001), removed=0.8, optimizer="Adam")
    lost = present(optimizer="Adam", num_nonfinite=4)

    for first in (value, lost):
        assert recommend([first, threshold(0.1, 0.02), threshold(1, -0.01)], POLICY, {"c1": STABLE}).arm == "c1"


def test_what_more_seeds_would_tell_is_said_with_their_number() -> None:
    arms = [present(), threshold(0.1, 0.02), threshold(1, -0.008, spread=0.006, seed_share=0.95)]

    found = recommend(arms, POLICY)

    assert found.verdict == "cannot_tell"
    assert found.more_seeds is not None
    assert f"--seeds {5 + found.more_seeds}" in " ".join(found.reasons)


def test_so_many_more_seeds_do_tell() -> None:
    gain = gain_of(-0.008, 0.006, seed_share=0.95)
    more = seeds_needed(gain, 0.004, 0.95)

    then = msgspec.structs.replace(gain, num_seeds=5 + more, seed_variance=gain.seed_variance * 5 / (5 + more))
    assert -0.008 + then.half_width() < 0
    one_less = msgspec.structs.replace(gain, num_seeds=4 + more, seed_variance=gain.seed_variance * 5 / (4 + more))
    assert -0.008 + one_less.half_width() >= 0


def test_where_the_days_differ_too_much_seeds_would_not_tell() -> None:
    found = recommend([present(), threshold(0.1, 0.02), threshold(1, -0.008, spread=0.006, seed_share=0.05)], POLICY)

    assert (found.verdict, found.more_seeds) == ("cannot_tell", None)
    assert "more labelled days" in found.headline


def test_one_day_tells_nothing() -> None:
    single = msgspec.structs.replace(threshold(1, -0.01), gain=Paired(
        difference=-0.01, day_variance=0.0, seed_variance=0.0, num_days=1, num_seeds=5, num_rows=400,
    ))  # fmt: skip
    found = recommend([present(), single], POLICY)
    assert found.verdict == "cannot_tell"
    assert "one day proves nothing" in found.reasons[0]


def test_one_seed_proves_nothing_and_two_more_are_asked_for() -> None:
    arms = [one if one.gain is None else msgspec.structs.replace(one, gain=msgspec.structs.replace(one.gain, num_seeds=1))
            for one in (present(), threshold(0.1, 0.0), threshold(1, -0.01), threshold(10, 0.0))]  # fmt: skip
    arms = [msgspec.structs.replace(one, seeds=(0,)) for one in arms]

    found = recommend(arms, POLICY, {"c1": STABLE})

    assert (found.verdict, found.more_seeds) == ("cannot_tell", 2)
    level = [msgspec.structs.replace(one, validation=arms[0].validation) for one in (arms[0], arms[1], arms[3])]
    assert recommend(level, POLICY).verdict != "does_not_matter"


def test_an_arm_of_which_a_seed_was_lost_is_never_recommended() -> None:
    for status in ("diverged", "failed"):
        arms = [present(), threshold(0.1, 0.02), threshold(1, -0.01, status=status)]
        assert recommend(arms, POLICY, {"c1": STABLE}).verdict == "keep"


def test_a_present_policy_that_diverges_gives_its_place_to_what_is_stable() -> None:
    lost = present(10, removed=0.0, status="diverged", reason="the answers were not finite with seed 0", validation=None)

    found = recommend([lost, threshold(0.1, 0.01, gain=None), threshold(1, 0.0, gain=None), off(-0.01)], POLICY)

    assert (found.verdict, found.arm) == ("use", "c1")
    assert "diverges" in found.reasons[0]


def test_a_present_policy_of_which_one_seed_diverged_gives_its_place_too() -> None:
    lost = present(10, removed=0.0, status="diverged", reason="the answers were not finite with seed 3", seeds=(0, 1, 2, 4))

    found = recommend([lost, off(0.0), threshold(0.1, 0.01), threshold(1, 0.001)], POLICY)

    assert (found.verdict, found.arm) == ("use", "c1")
    assert "diverges: the answers were not finite with seed 3" in found.reasons[0]
    assert not any("No slice is proven worse" in words for words in found.reasons), "nothing of that was asked"


@pytest.mark.parametrize(
    ("status", "words"), [("done", "what could take its place is not stable"), ("diverged", "so does all that could")]
)
def test_where_nothing_can_take_the_place_of_what_diverges_it_is_said_why(status: str, words: str) -> None:
    lost = present(0.2, removed=0.8, status="diverged", reason="the answers were not finite with seed 3", seeds=(0, 1, 2, 4))

    found = recommend([lost, threshold(10, 0.01, status=status)], POLICY, {"c10": SHAKY})

    assert found.verdict == "cannot_tell"
    assert words in found.headline


def test_a_present_policy_that_raises_gives_no_answer() -> None:
    found = recommend([present(status="failed", reason="KeyError"), threshold(1, -0.01)], POLICY)
    assert (found.verdict, found.reasons) == ("cannot_tell", ("KeyError",))


def test_a_present_policy_without_clipping_may_stay() -> None:
    arms = [arm("present", ClipSpec(kind="off")), threshold(0.1, 0.02), threshold(1, 0.001), threshold(10, 0.0)]
    found = recommend(arms, POLICY)
    assert (found.verdict, found.headline) == ("keep", "Keep no clipping.")


def test_a_margin_is_a_share() -> None:
    for margin in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="share of the loss"):
            AblationPolicy(relative_margin=margin)
