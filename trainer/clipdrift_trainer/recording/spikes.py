"""Steps whose norm stands out, with the layer and the batch to look at."""

from collections.abc import Sequence

import numpy as np

from clipdrift_contract.events import Spike
from clipdrift_trainer.recording.window import NUM_COLUMNS, Column, Floats

_LEAST_RATIO = 4.0  # to the median: below, nobody would call it a spike
_NUM_DEVIATIONS = 6.0  # of log norm, robust: a heavy tail that is always there is no spike
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_MOST = 8  # a window
_LEAST_STEPS = 8


def find_spikes(rows: Floats, names: Sequence[str], step_S: Sequence[int], batch_id_S: Sequence[str]) -> tuple[Spike, ...]:
    """The largest spikes of a window, at most 8, in the order of their steps: norms above 4 times the median and above six
    robust deviations of the logarithm, and steps that were not finite.

    Args:
        rows: [S, P + 6], see `recording.window`.
        names: Names of the P tensors.
        step_S: Index of each step in the run.
        batch_id_S: What the caller named each batch.

    Example:
        >>> rows = np.tile([1.0, 1.0, 1.0, 1.0, 9.0, 0.0, np.nan], (20, 1))
        >>> rows[7, [0, 1]] = 50.0
        >>> [(spike.step, spike.norm, spike.layer) for spike in find_spikes(rows, ["w"], range(20), [""] * 20)]
        [(7, 50.0, 'w')]
    """
    norm_S = rows[:, Column.TOTAL]
    is_finite_S = np.isfinite(norm_S)
    positive = norm_S[is_finite_S & (norm_S > 0)]
    typical = float(np.median(positive)) if len(positive) else 0.0
    is_spike_S = ~is_finite_S
    if len(positive) >= _LEAST_STEPS:
        log = np.log(positive)
        deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(log - np.median(log))))
        is_spike_S |= norm_S > typical * max(_LEAST_RATIO, float(np.exp(_NUM_DEVIATIONS * deviation)))
    found = np.flatnonzero(is_spike_S)
    height = np.where(is_finite_S, norm_S, np.inf)[found]
    largest = np.sort(found[np.argsort(-height, kind="stable")][:_MOST])
    return tuple(
        Spike(
            step=step_S[s],
            norm=float(norm_S[s]) if is_finite_S[s] else None,
            typical_norm=typical,
            layer=names[loudest(rows[s, :-NUM_COLUMNS])],
            batch_id=batch_id_S[s],
        )
        for s in largest
    )


def loudest(norm_P: Floats) -> int:
    """The tensor with the largest norm; the first NaN, else the first infinity, where there is one."""
    for is_broken_P in (np.isnan(norm_P), np.isinf(norm_P)):
        if is_broken_P.any():
            return int(np.argmax(is_broken_P))
    return int(np.argmax(norm_P))
