"""How well scores rank: area under the ROC curve for two classes and for many, with intervals over days.

Axes: N rows, K classes.
"""

from math import exp, log
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_trainer.evaluation.blocks import Days, Interval, student_t

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def one_vs_rest_auc(scores_NK: Floats, label_N: npt.NDArray[Any]) -> tuple[float | None, ...]:
    """For each class the probability that a random row of it gets more of its score than a random other row; None where the
    class, or every other, is absent.

    Example:
        >>> scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4], [0.1, 0.5, 0.4]])
        >>> one_vs_rest_auc(scores, np.array([0, 1, 2, 2]))
        (1.0, 1.0, 1.0)
    """
    found = []
    for index in range(scores_NK.shape[1]):
        is_class_N = label_N == index
        has_both = bool(is_class_N.any() and not is_class_N.all())
        found.append(_placed(scores_NK[:, index], is_class_N)[0] if has_both else None)
    return tuple(found)


def hand_till_auc(scores_NK: Floats, label_N: npt.NDArray[Any]) -> float | None:
    """The multi-class area under the ROC curve: how well each class is told from each other, every pair of classes counting
    alike, however rare; for two classes the common one. None where a class is absent.

    Source: Hand and Till (2001), equation 7, doi 10.1023/A:1010920819831.

    Example:
        >>> scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4], [0.1, 0.5, 0.4]])
        >>> hand_till_auc(scores, np.array([0, 1, 2, 2]))
        1.0
    """
    found = _hand_till(scores_NK, label_N)
    return found[0] if found else None


def auc_interval(scores_NK: Floats, label_N: npt.NDArray[Any], days: Days) -> Interval | None:
    """`hand_till_auc` (for two classes the common area) with its interval, in 0..1; None where a class is absent.

    The degrees of freedom are those of the class that comes on the fewest days; one that comes on a single day leaves all open.

    Source: the structural components of DeLong, DeLong, Clarke-Pearson (1988) summed by cluster, Obuchowski (1997), doi
    10.2307/2533958; on the logit scale, Pepe (2003), section 5.2. Perfect ranking has no spread: there Wilson's bound with the
    rows of the rarest class stands.

    Example:
        >>> scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
        >>> auc_interval(scores, np.array([0, 0, 1, 1]), Days(np.zeros(4, np.int64)))
        Interval(value=0.75, low=0.0, high=1.0)
    """
    ranked = _hand_till(scores_NK, label_N)
    if ranked is None:
        return None
    area, influence_N = ranked
    masks = [label_N == index for index in range(scores_NK.shape[1])]
    num_days = min(len(np.unique(days.index_N[is_class_N])) for is_class_N in masks)
    if num_days < 2:
        return Interval(area, 0.0, 1.0)
    quantile = student_t(num_days - 1)
    if not 0 < area < 1:
        bound = 1 / (1 + quantile**2 / min(int(is_class_N.sum()) for is_class_N in masks))
        return Interval(area, bound, 1.0) if area == 1 else Interval(area, 0.0, 1 - bound)
    centre = log(area / (1 - area))
    half = quantile * days.standard_error(influence_N) / (area * (1 - area))
    return Interval(area, _expit(centre - half), _expit(centre + half))


def _hand_till(scores_NK: Floats, label_N: npt.NDArray[Any]) -> tuple[float, Floats] | None:
    """The area and each row's contribution to its deviation."""
    num_classes = scores_NK.shape[1]
    masks = [label_N == index for index in range(num_classes)]
    if num_classes < 2 or not all(is_class_N.any() for is_class_N in masks):
        return None
    if num_classes == 2:
        return _placed(scores_NK[:, 1], masks[1])
    areas, influence_N = [], np.zeros(len(label_N))
    for one in range(num_classes):
        for other in range(num_classes):
            if one != other:
                chosen = np.flatnonzero(masks[one] | masks[other])
                area, part = _placed(scores_NK[chosen, one], masks[one][chosen])
                areas.append(area)
                influence_N[chosen] += part
    return float(np.mean(areas)), influence_N / len(areas)


def _placed(score_N: Floats, is_positive_N: Mask) -> tuple[float, Floats]:
    """Area under the ROC curve by placements: of each positive the share of negatives below it, of each negative the share of
    positives above it, ties counting half; and each row's contribution. Both classes must be there."""
    num_positive = int(is_positive_N.sum())
    num_negative = len(is_positive_N) - num_positive
    _, value_N, count_V = np.unique(score_N, return_inverse=True, return_counts=True)
    positive_V = np.bincount(value_N, is_positive_N, len(count_V))
    negative_V = count_V - positive_V
    below_V = np.cumsum(negative_V) - negative_V / 2
    above_V = num_positive - np.cumsum(positive_V) + positive_V / 2
    placement_N = np.where(is_positive_N, below_V[value_N] / num_negative, above_V[value_N] / num_positive)
    area = float(positive_V @ below_V / (num_positive * num_negative))
    return area, (placement_N - area) / np.where(is_positive_N, num_positive, num_negative)


def _expit(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0  # exp overflows beyond 709
