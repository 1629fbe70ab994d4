"""Held-out rows that all but equal a training row: copies that were rounded, jittered, or measured a moment later."""

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_trainer.quality.duplicates import COPIES_AGREE
from clipdrift_trainer.quality.finding import Finding, level_of, passed, skipped
from clipdrift_trainer.quality.intervals import wilson
from clipdrift_trainer.quality.table import Floats, Ints, Table, evenly_spaced
from clipdrift_trainer.quality.twins import Twins, coordinates, pair_up

# Locality-sensitive hashing: two points 0.01 apart (1 % of a standard deviation in every dimension) share a cell of one of the
# tables with probability 0.998, two points 0.05 apart with 0.6
_NUM_TABLES = 5
_NUM_PROJECTIONS = 8
_CELL = 0.2
_NUM_IN_CELL = 4  # training rows of a cell that a held-out row is compared with
_RADIUS = 0.05
_NEIGHBOURS = 10
_MEAN_LOG = (9 - sum(1 / j for j in range(1, 10))) / 8  # of log(T10 / Tj), j = 2..9, in one dimension; of j = 1..9 it is 1
_RATIO = 0.1  # at most: the nearest training row lies within a tenth of the distance of the tenth nearest
_NUM_BODY = 200  # held-out rows from which the dimension is estimated
_NUM_REFERENCE = 20_000  # training rows that say how dense rows lie
_NUM_JUDGED = 400  # near rows that are compared with these
_MIN_COPIES = 3
_MIN_DIMENSION = 1.5
_BY_NATURE = 0.0003  # share of rows that chance may put near another one: with 0.001 it alarmed in one set of a hundred
_MIN_ROWS = 50

Points = npt.NDArray[np.float32]


class NearDuplicatesPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Held-out rows that lie much nearer to one training row than the density of the rows explains, with the same label."""

    enabled: bool = True
    """Off: not looked for."""
    warn_share: float = 0.005
    """Share of the held-out rows from which on it warns."""
    stop_share: float = 0.2
    """Share of the held-out rows from which on training makes no sense."""

    def __post_init__(self) -> None:
        if not 0 < self.warn_share <= self.stop_share:
            raise ValueError(f"near_duplicates need 0 < warn_share <= stop_share, got {self.warn_share!r}, {self.stop_share!r}")


def check_near_duplicates(table: Table, policy: NearDuplicatesPolicy) -> Finding:
    """Rows that are exactly equal are not counted here.

    A row is near to one training row when that row lies within a tenth of the distance of the tenth nearest. Of rows spread
    evenly over m dimensions chance puts 9 / 10^m there, so m is estimated, the tenth becomes as much less as keeps this share
    at three in ten thousand, and only what exceeds it counts. Of few dimensions the copies must thus be very near to be told.

    Source: the ratio test of Lowe 2004 (section 7.1); m by the maximum likelihood of Levina, Bickel 2004; candidates by
    locality-sensitive hashing for the Euclidean distance, Datar et al. 2004.
    """
    held_out, train = np.flatnonzero(table.is_held_out_N), np.flatnonzero(~table.is_held_out_N)
    point_ND = coordinates(table)
    if min(len(held_out), len(train)) < _MIN_ROWS or point_ND.shape[1] < _MIN_DIMENSION:
        return skipped("too few rows or features for distances to mean anything")
    reference = _some(train, _NUM_REFERENCE)
    dimension = estimate_dimension(point_ND, _some(held_out, _NUM_BODY), reference)
    if dimension < _MIN_DIMENSION:
        return skipped("rows are so coarse, or so alike, that near rows are the rule")
    # of a sample of the training rows the tenth nearest is a later one of all
    num_nearer = _NEIGHBOURS * len(train) / len(reference) - 1
    ratio = min(_RATIO, (_BY_NATURE / num_nearer) ** (1 / dimension))
    by_nature = num_nearer * ratio**dimension
    ours, theirs = _near_pairs(point_ND, table.is_held_out_N)
    judged = _some(np.arange(len(ours)), _NUM_JUDGED)
    twins = _judge(table, point_ND, ours[judged], theirs[judged], reference, ratio)
    num_extrapolated = len(ours) / max(1, len(judged))
    share = len(twins) * num_extrapolated / len(held_out) - by_nature
    figures = {"share": max(0.0, share), "dimension": dimension, "share_by_nature": by_nature}
    if len(twins) < _MIN_COPIES or share < policy.warn_share or not twins.kappa >= COPIES_AGREE:
        others = ", but their labels do not" if len(twins) >= _MIN_COPIES and share >= policy.warn_share else ""
        return passed(f"{max(0.0, share):.1%} of the held-out rows all but equal a training row{others}", **figures)
    low, high = (max(0.0, end - by_nature) for end in wilson(len(twins) * num_extrapolated, len(held_out)))
    return Finding(
        level=level_of(share, policy.warn_share, policy.stop_share),
        words=f"{share:.1%} of the held-out rows (95 % interval {low:.1%} to {high:.1%}) all but equal a training row with the "
        "same label: look for copies that were rounded or jittered, or for one event recorded twice",
        figures={**figures, "share_low": low, "share_high": high},
        rows=twins.held_out_P,
        is_unmistakable=True,
    )


def _some(positions: Ints, limit: int) -> Ints:
    some: Ints = positions[evenly_spaced(len(positions), limit)]
    return some


def _nearest(point_ND: Points, some: Ints, reference: Ints) -> Floats:
    """Distances to the nearest 10 of the `reference` rows, ascending [Q, 10]."""
    distances = []
    reference_MD = point_ND[reference].astype(np.float64)  # in float32 the squares of dense rows are rounded away
    square_M = (reference_MD**2).sum(axis=1)
    for start in range(0, len(some), 100):
        query_QD = point_ND[some[start : start + 100]].astype(np.float64)
        square_QM = square_M - 2 * query_QD @ reference_MD.T
        at_QJ = np.argpartition(square_QM, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        exact_QJ = np.linalg.norm(query_QD[:, None] - reference_MD[at_QJ], axis=2)  # the squares above cancel near 0
        distances.append(np.sort(exact_QJ, axis=1))
    return np.concatenate(distances) if distances else np.zeros((0, _NEIGHBOURS))


def estimate_dimension(point_ND: Points, some: Ints, reference: Ints) -> float:
    """In how many dimensions the rows spread around a row; 0 where most rows have several equals.

    Args:
        point_ND: All rows.
        some: Positions of the rows around which it is looked.
        reference: Positions of the rows that lie around them, at least ten and none of `some`.

    Source: Levina, Bickel 2004, equation 8, pooled over rows as MacKay and Ghahramani 2005 correct it. Deviation: the nearest
    is left out, since where that is a copy it says nothing about the rows' density; the mean is divided by its expectation.
    """
    distance_QJ = _nearest(point_ND, some, reference)
    is_apart_Q = distance_QJ[:, 1] > 0
    if is_apart_Q.mean() < 0.5:
        return 0.0
    logs_QJ = np.log(distance_QJ[is_apart_Q, -1:] / distance_QJ[is_apart_Q, 1:-1])
    return float(_MEAN_LOG / max(logs_QJ.mean(), 1e-9))


def _near_pairs(point_ND: Points, is_held_out_N: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Held-out rows with the nearest training row that was met within the radius, unless they equal one; some may be missed."""
    nearest_N = np.full(len(point_ND), np.inf, np.float32)
    partner_N = np.full(len(point_ND), -1)
    for ours, theirs in _pairs(point_ND, is_held_out_N):
        distance = np.linalg.norm(point_ND[ours] - point_ND[theirs], axis=1)
        order = np.argsort(-distance, kind="stable")  # of several partners the nearest is written last
        ours, theirs, distance = ours[order], theirs[order], distance[order]
        is_nearer = distance < nearest_N[ours]
        nearest_N[ours[is_nearer]] = distance[is_nearer]
        partner_N[ours[is_nearer]] = theirs[is_nearer]
    near = np.flatnonzero((nearest_N > 0) & (nearest_N <= _RADIUS))
    return near, partner_N[near]


def _pairs(point_ND: Points, is_held_out_N: npt.NDArray[np.bool_]) -> Iterator[tuple[Ints, Ints]]:
    """Held-out and training rows that share a cell of some table."""
    generator = np.random.default_rng(2)
    for _ in range(_NUM_TABLES):
        direction_DP = generator.normal(size=(point_ND.shape[1], _NUM_PROJECTIONS)).astype(np.float32)
        offset_P = generator.uniform(0, 1, _NUM_PROJECTIONS).astype(np.float32)
        cell_NP = np.floor(point_ND @ (direction_DP / np.float32(_CELL)) + offset_P)
        key_N = np.rint(cell_NP @ generator.uniform(-1, 1, _NUM_PROJECTIONS) * 2**40).astype(np.int64)
        order = np.argsort(key_N)
        key = key_N[order]
        for step in range(1, _NUM_IN_CELL + 1):
            at = np.flatnonzero(key[:-step] == key[step:])
            at = at[is_held_out_N[order[at]] != is_held_out_N[order[at + step]]]
            first, second = order[at], order[at + step]
            is_first = is_held_out_N[first]
            yield np.where(is_first, first, second), np.where(is_first, second, first)


def _judge(table: Table, point_ND: Points, ours: Ints, theirs: Ints, reference: Ints, ratio: float) -> Twins:
    nearest_Q = np.linalg.norm(point_ND[ours] - point_ND[theirs], axis=1)
    is_twin_Q = nearest_Q < ratio * _nearest(point_ND, ours, reference)[:, -1]
    order = np.argsort(nearest_Q[is_twin_Q], kind="stable")
    return pair_up(table, ours[is_twin_Q][order], theirs[is_twin_Q][order])
