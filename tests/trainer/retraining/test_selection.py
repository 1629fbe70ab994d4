"""Changing the policy must be likely to pay; keeping it needs no reason."""

import msgspec

from clipdrift_trainer.evaluation.paired import Paired
from clipdrift_trainer.retraining.selection import select


def found(difference: float, standard_error: float, num_days: int = 12) -> Paired:
    return Paired(
        difference=difference, day_variance=standard_error**2, seed_variance=0.0,
        num_days=num_days, num_seeds=1, num_rows=9_000,
    )  # fmt: skip


def test_an_arm_wins_when_its_lead_is_more_than_one_standard_error() -> None:
    assert select({"q90": found(-0.0201, 0.02)}) == "q90"
    assert select({"q90": found(-0.0199, 0.02)}) == "same"


def test_an_arm_that_is_worse_never_wins_however_little_is_known() -> None:
    assert select({"q90": found(0.001, 0.0001), "half": found(0.01, 0.5)}) == "same"


def test_of_several_the_one_that_is_surest_to_pay_wins() -> None:
    assert select({"q90": found(-0.02, 0.001), "half": found(-0.03, 0.001)}) == "half"
    assert select({"q90": found(-0.02, 0.001), "half": found(-0.03, 0.02)}) == "q90"


def test_with_no_other_arm_or_one_day_same_wins() -> None:
    assert select({}) == "same"
    assert select({"q90": found(-0.02, 0.0, num_days=1)}) == "same"


def test_one_standard_error_is_the_same_whether_days_or_seeds_are_to_blame() -> None:
    for day, seed in ((1e-4, 0.0), (0.0, 1e-4), (5e-5, 5e-5)):
        of_both = Paired(difference=-0.0101, day_variance=day, seed_variance=seed, num_days=12, num_seeds=2, num_rows=9_000)
        assert select({"q90": of_both}) == "q90"
        assert select({"q90": msgspec.structs.replace(of_both, difference=-0.0099)}) == "same"
