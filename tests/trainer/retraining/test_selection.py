"""Changing the policy needs a proof; keeping it does not."""

from clipdrift_contract.events import Contrast
from clipdrift_trainer.retraining.selection import select


def found(difference: float, half: float, num_blocks: int = 12) -> list[Contrast]:
    return [
        Contrast(
            slice="", num_rows=9_000, num_blocks=num_blocks, metric="brier",
            difference=difference, low=difference - half, high=difference + half,
        )
    ]  # fmt: skip


def test_same_wins_unless_another_is_better_with_its_whole_interval() -> None:
    assert select({"q90": found(-0.02, 0.03), "autoclip_p10": found(0.01, 0.001)}, "brier") == "same"
    assert select({"q90": found(-0.02, 0.01), "autoclip_p10": found(-0.5, 0.6)}, "brier") == "q90"


def test_of_several_that_are_proven_the_best_wins() -> None:
    assert select({"q90": found(-0.02, 0.01), "autoclip_p10": found(-0.03, 0.01)}, "brier") == "autoclip_p10"


def test_with_no_other_arm_or_one_day_same_wins() -> None:
    assert select({}, "brier") == "same"
    assert select({"q90": found(-0.02, 0.0, num_blocks=1)}, "brier") == "same"
