"""How well an explanation foretold counts: evidence of sums, so that a fault of the pipeline can be weighed against the world.

Axes: H past blocks, K bins of one feature or groups of scores.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from clipdrift_monitor.windows.window import Floats

LEAST_CONCENTRATION = 2.0
MOST_CONCENTRATION = 400.0  # days differ: a bin of 6 % of the rows moves by more than a point from day to day
_HALF_ROW = 0.5  # Krichevsky, Trofimov 1981


def shares_of(counts_K: Floats) -> Floats:
    """Shares of the bins with half a row added to each, so that none is 0.

    Example:
        >>> shares_of(np.array([0.0, 1.0])).tolist()
        [0.25, 0.75]
    """
    smoothed_K = counts_K + _HALF_ROW
    shares_K: Floats = smoothed_K / smoothed_K.sum()
    return shares_K


def concentration_of(counts_HK: Floats) -> float:
    """How firmly the shares of a block are known beforehand, in rows: the concentration of the Dirichlet that the blocks' own
    shares were drawn from. Large where blocks differ by chance alone, small where days differ; between 2 and 400.

    Fewer than 3 blocks say nothing: the geometric mean of both ends.

    Source: moments of the Dirichlet-multinomial, whose variance is (N + A) / (1 + A) times the multinomial's (Mosimann 1962).

    Example:
        >>> alike, unlike = np.array([[50.0, 50.0]] * 4), np.array([[90.0, 10.0], [10.0, 90.0], [50.0, 50.0]])
        >>> concentration_of(alike), concentration_of(unlike)
        (400.0, 2.0)
    """
    rows_H = counts_HK.sum(axis=1)
    counts_HK, rows_H = counts_HK[rows_H > 0], rows_H[rows_H > 0]
    if len(rows_H) < 3:
        return math.sqrt(LEAST_CONCENTRATION * MOST_CONCENTRATION)
    pooled_K = counts_HK.sum(axis=0) / rows_H.sum()
    is_used = pooled_K > 0
    expected_HK = rows_H[:, None] * pooled_K[is_used]
    degrees = (len(rows_H) - 1) * max(1, is_used.sum() - 1)
    excess = float(((counts_HK[:, is_used] - expected_HK) ** 2 / expected_HK).sum() / degrees)
    return concentration_by(excess, float(rows_H.mean()))


def concentration_by(excess: float, mean_rows: float) -> float:
    """The concentration under which the variance of shares is `excess` times what chance gives; within 2 and 400.

    Source: (N + A) / (1 + A) = excess, solved for A.

    Example:
        >>> concentration_by(2.0, 100.0), concentration_by(1.0, 100.0)
        (98.0, 400.0)
    """
    if excess <= 1.0:
        return MOST_CONCENTRATION
    return min(MOST_CONCENTRATION, max(LEAST_CONCENTRATION, (mean_rows - excess) / (excess - 1.0)))


def log_evidence_of_bins(counts_K: Floats, alpha_K: Floats) -> float:
    """Log probability of the rows in their order, when the bins' shares are drawn from a Dirichlet with `alpha_K` > 0.

    Source: the Dirichlet-multinomial (Polya) distribution without the count of orders, which all explanations share.

    Example:
        >>> round(math.exp(log_evidence_of_bins(np.array([1.0, 1.0]), np.array([1.0, 1.0]))), 4)  # 1/2 * 1/3
        0.1667
    """
    total = alpha_K.sum()
    by_bin = (_log_gamma(counts_K + alpha_K) - _log_gamma(alpha_K)).sum()
    return math.lgamma(total) - math.lgamma(counts_K.sum() + total) + float(by_bin)


def log_evidence_of_rates(hits_K: Floats, rows_K: Floats, rate_K: Floats, concentration: float) -> float:
    """The same for hits among rows, group by group, each rate drawn from a Beta distribution around `rate_K`.

    Source: the beta-binomial distribution without the count of orders.

    Example:
        >>> round(math.exp(log_evidence_of_rates(np.array([1.0]), np.array([2.0]), np.array([0.5]), 2.0)), 4)
        0.1667
    """
    rate_K = np.clip(rate_K, 1e-3, 1 - 1e-3)
    alpha_K, beta_K = concentration * rate_K, concentration * (1 - rate_K)
    misses_K = rows_K - hits_K
    after_K = _log_gamma(hits_K + alpha_K) + _log_gamma(misses_K + beta_K) - _log_gamma(rows_K + concentration)
    before_K = _log_gamma(alpha_K) + _log_gamma(beta_K) - math.lgamma(concentration)
    return float((after_K - before_K).sum())


def mixed(log_evidences: Sequence[float]) -> float:
    """Log evidence of "one of these, each as likely as the other"."""
    highest = max(log_evidences)
    return highest + math.log(sum(math.exp(one - highest) for one in log_evidences) / len(log_evidences))


def posterior(log_evidence: Mapping[str, float], prior: Mapping[str, float]) -> dict[str, float]:
    """Probability of each explanation after the counts (Bayes).

    Example:
        >>> posterior({"usual": math.log(0.1), "broken": math.log(0.3)}, {"usual": 0.75, "broken": 0.25})
        {'usual': 0.5, 'broken': 0.5}
    """
    weighed = {name: log + math.log(prior[name]) for name, log in log_evidence.items()}
    highest = max(weighed.values())
    odds = {name: math.exp(log - highest) for name, log in weighed.items()}
    total = sum(odds.values())
    return {name: round(one / total, 6) for name, one in odds.items()}


def _log_gamma(values_K: Floats) -> Floats:
    return np.array([math.lgamma(one) for one in values_K.tolist()])
