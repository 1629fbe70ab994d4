"""Quantiles of Student's t, from tables: the monitor needs three of them and no statistics library."""

from functools import lru_cache

from clipdrift_monitor.detectors.tails import f_tail

# One-sided quantiles for 1..30 degrees of freedom; beyond, the last is used, which is above the true one.
_TABLES = {
    0.95: (
        6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753,
        1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
    ),
    0.975: (
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ),
    0.99: (
        31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764, 2.718, 2.681, 2.650, 2.624, 2.602,
        2.583, 2.567, 2.552, 2.539, 2.528, 2.518, 2.508, 2.500, 2.492, 2.485, 2.479, 2.473, 2.467, 2.462, 2.457,
    ),
}  # fmt: skip


@lru_cache(maxsize=4096)
def t_exceeded_once_in(times: float, degrees: int) -> float:
    """The value that a t variable exceeds once in `times` >= 2, by halving; to 6 digits.

    Example:
        >>> round(t_exceeded_once_in(100.0, 10), 3), round(t_exceeded_once_in(5400.0, 27), 2)
        (2.764, 4.07)
    """
    if degrees < 1 or not times >= 2:
        raise ValueError(f"expected degrees of freedom >= 1 and times >= 2, got {degrees!r} and {times!r}")
    low, high = 0.0, 2.0
    while _tail(high, degrees) > 1 / times:
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, degrees) > 1 / times else (low, middle)
    return high


def _tail(t: float, degrees: int) -> float:
    """Probability above t > 0: half that of |t| above it, which is an F variable's root."""
    return f_tail(t * t, 1.0, degrees) / 2


def t_quantile(share: float, degrees: int) -> float:
    """The value that a t variable stays below with probability `share`, which is 0.95, 0.975 or 0.99; to 3 digits.

    Example:
        >>> t_quantile(0.95, 10)
        1.812
    """
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be >= 1, got {degrees!r}")
    table = _TABLES.get(share)
    if table is None:
        raise ValueError(f"there are tables for {', '.join(map(str, _TABLES))}, got {share!r}")
    return table[min(degrees, len(table)) - 1]
