"""Which arm wins: the old policy, unless another is better by more than chance."""

from collections.abc import Mapping, Sequence

from clipdrift_contract.events import Contrast
from clipdrift_trainer.retraining.contrast import pick

SAME = "same"


def select(against_same: Mapping[str, Sequence[Contrast]], metric: str) -> str:
    """Name of the winning arm.

    Of the arms whose loss is below that of "same" with the whole interval, the one with the lowest; "same" where there is none.
    A change of policy needs a proof, keeping it does not.

    Args:
        against_same: For each other arm its contrasts with "same" (arm minus same).
        metric: The loss that decides.
    """
    proven = {
        name: one.difference
        for name, found in against_same.items()
        if (one := pick(found, metric)).high < 0 and one.num_blocks >= 2
    }
    return min(proven, key=lambda name: proven[name]) if proven else SAME
