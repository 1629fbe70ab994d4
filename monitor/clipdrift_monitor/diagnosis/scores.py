"""Groups of scores: how often the event came in each, and how firmly that is known for a block.

Axes: B score bins, K groups of them, H past blocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_monitor.diagnosis.faults import PastBlock
from clipdrift_monitor.diagnosis.likelihood import concentration_by
from clipdrift_monitor.risk.challengers import logit, sigmoid
from clipdrift_monitor.windows.window import Floats, Layout

NUM_GROUPS = 8
_MIN_ROWS = 5
_NUM_NEWTON = 8


class UsualRates(NamedTuple):
    """What past blocks say of rates by score, or by the rank that a score has in its block."""

    group_B: npt.NDArray[np.int64] | None
    """None by rank."""
    rows_HK: Floats
    hits_HK: Floats
    rate_K: Floats
    move_H: Floats
    """Of the log-odds of a block, as days have more of the event or less."""
    firmness: float
    """Of one block, once its move is known."""


def usual_rates(layout: Layout, usual: Sequence[PastBlock], *, by_rank: bool = False) -> UsualRates:
    """Of the blocks in which nothing is wrong with the labels, at least one.

    Args:
        layout: Of the version.
        usual: Those blocks.
        by_rank: Take the scores of each block by their rank: where a broken feature moved all scores, nothing is known of the
            rates at the scores that are left.
    """
    group_B = None if by_rank else groups_of(np.sum([layout.counts(one.sums, "labels") for one in usual], axis=0))
    counts = [label_counts(layout, one.sums, group_B) for one in usual]
    rows_HK, hits_HK = (np.array([one[i] for one in counts]) for i in range(2))
    rate_K = (hits_HK.sum(axis=0) + 0.5) / (rows_HK.sum(axis=0) + 1.0)
    move_H = moves_of(rate_K, rows_HK, hits_HK)
    return UsualRates(group_B, rows_HK, hits_HK, rate_K, move_H, firmness_of(rate_K, rows_HK, hits_HK, move_H))


def label_counts(layout: Layout, sums: Floats, group_B: npt.NDArray[np.int64] | None) -> tuple[Floats, Floats]:
    """Labels and hits of each group of scores; of eighths of the block where no groups are given."""
    labels_B, hits_B = layout.counts(sums, "labels"), layout.counts(sums, "hits")
    if group_B is None:
        group_B = groups_of(labels_B)
    return grouped(labels_B, group_B), grouped(hits_B, group_B)


def groups_of(rows_B: Floats) -> npt.NDArray[np.int64]:
    """Group of each score bin, so that each holds about as many past labels.

    Example:
        >>> groups_of(np.ones(16)).tolist()
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    """
    below_B = np.cumsum(rows_B) - rows_B / 2
    group_B: npt.NDArray[np.int64] = (below_B * NUM_GROUPS / max(1.0, rows_B.sum())).astype(np.int64)
    return np.minimum(NUM_GROUPS - 1, group_B)


def grouped(values_B: Floats, group_B: npt.NDArray[np.int64]) -> Floats:
    """Sums of the groups; shape [K]."""
    return np.bincount(group_B, values_B, NUM_GROUPS).astype(np.float64)


def moves_of(rate_K: Floats, rows_HK: Floats, hits_HK: Floats) -> Floats:
    """By how much the log-odds of all rates were higher in each block, as days have more of an event or less; shape [H].

    Source: maximum of the binomial likelihood with a normal of standard deviation 1 before it, by Newton's method.

    Example:
        >>> moves_of(np.array([0.5, 0.5]), np.array([[1e6, 1e6]]), np.array([[8e5, 8e5]])).round(2).tolist()  # log(0.8 / 0.2)
        [1.39]
    """
    move_H = np.zeros(len(rows_HK))
    logit_K = logit(rate_K)
    for _ in range(_NUM_NEWTON):
        rate_HK = sigmoid(logit_K + move_H[:, None])
        gradient_H = (hits_HK - rows_HK * rate_HK).sum(axis=1) - move_H
        weight_H = (rows_HK * rate_HK * (1 - rate_HK)).sum(axis=1) + 1.0
        move_H = move_H + np.clip(gradient_H / weight_H, -1.0, 1.0)
    return move_H


def firmness_of(rate_K: Floats, rows_HK: Floats, hits_HK: Floats, move_H: Floats) -> float:
    """How firmly the rates of a block are known beforehand once its move is, in rows: from what is left of the blocks' spread.

    Source: moments of the beta-binomial, as `likelihood.concentration_of`.
    """
    rate_HK = sigmoid(logit(rate_K) + move_H[:, None])
    variance_HK = np.maximum(rows_HK * rate_HK * (1 - rate_HK), 0.25)  # a group without either is no news
    is_used = rows_HK >= _MIN_ROWS
    degrees = max(1, int(is_used.sum()) - len(rate_K) - len(move_H))
    excess = float((((hits_HK - rows_HK * rate_HK) ** 2 / variance_HK)[is_used]).sum() / degrees)
    return concentration_by(excess, float(rows_HK[is_used].mean()) if is_used.any() else 1.0)


def logit_moved(rate_K: Floats, slope: float, move: float) -> Floats:
    """Rates after their log-odds were stretched and moved, as worlds do.

    Example:
        >>> logit_moved(np.array([0.5, 0.9]), 1.0, 0.0).round(3).tolist()
        [0.5, 0.9]
    """
    return sigmoid(slope * logit(rate_K) + move)


def hits_of(layout: Layout, sums: Floats) -> float:
    """Labels that are the event, of all scores."""
    return float(layout.counts(sums, "hits").sum())
