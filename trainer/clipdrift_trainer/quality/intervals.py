"""95 % intervals and tail probabilities that hold near 0 and 1, where the checks have to decide."""

import math
from collections.abc import Callable

import torch

_Z95 = 1.959964
_NUM_HALVINGS = 50


def wilson(num_hits: float, num_rows: float) -> tuple[float, float]:
    """95 % interval of a share; (0, 1) for no rows.

    Args:
        num_hits: 0..num_rows; a fraction where rows were weighted.
        num_rows: How many there were.

    Source: Wilson 1927.

    Example:
        >>> [round(end, 4) for end in wilson(0, 100)], [round(end, 4) for end in wilson(50, 100)]
        ([0.0, 0.037], [0.4038, 0.5962])
    """
    if num_rows <= 0:
        return 0.0, 1.0
    share, square = num_hits / num_rows, _Z95**2
    middle = (share + square / (2 * num_rows)) / (1 + square / num_rows)
    half = _Z95 / (1 + square / num_rows) * math.sqrt(share * (1 - share) / num_rows + square / (4 * num_rows**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def auc_interval(auc: float, num_positive: int, num_negative: int) -> tuple[float, float]:
    """95 % interval of an area under the ROC curve; of some width also at 1, where few rows may be told apart by chance.

    Args:
        auc: 0..1.
        num_positive: Rows of the one class, >= 1.
        num_negative: Rows of the other, >= 1.

    Source: Newcombe 2006 (Statistics in Medicine 25:559), method 5: the ends are the areas from which the observed one lies
    1.96 standard errors away, with Hanley and McNeil's variance at that area and the mean of both counts in place of each.

    Example:
        >>> [round(end, 3) for end in auc_interval(1.0, 20, 20)], [round(end, 3) for end in auc_interval(0.8, 50, 100)]
        ([0.899, 1.0], [0.713, 0.863])
    """

    def distance(area: float) -> float:
        mean_count = (num_positive + num_negative) / 2 - 1
        spread = 1 + mean_count * ((1 - area) / (2 - area) + area / (1 + area))
        return abs(auc - area) - _Z95 * math.sqrt(area * (1 - area) * spread / (num_positive * num_negative))

    return _end(distance, auc, 0.0), _end(distance, auc, 1.0)


def _end(distance: Callable[[float], float], inside: float, outside: float) -> float:
    for _ in range(_NUM_HALVINGS):
        middle = (inside + outside) / 2
        if distance(middle) > 0:
            outside = middle
        else:
            inside = middle
    return inside


def normal_tail(z: float) -> float:
    """Two-sided tail of the normal distribution; 1 for NaN.

    Example:
        >>> round(normal_tail(1.959964), 4)
        0.05
    """
    return math.erfc(abs(z) / math.sqrt(2)) if math.isfinite(z) else 1.0


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Probability that a chi-square variable with `degrees` >= 1 degrees of freedom exceeds `statistic` >= 0.

    Example:
        >>> round(chi_square_tail(3.841, 1), 4), round(chi_square_tail(18.307, 10), 4)
        (0.05, 0.05)
    """
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
