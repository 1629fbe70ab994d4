"""Whether a feature repeats an earlier block's values: a feed that stands still.

Samples of the same shares differ by chance; blocks that are more alike than samples ever are hold the same rows. A feature that
is lawfully alike from block to block, as a timetable is, has shown that in its own past.

Axes: H blocks, K bins of the feature.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from clipdrift_monitor.detectors.tails import chi_square_tail
from clipdrift_monitor.windows.window import Floats

# Of any feature looking like an earlier block by accident, in one look of one model: far below a look's part of the budget
# (1 / 270 for three models), since it holds a retrain back where it explains a harm. A feed that repeats itself is alike to the
# last row.
CHANCE = 1e-6
_MIN_BLOCKS = 3  # below, nobody knows how alike a feature's blocks are
_MIN_BINS = 5
_RUNS = (2, 3, 5, 7)  # blocks in a row that a feed may have stood still
_LOOKED_BACK = 21  # blocks that show whether a feature is like itself lawfully
_LAWFUL = 0.01  # chance below which a likeness among earlier blocks shows that the feature repeats itself
_STILL = 0.01  # chance from which a block after a feed stood still is one of new values


class Repeat(NamedTuple):
    """Of which block a feature repeats the values, for how many blocks, and how probable that is by chance."""

    blocks_ago: int
    num_blocks: int
    chance: float


_NONE = Repeat(0, 0, 1.0)


def repeat_of(counts_K: Floats, usual_HK: Floats, since_HK: Floats, num_features: int) -> Repeat | None:
    """The repetition that is least probable by chance; None where that is no less than `CHANCE`.

    Args:
        counts_K: Of the judged block.
        usual_HK: Of the blocks before in which nothing was found of the feature, oldest first.
        since_HK: Of the blocks in which it was told as stale already, oldest first; none else.
        num_features: That are looked at in this block.

    Source: the lower tail of Pearson's chi-square test of homogeneity of the blocks, its statistic over how much
    of what chance gives the feature's own blocks before them differed by.

    Example:
        >>> still, random = np.array([20.0, 31.0, 29.0, 18.0, 12.0]), np.random.default_rng(0)
        >>> before = random.multinomial(110, still / 110, 8).astype(float)
        >>> repeat_of(still, np.array([*before, still, still, still]), np.zeros((0, 5)), 1).num_blocks
        3
        >>> repeat_of(before[0], before[1:], np.zeros((0, 5)), 1) is None
        True
    """
    blocks_HK = usual_HK[-_LOOKED_BACK:]
    if len(blocks_HK) < _MIN_BLOCKS or (counts_K > 0).sum() < _MIN_BINS:
        return None
    looks = list(_while_still(counts_K, blocks_HK, since_HK) if len(since_HK) else _looks(counts_K, blocks_HK))
    found = []
    num_looks = len(looks) * num_features
    for repeat, group_HK, before_HK in looks:
        if _likeness(group_HK) * num_looks < CHANCE:  # what the blocks before say of it can only make it likelier
            chance = min(1.0, _likeness(group_HK, _dispersion(before_HK, len(group_HK))) * num_looks)
            found.append((chance, repeat._replace(chance=chance), before_HK))
    chance, repeat, before_HK = min(found, key=lambda one: (one[0], -one[1].num_blocks), default=(1.0, _NONE, blocks_HK))
    if chance >= CHANCE or (repeat.blocks_ago > 1 and len(blocks_HK) < 2 * repeat.blocks_ago):
        return None
    lawful = min((_likeness(np.array(pair)) for pair in itertools.combinations(before_HK, 2)), default=1.0)
    is_lawful = lawful * len(before_HK) ** 2 / 2 < _LAWFUL  # more alike than all pairs together would be by chance
    if is_lawful:
        return None
    has_stood = repeat.num_blocks == 1 and _likeness(np.array([*blocks_HK[-repeat.blocks_ago :], counts_K])) < _STILL
    return repeat._replace(blocks_ago=1, num_blocks=repeat.blocks_ago) if has_stood else repeat


def _looks(counts_K: Floats, blocks_HK: Floats) -> Iterator[tuple[Repeat, Floats, Floats]]:
    """The block beside each earlier one, and beside the newest ones together; each with the blocks before those."""
    num_blocks = len(blocks_HK)
    for back in range(1, num_blocks + 1):
        yield Repeat(back, 1, 1.0), np.array([blocks_HK[-back], counts_K]), blocks_HK[:-1]
    for run in _RUNS:
        if run + _MIN_BLOCKS <= num_blocks:
            yield Repeat(1, run, 1.0), np.array([*blocks_HK[-run:], counts_K]), blocks_HK[:-run]


def _while_still(counts_K: Floats, blocks_HK: Floats, since_HK: Floats) -> Iterator[tuple[Repeat, Floats, Floats]]:
    """The block together with those since the feed stands still and an earlier one, unless it is one of new values."""
    for back, block_K in enumerate(blocks_HK[::-1], 1):
        if _likeness(np.array([block_K + since_HK.sum(axis=0), counts_K])) < _STILL:
            group_HK = np.array([block_K, *since_HK, counts_K])
            yield Repeat(back, len(since_HK) + 1, 1.0), group_HK, blocks_HK[:-1]


def _homogeneity(blocks_HK: Floats) -> tuple[float, int]:
    """Pearson's statistic of a table, and its degrees of freedom; 0 where there is nothing to compare."""
    rows_H, used_HK = blocks_HK.sum(axis=1), blocks_HK[:, blocks_HK.sum(axis=0) > 0]
    if len(blocks_HK) < 2 or used_HK.shape[1] < 2 or not rows_H.all():
        return 0.0, 0
    expected_HK = rows_H[:, None] * used_HK.sum(axis=0) / rows_H.sum()
    return float(((used_HK - expected_HK) ** 2 / expected_HK).sum()), (len(rows_H) - 1) * (used_HK.shape[1] - 1)


def _dispersion(before_HK: Floats, group_size: int) -> float:
    """How much of what chance gives blocks differ by: 1, or less where they are lawfully alike.

    By the pairs and the groups in a row among them that are most alike, since weekdays may be alike and Saturdays not: their
    statistic beside that which the most alike of so many has by chance.
    """
    pairs = list(itertools.combinations(before_HK, 2))
    rows = [before_HK[i : i + group_size] for i in range(len(before_HK) - group_size + 1)] if group_size > 2 else []
    return min(1.0, _most_alike([np.array(one) for one in pairs]), _most_alike(rows))


def _most_alike(groups: Sequence[Floats]) -> float:
    """The smallest statistic for a degree of freedom, beside the one expected of so many samples; 1 where there are none."""
    known = [(statistic / degrees, degrees) for statistic, degrees in map(_homogeneity, groups) if degrees]
    return min((ratio / _smallest(len(known), degrees) for ratio, degrees in known), default=1.0)


def _smallest(num_samples: int, degrees: int) -> float:
    """Of so many chi-square statistics, for a degree of freedom, about the smallest: the quantile at 1 / (samples + 1).

    Source: Wilson, Hilferty 1931, the cube root of chi-square as a normal.

    Example:
        >>> round(_smallest(99, 10), 2)  # 2.558 at 1 %
        0.25
    """
    spread = 2 / (9 * degrees)
    cube_root = 1 - spread + NormalDist().inv_cdf(1 / (num_samples + 1)) * math.sqrt(spread)
    return max(cube_root, 0.1) ** 3


def _likeness(blocks_HK: Floats, dispersion: float = 1.0) -> float:
    """Probability that samples of the same shares differ by so little or less."""
    statistic, degrees = _homogeneity(blocks_HK)
    return 1.0 - chi_square_tail(statistic / max(dispersion, 1e-9), degrees) if degrees else 1.0
