"""One slice of a rollout: what its blocks have said of the difference between candidate and champion, in errors and in loss."""

import math
from typing import Literal

import msgspec
import numpy as np

from clipdrift_monitor.rollout.compared import PairedSums, SideSums, joined
from clipdrift_monitor.rollout.differences import NUM_SPREADS, sums_of_block
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig

_NO_SUMS = (0.0,) * (NUM_SPREADS * 4)
_PRIOR_ROWS = 4.0  # as if seen before the first row, so that no variance is 0
_PRIOR_ERROR, _PRIOR_LOSS = 0.25, 0.05  # their variance a row: of errors the largest that there is, of losses a common one
Measure = Literal["error", "loss"]
MEASURES: tuple[Measure, ...] = ("error", "loss")


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of `differences` by measure, what was seen in all, and rows that wait for more of their kind."""

    slice: str
    error_sums: tuple[float, ...] = _NO_SUMS
    loss_sums: tuple[float, ...] = _NO_SUMS
    num_blocks: int = 0
    num_labels: float = 0.0
    """Of the candidate's rows."""
    pairs: PairedSums | None = None
    candidate: SideSums | None = None
    champion: SideSums | None = None
    pairs_waiting: PairedSums | None = None
    candidate_waiting: SideSums | None = None
    champion_waiting: SideSums | None = None

    def sums(self, measure: Measure) -> tuple[float, ...]:
        return self.error_sums if measure == "error" else self.loss_sums


def add_pairs(series: Series, pairs: PairedSums, config: EvidenceConfig) -> Series:
    """One more block of rows that both answered; it waits while it has fewer than `min_rows`."""
    pairs = pairs if series.pairs_waiting is None else joined(series.pairs_waiting, pairs, series.slice)
    if pairs.num_rows < config.min_rows:
        return msgspec.structs.replace(series, pairs_waiting=pairs)
    seen = pairs if series.pairs is None else joined(series.pairs, pairs, series.slice)
    n, all_rows = pairs.num_rows, seen.num_rows
    error_variance = _variance(seen.error_sum, seen.error_sq_sum, all_rows, _PRIOR_ERROR)
    loss_variance = _variance(seen.loss_sum, seen.loss_sq_sum, all_rows, _PRIOR_LOSS)
    grown = _with_block(series, config, n, (pairs.error_sum / n, error_variance / n), (pairs.loss_sum / n, loss_variance / n))
    return msgspec.structs.replace(grown, pairs=seen, pairs_waiting=None)


def add_sides(series: Series, candidate: SideSums, champion: SideSums, config: EvidenceConfig) -> Series:
    """One more block in which each answered rows of its own; it waits while either has fewer than `min_rows`."""
    if series.candidate_waiting is not None and series.champion_waiting is not None:
        candidate = joined(series.candidate_waiting, candidate, series.slice)
        champion = joined(series.champion_waiting, champion, series.slice)
    if min(candidate.num_rows, champion.num_rows) < config.min_rows:
        return msgspec.structs.replace(series, candidate_waiting=candidate, champion_waiting=champion)
    ours = candidate if series.candidate is None else joined(series.candidate, candidate, series.slice)
    theirs = champion if series.champion is None else joined(series.champion, champion, series.slice)
    error, loss = _of_sides(candidate, champion, ours, theirs)
    grown = _with_block(series, config, candidate.num_rows, error, loss)
    return msgspec.structs.replace(grown, candidate=ours, champion=theirs, candidate_waiting=None, champion_waiting=None)


def _of_sides(
    candidate: SideSums, champion: SideSums, ours: SideSums, theirs: SideSums
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Difference and variance, of errors and of losses; variances a row are those of all rows that were seen."""
    n, m = candidate.num_rows, champion.num_rows
    error = candidate.num_errors / n - champion.num_errors / m
    loss = candidate.loss_sum / n - champion.loss_sum / m
    error_variance = sum(
        _variance(one.num_errors, one.num_errors, one.num_rows, _PRIOR_ERROR) / rows for one, rows in ((ours, n), (theirs, m))
    )
    loss_variance = sum(
        _variance(one.loss_sum, one.loss_sq_sum, one.num_rows, _PRIOR_LOSS) / rows for one, rows in ((ours, n), (theirs, m))
    )
    return (error, error_variance), (loss, loss_variance)


def _with_block(
    series: Series, config: EvidenceConfig, num_rows: float, error: tuple[float, float], loss: tuple[float, float]
) -> Series:
    added = sums_of_block(
        np.array([error[0], loss[0]]), np.array([error[1], loss[1]]), spread=config.spread, row_inflation=config.row_inflation
    ).reshape(2, -1)
    return msgspec.structs.replace(
        series,
        error_sums=tuple((np.asarray(series.error_sums) + added[0]).tolist()),
        loss_sums=tuple((np.asarray(series.loss_sums) + added[1]).tolist()),
        num_blocks=series.num_blocks + 1,
        num_labels=series.num_labels + num_rows,
    )


def _variance(total: float, squares: float, num_rows: float, prior: float) -> float:
    mean = total / num_rows
    spread = max(0.0, squares - num_rows * mean**2)
    variance = (spread + _PRIOR_ROWS * prior) / (num_rows + _PRIOR_ROWS)
    assert math.isfinite(variance)
    return variance
