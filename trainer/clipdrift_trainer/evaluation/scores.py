"""Accuracy, log loss, Brier score, calibration error and AUC, per slice and overall, as sums that merge."""

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import SliceScore
from clipdrift_contract.profile import TaskKind

Floats = npt.NDArray[np.float64]
PROBABILITY_FLOOR = 1e-7  # one wrong certainty must not make a whole month's log loss infinite
MAX_NLL = -log(PROBABILITY_FLOOR)
NUM_BINS = 15
"""Of a calibration error."""


def row_losses(scores_NK: Floats, label_N: Floats) -> tuple[npt.NDArray[np.bool_], Floats, Floats]:
    """For each row: is the most probable class the label; the log loss in nats (clipped); the Brier score sum_k (p_k - y_k)^2.

    For two classes this Brier score is halved, so that it is (p_1 - y)^2 as Brier's users know it.
    """
    class_N = label_N.astype(np.int64)
    chosen_N = np.take_along_axis(scores_NK, class_N[:, None], axis=1)[:, 0]
    nll_N = -np.log(np.clip(chosen_N, PROBABILITY_FLOOR, 1.0))
    brier_N = (scores_NK**2).sum(axis=1) - 2 * chosen_N + 1.0
    if scores_NK.shape[1] == 2:
        brier_N = brier_N / 2
    return scores_NK.argmax(axis=1) == class_N, nll_N, brier_N


def expected_calibration_error(scores_NK: Floats, label_N: Floats, num_bins: int = NUM_BINS) -> float:
    """Mean over rows of |accuracy - confidence| in equal-width bins of the predicted class's probability; NaN for no rows.

    Source: Guo et al. 2017 (arXiv 1706.04599), equation 3.

    Example:
        >>> expected_calibration_error(np.array([[0.2, 0.8], [0.2, 0.8]]), np.array([1.0, 0.0]))
        0.30000000000000004
    """
    if not len(label_N):
        return float("nan")
    confidence_N = scores_NK.max(axis=1)
    is_right_N = scores_NK.argmax(axis=1) == label_N
    bin_N = width_bins(confidence_N, num_bins)
    gap_B = np.bincount(bin_N, confidence_N, num_bins) - np.bincount(bin_N, is_right_N.astype(float), num_bins)
    return float(np.abs(gap_B).sum() / len(label_N))


def width_bins(probability_N: Floats, num_bins: int) -> npt.NDArray[np.int64]:
    """The bin of each probability when [0, 1] is in equal parts, the last one closed.

    Example:
        >>> width_bins(np.array([0.0, 0.5, 1.0]), 2).tolist()
        [0, 1, 1]
    """
    return np.minimum((probability_N * num_bins).astype(np.int64), num_bins - 1)


def area_under_roc(score_N: Floats, label_N: npt.NDArray[Any]) -> float | None:
    """Probability that a random positive scores above a random negative, ties counting half; None when a class is absent.

    Source: the Mann-Whitney form, U / (n_1 n_0), with mid-ranks (Hanley, McNeil 1982).

    Example:
        >>> area_under_roc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
        0.875
    """
    is_positive_N = np.asarray(label_N) > 0
    num_positive = int(is_positive_N.sum())
    num_negative = len(is_positive_N) - num_positive
    if not num_positive or not num_negative:
        return None
    _, inverse_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mid_ranks[inverse_N][is_positive_N].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def score_slices(
    scores_NK: Floats,
    label_N: Floats,
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    kind: TaskKind,
    num_train: Sequence[int] = (),
) -> tuple[SliceScore, ...]:
    """Figures of all rows together (slice "") and then of each slice, in the order of `slice_names`.

    Args:
        scores_NK: Class probabilities, or values [N, 1] for regression.
        label_N: Class indices or values.
        slice_N: Index of each row's slice.
        slice_names: Names of the slices.
        kind: Of the task.
        num_train: Training rows by slice, to be carried along; empty: unknown.
    """
    everything = _score("", scores_NK, label_N, kind, sum(num_train))
    found = [everything]
    for index, name in enumerate(slice_names):
        is_in_N = slice_N == index
        found.append(_score(name, scores_NK[is_in_N], label_N[is_in_N], kind, num_train[index] if num_train else 0))
    return tuple(found)


def _score(name: str, scores_NK: Floats, label_N: Floats, kind: TaskKind, num_train: int) -> SliceScore:
    if kind == "regression":
        error_N = scores_NK[:, 0] - label_N
        return SliceScore(
            slice=name, num_rows=len(label_N), num_correct=0, nll_sum=0.0, brier_sum=0.0, ece=0.0, num_train=num_train,
            squared_error_sum=float((error_N**2).sum()), absolute_error_sum=float(np.abs(error_N).sum()),
        )  # fmt: skip
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    return SliceScore(
        slice=name,
        num_rows=len(label_N),
        num_correct=int(is_right_N.sum()),
        nll_sum=float(nll_N.sum()),
        brier_sum=float(brier_N.sum()),
        ece=expected_calibration_error(scores_NK, label_N) if len(label_N) else 0.0,
        auc=area_under_roc(scores_NK[:, 1], label_N) if kind == "binary" else None,
        num_train=num_train,
    )
