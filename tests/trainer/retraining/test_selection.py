"""Changing the policy must be likely to pay; keeping it needs no reason."""

from clipdrift_contract.events import Contrast
from clipdrift_trainer.retraining.selection import select

HALF_OF_ONE_ERROR = 2.201  # the 95 % interval on 12 days is 2.201 standard errors to each side


def found(difference: float, standard_error: float, num_blocks: int = 12, metric: str = "brier") -> list[Contrast]:
    half = HALF_OF_ONE_ERROR * standard_error
    return [
        Contrast(
            slice="", num_rows=9_000, num_blocks=num_blocks, metric=metric,
            difference=difference, low=difference - half, high=difference + half,
        )
    ]  # fmt: skip


def test_an_arm_wins_when_its_lead_is_more_than_one_standard_error() -> None:
    assert select({"q90": found(-0.0201, 0.02)}, "brier") == "q90"
    assert select({"q90": found(-0.0199, 0.02)}, "brier") == "same"


def test_an_arm_that_is_worse_never_wins_however_little_is_known() -> None:
    assert select({"q90": found(0.001, 0.0001), "half": found(0.01, 0.5)}, "brier") == "same"


def test_of_several_the_one_that_is_surest_to_pay_wins() -> None:
    assert select({"q90": found(-0.02, 0.001), "half": found(-0.03, 0.001)}, "brier") == "half"
    assert select({"q90": found(-0.02, 0.001), "half": found(-0.03, 0.02)}, "brier") == "q90"


def test_with_no_other_arm_or_one_day_same_wins() -> None:
    assert select({}, "brier") == "same"
    assert select({"q90": found(-0.02, 0.0, num_blocks=1)}, "brier") == "same"
