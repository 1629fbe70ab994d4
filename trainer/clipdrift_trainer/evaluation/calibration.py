"""Temperature scaling: one number that makes probabilities honest without changing what is predicted, and what it gains.

Axes: N rows, K classes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Calibration
from clipdrift_trainer.evaluation.blocks import Days
from clipdrift_trainer.evaluation.scores import Floats, expected_calibration_error, row_losses

_LOG_LIMIT = 3.0  # temperatures between 1/20 and 20
_PRECISION = 1e-9  # of the logarithm of the temperature
_NUM_FOLDS = 5
_MIN_ROWS = 100  # three rows that are all right would make a model twenty times as sure


def fit_temperature(logits_NK: Floats, label_N: Floats) -> float:
    """The temperature that minimises the log loss of softmax(logits / T), between 1/20 and 20; 1 where there are no rows, never
    worse than 1.

    The log loss is convex in 1/T, so its slope has one root: Newton's steps, kept within what halving has left. Source: Guo et
    al. 2017 (arXiv 1706.04599), section 4.2.

    Example:
        >>> logits = np.array([[0.0, 4.0], [0.0, 4.0], [0.0, 4.0], [0.0, 4.0]])
        >>> round(fit_temperature(logits, np.array([1.0, 1.0, 1.0, 0.0])), 2)   # 4 / T must be log 3
        3.64
    """
    if not len(label_N):
        return 1.0
    low, high, log_inverse = -_LOG_LIMIT, _LOG_LIMIT, 0.0
    while high - low > _PRECISION:
        slope, curvature = _slope(logits_NK, label_N, float(np.exp(log_inverse)))
        if slope > 0:
            high = log_inverse
        else:
            low = log_inverse
        step = slope / curvature if curvature > 0 else np.inf
        if abs(step) < _PRECISION:
            break
        newton = log_inverse - step
        log_inverse = newton if low < newton < high else (low + high) / 2
    found = float(np.exp(-log_inverse))
    return found if _mean_nll(logits_NK, label_N, found) < _mean_nll(logits_NK, label_N, 1.0) else 1.0


def trusted_temperature(logits_NK: Floats, label_N: Floats, time_ms: npt.NDArray[np.int64]) -> float:
    """As `fit_temperature`, but 1 where these rows do not show that a temperature helps.

    They do where they are at least 100, with right and wrong answers among them, and some of the days gain by the temperature
    of the others (see `cross_fitted_gain`). Of one day its stretches stand for days. Rows are in time order.

    Example:
        >>> trusted_temperature(np.array([[0.0, 4.0]] * 3), np.ones(3), np.arange(3))      # not 0.05
        1.0
    """
    num_rows, num_right = len(label_N), int((logits_NK.argmax(axis=1) == label_N).sum())
    if num_rows < _MIN_ROWS or num_right in (0, num_rows):
        return 1.0
    if Days(time_ms).num < 2:
        time_ms = np.arange(num_rows) * _NUM_FOLDS // num_rows * MS_PER_DAY
    gain = cross_fitted_gain(logits_NK, label_N, time_ms)
    return gain.temperature if gain is not None and gain.nll_after < gain.nll_before else 1.0


def gain_of_temperature(logits_NK: Floats, label_N: Floats, temperature: float) -> Calibration:
    """What `temperature` gains on these rows, which it must not have been fitted on: log loss (nats a row) and plain
    calibration error before and after.

    Raises:
        ValueError: There are no rows.
    """
    return _gain(logits_NK, logits_NK / temperature, label_N, temperature)


def cross_fitted_gain(logits_NK: Floats, label_N: Floats, time_ms: npt.NDArray[np.int64]) -> Calibration | None:
    """What a temperature would gain: the one fitted on all rows, judged fold by fold by one fitted on the other days.

    Whole days go into up to five folds in turn, since errors of one day hang together. A gain below 0 (`nll_after` above
    `nll_before`) says that these days are too few to fit it on. None below two days.

    Source: cross-fitting, Stone (1974), doi 10.1111/j.2517-6161.1974.tb00994.x, with days as units.

    Example:
        >>> honest = np.array([[0.0, np.log(3)], [0.0, np.log(3)], [0.0, np.log(3)], [0.0, np.log(3)]] * 10)
        >>> label = np.array([1.0, 1.0, 1.0, 0.0] * 10)
        >>> found = cross_fitted_gain(3 * honest, label, np.repeat(np.arange(10), 4) * 86_400_000)   # three times too sure
        >>> round(found.temperature, 2), round(found.nll_before, 2), round(found.nll_after, 2)
        (3.0, 0.86, 0.56)
    """
    days = Days(time_ms)
    if days.num < 2:
        return None
    fold_N = days.index_N % min(_NUM_FOLDS, days.num)
    scaled_NK = np.empty_like(logits_NK, dtype=np.float64)
    for fold in np.unique(fold_N):
        is_judged_N = fold_N == fold
        scaled_NK[is_judged_N] = logits_NK[is_judged_N] / fit_temperature(logits_NK[~is_judged_N], label_N[~is_judged_N])
    return _gain(logits_NK, scaled_NK, label_N, fit_temperature(logits_NK, label_N))


def _gain(before_NK: Floats, after_NK: Floats, label_N: Floats, temperature: float) -> Calibration:
    if not len(label_N):
        raise ValueError("there are no rows to judge a temperature on")
    nll_before, ece_before = _nll_and_ece(before_NK, label_N)
    nll_after, ece_after = _nll_and_ece(after_NK, label_N)
    return Calibration(
        temperature=temperature,
        nll_before=nll_before,
        nll_after=nll_after,
        ece_before=ece_before,
        ece_after=ece_after,
        num_rows=len(label_N),
    )


def _nll_and_ece(logits_NK: Floats, label_N: Floats) -> tuple[float, float]:
    probability_NK = _softmax(logits_NK)
    nll = float(row_losses(probability_NK, label_N)[1].mean())
    return nll, expected_calibration_error(probability_NK, label_N)


def _slope(logits_NK: Floats, label_N: Floats, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean log loss of softmax(inverse * logits) by log(inverse), the second without the
    term that may be negative: a Newton step with it stays a step downhill."""
    probability_NK = _softmax(inverse * logits_NK)
    mean_N = (probability_NK * logits_NK).sum(axis=1)
    chosen_N = np.take_along_axis(logits_NK, label_N.astype(int)[:, None], axis=1)[:, 0]
    variance_N = (probability_NK * (logits_NK - mean_N[:, None]) ** 2).sum(axis=1)
    return inverse * float((mean_N - chosen_N).mean()), inverse**2 * float(variance_N.mean())


def _softmax(logits_NK: Floats) -> Floats:
    exponent_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    probability_NK: Floats = exponent_NK / exponent_NK.sum(axis=1, keepdims=True)
    return probability_NK


def _mean_nll(logits_NK: Floats, label_N: npt.NDArray[Any], temperature: float) -> float:
    scaled_NK = logits_NK / temperature
    peak_N = scaled_NK.max(axis=1)
    chosen_N = np.take_along_axis(scaled_NK, label_N.astype(int)[:, None], axis=1)[:, 0]
    return float((np.log(np.exp(scaled_NK - peak_N[:, None]).sum(axis=1)) + peak_N - chosen_N).mean())
