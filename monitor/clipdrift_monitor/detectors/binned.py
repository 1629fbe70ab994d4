"""Detectors on bin counts: Jensen-Shannon distance and population stability index, both with the chi-square test of
homogeneity.

A distance alone says more about the window's size than about drift: with 100 rows pure chance exceeds the customary 0.1. The
p-value does not.
"""

import math

import numpy as np

from clipdrift_monitor.detectors.detector import Detector, Drift
from clipdrift_monitor.windows.window import Floats

_SMOOTHING = 0.5  # half a row in each bin, so that an empty bin on one side stays finite (Krichevsky, Trofimov 1981)


class JensenShannon:
    """Square root of the Jensen-Shannon divergence with base 2: 0 for equal shares, 1 for disjoint ones.

    Source: Lin 1991; Endres, Schindelin 2003 (the root is a metric).

    Example:
        >>> round(JensenShannon().compare(np.array([500.0, 500.0]), np.array([900.0, 100.0])).score, 3)
        0.383
    """

    name = "jensen_shannon"

    def compare(self, reference_K: Floats, current_K: Floats) -> Drift:
        if _check(reference_K, current_K):
            return _nothing(current_K)
        p_K, q_K = reference_K / reference_K.sum(), current_K / current_K.sum()
        middle_K = (p_K + q_K) / 2
        divergence = (_relative_entropy(p_K, middle_K) + _relative_entropy(q_K, middle_K)) / 2
        score = math.sqrt(max(0.0, divergence / math.log(2)))
        return Drift(score=score, p_value=homogeneity(reference_K, current_K), num_rows=int(current_K.sum()))


class StabilityIndex:
    """Population stability index in nats, with half a row added to every bin.

    Source: sum_k (q_k - p_k) ln(q_k / p_k), the symmetrised divergence (Jeffreys 1946).

    Example:
        >>> round(StabilityIndex().compare(np.array([5000.0, 5000.0]), np.array([2500.0, 7500.0])).score, 3)
        0.275
    """

    name = "psi"

    def compare(self, reference_K: Floats, current_K: Floats) -> Drift:
        if _check(reference_K, current_K):
            return _nothing(current_K)
        p_K = (reference_K + _SMOOTHING) / (reference_K + _SMOOTHING).sum()
        q_K = (current_K + _SMOOTHING) / (current_K + _SMOOTHING).sum()
        score = float(((q_K - p_K) * np.log(q_K / p_K)).sum())
        return Drift(score=score, p_value=homogeneity(reference_K, current_K), num_rows=int(current_K.sum()))


DETECTORS: tuple[Detector, ...] = (JensenShannon(), StabilityIndex())


def homogeneity(reference_K: Floats, current_K: Floats) -> float:
    """p-value of the chi-square test that both sets of counts come from the same shares; bins empty on both sides are left out.

    The counts must be independent rows; bins with fewer than about 5 expected rows make the p-value approximate.

    Source: Pearson 1900, with K - 1 degrees of freedom for K bins in use.

    Example:
        >>> round(homogeneity(np.array([50.0, 50.0, 50.0, 50.0]), np.array([60.0, 40.0, 55.0, 45.0])), 2)
        0.47
    """
    is_used = reference_K + current_K > 0
    a_K, b_K = reference_K[is_used], current_K[is_used]
    if len(a_K) < 2 or not a_K.sum() or not b_K.sum():
        return 1.0
    total_K = a_K + b_K
    share = a_K.sum() / total_K.sum()
    statistic = float((((a_K - total_K * share) ** 2) / (total_K * share * (1 - share))).sum())
    return chi_square_tail(statistic, len(a_K) - 1)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Probability that a chi-square variable exceeds `statistic` >= 0; exact for whole degrees of freedom >= 1.

    Source: Q(1/2, x) = erfc(sqrt x), Q(1, x) = exp(-x), Q(a + 1, x) = Q(a, x) + x^a exp(-x) / Gamma(a + 1) (DLMF 8.8.6), with x
    half the statistic.

    Example:
        >>> round(chi_square_tail(3.841, 1), 4), round(chi_square_tail(18.307, 10), 4)
        (0.05, 0.05)
    """
    half = statistic / 2
    if half <= 0:
        return 1.0
    order, tail = (0.5, math.erfc(math.sqrt(half))) if degrees % 2 else (1.0, math.exp(-half))
    while order < degrees / 2:
        tail += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1.0
    return min(1.0, tail)


def discoveries(p_values: list[float], level: float) -> list[bool]:
    """Which of many tests may be called drift, with at most `level` of those called expected to be false.

    Source: Benjamini, Hochberg 1995, step-up.

    Example:
        >>> discoveries([0.001, 0.2, 0.02, 0.9], 0.05)
        [True, False, True, False]
    """
    order = np.argsort(p_values)
    limits = level * np.arange(1, len(p_values) + 1) / max(1, len(p_values))
    passing = np.flatnonzero(np.asarray(p_values)[order] <= limits)
    found = np.zeros(len(p_values), bool)
    if len(passing):
        found[order[: passing[-1] + 1]] = True
    return [bool(one) for one in found]


def _relative_entropy(p_K: Floats, q_K: Floats) -> float:
    is_there = p_K > 0
    return float((p_K[is_there] * np.log(p_K[is_there] / q_K[is_there])).sum())


def _check(reference_K: Floats, current_K: Floats) -> bool:
    """Whether a side is empty."""
    if len(reference_K) != len(current_K):
        raise ValueError(f"bins must be the same, got {len(reference_K)} and {len(current_K)}")
    joined = np.concatenate([reference_K, current_K])
    if not np.isfinite(joined).all() or (joined < 0).any():
        raise ValueError("counts must be finite and >= 0")
    return not reference_K.sum() or not current_K.sum()


def _nothing(current_K: Floats) -> Drift:
    return Drift(score=0.0, p_value=1.0, num_rows=int(current_K.sum()))
