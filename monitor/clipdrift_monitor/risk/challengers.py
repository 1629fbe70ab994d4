"""Challengers: what a cheap repair would have predicted, fitted on past blocks of production labels, never on the block being
scored.

All of them work on the model's score in bins (B of them), so they need sums and no rows.
"""

import numpy as np

from clipdrift_monitor.windows.window import Floats

_RIDGE = 50.0  # pulls the recalibration towards "change nothing" like 50 labels
_NUM_NEWTON = 12
_MIN_LABELS = 50


def recalibration(score_B: Floats, labels_B: Floats, hits_B: Floats) -> tuple[float, float]:
    """Slope and shift of the straight line in log-odds that fits past labels; (1, 0), "change nothing", with under 50 labels.

    Source: Platt 1999, with a ridge to the identity, by Newton's method on binned rows.

    Example:
        >>> slope, shift = recalibration(np.array([0.1, 0.9]), np.array([1e4, 1e4]), np.array([4e3, 6e3]))
        >>> round(float(sigmoid(slope * logit(np.array([0.9])) + shift)[0]), 2)
        0.6
    """
    if labels_B.sum() < _MIN_LABELS:
        return 1.0, 0.0
    logit_B = logit(score_B)
    slope, shift = 1.0, 0.0
    for _ in range(_NUM_NEWTON):
        fitted_B = sigmoid(slope * logit_B + shift)
        residual_B = labels_B * fitted_B - hits_B
        weight_B = labels_B * fitted_B * (1 - fitted_B) + 1e-9
        gradient = np.array([(residual_B * logit_B).sum() + _RIDGE * (slope - 1), residual_B.sum()])
        cross = (weight_B * logit_B).sum()
        hessian = np.array([[(weight_B * logit_B**2).sum() + _RIDGE, cross], [cross, weight_B.sum()]])
        step = np.clip(np.linalg.solve(hessian, gradient), -1.0, 1.0)
        slope, shift = slope - float(step[0]), shift - float(step[1])
    return slope, shift


def base_rate(score_B: Floats, labels_B: Floats, hits_B: Floats) -> Floats:
    """The past share of hits, the same for every row; unchanged with under 50 labels."""
    num_labels = labels_B.sum()
    return score_B if num_labels < _MIN_LABELS else np.full(len(score_B), hits_B.sum() / num_labels)


def logit(p: Floats) -> Floats:
    clipped = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(clipped / (1 - clipped))


def sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
