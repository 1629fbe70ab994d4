"""Which arm wins: the best one, unless its lead over the old policy is within one standard error."""

from collections.abc import Mapping

from clipdrift_trainer.evaluation.paired import Paired

SAME = "same"


def select(against_same: Mapping[str, Paired]) -> str:
    """Name of the winning arm.

    The arm with the lowest upper end of one standard error of its difference to "same"; "same" where none is below zero. A
    change of policy must be likely to pay; it need not be proven, since an old bound that holds the model back costs more than
    a change between two bounds that are about as good.

    Args:
        against_same: For each other arm its loss minus that of "same".

    Source: the one-standard-error rule of Breiman, Friedman, Olshen, Stone, Classification and Regression Trees (1984), section
    3.4.3, with the policy in service in the place of the simplest tree.

    Example:
        >>> q90 = Paired(difference=-0.02, day_variance=1e-4, seed_variance=0.0, num_days=9, num_seeds=1, num_rows=900)
        >>> select({"q90": q90})
        'q90'
    """
    upper = {name: one.difference + one.standard_error for name, one in against_same.items() if one.is_known}
    best = min(upper, key=lambda name: upper[name], default=SAME)
    return best if upper.get(best, 0.0) < 0 else SAME
