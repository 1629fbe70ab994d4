"""What a sum of windows says: accuracy with its interval, losses, calibration, AUC, maturity."""

import math

import msgspec
import numpy as np

from clipdrift_monitor.windows.window import NUM_SCORE_BINS, Floats, Layout

_Z95 = 1.959964
_NUM_ECE_BINS = 15  # as in training


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of some rows; None where there is nothing to say yet."""

    num_predictions: int
    num_labels: int
    num_correct: int
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    nll: float | None = None
    brier: float | None = None
    ece: float | None = None
    auc: float | None = None
    maturity: float | None = None
    label_delay_seconds: float | None = None
    mean_absolute_error: float | None = None


def view(layout: Layout, vector: Floats) -> View:
    """The figures of a window's vector, or of a sum of such."""
    num_predictions, num_labels, num_correct = (
        round(layout.value(vector, name)) for name in ("num_predictions", "num_labels", "num_correct")
    )
    maturity = min(1.0, num_labels / num_predictions) if num_predictions else None
    if not num_labels:
        return View(num_predictions=num_predictions, num_labels=0, num_correct=0, maturity=maturity)
    low, high = wilson_interval(num_correct, num_labels)
    is_regression = layout.profile.task == "regression"
    return View(
        num_predictions=num_predictions,
        num_labels=num_labels,
        num_correct=num_correct,
        accuracy=None if is_regression else num_correct / num_labels,
        accuracy_low=None if is_regression else low,
        accuracy_high=None if is_regression else high,
        nll=None if is_regression else layout.value(vector, "nll_sum") / num_labels,
        brier=layout.value(vector, "brier_sum") / num_labels,
        ece=None if is_regression else calibration_error(layout, vector),
        auc=area_under_roc(layout, vector) if layout.profile.task == "binary" else None,
        maturity=maturity,
        label_delay_seconds=layout.value(vector, "delay_seconds_sum") / num_labels,
        mean_absolute_error=layout.value(vector, "absolute_error_sum") / num_labels if is_regression else None,
    )


def wilson_interval(num_correct: int, num_labels: int, z: float = _Z95) -> tuple[float, float]:
    """95 % interval of a proportion.

    It treats rows as independent; where errors cluster by day it is too narrow, which the harm tests allow for and this does
    not.

    Source: Wilson 1927, without continuity correction.

    Example:
        >>> [round(x, 4) for x in wilson_interval(8, 10)]
        [0.4902, 0.9433]
    """
    if num_labels < 1:
        raise ValueError(f"an interval needs at least one label, got {num_labels!r}")
    share, spread = num_correct / num_labels, z * z / num_labels
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / num_labels + spread / (4 * num_labels))
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration_error(layout: Layout, vector: Floats) -> float:
    """Expected calibration error of the predicted class, in the 15 equal-width bins that training reports it in, so that the
    two can be compared.

    Made of the finer score bins, each put where its mean confidence lies: rows next to an edge may be counted in the bin beside
    it. Chance alone gives an honest model up to 0.4 sqrt(15 / n) on n rows, on average.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.
    """
    labels_B, right_B, confidence_B = (layout.counts(vector, name) for name in ("labels", "hits", "score_sum"))
    if layout.profile.task == "binary":
        is_low_B = np.arange(NUM_SCORE_BINS) < NUM_SCORE_BINS // 2  # probability of class 1 below 0.5: class 0 is predicted
        right_B = np.where(is_low_B, labels_B - right_B, right_B)
        confidence_B = np.where(is_low_B, labels_B - confidence_B, confidence_B)
    mean_B = np.divide(confidence_B, labels_B, out=np.zeros(NUM_SCORE_BINS), where=labels_B > 0)
    coarse_B = np.clip((mean_B * _NUM_ECE_BINS).astype(np.int64), 0, _NUM_ECE_BINS - 1)
    gaps = np.bincount(coarse_B, confidence_B - right_B, _NUM_ECE_BINS)
    return float(np.abs(gaps).sum() / max(1.0, labels_B.sum()))


def area_under_roc(layout: Layout, vector: Floats) -> float | None:
    """AUC with rows of one score bin counted as ties; None where a class is absent."""
    hits = layout.counts(vector, "hits")
    misses = layout.counts(vector, "labels") - hits
    num_pairs = hits.sum() * misses.sum()
    if not num_pairs:
        return None
    below = np.cumsum(misses) - misses
    return float((hits * (below + misses / 2)).sum() / num_pairs)
