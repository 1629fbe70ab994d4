"""The labelled rows of one version, or of one slice of it, in one block of time: what every harm test reads."""

import msgspec
import numpy as np


class Block(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Sums over rows; `errors` holds 0/1 in time order for the first of them.

    For values (regression) the squared error over the squared validated range stands as `brier_sum`, at most 1 a row. Whether a
    value is an error is not defined, so the test for sudden breaks rests, and `worse_than_validated` bets on that loss alone.

    Hundreds of thousands live in a monitor of many models: tuples of numbers, unlike lists, are nothing that Python's collector
    has to look through, and a page waits for it.
    """

    start_ms: int
    end_ms: int
    num_labels: float
    brier_sum: float
    labels: tuple[float, ...]
    hits: tuple[float, ...]
    score_sum: tuple[float, ...]
    errors: bytes
    num_errors: float = -1.0  # below 0: not known
    log_loss_sum: float = -1.0  # below 0: not known
    num_missing: float = 0.0  # labels that are still to come, by the share that older blocks have


def join(first: Block, second: Block) -> Block:
    """Two blocks as one."""
    return Block(
        start_ms=min(first.start_ms, second.start_ms),
        end_ms=max(first.end_ms, second.end_ms),
        num_labels=first.num_labels + second.num_labels,
        brier_sum=first.brier_sum + second.brier_sum,
        labels=_added(first.labels, second.labels),
        hits=_added(first.hits, second.hits),
        score_sum=_added(first.score_sum, second.score_sum),
        errors=first.errors + second.errors,
        num_errors=_both(first.num_errors, second.num_errors),
        log_loss_sum=_both(first.log_loss_sum, second.log_loss_sum),
        num_missing=first.num_missing + second.num_missing,
    )


def _added(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((np.asarray(first) + np.asarray(second)).tolist())


def _both(first: float, second: float) -> float:
    return first + second if first >= 0 and second >= 0 else -1.0
