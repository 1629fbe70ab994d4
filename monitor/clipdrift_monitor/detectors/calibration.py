"""What scores say by themselves: the accuracy that they promise before labels come, and whether labels keep the promise.

Axes: B score bins, J bins of the validated reliability, G groups of score bins.
"""

import math

import msgspec
import numpy as np

from clipdrift_contract.events import ReliabilityBin, RunEnd
from clipdrift_monitor.detectors.detector import Floats
from clipdrift_monitor.detectors.tails import f_tail
from clipdrift_monitor.windows.window import NUM_SCORE_BINS, SCORE_EDGES, Layout

_Z95 = 1.959964
_Z_NOTE = 3.5  # of a note, which is looked for at each window: one in 4,000 by chance
_MIN_ROWS = 100
_MIN_GROUP_LABELS = 20.0
_SCORE_B = np.concatenate([[SCORE_EDGES[0] / 2], (SCORE_EDGES[1:] + SCORE_EDGES[:-1]) / 2, [(1 + SCORE_EDGES[-1]) / 2]])
_BLINDNESS = (
    "It takes the probabilities at their validated word, so it sees other rows than before and is blind where the same rows "
    "come to mean something else (concept drift)."
)


class AccuracyEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What accuracy scores promise, whether labels are there or not."""

    estimate: float
    low: float  # 95 % interval
    high: float
    validated: float
    num_rows: int
    is_lower: bool  # than validated, by more than is worth mentioning
    words: str


class CalibrationDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far labels are from what validation says that the scores mean."""

    effect: float  # mean absolute difference of event rates, weighted by rows
    p_value: float
    num_labels: int
    is_drift: bool
    words: str


def estimated_accuracy(layout: Layout, sums: Floats, run: RunEnd, min_fall: float) -> AccuracyEstimate | None:
    """Accuracy without labels: the mean of the calibrated probability that the predicted class is the right one.

    The interval holds the chance of these rows, how much days differ in accuracy, and how surely validation knows each bin of
    scores. None for regression, without a validated reliability, and under 100 rows.

    Source: confidence-based performance estimation (NannyML; Kivimäki et al. 2024, arXiv 2407.08649), calibrated by the bins of
    validation, linear between them.
    """
    known = _reliability(run)
    num_B = layout.counts(sums, "predictions")
    num_rows = float(num_B.sum())
    if layout.profile.task == "regression" or len(known) < 2 or not run.validation or num_rows < _MIN_ROWS:
        return None
    weight_BJ, rate_J, error_J = _lines(known, _SCORE_B)
    rate_B = weight_BJ @ rate_J
    is_turned_B = (_SCORE_B < 0.5) if layout.profile.task == "binary" else np.zeros(NUM_SCORE_BINS, bool)
    right_B = np.where(is_turned_B, 1 - rate_B, rate_B)
    estimate = float(num_B @ right_B / num_rows)
    by_bin_J = (num_B * np.where(is_turned_B, -1.0, 1.0)) @ weight_BJ / num_rows
    variance = float(num_B @ (right_B * (1 - right_B))) / num_rows**2 + float(((by_bin_J * error_J) ** 2).sum())
    deviation = math.sqrt(variance + _between_days(run))
    half = _Z95 * deviation
    overall = run.validation[0]
    validated = overall.num_correct / max(1, overall.num_rows)
    low, high = max(0.0, estimate - half), min(1.0, estimate + half)
    is_lower = estimate + _Z_NOTE * deviation < validated and estimate <= validated - min_fall
    return AccuracyEstimate(
        estimate=estimate, low=low, high=high, validated=validated, num_rows=round(num_rows), is_lower=is_lower,
        words=(
            f"By their scores alone, {num_rows:,.0f} rows promise an accuracy of {estimate:.3f} [{low:.3f}, {high:.3f}]; "
            f"validated {validated:.3f}. {_BLINDNESS}"
        ),
    )  # fmt: skip


def calibration_drift(layout: Layout, sums: Floats, run: RunEnd, min_change: float, level: float) -> CalibrationDrift | None:
    """Whether scores mean what validation says that they mean.

    Labels are grouped by the validated bins that their scores lie nearest to; each group's events are compared with the
    validated rate, and the sum of squares over the variances of both has a law as drift's quadratic form has: days that are
    better or worse as a whole count in one direction. None for regression, without a validated reliability, and under 100
    labels.

    Args:
        layout: Of the version.
        sums: A window's vector.
        run: Of the version.
        min_change: Mean difference of event rates from which a proven one is worth mentioning.
        level: p-value from which it is called proven.

    Source: Hosmer, Lemeshow 1980, against the rates of validation in place of the scores themselves.
    """
    known = _reliability(run)
    labels_B, hits_B, score_B = (layout.counts(sums, name) for name in ("labels", "hits", "score_sum"))
    num_labels = float(labels_B.sum())
    if layout.profile.task == "regression" or len(known) < 2 or num_labels < _MIN_ROWS:
        return None
    mean_B = np.divide(score_B, labels_B, out=_SCORE_B.copy(), where=labels_B > 0)
    weight_BJ, rate_J, error_J = _lines(known, mean_B)
    group_B = weight_BJ.argmax(axis=1)
    sums_3J = np.array(
        [np.bincount(group_B, values, len(rate_J)) for values in (labels_B, hits_B, labels_B * (weight_BJ @ rate_J))], float
    )
    is_used_J = sums_3J[0] >= _MIN_GROUP_LABELS
    if not is_used_J.any():
        return None
    num_J, seen_J, expected_J = sums_3J[:, is_used_J]
    error_J = error_J[is_used_J]
    rate_J = np.clip(expected_J / num_J, 1e-3, 1 - 1e-3)
    variance_J = num_J * rate_J * (1 - rate_J) + (num_J * error_J) ** 2
    statistic = float(((seen_J - expected_J) ** 2 / variance_J).sum())
    days, num_days = float((num_J**2 * _between_days(run) / variance_J).sum()), _num_days(run)
    mean, half_variance = len(num_J) + days, len(num_J) + 2 * days + days * days
    degrees_below = mean**2 * max(1, num_days - 1) / days**2 if days > 0 else math.inf
    p_value = f_tail(statistic / mean, mean**2 / half_variance, degrees_below)
    effect = float(np.abs(seen_J - expected_J).sum() / num_J.sum())
    direction = "more" if seen_J.sum() > expected_J.sum() else "fewer"
    return CalibrationDrift(
        effect=effect, p_value=p_value, num_labels=round(num_labels), is_drift=p_value <= level and effect >= min_change,
        words=(
            f"Scores no longer mean what they did at validation: event rates are off by {effect:.3f} on average, {direction} "
            f"events than the scores say ({num_labels:,.0f} labels; chance gives as much with probability {p_value:.1g})."
        ),
    )  # fmt: skip


def _reliability(run: RunEnd) -> list[ReliabilityBin]:
    """Of all rows together, by mass where it is there, from the lowest probability up."""
    of_all = [one for one in run.reliability if one.slice == "" and one.num_rows > 0]
    by_mass = [one for one in of_all if one.binning == "mass"]
    return sorted(by_mass or of_all, key=lambda one: one.probability_mean)


def _lines(known: list[ReliabilityBin], score_B: Floats) -> tuple[Floats, Floats, Floats]:
    """Weights [B, J] of linear interpolation in log-odds, the bins' event rates [J] and their standard errors [J]. Outside, the
    outermost bin stands."""
    at_J = _logit(np.array([one.probability_mean for one in known]))
    at_B = np.clip(_logit(score_B), at_J[0], at_J[-1])
    upper_B = np.clip(np.searchsorted(at_J, at_B), 1, len(at_J) - 1)
    gap_B = np.maximum(at_J[upper_B] - at_J[upper_B - 1], 1e-9)
    share_B = np.clip((at_B - at_J[upper_B - 1]) / gap_B, 0.0, 1.0)
    weight_BJ = np.zeros((len(score_B), len(at_J)))
    rows_B = np.arange(len(score_B))
    weight_BJ[rows_B, upper_B] = share_B
    weight_BJ[rows_B, upper_B - 1] += 1 - share_B
    rate_J = np.array([one.event_rate for one in known])
    error_J = np.array([(one.event_rate_high - one.event_rate_low) / (2 * _Z95) for one in known])
    return weight_BJ, rate_J, np.maximum(error_J, 0.0)


def _logit(probability: Floats) -> Floats:
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    found: Floats = np.log(clipped / (1 - clipped))
    return found


def _between_days(run: RunEnd) -> float:
    """Variance of a day's error rate beyond what its rows give."""
    return next((max(0.0, one.between_day_variance) for one in run.clustering if one.slice == ""), 0.0)


def _num_days(run: RunEnd) -> int:
    return next((len(one.days) for one in run.clustering if one.slice == ""), 0)
