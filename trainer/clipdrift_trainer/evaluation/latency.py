"""Whether one model answers more slowly than another: both asked by turns, on the same rows, on a machine that has other work.

Axes: R rounds, N rows of a round.
"""

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clipdrift_trainer.evaluation.blocks import Interval

Seconds = npt.NDArray[np.float64]
_NUM_RESAMPLES = 400
_TAIL = 2.5  # per cent


def time_by_turns(
    first: Callable[[int], object],
    second: Callable[[int], object],
    num_rows: int,
    num_rounds: int,
    *,
    budget_seconds: float,
    timer: Callable[[], float] = time.perf_counter,
) -> tuple[Seconds, Seconds]:
    """Seconds that each takes for each row, [R, N]: row by row by turns, and who comes first changes, so that both meet the
    same disturbances. One round before goes unmeasured.

    Args:
        first: Answers the row of this number.
        second: The other one.
        num_rows: Rows, asked one by one.
        num_rounds: How often all rows are asked; fewer where `budget_seconds` is over.
        budget_seconds: No round begins after it.
        timer: For tests.
    """
    for row in range(num_rows):
        first(row)
        second(row)
    taken: list[tuple[list[float], list[float]]] = []
    started = timer()
    for turn in range(num_rounds):
        if turn and timer() - started > budget_seconds:
            break
        of_first, of_second = [0.0] * num_rows, [0.0] * num_rows
        for row in range(num_rows):
            pair = ((first, of_first), (second, of_second))
            for answer, seconds in pair if (turn + row) % 2 else pair[::-1]:
                began = timer()
                answer(row)
                seconds[row] = timer() - began
        taken.append((of_first, of_second))
    first_RN, second_RN = (np.array([one[side] for one in taken]).reshape(-1, num_rows) for side in (0, 1))
    return first_RN, second_RN


def quantile_ratio(first_RN: Seconds, second_RN: Seconds, share: float, seed: int = 0) -> Interval:
    """A quantile of the first's seconds over the second's, with its 95 % interval over rounds.

    NaN where there are fewer than two rounds, no rows, or a quantile that is not above 0. A disturbance lasts for many
    requests, so the round is the unit: rounds are drawn again, both models' together.

    Args:
        first_RN: Seconds of the first.
        second_RN: Seconds of the second in the same rounds.
        share: Of the quantile: .5 the median, .99 what one request in a hundred exceeds.
        seed: Of the resampling.

    Source: the percentile bootstrap over blocks, Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.

    Example:
        >>> quantile_ratio(np.full((5, 9), 0.002), np.full((5, 9), 0.001), 0.5)
        Interval(value=2.0, low=2.0, high=2.0)
    """
    num_rounds = len(first_RN)
    unknown = Interval(np.nan, np.nan, np.nan)
    if num_rounds < 2 or not first_RN.size or not (np.isfinite(first_RN).all() and np.isfinite(second_RN).all()):
        return unknown
    drawn_SR = np.random.default_rng(seed).integers(0, num_rounds, (_NUM_RESAMPLES, num_rounds))
    top_S, bottom_S = (
        np.quantile(seconds_RN[drawn_SR].reshape(_NUM_RESAMPLES, -1), share, axis=1) for seconds_RN in (first_RN, second_RN)
    )
    top, bottom = float(np.quantile(first_RN, share)), float(np.quantile(second_RN, share))
    if not bottom > 0 or not (bottom_S > 0).all():
        return unknown
    low, high = np.percentile(top_S / bottom_S, (_TAIL, 100 - _TAIL))
    return Interval(top / bottom, min(float(low), top / bottom), max(float(high), top / bottom))
