"""What a retrain cost and what it was worth: the model in service against the version that it replaced, on the same rows."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from clipdrift_monitor.risk.student import t_exceeded_once_in
from clipdrift_monitor.rollout.compared import ComparedBlock

WorthVerdict = Literal["measuring", "worth it", "not worth it", "unknown"]
MAX_KEPT = 50
_MIN_BLOCKS = 3


class RetrainWorth(msgspec.Struct, frozen=True, kw_only=True):
    """One retrain: what it cost and what came of it."""

    key: str
    version: str = ""
    """What came of it; "" where nothing went into service."""
    predecessor: str = ""
    at_ms: int = 0
    """When it went into service, or when it ended."""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    verdict: WorthVerdict = "measuring"
    gain: float | None = None
    """Loss a prediction (Brier score; for values the squared error over the squared range) that the predecessor would have had
    on top, on the same rows; below 0 the predecessor would have done better."""
    gain_low: float | None = None
    gain_high: float | None = None
    """95 % interval, by blocks."""
    num_rows: int = 0
    num_blocks: int = 0
    words: str = ""
    blocks: tuple[tuple[float, float], ...] = ()
    """Rows and summed gain of each block while it is measured."""


def with_blocks(worth: RetrainWorth, blocks: Sequence[ComparedBlock]) -> RetrainWorth:
    """The account with more blocks on which the predecessor answered beside the version in service."""
    more = [(pair.num_rows, pair.loss_sum) for block in blocks for pair in block.pairs if pair.slice == "" and pair.num_rows]
    if not more:
        return worth
    both = (*worth.blocks, *more)
    gain, low, high = interval(both)
    num_rows = round(sum(rows for rows, _ in both))
    return msgspec.structs.replace(
        worth, blocks=both, gain=gain, gain_low=low, gain_high=high, num_rows=num_rows, num_blocks=len(both)
    )


def settled(worth: RetrainWorth, min_gain: float) -> RetrainWorth:
    """The account with its verdict.

    Example:
        >>> measured = RetrainWorth(key="k", gain=0.02, gain_low=0.01, gain_high=0.03, num_rows=900, num_blocks=9)
        >>> settled(measured, 0.001).verdict
        'worth it'
        >>> settled(msgspec.structs.replace(measured, gain_low=-0.01), 0.001).verdict
        'unknown'
    """
    if worth.verdict != "measuring":
        return worth
    verdict: WorthVerdict = "unknown"
    if worth.gain_low is not None and worth.gain_high is not None:
        verdict = "not worth it" if worth.gain_high < min_gain else "worth it" if worth.gain_low > 0 else "unknown"
    return msgspec.structs.replace(worth, verdict=verdict, words=_words(worth), blocks=())


def came_to_nothing(worth: RetrainWorth, words: str, *, is_known: bool = True) -> RetrainWorth:
    """A retrain of which nothing stayed in service; not `is_known`: it could not be told whether it would have helped."""
    return msgspec.structs.replace(worth, verdict="not worth it" if is_known else "unknown", words=words, blocks=())


def false_retrain_ratio(worths: Sequence[RetrainWorth]) -> float | None:
    """Share of the retrains with a verdict that were not worth it; None where there is none.

    Example:
        >>> false_retrain_ratio([RetrainWorth(key=str(i), verdict=word) for i, word in enumerate(("worth it", "not worth it"))])
        0.5
    """
    known = [one.verdict for one in worths if one.verdict in ("worth it", "not worth it")]
    return known.count("not worth it") / len(known) if known else None


def interval(blocks: Sequence[tuple[float, float]]) -> tuple[float, float | None, float | None]:
    """Mean gain a row with its 95 % interval; without an interval below three blocks.

    Rows of one block hang together, so blocks are what varies, and large ones weigh more.

    Source: the ratio estimator sum S_b / sum n_b with its linearised variance B / (B - 1) * sum (S_b - r n_b)^2 / (sum n_b)^2
    (Cochran 1977, eq. 6.13), and Student's t with B - 1 degrees of freedom.

    Example:
        >>> [round(one, 4) for one in interval([(100, 2.0), (100, 1.0), (100, 3.0)])]
        [0.02, -0.0048, 0.0448]
    """
    rows, total = sum(n for n, _ in blocks), sum(gain for _, gain in blocks)
    mean = total / rows
    num_blocks = len(blocks)
    if num_blocks < _MIN_BLOCKS:
        return mean, None, None
    squares = sum((gain - mean * n) ** 2 for n, gain in blocks)
    error = math.sqrt(num_blocks / (num_blocks - 1) * squares) / rows
    half = t_exceeded_once_in(40.0, num_blocks - 1) * error
    return mean, mean - half, mean + half


def _words(worth: RetrainWorth) -> str:
    if worth.gain is None:
        return f"No row was answered by {worth.predecessor}, too, so nobody knows."
    if worth.gain_low is None or worth.gain_high is None:
        return f"{worth.num_rows} rows in {worth.num_blocks} blocks are too few to say."
    side = "more" if worth.gain >= 0 else "less"
    return (
        f"{worth.predecessor} would have lost {abs(worth.gain):.4f} {side} a prediction on the same {worth.num_rows} rows "
        f"(95 % {worth.gain_low:+.4f} to {worth.gain_high:+.4f}, {worth.num_blocks} blocks)."
    )
