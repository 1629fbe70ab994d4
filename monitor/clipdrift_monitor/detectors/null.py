"""What chance alone gives: null distributions that follow from the rows of window and reference, and from how much days differ.

The law behind all of them: the shares of a window less those of the reference have the covariance
s (diag(pi) - pi pi') + b T, with s = 1/n + 1/m for n and m independent rows, T the covariance between blocks, and
b = 1 + 1/D where the reference is the mean of D blocks.

Axes: K bins, R simulated windows.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from clipdrift_monitor.detectors.detector import Bins, Floats
from clipdrift_monitor.detectors.tails import f_tail, gamma_tail, normal_tail, with_estimated_spread

MIN_EXPECTED = 5.0  # rows of the smaller side in each bin (Cochran 1954): below, bins are merged for the proof
_NUM_BRIDGES = 4_000
_NUM_WINDOWS = 1_000
_MEANS_AT = np.geomspace(1.0, 2_000.0, 80)  # rows expected in a bin; beyond, the limit law holds
_MARGIN = 0.5  # standard errors added to an estimated spread: too little of it costs an alarm
_MIN_EXCEEDANCES = 40  # of the simulated ones; farther out the tail's law stands in
_SEED = 20_260_101


def merged(bins: Bins) -> Bins:
    """Bins joined until each expects five rows of the smaller side: neighbours where they are ordered, else the rarest first.

    Which are joined depends on the sum of both sides alone, so it does not favour either, and a p-value made after it holds.
    """
    both_K = bins.reference_K + bins.current_K
    share = min(bins.reference_K.sum(), bins.current_K.sum()) / both_K.sum()
    order_K = np.argsort(both_K, kind="stable") if bins.kind == "unordered" else np.arange(len(both_K))
    order_K = order_K[both_K[order_K] > 0]
    starts, expected = [0], 0.0
    for place, rows in enumerate(both_K[order_K].tolist()):
        if expected >= MIN_EXPECTED:
            starts.append(place)
            expected = 0.0
        expected += rows * share
    if expected < MIN_EXPECTED and len(starts) > 1:
        starts.pop()  # what is left over goes to the last one
    reference_K, current_K = (np.add.reduceat(side[order_K], starts) for side in (bins.reference_K, bins.current_K))
    return bins._replace(reference_K=reference_K, current_K=current_K, edges=(), has_missing=False)


def quadratic_p_value(bins: Bins, statistic: float, mean_by_chance: float = 1.0) -> float:
    """p-value of a sum over K used bins of about (q - p)^2 / pi: Pearson's, and what is near it for small changes.

    Args:
        bins: After `merged`.
        statistic: In units of one row: Pearson's chi-square times s.
        mean_by_chance: What independent rows give on average, over (K - 1) s; 1 for many rows.

    Source: Satterthwaite's approximation of a quadratic form, as in Rao, Scott 1984 (second order), with an F in place of the
    chi-square for a spread that was estimated.
    """
    num_free = int(((bins.reference_K + bins.current_K) > 0).sum()) - 1
    if num_free < 1 or bins.is_empty:
        return 1.0
    s = _row_variance(bins) * mean_by_chance
    total, square = _between_blocks(bins)
    mean = num_free * s + total
    half_variance = num_free * s * s + 2 * s * total + square
    degrees_below = mean * mean * (bins.spread.num_blocks - 1) / square if square > 0 else math.inf
    return f_tail(statistic / mean, mean * mean / half_variance, degrees_below)


def divergence_p_value(bins: Bins, value: float, term: Callable[[Floats, Floats], Floats]) -> float:
    """p-value of a sum over bins that is near the quadratic one, with the mean that chance gives it where bins expect few rows.

    Args:
        bins: After `merged`.
        value: The sum, in units of one row.
        term: What a bin adds that expects mu rows and has x, in rows: about (x - mu)^2 / mu. Its means are kept, so a function
            of a module.

    Source: a correction of the mean, as Bartlett's and Williams' (1976), from exact Poisson means and both sides apart.
    """
    both_K = bins.reference_K + bins.current_K
    share_K = both_K[both_K > 0] / both_K.sum()
    if len(share_K) < 2 or bins.is_empty:
        return 1.0
    means = _poisson_means(term)
    by_chance = 0.0
    for num_rows in (float(bins.reference_K.sum()), float(bins.current_K.sum())):
        mean_K = np.interp(np.log(np.maximum(num_rows * share_K, 1.0)), np.log(_MEANS_AT), means)
        by_chance += float(((1 - share_K) * mean_K).sum()) / num_rows
    return quadratic_p_value(bins, value, by_chance / ((len(share_K) - 1) * _row_variance(bins)))


def distance_p_value(bins: Bins, distance: Callable[[Floats, Floats], Floats], value: float) -> float:
    """p-value of any distance between two sets of counts, from windows of the same sizes simulated with the pooled shares.

    Beyond what simulated windows reach, the tail is a gamma law of the distance or of its square, whichever has their skewness.
    Windows that differ beyond chance count as fewer independent rows, by the direction that they differ most in.
    """
    if bins.is_empty:
        return 1.0
    deflation = _row_variance(bins) / _largest_variance(bins)
    few = bins._replace(reference_K=bins.reference_K * deflation, current_K=bins.current_K * deflation)
    before_RK, now_RK = _windows_of_chance(few)
    drawn_R = np.asarray(distance(before_RK, now_RK), float)
    if drawn_R.shape != (_NUM_WINDOWS,):
        raise ValueError(
            f"a distance of counts [..., K] must have the shape [...], one number a row of counts, got {drawn_R.shape} for "
            f"{before_RK.shape}; sum over axis=-1 with keepdims=True for shares, and over axis=-1 for the result"
        )
    drawn_R = np.sort(drawn_R)
    num_beyond = len(drawn_R) - int(np.searchsorted(drawn_R, value * (1 - 1e-12)))
    if num_beyond >= _MIN_EXCEEDANCES or drawn_R[-1] <= 0:
        p_value = num_beyond / len(drawn_R)
    else:
        p_value = min(_MIN_EXCEEDANCES / len(drawn_R), _gamma_law_tail(drawn_R, value))
    return with_estimated_spread(p_value, _degrees_below(bins))


def bridge_p_value(bins: Bins, value: float, weights_C: tuple[float, ...] | None = None) -> float:
    """p-value of a norm of the differences of the cumulative shares at the K - 1 cuts between ordered bins.

    Under the null they are a Brownian bridge seen at those cuts, times the root of s: simulated once for the shares of the
    reference and kept. Beyond the simulated ones, the tail of a norm of a normal vector falls as that of its most variable
    linear part (Borell 1975).

    Args:
        bins: On the number line.
        value: Largest absolute difference, or the weighted sum of the absolute differences.
        weights_C: Of the cuts, for the sum; None: the largest.
    """
    if bins.is_empty:
        return 1.0
    shares_K = bins.reference_K / bins.reference_K.sum()
    drawn_R, deviation = _bridges(tuple(shares_K.tolist()), weights_C)
    if not deviation:
        return 1.0
    t = value / math.sqrt(_largest_variance(bins))
    num_beyond = len(drawn_R) - int(np.searchsorted(drawn_R, t * (1 - 1e-12)))
    if num_beyond >= _MIN_EXCEEDANCES:
        p_value = num_beyond / len(drawn_R)
    else:
        edge = float(drawn_R[-_MIN_EXCEEDANCES])
        p_value = _MIN_EXCEEDANCES / len(drawn_R) * normal_tail(t / deviation) / normal_tail(edge / deviation)
    return with_estimated_spread(p_value, _degrees_below(bins))


def shares_p_value(bins: Bins, place: int) -> float:
    """Two-sided p-value that the share of the rows in one bin has not changed, in either direction.

    Few rows expected on either side: Fisher's exact test. Else the quadratic law of two bins; the spread of all bins between
    blocks is taken for that of this one, which can only be smaller.
    """
    if bins.is_empty:
        return 1.0
    sides = [np.array([side[place], side.sum() - side[place]]) for side in (bins.reference_K, bins.current_K)]
    both = sides[0] + sides[1]
    share = min(sides[0].sum(), sides[1].sum()) / both.sum()
    if both.min() * share < MIN_EXPECTED:
        exact = fisher_exact(sides[0], sides[1])
        return exact if not bins.spread.total else max(exact, quadratic_p_value(_two(bins, sides), _pearson(*sides)))
    return quadratic_p_value(_two(bins, sides), _pearson(*sides))


def fisher_exact(reference_2: Floats, current_2: Floats) -> float:
    """Two-sided p-value of Fisher's exact test on two counts a side: all tables no more likely than the one seen.

    Example:
        >>> round(fisher_exact(np.array([8.0, 2.0]), np.array([1.0, 5.0])), 4)
        0.035
    """
    first, second, hits = round(reference_2.sum()), round(current_2.sum()), round(reference_2[0] + current_2[0])
    low, high = max(0, hits - first), min(second, hits)
    log_k = [
        _log_choose(second, k) + _log_choose(first, hits - k) - _log_choose(first + second, hits) for k in range(low, high + 1)
    ]
    seen = log_k[min(high, max(low, round(current_2[0]))) - low]
    return min(1.0, sum(math.exp(one) for one in log_k if one <= seen + 1e-7))


def _two(bins: Bins, sides: list[Floats]) -> Bins:
    return bins._replace(reference_K=sides[0], current_K=sides[1], kind="unordered", edges=(), has_missing=False)


def _pearson(reference_K: Floats, current_K: Floats) -> float:
    """Sum of (q - p)^2 / pi with pooled shares pi, over used bins."""
    both_K = reference_K + current_K
    used = both_K > 0
    off = current_K / current_K.sum() - reference_K / reference_K.sum()
    return float((off[used] ** 2 / both_K[used]).sum() * both_K.sum())


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _row_variance(bins: Bins) -> float:
    """s: variance of a difference of shares, over pi (1 - pi), by chance alone."""
    return float(1 / bins.reference_K.sum() + 1 / bins.current_K.sum())


def _between_blocks(bins: Bins) -> tuple[float, float]:
    """Trace of b T and of its square, with the margin for their having been estimated."""
    spread = bins.spread
    if spread.num_blocks < 2 or spread.total <= 0:
        return 0.0, 0.0
    error = math.sqrt(2 * spread.square / (spread.num_blocks - 1)) / spread.total
    b = (1 + 1 / spread.num_blocks) * (1 + _MARGIN * error)
    return b * spread.total, b * b * spread.square


def _largest_variance(bins: Bins) -> float:
    """A variance, over pi (1 - pi), that no direction exceeds: T is nowhere larger than the root of tr T^2. A norm of normal
    vectors exceeds a value most often with it (Anderson 1955)."""
    return _row_variance(bins) + math.sqrt(_between_blocks(bins)[1])


def _degrees_below(bins: Bins) -> float:
    """Of the estimate of the variance in the direction that windows differ most in."""
    of_blocks = math.sqrt(_between_blocks(bins)[1])
    if not of_blocks:
        return math.inf
    return (bins.spread.num_blocks - 1) * (_largest_variance(bins) / of_blocks) ** 2


def _windows_of_chance(bins: Bins) -> tuple[Floats, Floats]:
    """Counts [R, K] of both sides, drawn with the pooled shares."""
    random = np.random.default_rng(_SEED)
    both_K = bins.reference_K + bins.current_K
    shares_K = both_K / both_K.sum()
    sizes = (max(1, round(float(side.sum()))) for side in (bins.reference_K, bins.current_K))
    before_RK, now_RK = (random.multinomial(size, shares_K, _NUM_WINDOWS).astype(float) for size in sizes)
    return before_RK, now_RK


def _gamma_law_tail(drawn_R: Floats, value: float) -> float:
    def misfit(power: int) -> float:
        """A gamma law has twice its coefficient of variation as skewness."""
        x_R = drawn_R**power
        deviation = x_R.std()
        skewness = ((x_R - x_R.mean()) ** 3).mean() / deviation**3
        return abs(float(skewness - 2 * deviation / x_R.mean()))

    power = min((1, 2), key=misfit)
    x_R = drawn_R**power
    mean, variance = float(x_R.mean()), float(x_R.var())
    return gamma_tail(value**power * mean / variance, mean * mean / variance)


@lru_cache(maxsize=16)
def _poisson_means(term: Callable[[Floats, Floats], Floats]) -> Floats:
    """Mean of what a bin adds, at each of `_MEANS_AT` expected rows."""
    counts = np.arange(0.0, 2_000 + 10 * math.sqrt(2_000))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    means = []
    for mu in _MEANS_AT.tolist():
        chance = np.exp(counts * math.log(mu) - mu - log_factorial)
        means.append(float(chance @ term(np.array(mu), counts)))
    return np.asarray(means)


@lru_cache(maxsize=512)
def _bridges(shares: tuple[float, ...], weights_C: tuple[float, ...] | None) -> tuple[Floats, float]:
    """The norm of simulated bridges at the cuts, sorted, shape [R]; and the deviation of its most variable linear part."""
    shares_K = np.asarray(shares)
    draws_RK = np.random.default_rng(_SEED).standard_normal((_NUM_BRIDGES, len(shares_K))) * np.sqrt(shares_K)
    draws_RK -= shares_K * draws_RK.sum(axis=1, keepdims=True)
    bridge_RC = np.abs(np.cumsum(draws_RK, axis=1)[:, :-1])
    below_C = np.cumsum(shares_K)[:-1]
    if weights_C is None:
        deviation = math.sqrt(float((below_C * (1 - below_C)).max(initial=0.0)))
        return np.sort(bridge_RC.max(axis=1, initial=0.0)), deviation
    weights = np.asarray(weights_C)
    covariance_CC = np.minimum.outer(below_C, below_C) - np.outer(below_C, below_C)  # nowhere negative: all signs alike
    return np.sort(bridge_RC @ weights), math.sqrt(max(0.0, float(weights @ covariance_CC @ weights)))
