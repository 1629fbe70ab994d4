"""How errors hang together in time: what a test must know that does not want to cry wolf on the first snow day."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR
from clipdrift_contract.events import BlockScore, ErrorClustering
from clipdrift_trainer.evaluation.scores import Floats, row_losses

_MIN_BLOCK_ROWS = 10  # a rate over fewer rows says more about chance than about the block


def lag1_autocorrelation(error_N: npt.NDArray[Any]) -> float:
    """Correlation of each error with the one before it, in time order; 0 where there is nothing to correlate.

    Example:
        >>> lag1_autocorrelation(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
        0.125
    """
    centred_N = error_N.astype(float) - error_N.mean() if len(error_N) else np.zeros(0)
    variance = float((centred_N**2).sum())
    return float((centred_N[1:] * centred_N[:-1]).sum() / variance) if variance > 0 else 0.0


def between_block_variance(error_N: npt.NDArray[Any], block_N: npt.NDArray[Any]) -> float:
    """Variance of the blocks' true error rates, beyond what binomial chance gives; >= 0, and 0 below two blocks.

    Source: method of moments, var(rate_b) - mean(rate_b (1 - rate_b) / (n_b - 1)), over blocks of at least 10 rows.
    """
    _, inverse_N, counts = np.unique(block_N, return_inverse=True, return_counts=True)
    errors = np.bincount(inverse_N, error_N.astype(float)) if len(error_N) else np.zeros(0)
    is_large = counts >= _MIN_BLOCK_ROWS
    if is_large.sum() < 2:
        return 0.0
    rate_B, num_B = errors[is_large] / counts[is_large], counts[is_large]
    chance = (rate_B * (1 - rate_B) / (num_B - 1)).mean()
    return max(0.0, float(rate_B.var(ddof=1) - chance))


def cluster_errors(
    scores_NK: Floats, label_N: Floats, time_ms: npt.NDArray[np.int64], slice_N: npt.NDArray[Any], slice_names: Sequence[str]
) -> tuple[ErrorClustering, ...]:
    """The clustering of classification errors, of all rows together (slice "") and of each slice; rows must be in time
    order."""
    if np.any(np.diff(time_ms) < 0):
        raise ValueError("rows must be in time order")
    is_right_N, nll_N, brier_N = row_losses(scores_NK, label_N)
    found = []
    for index, name in [(None, ""), *enumerate(slice_names)]:
        chosen = np.ones(len(label_N), bool) if index is None else slice_N == index
        found.append(_cluster(name, ~is_right_N[chosen], nll_N[chosen], brier_N[chosen], time_ms[chosen]))
    return tuple(found)


def cluster_misses(
    value_N: Floats,
    label_N: Floats,
    time_ms: npt.NDArray[np.int64],
    slice_N: npt.NDArray[Any],
    slice_names: Sequence[str],
    label_span: float,
) -> tuple[ErrorClustering, ...]:
    """The same of values (regression): `brier_sum` holds squared misses in units of `label_span`, each at most 1, as production
    counts them; whether a value is an error is not defined, so there are none.

    Example:
        >>> day = np.array([0, 86_400_000])
        >>> found = cluster_misses(np.array([1.0, 9.0]), np.array([2.0, 2.0]), day, np.array([0, 0]), (), 4.0)
        >>> [one.brier_sum for one in found[0].days], [one.num_errors for one in found[0].days]
        ([0.0625, 1.0], [0, 0])
    """
    if np.any(np.diff(time_ms) < 0):
        raise ValueError("rows must be in time order")
    loss_N = np.minimum(np.abs(value_N - label_N) / label_span, 1.0) ** 2
    none_N, zero_N = np.zeros(len(label_N), bool), np.zeros(len(label_N))
    found = []
    for index, name in [(None, ""), *enumerate(slice_names)]:
        chosen = np.ones(len(label_N), bool) if index is None else slice_N == index
        found.append(_cluster(name, none_N[chosen], zero_N[chosen], loss_N[chosen], time_ms[chosen]))
    return tuple(found)


def _cluster(
    name: str, is_error_N: npt.NDArray[np.bool_], nll_N: Floats, brier_N: Floats, time_ms: npt.NDArray[np.int64]
) -> ErrorClustering:
    days, day_N = np.unique(time_ms // MS_PER_DAY, return_inverse=True)
    sums = [
        np.bincount(day_N, weights, len(days)) for weights in (np.ones(len(day_N)), is_error_N.astype(float), nll_N, brier_N)
    ]
    return ErrorClustering(
        slice=name,
        lag1_autocorrelation=lag1_autocorrelation(is_error_N),
        between_hour_variance=between_block_variance(is_error_N, time_ms // MS_PER_HOUR),
        between_day_variance=between_block_variance(is_error_N, time_ms // MS_PER_DAY),
        days=tuple(
            BlockScore(
                start_ms=int(day) * MS_PER_DAY,
                num_rows=int(n),
                num_errors=int(errors),
                nll_sum=float(nll),
                brier_sum=float(brier),
            )
            for day, n, errors, nll, brier in zip(days, *sums, strict=True)
        ),
    )
