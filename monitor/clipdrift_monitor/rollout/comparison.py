"""Two versions of a model side by side: which rows count for which of them, and their sums by period and slice.

A row counts by three things together: the version that answered it, the role in which it did, and the generation of the
deployment under which it did. So what the champion answered never counts as the canary's, nor what a version answered in an
earlier rollout. A row that a caller asked the canary for by name counts for it too.

Axes: N rows, S slices of the champion's profile, F figures.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Role
from clipdrift_monitor.rollout.compared import ComparedBlock, PairedSums, Served, ServedBlock, SideSums
from clipdrift_monitor.rollout.course import SHADOW
from clipdrift_monitor.rollout.serving import added

Floats = npt.NDArray[np.float64]
Part = Literal["pairs", "candidate", "champion"]
_NUM_FIGURES = 5  # rows, loss, squared loss, errors, squared errors


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of a window's rows that were answered under one generation."""

    start_ms: int
    generation: int
    pairs: bytes = b""  # <f8 [S + 1, F]; empty: none yet
    candidate: bytes = b""
    champion: bytes = b""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of two versions that is not weighed yet."""

    champion: str
    other: str
    """The version beside it: a candidate, or after a promotion the predecessor."""
    slice_names: tuple[str, ...]
    stages: dict[int, str]
    """By generation, as the deployment calls them."""
    periods: tuple[Period, ...] = ()
    """Those that are not weighed yet, in order."""
    weighed_until_ms: int = 0
    """Rows of an earlier time count no more."""
    served_since_ms: int = 0
    served: dict[str, Served] = {}
    """By "generation/role"."""
    num_left_out: int = 0
    """Rows that found no room to wait for their label."""

    def part_of(self, version: str, role: Role, generation: int) -> Part | None:
        """For what rows count, by version, role and generation; None: for nothing.

        Example:
            >>> both = Comparison(champion="v1", other="v2", slice_names=(), stages={4: "shadow", 5: "canary 0.1"})
            >>> both.part_of("v2", "canary", 5), both.part_of("v1", "champion", 5), both.part_of("v1", "champion", 4)
            ('candidate', 'champion', 'pairs')
            >>> [both.part_of(*one) for one in (("v2", "canary", 3), ("v2", "champion", 5), ("v1", "canary", 5))]
            [None, None, None]
        """
        stage = self.stages.get(generation)
        if stage is None:
            return None
        if version == self.champion and role == "champion":
            return "pairs" if stage == SHADOW else "champion"
        if version == self.other and role == "canary" and stage != SHADOW:
            return "candidate"
        return "pairs" if version == self.other and role == "shadow" and stage == SHADOW else None


def with_rows(comparison: Comparison, part: Part, generation: int, start_ms: int, sums_SF: Floats) -> Comparison:
    """The comparison with the rows of one window added."""
    if start_ms < comparison.weighed_until_ms:
        return comparison
    periods = {(one.start_ms, one.generation): one for one in comparison.periods}
    known = periods.get((start_ms, generation)) or Period(start_ms=start_ms, generation=generation)
    before = getattr(known, part)
    both_SF = sums_SF + _sums(before) if before else sums_SF
    periods[start_ms, generation] = msgspec.structs.replace(known, **{part: both_SF.astype("<f8").tobytes()})
    return msgspec.structs.replace(comparison, periods=tuple(periods[place] for place in sorted(periods)))


def with_served(comparison: Comparison, generation: int, role: Role, served: Served) -> Comparison:
    """The comparison with requests that were answered, or failed, in a role under a generation."""
    place = f"{generation}/{role}"
    known = comparison.served.get(place, Served())
    return msgspec.structs.replace(comparison, served={**comparison.served, place: added(known, served)})


def sums_of(slice_N: npt.NDArray[np.int64], loss_N: Floats, error_N: Floats, num_slices: int) -> Floats:
    """Sums of rows by slice, shape [S + 1, F]: the last row holds those of slices that the champion's profile has not.

    Example:
        >>> sums_of(np.array([0, 1, -1]), np.array([0.5, 0.25, 0.25]), np.array([1.0, 0.0, 1.0]), 2).tolist()
        [[1.0, 0.5, 0.25, 1.0, 1.0], [1.0, 0.25, 0.0625, 0.0, 0.0], [1.0, 0.25, 0.0625, 1.0, 1.0]]
    """
    figures = (np.ones(len(loss_N)), loss_N, loss_N**2, error_N, error_N**2)
    known_N = np.where((slice_N >= 0) & (slice_N < num_slices), slice_N, num_slices)
    return np.stack([np.bincount(known_N, weights=one, minlength=num_slices + 1) for one in figures], axis=1)


def blocks_until(
    comparison: Comparison, until_ms: int, window_ms: int, *, has_errors: bool
) -> tuple[Comparison, list[tuple[int, ComparedBlock]]]:
    """The periods that end by `until_ms`, each with its generation, and the comparison without them.

    Where a stage changed within a window, its periods end one millisecond after another: their order counts.
    """
    due = [one for one in comparison.periods if one.start_ms + window_ms <= until_ms]
    blocks = []
    for period in due:
        later = sum(1 for one in due if one.start_ms == period.start_ms and one.generation > period.generation)
        block = _block(comparison, period, period.start_ms + window_ms - later, has_errors=has_errors)
        blocks.append((period.generation, block))
    left = tuple(one for one in comparison.periods if one not in due)
    until_ms = max(comparison.weighed_until_ms, until_ms)
    return msgspec.structs.replace(comparison, periods=left, weighed_until_ms=until_ms), blocks


def served_block(
    comparison: Comparison, generation: int, at_ms: int, min_requests: int
) -> tuple[Comparison, ServedBlock | None]:
    """How both versions answered under the present generation since the last such block, once there is enough of both; what was
    answered under other generations is let go."""
    stage = comparison.stages[generation]
    other: Role = "shadow" if stage == SHADOW else "canary"
    candidate = comparison.served.get(f"{generation}/{other}", Served())
    champion = comparison.served.get(f"{generation}/champion", Served())
    if min(one.num_answered + one.num_failed for one in (candidate, champion)) < min_requests:
        return comparison, None
    start_ms = comparison.served_since_ms
    end_ms = max(at_ms, start_ms + 1)
    block = ServedBlock(start_ms=start_ms, end_ms=end_ms, stage=stage, candidate=candidate, champion=champion)
    return msgspec.structs.replace(comparison, served={}, served_since_ms=end_ms), block


def _block(comparison: Comparison, period: Period, end_ms: int, *, has_errors: bool) -> ComparedBlock:
    names = comparison.slice_names
    return ComparedBlock(
        start_ms=period.start_ms,
        end_ms=end_ms,
        stage=comparison.stages[period.generation],
        pairs=tuple(_paired(name, row) for name, row in _by_name(names, period.pairs)),
        candidate=tuple(_side(name, row) for name, row in _by_name(names, period.candidate)),
        champion=tuple(_side(name, row) for name, row in _by_name(names, period.champion)),
        has_errors=has_errors,
    )


def _by_name(names: Sequence[str], packed: bytes) -> list[tuple[str, list[float]]]:
    """Figures of all rows together under "", then of each slice that has any."""
    if not packed:
        return []
    sums_SF = _sums(packed)
    named = [(name, row.tolist()) for name, row in zip(names, sums_SF, strict=False) if name and row[0]]
    return [("", sums_SF.sum(axis=0).tolist()), *named]


def _paired(name: str, row_F: list[float]) -> PairedSums:
    rows, loss, loss_sq, error, error_sq = row_F
    return PairedSums(slice=name, num_rows=rows, loss_sum=loss, loss_sq_sum=loss_sq, error_sum=error, error_sq_sum=error_sq)


def _side(name: str, row_F: list[float]) -> SideSums:
    rows, loss, loss_sq, errors, _ = row_F
    return SideSums(slice=name, num_rows=rows, loss_sum=loss, loss_sq_sum=loss_sq, num_errors=errors)


def _sums(packed: bytes) -> Floats:
    return np.frombuffer(packed, "<f8").reshape(-1, _NUM_FIGURES)
