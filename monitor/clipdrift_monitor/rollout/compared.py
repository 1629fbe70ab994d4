"""What a rollout is judged by: one period of two versions side by side, in sums that merge by addition.

A compared block needs labels, so it is fed when its labels are mature. A served block needs none, so it is fed at once.
"""

from typing import TypeVar

import msgspec


class PairedSums(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that both versions answered (shadow): the candidate's loss minus the champion's, row by row.

    A loss is in 0..1: Brier score (binary), half of it (several classes), squared error over the squared validated range, at
    most 1 (values). So a difference is in -1..1.
    """

    slice: str
    """Name of the slice; "" for all rows together."""
    num_rows: float
    loss_sum: float
    loss_sq_sum: float
    error_sum: float = 0.0
    """The candidate's errors minus the champion's."""
    error_sq_sum: float = 0.0
    """Rows on which exactly one of the two errs."""

    def __post_init__(self) -> None:
        sums = (self.loss_sum, self.loss_sq_sum, self.error_sum, self.error_sq_sum)
        _check_rows(self.num_rows, sums)
        if max(abs(self.loss_sum), abs(self.error_sum), self.loss_sq_sum, self.error_sq_sum) > self.num_rows + _ROUNDING:
            raise ValueError(f"each difference is in -1..1, so no sum may exceed the {self.num_rows!r} rows, got {sums!r}")


class SideSums(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that one version answered (canary). Losses as in `PairedSums`."""

    slice: str
    num_rows: float
    loss_sum: float
    loss_sq_sum: float
    num_errors: float = 0.0

    def __post_init__(self) -> None:
        sums = (self.loss_sum, self.loss_sq_sum, self.num_errors)
        _check_rows(self.num_rows, sums)
        if min(sums) < -_ROUNDING or max(sums) > self.num_rows + _ROUNDING:
            raise ValueError(f"each loss is in 0..1, so every sum is in 0..{self.num_rows!r}, got {sums!r}")


class ComparedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Mature labels of one period: pairs, or the rows of each side. Each holds the slice "" and the named ones."""

    start_ms: int
    end_ms: int
    stage: str
    """As the deployment calls it: "shadow", "canary 0.1"."""
    pairs: tuple[PairedSums, ...] = ()
    candidate: tuple[SideSums, ...] = ()
    champion: tuple[SideSums, ...] = ()
    has_errors: bool = True
    """False: values (regression), which are neither right nor wrong."""

    def __post_init__(self) -> None:
        _check_period(self.start_ms, self.end_ms)
        if self.pairs and (self.candidate or self.champion):
            raise ValueError("a block holds pairs of a shadow or the two sides of a canary, got both: feed two blocks")
        for rows in (self.pairs, self.candidate, self.champion):
            names = [one.slice for one in rows]
            if len(set(names)) != len(names) or (names and "" not in names):
                raise ValueError(f'each slice must stand once, and "" for all rows beside them, got {sorted(names)!r}')


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to one version."""

    num_answered: int = 0
    num_failed: int = 0
    latency_histogram: dict[int, int] = {}
    """As in `PredictionBatch`: bucket b counts answers after [2**(b/4), 2**((b+1)/4)) microseconds."""

    def __post_init__(self) -> None:
        if min(self.num_answered, self.num_failed, *self.latency_histogram.values(), 0) < 0:
            raise ValueError(f"counts must be >= 0, got {self!r}")

    @property
    def num_requests(self) -> int:
        return self.num_answered + self.num_failed


class ServedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """How both versions answered in one period."""

    start_ms: int
    end_ms: int
    stage: str
    candidate: Served
    champion: Served

    def __post_init__(self) -> None:
        _check_period(self.start_ms, self.end_ms)


Sums = TypeVar("Sums", PairedSums, SideSums)


def joined(first: Sums, second: Sums, name: str) -> Sums:
    """The rows of two as those of one slice.

    Example:
        >>> one = SideSums(slice="AA", num_rows=10, loss_sum=2, loss_sq_sum=1, num_errors=3)
        >>> joined(one, one, "(rest)")
        SideSums(slice='(rest)', num_rows=20, loss_sum=4, loss_sq_sum=2, num_errors=6)
    """
    added = {field: getattr(first, field) + getattr(second, field) for field in first.__struct_fields__ if field != "slice"}
    return msgspec.structs.replace(first, slice=name, **added)


_ROUNDING = 1e-6


def _check_rows(num_rows: float, sums: tuple[float, ...]) -> None:
    if not 0 <= num_rows < float("inf") or any(not abs(one) < float("inf") for one in sums):
        raise ValueError(f"rows must be >= 0 and all sums finite, got {num_rows!r} and {sums!r}")


def _check_period(start_ms: int, end_ms: int) -> None:
    if not start_ms < end_ms:
        raise ValueError(f"a block must end after it starts, got {start_ms!r} to {end_ms!r}")
