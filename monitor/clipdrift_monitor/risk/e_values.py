"""E-values: evidence whose mean is at most 1 while nothing is wrong. Many at once are judged by e-BH, which needs to know
nothing of how they hang together: features of one day, slices of the same rows, models on the same traffic."""

import math
from collections.abc import Sequence

import numpy as np

_CEILING = 1e300


def discoveries(e_values: Sequence[float], level: float) -> list[bool]:
    """Which of many e-values are discoveries: the expected share of false ones among them is at most `level`, under any
    dependence; so with nothing to discover the chance of any is at most `level`.

    The k largest are discoveries, k the largest number with e_(k) >= K / (level k); at most as many as there are e-values.

    Args:
        e_values: [K], each >= 0; infinity is the strongest evidence; none is fine.
        level: In (0, 1].

    Raises:
        ValueError: An e-value is negative or NaN, or the level is not in (0, 1].

    Source: Wang, Ramdas 2022, False discovery rate control with e-values (JRSS B 84, 822), section 5.1, theorem 5.1.

    Example:
        >>> discoveries([90.0, 1.0, 45.0, 0.0], 0.05)
        [True, False, True, False]
    """
    if not 0 < level <= 1:
        raise ValueError(f"level must be in (0, 1], got {level!r}")
    e_K = np.asarray(e_values, float)
    if np.isnan(e_K).any() or (e_K < 0).any():
        raise ValueError("e-values must be >= 0 and not NaN")
    order_K = np.argsort(-e_K, kind="stable")
    passing = np.flatnonzero(e_K[order_K] * np.arange(1, len(e_K) + 1) >= len(e_K) / level)
    found_K = np.zeros(len(e_K), bool)
    if len(passing):
        found_K[order_K[: passing[-1] + 1]] = True
    return found_K.tolist()


def e_of_p(p_value: float) -> float:
    """The e-value that a p-value is worth: (1 - p + p ln p) / (p (ln p)^2); infinite (1e300) at 0, and 1/2 at 1.

    A mixture of all k p^(k - 1), k in (0, 1), so no k has to be chosen; for small p nearly 1 / (p (ln p)^2). What it costs: a
    p-value of 1e-6 is worth 5,200 and not a million, which is the price of holding under any dependence.

    Raises:
        ValueError: p is not in [0, 1].

    Source: Vovk, Wang 2021, E-values: calibration, combination and applications (Annals of Statistics 49, 1736), equation 2.

    Example:
        >>> [round(e_of_p(p), 2) for p in (1.0, 0.05, 1e-4)]
        [0.5, 1.78, 117.76]
    """
    if not 0 <= p_value <= 1:
        raise ValueError(f"a p-value must be in [0, 1], got {p_value!r}")
    if p_value < 1 / _CEILING:
        return _CEILING
    log = math.log(p_value)
    if log > -1e-3:  # the form is 0 / 0 at 1; its series, to 1e-7
        return 0.5 - log / 6
    return min(_CEILING, (1 - p_value + p_value * log) / (p_value * log * log))
