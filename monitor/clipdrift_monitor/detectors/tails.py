"""Tail probabilities of the chi-square, gamma, F and normal distributions: the monitor has no statistics library."""

import math
from collections.abc import Callable
from statistics import NormalDist

_TINY = 1e-300
_MAX_TERMS = 2_000
_EPSILON = 1e-13
_NORMAL = NormalDist()


def chi_square_tail(statistic: float, degrees: float) -> float:
    """Probability that a chi-square variable exceeds `statistic`; `degrees` > 0 need not be whole.

    Example:
        >>> round(chi_square_tail(3.841, 1), 4), round(chi_square_tail(18.307, 10), 4)
        (0.05, 0.05)
    """
    return gamma_tail(statistic / 2, degrees / 2)


def gamma_tail(x: float, shape: float) -> float:
    """Probability that a gamma variable of this shape > 0 and scale 1 exceeds `x`.

    Source: the regularised upper incomplete gamma function, by the series (DLMF 8.7.1) below shape + 1 and the continued
    fraction (DLMF 8.9.2) above it.
    """
    if x <= 0:
        return 1.0
    front = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:
        term = total = 1.0 / shape
        for k in range(1, _MAX_TERMS):
            term *= x / (shape + k)
            total += term
            if term < total * _EPSILON:
                break
        return min(1.0, max(0.0, 1.0 - front * total))
    fraction = _continued_fraction(x + 1 - shape, lambda k: (k * (shape - k), x + 1 - shape + 2 * k))
    return min(1.0, front / fraction)


def f_tail(ratio: float, degrees: float, degrees_below: float) -> float:
    """Probability that an F variable exceeds `ratio`; both degrees of freedom > 0 need not be whole, the second may be inf.

    Source: I_x(b/2, a/2) at x = b / (b + a ratio), the regularised incomplete beta function (DLMF 8.17.22).

    Example:
        >>> round(f_tail(4.9646, 1, 10), 4), round(f_tail(1.8307, 10, math.inf), 4)
        (0.05, 0.05)
    """
    if ratio <= 0:
        return 1.0
    if degrees_below > 1e7:
        return chi_square_tail(ratio * degrees, degrees)
    a, b = degrees_below / 2, degrees / 2
    x = degrees_below / (degrees_below + degrees * ratio)
    if x > (a + 1) / (a + b + 2):
        return min(1.0, max(0.0, 1.0 - _beta_share(1 - x, b, a)))
    return min(1.0, _beta_share(x, a, b))


def normal_tail(z: float) -> float:
    """Probability that a standard normal variable exceeds `z`."""
    return math.erfc(z / math.sqrt(2)) / 2


def with_estimated_spread(p_value: float, degrees: float) -> float:
    """A two-sided normal p-value as Student's t has it: the spread was estimated with so many degrees of freedom.

    Example:
        >>> round(with_estimated_spread(0.05, 10), 3), with_estimated_spread(0.05, math.inf)
        (0.078, 0.05)
    """
    if math.isinf(degrees) or not 0 < p_value < 1:
        return p_value
    z = -_NORMAL.inv_cdf(max(_TINY, p_value / 2))
    return f_tail(z * z, 1.0, degrees)


def _beta_share(x: float, a: float, b: float) -> float:
    if x <= 0:
        return 0.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a

    def step(k: int) -> tuple[float, float]:
        m = k // 2
        if k % 2:
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), 1.0
        return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), 1.0

    return front / _continued_fraction(1.0, step)


def _continued_fraction(first: float, step: Callable[[int], tuple[float, float]]) -> float:
    """first + a_1 / (b_1 + a_2 / (b_2 + ...)) with (a_k, b_k) = step(k).

    Source: the modified method of Lentz (Thompson, Barnett 1986).
    """
    value = c = first or _TINY
    d = 0.0
    for k in range(1, _MAX_TERMS):
        above, below = step(k)
        d = 1.0 / ((below + above * d) or _TINY)
        c = (below + above / c) or _TINY
        change = c * d
        value *= change
        if abs(change - 1) < _EPSILON:
            break
    return value
