"""Evidence on a mean difference from block to block, at any time: block means as normal, their spread not known.

Axes: ... any, J spreads, 4 sums. A block tells a difference x (candidate minus champion) with a variance by chance of w, were
its rows independent. How much blocks differ beyond that is not known, up to a bound; along one path from nothing to the bound,

    x ~ N(theta, v_j),   v_j = w + g_j^2 ((I - 1) w + spread^2),   g_j in 0..1,

I the most rows that may count as one. For each g_j four sums over blocks are all that is remembered: 1 / v, x / v, x^2 / v,
ln v.

Evidence against a set H of differences is

    E = (mixture over g_j and over theta ~ N(0, s^2) of the likelihood) / (its largest value over theta in H and all g_j).

Whatever theta in H and g_j are true, E is at most the ratio of the mixture to the truth, whose mean is 1 at every time. So the
chance that E ever reaches 1 / alpha is at most alpha (Ville 1939), however often one looks and whenever one stops. Since the
spread is not known, a block alone never proves much: with the bound far away its evidence grows by ln(1 + z^2) / 2 only.

Source: Wasserman, Ramdas, Balakrishnan 2020, Universal inference (PNAS 117, 16880), section 8, with a mixture (Robbins 1970) in
the place of the estimate from the past. The path of variances is our own.
"""

import numpy as np

from clipdrift_monitor.windows.window import Floats

NUM_SPREADS = 13
_PATH_J = np.linspace(0.0, 1.0, NUM_SPREADS) ** 2  # g_j^2 is dense near 0, where v changes most in proportion
_PRIOR_J = np.full(NUM_SPREADS, 1.0 / NUM_SPREADS)
_WIDTHS = (0.4, 1.2, 4.0)  # s over the margin: about none, about the margin, a break
_LARGEST = 1.0  # a difference of rates


def sums_of_block(x: Floats, w: Floats, *, spread: float, row_inflation: float) -> Floats:
    """What blocks add to the sums: from differences and their variances by chance [...], sums [..., J, 4].

    A block that tells nothing (w infinite) adds nothing.
    """
    known = np.isfinite(w)[..., None]
    w_J = np.where(known, np.asarray(w)[..., None], 1.0)
    x_J = np.where(known, np.asarray(x)[..., None], 0.0)
    v_J = w_J + _PATH_J * ((row_inflation - 1.0) * w_J + spread**2)
    added: Floats = np.stack([1.0 / v_J, x_J / v_J, x_J**2 / v_J, np.log(v_J)], axis=-1)
    counted: Floats = np.where(known[..., None], added, 0.0)
    return counted


def log_mixture(sums: Floats, scale: Floats) -> Floats:
    """Logarithm [...] of the likelihood mixed over spreads and over differences of about `scale` [...] in size."""
    precision, weighted, squares, logs = _parts(sums)
    found = []
    for width in _WIDTHS:
        s2 = (width * np.asarray(scale)[..., None]) ** 2
        gain = 0.5 * weighted**2 / (precision + 1.0 / s2) - 0.5 * np.log1p(s2 * precision)
        found.append(gain - 0.5 * (logs + squares) + np.log(_PRIOR_J / len(_WIDTHS)))
    together = np.concatenate(found, axis=-1)
    largest = together.max(axis=-1)
    mixed: Floats = largest + np.log(np.exp(together - largest[..., None]).sum(axis=-1))
    return mixed


def log_best(sums: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """Logarithm [...] of the largest likelihood of a difference in low..high, over all spreads."""
    precision, weighted, squares, logs = _parts(sums)
    middle = np.divide(weighted, precision, out=np.zeros_like(weighted), where=precision > 0)
    theta = np.clip(middle, np.asarray(low)[..., None], np.asarray(high)[..., None])
    likelihood = -0.5 * (logs + squares - 2 * theta * weighted + theta**2 * precision)
    best: Floats = likelihood.max(axis=-1)
    return best


def log_evidence(sums: Floats, scale: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """Logarithm [...] of the evidence that the difference is not in low..high; the evidence has mean 1 at most while it is.

    Example:
        >>> day = sums_of_block(np.array(0.0), np.array(0.02**2), spread=0.0, row_inflation=1.0)
        >>> [round(float(log_evidence(n * day, np.array(0.05), 0.05, 1.0)), 1) for n in (1, 4, 16)]
        [2.1, 11.0, 47.9]
    """
    return log_mixture(sums, scale) - log_best(sums, low, high)


def interval(sums: Floats, scale: Floats, alpha: float) -> tuple[Floats, Floats, Floats]:
    """The difference [...] that fits best and the interval of those that are not rejected, at every look together."""
    precision, weighted, squares, logs = _parts(sums)
    middle_J = np.divide(weighted, precision, out=np.zeros_like(weighted), where=precision > 0)
    bar = log_mixture(sums, scale) - np.log(1.0 / alpha)
    above_J = 2.0 * (-0.5 * (logs + squares - middle_J * weighted) - bar[..., None])  # at the best difference, for this spread
    reach_J = np.sqrt(np.divide(above_J, precision, out=np.full_like(above_J, np.inf), where=precision > 0).clip(0.0))
    is_kept = above_J >= 0  # of at least one spread: the mixture is no more than the largest
    low = np.where(is_kept, middle_J - reach_J, np.inf).min(axis=-1)
    high = np.where(is_kept, middle_J + reach_J, -np.inf).max(axis=-1)
    return estimate(sums), np.maximum(low, -_LARGEST), np.minimum(high, _LARGEST)


def estimate(sums: Floats) -> Floats:
    """The difference [...] that fits best; 0 where there is no block."""
    precision, weighted, squares, logs = _parts(sums)
    middle = np.divide(weighted, precision, out=np.zeros_like(weighted), where=precision > 0)
    likelihood = -0.5 * (logs + squares - middle * weighted)
    best_J = likelihood.argmax(axis=-1)[..., None]
    found: Floats = np.take_along_axis(middle, best_J, axis=-1)[..., 0]
    return found


def grown(sums: Floats, factors_F: Floats) -> Floats:
    """The sums [F, ..., J, 4] after so many times as many blocks like those that were seen."""
    found: Floats = np.multiply.outer(factors_F, sums)
    return found


def _parts(sums: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    return sums[..., 0], sums[..., 1], sums[..., 2], sums[..., 3]
