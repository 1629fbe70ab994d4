"""Figures of rows with 95 % intervals whose unit is the day: errors of one day hang together, rows are no independent evidence.

Each figure is written as its value plus a sum of small contributions of its rows (its influence). The sums of the days are
independent, and their spread is the figure's: the ratio estimator, for whatever can be so written.

Axes: N rows, D days.
"""

from functools import lru_cache
from math import exp, pi, sqrt, tan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY

Floats = npt.NDArray[np.float64]
UNKNOWN = 1e9  # the end of an interval that says nothing, unless the figure itself lies beyond; events hold finite numbers
_LARGEST = float(np.finfo(np.float64).max)
_TAIL = 0.05
_NUM_ANGLES = 40_001
_MOST_DEGREES = 100_000.0  # beyond, Student's t is normal to four digits
_MAX_EXPONENT = 700.0  # exp overflows beyond 709


class Interval(NamedTuple):
    """A figure and its interval; the ends are finite."""

    value: float
    low: float
    high: float


class Days:
    """Which day each of N rows belongs to; days without rows do not count."""

    def __init__(self, time_ms: npt.NDArray[np.int64]) -> None:
        self._day_N = time_ms // MS_PER_DAY
        found, self.index_N = np.unique(self._day_N, return_inverse=True)
        self.num = len(found)

    def only(self, chosen: npt.NDArray[Any]) -> "Days":
        """The days of the rows at `chosen` (positions or a mask), in that order."""
        return Days(self._day_N[chosen] * MS_PER_DAY)

    def sums(self, values_N: npt.NDArray[Any]) -> Floats:
        """Sum of each day's values, shape [D]."""
        sum_D: Floats = np.bincount(self.index_N, values_N.astype(float), self.num).astype(float)
        return sum_D

    def standard_error(self, influence_N: npt.NDArray[Any]) -> float:
        """Of a figure whose rows contribute `influence_N` (summing to 0 over all rows); needs two days.

        Source: Taylor linearisation over clusters, Cochran, Sampling Techniques (1977), sections 6.3 and 9A.
        """
        return sqrt(float((self.sums(influence_N) ** 2).sum()) * self.num / (self.num - 1))


@lru_cache(maxsize=1_024)
def student_t(degrees: float, tail: float = _TAIL) -> float:
    """The two-sided quantile of Student's t, also for fractional degrees: |t| is larger with probability `tail`. Right to four
    digits at least.

    Raises:
        ValueError: `degrees` is below 1, or `tail` not between 0 and 1.

    Source: with t = sqrt(v) tan(a) the density is proportional to cos(a)^(v - 1) on (-pi/2, pi/2), summed here by midpoints.

    Example:
        >>> round(student_t(10), 3), round(student_t(5, 0.01), 3)
        (2.228, 4.032)
    """
    if not degrees >= 1 or not 0 < tail < 1:
        raise ValueError(f"degrees of freedom must be >= 1 and the tail between 0 and 1, got {degrees!r} and {tail!r}")
    degrees = min(degrees, _MOST_DEGREES)
    edge_A = np.linspace(0.0, pi / 2, _NUM_ANGLES)
    share_A = np.concatenate([[0.0], np.cumsum(np.cos((edge_A[1:] + edge_A[:-1]) / 2) ** (degrees - 1.0))])
    return sqrt(degrees) * tan(float(np.interp(1.0 - tail, share_A / share_A[-1], edge_A)))


def mean_interval(values_N: npt.NDArray[Any], days: Days, *, floor: float = -np.inf, ceiling: float = np.inf) -> Interval:
    """The mean of rows, a day weighing by its rows; between `floor` and `ceiling`, which are its ends below two days (-1e9 and
    1e9 where there are none).

    Raises:
        ValueError: There are no rows.

    Example:
        >>> day = 86_400_000
        >>> found = mean_interval(np.array([0.1, 0.2, 0.3]), Days(np.array([0, day, 2 * day])))
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)    # 0.2 -+ 4.3027 * 0.1 / sqrt(3)
        (0.2, -0.048, 0.448)
    """
    if not len(values_N):
        raise ValueError("there are no rows to take the mean of")
    value = float(values_N.mean())
    if days.num < 2:
        return Interval(value, max(floor, -_open_end(-value)), min(ceiling, _open_end(value)))
    half = student_t(days.num - 1) * days.standard_error((values_N - value) / len(values_N))
    return Interval(value, max(floor, -_LARGEST, value - half), min(ceiling, _LARGEST, value + half))


def _open_end(value: float, unknown: float = UNKNOWN) -> float:
    """An upper end that says nothing, never below the value."""
    return unknown if value < unknown else _LARGEST


def loss_interval(loss_N: npt.NDArray[Any], days: Days, *, ceiling: float = np.inf, unknown: float = UNKNOWN) -> Interval:
    """The mean of losses that are 0 or more, on the logarithm's scale: a mean of losses is skewed to the right, so is its
    interval.

    Losses that are all 0 leave room for chance: as large a share of rows may have one as `rate_interval` says, each up to
    `ceiling`.

    Args:
        loss_N: The losses.
        days: Day of each row.
        ceiling: The most that a loss can be.
        unknown: The upper end where nothing is known, below two days, and there is no ceiling.

    Raises:
        ValueError: There are no rows.

    Source: the delta method on log(mean), with the standard error of `mean_interval`.

    Example:
        >>> day = 86_400_000
        >>> found = loss_interval(np.array([0.1, 0.2, 0.3]), Days(np.array([0, day, 2 * day])))
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.2, 0.058, 0.693)
    """
    if not len(loss_N):
        raise ValueError("there are no rows to take the mean of")
    value = float(loss_N.mean())
    open_end = min(ceiling, _open_end(value, unknown))
    if days.num < 2:
        return Interval(value, 0.0, open_end)
    if value == 0:
        return Interval(0.0, 0.0, min(open_end, ceiling * rate_interval(loss_N > 0, days).high))
    half = student_t(days.num - 1) * days.standard_error((loss_N - value) / len(loss_N)) / value
    return Interval(value, value * exp(-half), min(ceiling, _LARGEST, value * exp(min(half, _MAX_EXPONENT))))


def rate_interval(is_event_N: npt.NDArray[Any], days: Days) -> Interval:
    """The share of rows with the event, in 0..1; below two days anything is possible.

    Where no day differs from another (no events at all) rows count as independent: the interval is then no point, as the mean's
    would be.

    Raises:
        ValueError: There are no rows.

    Source: Wilson's score interval (1927) with the effective number of rows, rate (1 - rate) / se**2, and Student's t over
    days; the best of those that Franco, Little, Louis and Slud (2019) compare for clustered samples (doi 10.1093/jssam/smy019).

    Example:
        >>> day = 86_400_000
        >>> found = rate_interval(np.zeros(100), Days(np.arange(100) * day))
        >>> found.value, found.low, round(found.high, 3)
        (0.0, 0.0, 0.038)
    """
    if not len(is_event_N):
        raise ValueError("there are no rows to take the share of")
    rate = float(is_event_N.mean())
    if days.num < 2:
        return Interval(rate, 0.0, 1.0)
    error = days.standard_error((is_event_N - rate) / len(is_event_N))
    num_effective = rate * (1 - rate) / error**2 if error > 0 and 0 < rate < 1 else float(len(is_event_N))
    weight = student_t(days.num - 1) ** 2 / num_effective
    centre, half = rate + weight / 2, sqrt(weight * (rate * (1 - rate) + weight / 4))
    low, high = (centre - half) / (1 + weight), (centre + half) / (1 + weight)
    return Interval(rate, max(0.0, min(rate, low)), min(1.0, max(rate, high)))  # rounding must not part a rate from its end
