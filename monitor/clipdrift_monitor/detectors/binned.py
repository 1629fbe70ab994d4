"""Detectors on bins in any order: Jensen-Shannon distance, population stability index, chi-square test, G-test.

A distance alone says more about the window's size than about drift: with 100 rows pure chance exceeds the customary 0.1. The
p-value does not.
"""

import math

import numpy as np

from clipdrift_monitor.detectors.detector import BinKind, Bins, Drift, Floats, nothing
from clipdrift_monitor.detectors.null import distance_p_value, divergence_p_value, merged, quadratic_p_value

_SMOOTHING = 0.5  # half a row in each bin, so that an empty bin on one side stays finite (Krichevsky, Trofimov 1981)
ANY_KIND: frozenset[BinKind] = frozenset(("ordered", "unordered"))


class ByDistance:
    """What a detector inherits that is a distance between two sets of counts and nothing else: the p-value comes by itself.

    It is simulated: windows of the same sizes, drawn with the pooled shares. A millisecond or two a feature.
    """

    name: str
    kinds: frozenset[BinKind] = ANY_KIND
    min_effect: float = 0.1

    def distance(self, reference_K: Floats, current_K: Floats) -> Floats:
        """Of counts [..., K], over the last axis; shape [...]. 0 for equal shares, more for more change; no side is empty."""
        raise NotImplementedError(f"{type(self).__name__} has no distance(self, reference_K, current_K)")

    def compare(self, bins: Bins) -> Drift:
        if bins.checked().is_empty:
            return nothing(bins)
        score = float(self.distance(bins.reference_K, bins.current_K))
        return Drift(score=score, p_value=distance_p_value(bins, self.distance, score), num_rows=bins.num_rows)


class JensenShannon:
    """Square root of the Jensen-Shannon divergence with base 2: 0 for equal shares, 1 for disjoint ones.

    Null: eight times the divergence in nats is near the quadratic form of Pearson's test, and its mean is that of bins of so
    many rows.

    Source: Lin 1991; Endres, Schindelin 2003 (the root is a metric).

    Example:
        >>> round(JensenShannon().compare(Bins(np.array([500.0, 500.0]), np.array([900.0, 100.0]))).score, 3)
        0.383
    """

    name = "jensen_shannon"
    kinds = ANY_KIND
    min_effect = 0.1

    def compare(self, bins: Bins) -> Drift:
        if bins.checked().is_empty:
            return nothing(bins)
        score = math.sqrt(max(0.0, float(_divergence(bins.reference_K, bins.current_K))) / math.log(2))
        few = merged(bins)
        p_value = divergence_p_value(few, 8 * float(_divergence(few.reference_K, few.current_K)), _divergence_term)
        return Drift(score=score, p_value=p_value, num_rows=bins.num_rows)


class StabilityIndex:
    """Population stability index in nats, with half a row added to every bin.

    Null: near the quadratic form of Pearson's test (Yurdakul 2018, theorem 3.2), and its mean is that of bins of so many rows.

    Source: sum_k (q_k - p_k) ln(q_k / p_k), the symmetrised divergence (Jeffreys 1946).

    Example:
        >>> round(StabilityIndex().compare(Bins(np.array([5000.0, 5000.0]), np.array([2500.0, 7500.0]))).score, 3)
        0.275
    """

    name = "psi"
    kinds = ANY_KIND
    min_effect = 0.1

    def compare(self, bins: Bins) -> Drift:
        if bins.checked().is_empty:
            return nothing(bins)
        few = merged(bins)
        p_value = divergence_p_value(few, _stability_statistic(few), _stability_term)
        score = max(0.0, float(_stability_index(bins.reference_K, bins.current_K)))
        return Drift(score=score, p_value=p_value, num_rows=bins.num_rows)


class ChiSquare:
    """Pearson's test of homogeneity; the score is Cramér's V as two samples of equally many rows would have it, from 0 to 1.

    So the score does not depend on how many rows there are: V = sqrt(sum_k (q_k - p_k)^2 / (q_k + p_k) / 2).

    Source: Pearson 1900; Cramér 1946, section 21.9.

    Example:
        >>> found = ChiSquare().compare(Bins(np.array([50.0, 50.0, 50.0, 50.0]), np.array([60.0, 40.0, 55.0, 45.0])))
        >>> round(found.score, 3), round(found.p_value, 2)
        (0.079, 0.47)
    """

    name = "chi_square"
    kinds = ANY_KIND
    min_effect = 0.1

    def compare(self, bins: Bins) -> Drift:
        if bins.checked().is_empty:
            return nothing(bins)
        p_K, q_K = bins.reference_K / bins.reference_K.sum(), bins.current_K / bins.current_K.sum()
        used = p_K + q_K > 0
        score = math.sqrt(float(((q_K - p_K)[used] ** 2 / (q_K + p_K)[used]).sum()) / 2)
        few = merged(bins)
        return Drift(
            score=score, p_value=quadratic_p_value(few, float(_pearson(few.reference_K, few.current_K))), num_rows=bins.num_rows
        )


class GTest:
    """Likelihood-ratio test of homogeneity; the score is G as two samples of equally many rows would have it, which is the
    Jensen-Shannon distance.

    Source: Wilks 1938; its mean under chance, which Williams 1976 corrects for, is that of bins of so many rows.

    Example:
        >>> found = GTest().compare(Bins(np.array([50.0, 50.0, 50.0, 50.0]), np.array([60.0, 40.0, 55.0, 45.0])))
        >>> round(found.score, 3), round(found.p_value, 2)
        (0.067, 0.47)
    """

    name = "g_test"
    kinds = ANY_KIND
    min_effect = 0.1

    def compare(self, bins: Bins) -> Drift:
        if bins.checked().is_empty:
            return nothing(bins)
        score = math.sqrt(max(0.0, float(_divergence(bins.reference_K, bins.current_K))) / math.log(2))
        few = merged(bins)
        p_value = divergence_p_value(few, float(_likelihood_ratio(few.reference_K, few.current_K)), _likelihood_term)
        return Drift(score=score, p_value=p_value, num_rows=bins.num_rows)


def homogeneity(reference_K: Floats, current_K: Floats) -> float:
    """p-value of Pearson's chi-square test that both sets of counts come from the same shares, of independent rows.

    Bins that expect under five rows are joined first.

    Example:
        >>> round(homogeneity(np.array([50.0, 50.0, 50.0, 50.0]), np.array([60.0, 40.0, 55.0, 45.0])), 2)
        0.47
    """
    return ChiSquare().compare(Bins(reference_K, current_K)).p_value


# Each over the last axis, of counts [..., K].


def _shares(counts_K: Floats) -> Floats:
    shares_K: Floats = counts_K / counts_K.sum(axis=-1, keepdims=True)
    return shares_K


def _pearson(reference_K: Floats, current_K: Floats) -> Floats:
    both_K = reference_K + current_K
    off_K = (_shares(current_K) - _shares(reference_K)) ** 2
    found: Floats = np.divide(off_K, _shares(both_K), out=np.zeros_like(off_K), where=both_K > 0).sum(axis=-1)
    return found


def _divergence(reference_K: Floats, current_K: Floats) -> Floats:
    """Jensen-Shannon divergence in nats."""
    p_K, q_K = _shares(reference_K), _shares(current_K)
    middle_K = (p_K + q_K) / 2
    found: Floats = (_relative_entropy(p_K, middle_K) + _relative_entropy(q_K, middle_K)) / 2
    return found


def _likelihood_ratio(reference_K: Floats, current_K: Floats) -> Floats:
    """G over the harmonic number of rows, so that it is near Pearson's form in units of one row."""
    num_before, num_now = reference_K.sum(axis=-1), current_K.sum(axis=-1)
    pooled_K = _shares(reference_K + current_K)
    ratio = num_before * _relative_entropy(_shares(reference_K), pooled_K) + num_now * _relative_entropy(
        _shares(current_K), pooled_K
    )
    found: Floats = 2 * ratio * (1 / num_before + 1 / num_now)
    return found


def _stability_index(reference_K: Floats, current_K: Floats) -> Floats:
    p_K, q_K = _shares(reference_K + _SMOOTHING), _shares(current_K + _SMOOTHING)
    found: Floats = ((q_K - p_K) * np.log(q_K / p_K)).sum(axis=-1)
    return found


def _stability_statistic(bins: Bins) -> float:
    """The index with the shares as they are and only the logarithms smoothed: shares that were pulled together prove less."""
    off_K = _shares(bins.current_K) - _shares(bins.reference_K)
    ratio_K = (bins.current_K + _SMOOTHING) / (bins.reference_K + _SMOOTHING) * (bins.reference_K.sum() / bins.current_K.sum())
    return float((off_K * np.log(ratio_K)).sum())


def _relative_entropy(p_K: Floats, q_K: Floats) -> Floats:
    ratio_K = np.divide(p_K, q_K, out=np.ones_like(p_K), where=p_K > 0)
    found: Floats = (p_K * np.log(ratio_K)).sum(axis=-1)
    return found


# What a bin adds that expects mu rows and has x, in rows.


def _divergence_term(mu: Floats, x: Floats) -> Floats:
    middle = (mu + x) / 2
    found: Floats = 4 * (mu * np.log(mu / middle) + x * np.log(np.where(x > 0, x, 1.0) / middle))
    return found


def _likelihood_term(mu: Floats, x: Floats) -> Floats:
    found: Floats = 2 * (x * np.log(np.where(x > 0, x, 1.0) / mu) - x + mu)
    return found


def _stability_term(mu: Floats, x: Floats) -> Floats:
    found: Floats = (x - mu) * np.log((x + _SMOOTHING) / (mu + _SMOOTHING))
    return found
