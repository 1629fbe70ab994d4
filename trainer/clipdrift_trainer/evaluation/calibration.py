"""Temperature scaling: one number that makes probabilities honest without changing what is predicted."""

import numpy as np

from clipdrift_trainer.evaluation.scores import Floats

_LOG_LIMIT = 3.0  # temperatures between 1/20 and 20
_NUM_STEPS = 60
_GOLDEN = (5**0.5 - 1) / 2


def fit_temperature(logits_NK: Floats, label_N: Floats) -> float:
    """The temperature that minimises the log loss of softmax(logits / T); 1 where there are no rows, never worse than 1.

    The log loss is convex in 1/T, so the golden section finds its minimum. Source: Guo et al. 2017 (arXiv 1706.04599), section
    4.2.

    Example:
        >>> logits = np.array([[0.0, 4.0], [0.0, 4.0], [0.0, 4.0], [0.0, 4.0]])
        >>> round(fit_temperature(logits, np.array([1.0, 1.0, 1.0, 0.0])), 2)   # 4 / T must be log 3
        3.64
    """
    if not len(label_N):
        return 1.0
    low, high = -_LOG_LIMIT, _LOG_LIMIT
    for _ in range(_NUM_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _mean_nll(logits_NK, label_N, left) <= _mean_nll(logits_NK, label_N, right):
            high = right
        else:
            low = left
    best = (low + high) / 2
    return float(np.exp(best)) if _mean_nll(logits_NK, label_N, best) < _mean_nll(logits_NK, label_N, 0.0) else 1.0


def _mean_nll(logits_NK: Floats, label_N: Floats, log_temperature: float) -> float:
    scaled_NK = logits_NK * np.exp(-log_temperature)
    peak_N = scaled_NK.max(axis=1)
    chosen_N = np.take_along_axis(scaled_NK, label_N.astype(int)[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(scaled_NK - peak_N[:, None]).sum(axis=1)) + peak_N - chosen_N).mean())
