"""Do probabilities keep their word: bins with what was said and what came, the calibration error without the bias of few rows.

Axes: N rows, B bins, D days.
"""

from collections.abc import Sequence
from math import erf, pi, sqrt
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import ReliabilityBin
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.blocks import Days, Interval, rate_interval, student_t
from clipdrift_trainer.evaluation.scores import NUM_BINS, Floats, width_bins

Binning: TypeAlias = Literal["width", "mass"]
_SLICE_BINS = 8
_MIN_SLICE_ROWS = 200  # eight bins of fewer rows have intervals that hold nearly everything


def reliability_bins(
    probability_N: Floats,
    is_event_N: npt.NDArray[Any],
    days: Days,
    *,
    slice_name: str = "",
    binning: Binning = "mass",
    num_bins: int = NUM_BINS,
) -> tuple[ReliabilityBin, ...]:
    """Bins from the lowest probability up, each with the share of rows that had the event and its 95 % interval over days.

    To plot them: x is `probability_mean`, y `event_rate`, the error bar goes from `event_rate_low` to `event_rate_high`, and an
    honest model lies on the diagonal. Only bins with rows are there. Equal values are never parted, so bins of equal mass may
    be fewer than asked for.

    Args:
        probability_N: What was said, 0..1.
        is_event_N: What came, 0 or 1.
        days: Day of each row.
        slice_name: Goes into the result.
        binning: "width": [0, 1] in equal parts, the last one closed; "mass": about equally many rows in each.
        num_bins: At most so many.

    Source: reliability diagrams, Murphy and Winkler (1977), doi 10.2307/2346866; equal mass, Nguyen and O'Connor (2015), arXiv
    1508.05154.

    Example:
        >>> days = Days(np.zeros(4, np.int64))
        >>> found = reliability_bins(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 0]), days, num_bins=2)
        >>> [(one.num_rows, round(one.probability_mean, 2), one.event_rate) for one in found]
        [(2, 0.15, 0.0), (2, 0.85, 0.5)]
    """
    bin_N = _bins(probability_N, binning, num_bins)
    found = []
    for index in np.unique(bin_N):
        is_in_N = bin_N == index
        within = days.only(is_in_N)
        rate = rate_interval(is_event_N[is_in_N], within)
        found.append(
            ReliabilityBin(
                slice=slice_name,
                binning=binning,
                num_rows=int(is_in_N.sum()),
                num_blocks=within.num,
                probability_mean=float(probability_N[is_in_N].mean()),
                event_rate=rate.value,
                event_rate_low=rate.low,
                event_rate_high=rate.high,
            )
        )
    return tuple(found)


def reliability(
    scores_NK: Floats,
    label_N: npt.NDArray[Any],
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
) -> tuple[ReliabilityBin, ...]:
    """All that a report plots: 15 bins of either binning of all rows together (slice ""), and eight of equal mass of each slice
    of at least 200 rows. The probability of class 1 for two classes, of the predicted class for more; nothing for regression.
    """
    if kind == "regression" or not len(label_N):
        return ()
    probability_N, is_event_N = said_and_came(scores_NK, label_N, kind)
    days = Days(time_ms)
    found = [
        *reliability_bins(probability_N, is_event_N, days, binning="width"),
        *reliability_bins(probability_N, is_event_N, days, binning="mass"),
    ]
    for index, name in enumerate(slice_names):
        is_in_N = slice_N == index
        if is_in_N.sum() >= _MIN_SLICE_ROWS:
            within = days.only(is_in_N)
            found += reliability_bins(
                probability_N[is_in_N], is_event_N[is_in_N], within, slice_name=name, num_bins=_SLICE_BINS
            )
    return tuple(found)


def said_and_came(scores_NK: Floats, label_N: npt.NDArray[Any], kind: TaskKind) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The probability that a reliability diagram is about, and whether its event came."""
    if kind == "binary":
        return scores_NK[:, 1], label_N == 1
    return scores_NK.max(axis=1), scores_NK.argmax(axis=1) == label_N


def calibration_error_interval(confidence_N: Floats, is_right_N: npt.NDArray[Any], days: Days) -> Interval:
    """Expected calibration error in 15 bins of equal width without most of the bias of few rows, with its 95 % interval.

    The plain error is a sum of absolute values, so chance alone makes it positive: 1,000 rows of an honest model of two classes
    show 0.03. What chance adds is worked out from each bin's spread over days and taken off. The lower end is 0 where an honest
    model would show as much as is seen. In 0..1; below two days nothing is taken off and all is possible.

    Args:
        confidence_N: Probability of the predicted class, 0..1.
        is_right_N: Whether it was the label.
        days: Day of each row.

    Source: Kumar, Liang, Ma (2019), arXiv 1909.10155, `normal_debiased_ce` of their library for p = 1; here its expectation is
    in closed form (a folded normal, Leone et al. 1961) and its variances are over days. It takes off about 40 % of the bias
    where the true error is 0, and nearly all of it where bins are off by more than a standard error.

    Example:
        >>> day_N = np.repeat(np.arange(20), 100) * 86_400_000
        >>> right_N = np.random.default_rng(0).random(2000) < 0.8
        >>> found = calibration_error_interval(np.full(2000, 0.8), right_N, Days(day_N))
        >>> round(abs(float(right_N.mean()) - 0.8), 4), round(found.value, 4), found.low      # an honest model
        (0.006, 0.0028, 0.0)
    """
    one = _error_parts(confidence_N, is_right_N, days)
    if days.num < 2:
        return Interval(one.plain, 0.0, 1.0)
    quantile = student_t(days.num - 1)
    half = quantile * sqrt(float((one.influence_D**2).sum()))
    spread_B = one.spread_B
    honest = sqrt(2 / pi) * float(spread_B.sum()) + quantile * sqrt((1 - 2 / pi) * float((spread_B**2).sum()))
    return Interval(one.value, 0.0 if one.plain <= honest else max(0.0, one.value - half), min(1.0, one.value + half))


def calibration_error_difference(
    first_confidence_N: Floats,
    first_is_right_N: npt.NDArray[Any],
    second_confidence_N: Floats,
    second_is_right_N: npt.NDArray[Any],
    days: Days,
) -> Interval:
    """The first model's calibration error minus the second's on the same rows, with its 95 % interval over days; -1 to 1 below
    two days. Each error is that of `calibration_error_interval`; days that are hard for both cancel out.

    Source: the linearisation of `calibration_error_interval`, day by day for the difference. Where bins are honest, the slope
    of an absolute value is not settled, and the interval is wider than it had to be.

    Example:
        >>> day_N = np.repeat(np.arange(20), 100) * 86_400_000
        >>> right_N = np.tile(np.array([True] * 4 + [False]), 400)
        >>> found = calibration_error_difference(np.full(2000, 0.99), right_N, np.full(2000, 0.8), right_N, Days(day_N))
        >>> round(found.value, 2), round(found.low, 2)
        (0.19, 0.19)
    """
    first, second = (
        _error_parts(confidence_N, is_right_N, days)
        for confidence_N, is_right_N in ((first_confidence_N, first_is_right_N), (second_confidence_N, second_is_right_N))
    )
    if days.num < 2:
        return Interval(first.plain - second.plain, -1.0, 1.0)
    half = student_t(days.num - 1) * sqrt(float(((first.influence_D - second.influence_D) ** 2).sum()))
    value = first.value - second.value
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


class _ErrorParts(NamedTuple):
    """A calibration error, and what its spread comes from; without days to compare `value` is the plain error."""

    plain: float
    value: float  # without most of what chance adds
    spread_B: Floats  # standard error of each bin's gap
    influence_D: Floats  # what each day adds to the error, around 0; its sum of squares is the error's variance


def _error_parts(confidence_N: Floats, is_right_N: npt.NDArray[Any], days: Days) -> _ErrorParts:
    bin_N = _bins(confidence_N, "width", NUM_BINS)
    gap_N = confidence_N - is_right_N
    num_rows = len(gap_N)
    gap_B = np.bincount(bin_N, gap_N, NUM_BINS) / num_rows
    plain = float(np.abs(gap_B).sum())
    if days.num < 2:
        return _ErrorParts(plain, plain, np.zeros(NUM_BINS), np.zeros(days.num))
    cell = np.bincount(days.index_N * NUM_BINS + bin_N, gap_N, days.num * NUM_BINS)
    residual_DB = cell.reshape(days.num, NUM_BINS) / num_rows - gap_B * (days.sums(np.ones(num_rows)) / num_rows)[:, None]
    correction = days.num / (days.num - 1)
    spread_B = np.sqrt((residual_DB**2).sum(axis=0) * correction)
    value = min(1.0, max(0.0, 2 * plain - _mean_of_folded_normal(np.abs(gap_B), spread_B)))
    return _ErrorParts(plain, value, spread_B, residual_DB @ np.sign(gap_B) * sqrt(correction))


def _mean_of_folded_normal(mean_B: Floats, spread_B: Floats) -> float:
    """Sum over bins of E|x| for normal x."""
    ratio_B = np.divide(mean_B, spread_B, out=np.full_like(mean_B, np.inf), where=spread_B > 0)
    inside_B = np.array([erf(ratio / sqrt(2)) for ratio in ratio_B])
    return float((spread_B * sqrt(2 / pi) * np.exp(-(ratio_B**2) / 2) + mean_B * inside_B).sum())


def _bins(probability_N: Floats, binning: Binning, num_bins: int) -> npt.NDArray[np.int64]:
    if num_bins < 1:
        raise ValueError(f"num_bins must be >= 1, got {num_bins!r}")
    if binning == "width":
        return width_bins(probability_N, num_bins)
    if binning != "mass":
        raise ValueError(f"binning must be 'width' or 'mass', got {binning!r}")
    if not len(probability_N):
        return np.zeros(0, np.int64)
    edges = np.quantile(probability_N, np.arange(1, num_bins) / num_bins, method="inverted_cdf")
    return np.searchsorted(np.unique(edges), probability_N, side="left").astype(np.int64)
