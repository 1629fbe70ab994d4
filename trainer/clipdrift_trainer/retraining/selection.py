"""Which arm wins: the best one, unless its lead over the old policy is within one standard error."""

from collections.abc import Mapping, Sequence

from clipdrift_contract.events import Contrast
from clipdrift_trainer.retraining.contrast import pick, student_t95

SAME = "same"


def select(against_same: Mapping[str, Sequence[Contrast]], metric: str) -> str:
    """Name of the winning arm.

    The arm with the lowest upper end of one standard error of its difference to "same"; "same" where none is below zero. A
    change of policy must be likely to pay; it need not be proven, since an old bound that holds the model back costs more than
    a change between two bounds that are about as good.

    Args:
        against_same: For each other arm its contrasts with "same" (arm minus same).
        metric: The loss that decides.

    Source: the one-standard-error rule of Breiman, Friedman, Olshen, Stone, Classification and Regression Trees (1984), section
    3.4.3, with the policy in service in the place of the simplest tree.

    Example:
        >>> day = Contrast(slice="", num_rows=900, num_blocks=9, metric="brier", difference=-0.02, low=-0.05, high=0.01)
        >>> select({"q90": [day]}, "brier")
        'q90'
    """
    upper = {name: _upper(pick(found, metric)) for name, found in against_same.items()}
    best = min(upper, key=lambda name: upper[name], default=SAME)
    return best if upper.get(best, 0.0) < 0 else SAME


def _upper(one: Contrast) -> float:
    """The difference plus one standard error; infinite where days are too few to tell."""
    if one.num_blocks < 2:
        return float("inf")
    return one.difference + (one.high - one.difference) / student_t95(one.num_blocks - 1)
