"""Confident learning: how many labels of each class are wrong, and which, from probabilities of a model that did not see them.

Array names end in their axes: N rows, K classes.
"""

import numpy as np

from clipdrift_trainer.quality.table import Floats, Ints


def thresholds(scores_NK: Floats, label_N: Ints) -> Floats:
    """For each class the mean probability that the model gives it on the rows labelled with it [K]; infinite for no rows.

    Source: Northcutt, Jiang, Chuang 2021 (JAIR 70), equation 2.
    """
    num_classes = scores_NK.shape[1]
    count_K = np.bincount(label_N, minlength=num_classes)
    sum_K = np.bincount(label_N, scores_NK[np.arange(len(label_N)), label_N], num_classes)
    mean_K: Floats = np.where(count_K > 0, sum_K / np.maximum(count_K, 1), np.inf)
    return mean_K


def confident_classes(scores_NK: Floats, label_N: Ints) -> Ints:
    """For each row the class that it is confidently counted to, -1 where no class reaches its threshold [N].

    Of several classes at or above their thresholds the most probable one counts (equation 1).
    """
    is_confident_NK = scores_NK >= thresholds(scores_NK, label_N) - 1e-6
    best_N = np.where(is_confident_NK, scores_NK, -1.0).argmax(axis=1)
    return np.where(is_confident_NK.any(axis=1), best_N, -1)


def joint(scores_NK: Floats, label_N: Ints) -> Floats:
    """Estimated joint distribution of given label (row) and true label (column) [K, K]; sums to 1.

    The confident counts of each given label are scaled to its number of rows (equation 3); a label without any confident row
    is taken to be right.
    """
    num_classes = scores_NK.shape[1]
    counted_N = confident_classes(scores_NK, label_N)
    is_counted_N = counted_N >= 0
    pair_N = label_N[is_counted_N] * num_classes + counted_N[is_counted_N]
    count_KK = np.bincount(pair_N, minlength=num_classes**2).reshape(num_classes, num_classes).astype(float)
    count_KK += np.diag((count_KK.sum(axis=1) == 0).astype(float))
    given_K = np.bincount(label_N, minlength=num_classes) / max(1, len(label_N))
    joint_KK: Floats = count_KK / count_KK.sum(axis=1, keepdims=True) * given_K[:, None]
    return joint_KK


def label_issues(scores_NK: Floats, label_N: Ints) -> Ints:
    """Positions of the rows whose label is probably wrong, the least credible first.

    Of the rows labelled i as many as the joint says are truly j are taken, those with the largest margin p_j - p_i: the paper's
    "prune by noise rate". Ranked by the probability of the given label.

    Args:
        scores_NK: Out-of-sample class probabilities; rows sum to 1.
        label_N: Given labels, 0..K-1.

    Raises:
        ValueError: Shapes differ, or a probability is not finite.

    Source: Northcutt et al. 2021, sections 3.2 and 3.3. Deviation from cleanlab: numbers are rounded one by one, and a row
    whose given label is the model's own first choice is never taken.

    Example:
        >>> scores = np.array([[0.9, 0.1]] * 9 + [[0.1, 0.9]] * 9 + [[0.02, 0.98]])
        >>> label_issues(scores, np.array([0] * 9 + [1] * 9 + [0])).tolist()
        [18]
    """
    if scores_NK.shape[0] != len(label_N) or not np.isfinite(scores_NK).all():
        raise ValueError(f"scores must be finite with a row a label, got shape {scores_NK.shape} for {len(label_N)} labels")
    num_rows, num_classes = scores_NK.shape
    number_KK = np.rint(joint(scores_NK, label_N) * num_rows).astype(int)
    is_issue_N = np.zeros(num_rows, bool)
    for given in range(num_classes):
        rows = np.flatnonzero(label_N == given)
        for true in range(num_classes):
            number = min(int(number_KK[given, true]), len(rows))
            if true != given and number:
                margin = scores_NK[rows, true] - scores_NK[rows, given]
                is_issue_N[rows[np.argsort(-margin, kind="stable")[:number]]] = True
    is_issue_N &= scores_NK.argmax(axis=1) != label_N
    issues = np.flatnonzero(is_issue_N)
    return issues[np.argsort(scores_NK[issues, label_N[issues]], kind="stable")]


def plateau(scores_NK: Floats, label_N: Ints, shares: tuple[float, ...] = (0.5, 0.25, 0.1)) -> tuple[tuple[int, int], ...]:
    """(number of rows, number of labels that differ) among the most confident share of the rows, for each of `shares`.

    Wrong labels are as frequent among the rows that the model is most sure of as among others; outcomes that are chance by
    nature, and a model's own mistakes, become rare there. The confidence is taken within each predicted class.
    """
    predicted_N = scores_NK.argmax(axis=1)
    differs_N = predicted_N != label_N
    rank_N = np.zeros(len(label_N))
    for index in np.unique(predicted_N):
        rows = np.flatnonzero(predicted_N == index)
        order = np.argsort(-scores_NK[rows, index], kind="stable")
        rank_N[rows[order]] = (np.arange(len(rows)) + 0.5) / len(rows)
    return tuple((int((rank_N <= share).sum()), int((differs_N & (rank_N <= share)).sum())) for share in shares)


def noise_by_class(issues: Ints, label_N: Ints, num_classes: int) -> list[tuple[int, int]]:
    """For each class (number of rows with that label, number of issues among them)."""
    counts = np.bincount(label_N, minlength=num_classes), np.bincount(label_N[issues], minlength=num_classes)
    return [(int(rows), int(found)) for rows, found in zip(*counts, strict=True)]
