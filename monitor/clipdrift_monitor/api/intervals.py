"""The interval beside every accuracy that is shown."""

from functools import lru_cache

import msgspec

from clipdrift_contract.events import RunEnd
from clipdrift_monitor.risk.confidence import share_interval
from clipdrift_monitor.risk.reference import reference_of
from clipdrift_monitor.windows.view import View

_MAX_REMEMBERED = 65_536


def inflation_of(run: RunEnd) -> float:
    """Variance of the accuracy of this model's rows over that of independent ones, as validated: runs of errors, and days that
    differ. At least 1; 1 where validation does not say."""
    validated = reference_of(run).error_rate
    return 1.0 if validated is None else max(1.0, validated.chain_inflation * max(1.0, validated.inflation))


def anytime(figures: View, inflation: float) -> View:
    """The figures with the interval that holds at every look while labels come in, in place of that of a single look.

    Args:
        figures: Of a window or a view; without an accuracy they stay as they are.
        inflation: As `inflation_of` gives it.

    Example:
        >>> seen = View(num_predictions=1_000, num_labels=1_000, num_correct=800, accuracy=0.8)
        >>> [round(x, 3) for x in (anytime(seen, 1.0).accuracy_low, anytime(seen, 4.0).accuracy_low)]
        [0.751, 0.704]
    """
    if figures.accuracy is None:
        return figures
    low, high = _interval(figures.num_correct, figures.num_labels, inflation)
    return msgspec.structs.replace(figures, accuracy_low=low, accuracy_high=high)


@lru_cache(_MAX_REMEMBERED)
def _interval(num_correct: int, num_labels: int, inflation: float) -> tuple[float, float]:
    """Pages show the same windows again and again."""
    return share_interval(num_correct, num_labels, inflation=inflation)
