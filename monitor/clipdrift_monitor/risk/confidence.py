"""Confidence sequences: intervals that hold at every look together, of an accuracy and of a mean over blocks.

An interval of fixed size (Wilson, Student) holds at one look that was chosen beforehand. A dashboard is looked at every day:
the chance that at least one of these looks misses grows towards one. Each interval here is the set of values that a bet
against them has not ruined yet (capital below 1 / alpha at all times), so by Ville's inequality all looks together miss with
probability alpha at most.
"""

import math
from collections.abc import Sequence

import numpy as np

from clipdrift_monitor.windows.window import Floats

ALPHA = 0.05
_PRIOR = 0.5  # both parameters of the beta mixture: Jeffreys
_SMALL_EFFECT = 3.0  # c^2: blocks after which the Student sequence is narrowest, about a tenth of them
_MIN_BLOCKS = 5
_NUM_HALVINGS = 60


def share_interval(num_hits: float, num_rows: float, *, inflation: float = 1.0, alpha: float = ALPHA) -> tuple[float, float]:
    """Of the share behind independent hits, at every look together.

    Args:
        num_hits: Hits so far, 0 to num_rows.
        num_rows: Rows so far, > 0.
        inflation: Variance of a mean of these rows over that of independent ones; they count as num_rows / inflation, which is
            exact for 1 and holds approximately for chains and blocks.
        alpha: Chance that any of all looks misses.

    Raises:
        ValueError: No rows, more hits than rows, or an inflation below 0.

    Source: capital of the beta-binomial mixture against p, B(a + k, a + n - k) / B(a, a) / (p^k (1 - p)^(n - k)) with a = 1/2
        (Robbins 1970; as bets: Waudby-Smith, Ramdas, arXiv 2010.09686, appendix D).

    Example:
        >>> [round(x, 3) for x in share_interval(800, 1000)]
        [0.751, 0.843]
    """
    if not num_rows > 0 or not 0 <= num_hits <= num_rows or not inflation > 0:
        raise ValueError(
            f"an interval needs rows, no more hits than rows, an inflation > 0, got {num_rows!r}, {num_hits!r}, {inflation!r}"
        )
    hits, rows = num_hits / inflation, num_rows / inflation
    misses = max(0.0, rows - hits)
    largest = _log_beta(_PRIOR + hits, _PRIOR + misses) - _log_beta(_PRIOR, _PRIOR) - math.log(1 / alpha)

    def is_ruined(p: float) -> bool:
        return hits * math.log(p) + misses * math.log1p(-p) < largest

    share = hits / rows
    return _edge(is_ruined, 0.0, share), _edge(is_ruined, 1.0, share)


def mean_interval(values: Sequence[float], *, alpha: float = ALPHA) -> tuple[float, float | None, float | None]:
    """Mean of block values with its interval at every look together; no interval below 5 blocks.

    It needs blocks that are independent of each other and nearly normal (a mean over 50 labels is); their variance is unknown.

    Source: likelihood ratio of the scale-invariant t with a normal prior of the effect, variance 1 / c^2 (Lai 1976; Wang,
        Ramdas, arXiv 2310.03722, theorem 4.4): |m - mean| < s sqrt((r - 1) / (1 - r c^2 / (n + c^2))), s the standard deviation
        with divisor n, r = (sqrt((n + c^2) / c^2) / alpha)^(2 / n).

    Example:
        >>> [round(x, 3) for x in mean_interval([0.1, 0.3, 0.2, 0.2, 0.1, 0.3, 0.2, 0.2])]
        [0.2, 0.048, 0.352]
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < _MIN_BLOCKS:
        return mean, None, None
    r = math.exp(2 / n * (0.5 * math.log((n + _SMALL_EFFECT) / _SMALL_EFFECT) + math.log(1 / alpha)))
    room = 1 - r * _SMALL_EFFECT / (n + _SMALL_EFFECT)
    if room <= 0:
        return mean, None, None
    half = float(np.std(values)) * math.sqrt((r - 1) / room)
    return mean, mean - half, mean + half


def accuracy_interval(correct_T: Floats, labels_T: Floats, *, inflation: float = 1.0) -> tuple[float, float]:
    """Of the accuracy over T blocks of one model: that of rows, or that of blocks where it is the wider.

    Each holds where the other may not: rows that are independent up to `inflation`, blocks that differ as wholes.

    Args:
        correct_T: Right predictions by block.
        labels_T: Labels by block; blocks without are left out.
        inflation: See `share_interval`.

    Example:
        >>> steady = accuracy_interval(np.full(30, 90.0), np.full(30, 100.0))
        >>> moody = accuracy_interval(np.tile([80.0, 100.0], 15), np.full(30, 100.0))
        >>> [round(x, 2) for x in (*steady, *moody)]
        [0.88, 0.92, 0.84, 0.96]
    """
    has = labels_T > 0
    correct_T, labels_T = correct_T[has], labels_T[has]
    total, share = float(labels_T.sum()), float(correct_T.sum() / labels_T.sum())
    low, high = share_interval(float(correct_T.sum()), total, inflation=inflation)
    _, block_low, block_high = mean_interval((correct_T / labels_T).tolist())
    if block_low is None or block_high is None:
        return low, high
    half = (block_high - block_low) / 2
    return max(0.0, min(low, share - half)), min(1.0, max(high, share + half))


def _edge(is_ruined: object, outer: float, inner: float) -> float:
    """Where ruin begins between `inner`, which is not ruined, and `outer`."""
    assert callable(is_ruined)
    for _ in range(_NUM_HALVINGS):
        middle = (outer + inner) / 2
        if not 0 < middle < 1 or is_ruined(middle):
            outer = middle
        else:
            inner = middle
    return outer


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
