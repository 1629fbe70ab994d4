"""Tests whether figures of clipping go together with what became of the models, so that a common trend is no finding.

Two series that both grow are correlated, whatever they are: a plain correlation of removed mass with decay over a year of
retrains finds a link nearly always. Here series are differenced, their ranks compared, and the null distribution comes from
rotations within blocks, which keep what hangs together in time. Slices are compared within a version, and whole slices change
places, since a slice that is hard once is hard always.

Axes: V versions in order, S slices, F figures of clipping, O outcomes, C held figures, L lags, P permutations, N points.
"""

import itertools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from clipdrift_monitor.windows.window import Floats

_BLOCK_VERSIONS = 20  # rotated within; what hangs together for longer is taken out by the differences
_MIN_SHARE = 0.7  # of the points that a series must have a value at
_NORMAL = NormalDist()
_ALL_ORDERS = 7  # slices: up to 7! = 5,040 orders are all tried


class Compared(NamedTuple):
    """Correlations of every pair at every lag, and how often chance alone gives one as strong anywhere in the family.

    Arrays are [F, O, L]; NaN where a series is constant, or lacks too many values. `critical` is the correlation that would
    have been found at the level asked for, with the points at hand.
    """

    correlation: Floats
    p_value: Floats
    num_points: int
    critical: float


def lagged_test(
    figures_FV: Floats,
    outcomes_OV: Floats,
    held_CV: Floats,
    *,
    lags: tuple[int, ...],
    level: float,
    num_permutations: int = 999,
) -> Compared:
    """Rank correlations of the changes of figures with the changes of outcomes, `held` taken out of both.

    At lag l an outcome is compared with the figure l versions later: l > 0 when the outcome leads, l < 0 when the figure does.

    Args:
        figures_FV: One row a figure, in the order of time; NaN where it is not known.
        outcomes_OV: One row an outcome, at the same versions.
        held_CV: Confounders, at the same versions; none: shape [0, V].
        lags: To look at.
        level: Chance of any finding in the whole family, while nothing goes together.
        num_permutations: Rotations drawn; the smallest p-value is 1 / (1 + that).

    Returns:
        The correlations with p-values that hold for the family (max-T). All NaN below 8 versions.

    Source: partial rank correlation by residuals of ranks (Kendall 1942; Conover 1999, section 5.4); differences against trends
    (Granger, Newbold 1974); max-T by Westfall, Young 1993, section 2.6, with rotations within blocks of some 20 in the place of
    free permutations, as by Politis, Romano 1992 for series. Residuals are permuted as in Freedman, Lane 1983.

    Example:
        >>> walk_V = np.cumsum(np.random.default_rng(0).normal(size=40))
        >>> found = lagged_test(walk_V[None], 2.0 * walk_V[None], np.zeros((0, 40)), lags=(0,), level=0.05)
        >>> float(round(found.correlation[0, 0, 0], 2)), bool(found.p_value[0, 0, 0] < 0.05)
        (1.0, True)
    """
    shape = (len(figures_FV), len(outcomes_OV), len(lags))
    num_points = figures_FV.shape[1] - 1
    if num_points < 7 or 0 in shape:
        return Compared(np.full(shape, np.nan), np.full(shape, np.nan), max(0, num_points), 1.0)
    time_N = _ranks(np.arange(num_points))  # growth that speeds up is a trend of the changes: held too
    held_CN = np.concatenate([_ranks(np.diff(held_CV, axis=1)), np.stack([time_N, time_N**2 - (time_N**2).mean()])])
    figures_FN = _whitened(_residuals(_ranks(np.diff(figures_FV, axis=1)), held_CN))
    outcomes_ON = _whitened(_residuals(_ranks(np.diff(outcomes_OV, axis=1)), held_CN))
    order_PN = _rotations(num_points, num_permutations)
    observed = np.stack([_correlations(figures_FN[None], outcomes_ON, lag)[0] for lag in lags], axis=-1)
    permuted_PFN = np.moveaxis(figures_FN[:, order_PN], 0, 1)
    # what the held figures could explain by chance is taken out again: of few points it is much
    permuted_PFN = _residuals(permuted_PFN.reshape(-1, num_points), held_CN).reshape(permuted_PFN.shape)
    scales_L = np.array([math.sqrt(max(1, num_points - abs(lag) - 1)) for lag in lags])
    null_P = np.zeros(len(order_PN))
    for lag, scale in zip(lags, scales_L, strict=True):
        strongest_P = np.nanmax(np.abs(_correlations(permuted_PFN, outcomes_ON, lag)), axis=(1, 2), initial=0.0)
        null_P = np.maximum(null_P, scale * strongest_P)
    return _judged(observed, observed * scales_L, null_P, num_points, level, float(scales_L.max()))


def slice_test(
    figures_FVS: Floats, outcomes_OVS: Floats, held_CVS: Floats, *, level: float, num_permutations: int = 999
) -> Compared:
    """Rank correlations over the slices within each version, `held` (how hard a slice is) taken out of both.

    Args:
        figures_FVS: Figures of clipping by version and slice; NaN where not known.
        outcomes_OVS: Outcomes, at the same versions and slices.
        held_CVS: Confounders, at the same versions and slices.
        level: Chance of any finding in the whole family, while nothing goes together.
        num_permutations: Orders of the slices drawn; up to 7 slices all orders are tried.

    Returns:
        As `lagged_test`, with one lag; `num_points` is the number of slices. Below 5 slices no order is rare enough: all NaN.

    Source: as `lagged_test`; a slice is one point, by its mean rank, however many versions had it.
    """
    num_versions, num_slices = figures_FVS.shape[1:]
    shape = (len(figures_FVS), len(outcomes_OVS), 1)
    if num_slices < 5 or not num_versions or 0 in shape:
        return Compared(np.full(shape, np.nan), np.full(shape, np.nan), num_slices, 1.0)
    held_CS = _scores(_over_versions(held_CVS))
    figures_FS, outcomes_OS = (_residuals(_scores(_over_versions(one)), held_CS) for one in (figures_FVS, outcomes_OVS))
    order_PS = _orders(num_slices, num_permutations)
    observed = _correlations(figures_FS[None], outcomes_OS, 0)[0][..., None]
    permuted_PFS = np.moveaxis(figures_FS[:, order_PS], 0, 1)
    permuted_PFS = _residuals(permuted_PFS.reshape(-1, num_slices), held_CS).reshape(permuted_PFS.shape)
    null_P = np.nanmax(np.abs(_correlations(permuted_PFS, outcomes_OS, 0)), axis=(1, 2), initial=0.0)
    return _judged(observed, observed, null_P, num_slices, level, 1.0)


def holm(p_values: list[float]) -> list[float]:
    """P-values that hold for all of them together.

    Source: Holm 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _judged(observed: Floats, statistic: Floats, null_P: Floats, num_points: int, level: float, scale: float) -> Compared:
    is_known = np.isfinite(observed)
    num_above = (null_P[:, None] >= np.abs(statistic[is_known])[None] - 1e-9).sum(axis=0)
    p_value = np.full(observed.shape, np.nan)
    p_value[is_known] = (1 + num_above) / (1 + len(null_P))
    critical = float(np.quantile(null_P, 1 - level, method="higher")) / scale
    return Compared(observed, p_value, num_points, min(1.0, critical) if is_known.any() else 1.0)


def _ranks(values: Floats) -> Floats:
    """Ranks along the last axis, ties at their mean, centred; 0 where a value is missing, NaN all along where too many are or
    none differs."""
    values = np.asarray(values, float)
    is_known = np.isfinite(values)
    below = np.where(is_known[..., None, :] & is_known[..., :, None], np.sign(values[..., :, None] - values[..., None, :]), 0.0)
    ranks = np.where(is_known, below.sum(axis=-1), 0.0)
    lacks = (is_known.mean(axis=-1) < _MIN_SHARE) | ~ranks.any(axis=-1)
    ranks[lacks] = np.nan
    return ranks


def _over_versions(values_RVS: Floats) -> Floats:
    """[R, S]: ranks of the slices' mean rank within the versions."""
    if not len(values_RVS):
        return np.zeros((0, values_RVS.shape[2]))
    ranks_RVS = _ranks(values_RVS)
    total_RS = np.nansum(ranks_RVS, axis=1)
    total_RS[~np.isfinite(ranks_RVS).any(axis=(1, 2))] = np.nan
    return _ranks(total_RS)


def _scores(ranks_RS: Floats) -> Floats:
    """Normal scores of centred ranks: what is held is then taken out whole wherever figures depend on it monotonously.

    Source: van der Waerden 1952.
    """
    num_slices = ranks_RS.shape[1]
    scores = [_NORMAL.inv_cdf((rank / 2 + (num_slices + 1) / 2) / (num_slices + 1)) for rank in np.nan_to_num(ranks_RS).flat]
    return np.where(np.isfinite(ranks_RS), np.reshape(scores, ranks_RS.shape), np.nan)


def _residuals(values_RN: Floats, held_CN: Floats) -> Floats:
    """What a straight line on the held ranks leaves of each row; rows of NaN stay so, held rows of NaN hold nothing."""
    held_CN = held_CN[np.isfinite(held_CN).all(axis=1)]
    if not len(held_CN):
        return values_RN
    is_known = np.isfinite(values_RN).all(axis=1)
    left_RN = values_RN.copy()
    solution = np.linalg.lstsq(held_CN.T, values_RN[is_known].T, rcond=None)[0]
    left_RN[is_known] = values_RN[is_known] - (held_CN.T @ solution).T
    spread = np.abs(values_RN).max(axis=1, initial=0.0, where=np.isfinite(values_RN))
    left_RN[np.abs(left_RN).max(axis=1) < 1e-9 * (1.0 + spread)] = np.nan  # the held figures say all that it says
    return left_RN


def _whitened(values_RN: Floats) -> Floats:
    """Each row without what its own last value foretells of it: x_t - r x_{t-1}, r its lag-1 autocorrelation."""
    before, now = values_RN[:, :-1], values_RN[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (before * now).sum(axis=1) / (values_RN**2).sum(axis=1)
    return np.concatenate([values_RN[:, :1], now - r[:, None] * before], axis=1)


def _correlations(figures_PFN: Floats, outcomes_ON: Floats, lag: int) -> Floats:
    """[P, F, O]; the outcome is taken `lag` points before the figure."""
    num_points = outcomes_ON.shape[1]
    x = figures_PFN[:, :, max(0, lag) : num_points + min(0, lag)]
    y = outcomes_ON[:, max(0, -lag) : num_points - max(0, lag)]
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    size = np.sqrt((x**2).sum(axis=-1))[:, :, None] * np.sqrt((y**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, x @ y.T / size, np.nan)


def _rotations(num_points: int, num_permutations: int) -> np.ndarray:
    """[P, N]: each block of neighbours begins at a place of its own and goes round; drawn alike every time."""
    generator = np.random.default_rng(20_260_101)
    num_blocks = max(2, round(num_points / _BLOCK_VERSIONS))
    edges = np.linspace(0, num_points, num_blocks + 1).astype(int)
    parts = []
    for start, end in itertools.pairwise(edges):
        shift_P = generator.integers(0, end - start, num_permutations)
        parts.append(start + (np.arange(end - start) + shift_P[:, None]) % (end - start))
    return np.concatenate(parts, axis=1)


def _orders(num_slices: int, num_permutations: int) -> np.ndarray:
    if num_slices <= _ALL_ORDERS:
        return np.array(list(itertools.permutations(range(num_slices))))[1:]  # the first is the one observed
    generator = np.random.default_rng(20_260_102)
    return np.array([generator.permutation(num_slices) for _ in range(num_permutations)])
