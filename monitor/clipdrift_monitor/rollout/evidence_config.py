"""How sure a rollout must be, and of what."""

import math
from typing import Literal

import msgspec


class EvidenceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.rollout.evidence]`: what is compared between the candidate and the model in service, and how sure it must be.

    Errors are shares of rows (0.05: five more errors in a hundred rows), losses Brier scores in 0..1.
    """

    wrong_promotion: float = 0.01
    """Chance that a candidate which is worse by a margin, overall or in a slice that is tested, is ever found good enough."""
    wrong_rollback: float = 0.05
    """Chance that a candidate which is in nothing worse is ever rolled back, over all that is watched together."""
    margin_error: float = 0.03
    """A candidate may not have more errors than this over all rows, as a difference of error rates."""
    margin_loss: float = 0.02
    """The same of the loss."""
    slice_margin_error: float = 0.05
    """The same within a slice."""
    slice_margin_loss: float = 0.04
    """The same within a slice."""
    needs_slice_proof: bool = True
    """On: each tested slice must be shown to be within its margin, too. Off: it is enough that none is shown to be worse."""
    shadow_level: float = 0.5
    """A shadow has shown enough for the first step of a canary once so much of a promotion's evidence is there for everything
    that it needs (on a logarithmic scale: 0.5 is its square root), and less than half of that for a rollback; 1: all of it."""
    min_blocks: int = 3
    """Fewer blocks never lead to a promotion: days differ."""
    min_slice_share: float = 0.05
    """A slice with a smaller share of the rows of the first block is not tested on its own; all such are tested as one."""
    max_slices: int = 12
    """At most so many slices are tested on their own, the largest."""
    spread: float = 0.03
    """How far the difference of two error rates may swing from block to block beyond chance, as a standard deviation."""
    row_inflation: float = 2.0
    """How many rows of one block may count as one, since errors of one period hang together."""
    min_rows: int = 30
    """A block with fewer rows of a slice (on either side) is joined with the next."""
    slice_weight: float = 0.4
    """Share of `wrong_rollback` that the slices may spend, together."""
    served_weight: float = 0.2
    """Share of `wrong_rollback` that failed requests and latency may spend, together."""
    allowed_failures: float = 0.01
    """A candidate may fail with so many more of its requests than the model in service."""
    latency_ratio: float = 2.0
    """Slow is an answer that takes longer than this times what nineteen of twenty answers of the model in service take."""
    min_served: int = 100
    """A period with fewer requests on either side is joined with the next."""

    def __post_init__(self) -> None:
        for name in ("wrong_promotion", "wrong_rollback", "slice_weight", "served_weight"):
            _require(name, getattr(self, name), 0, 1)
        for name in ("margin_error", "margin_loss", "slice_margin_error", "slice_margin_loss"):
            _require(name, getattr(self, name), 0, 1)
        _require("spread", self.spread, 0, 1, may_be_low=True)
        _require("min_slice_share", self.min_slice_share, 0, 1, may_be_low=True)
        _require("allowed_failures", self.allowed_failures, 0, 1, may_be_low=True)
        _require("row_inflation", self.row_inflation, 1, 100, may_be_low=True)
        _require("latency_ratio", self.latency_ratio, 1, 1000, may_be_low=True)
        _require("max_slices", self.max_slices, 0, 1000, may_be_low=True)
        if self.slice_weight + self.served_weight >= 1:
            raise ValueError(
                "slice_weight and served_weight must leave something for all rows together, so add up to less than 1, "
                f"got {self.slice_weight!r} and {self.served_weight!r}"
            )
        if not 0 < self.shadow_level <= 1:
            raise ValueError(f"shadow_level must be > 0 and <= 1, got {self.shadow_level!r}")
        if self.min_blocks < 1:
            raise ValueError(f"min_blocks must be >= 1, got {self.min_blocks!r}")
        if self.min_rows < 10 or self.min_served < 10:
            raise ValueError(f"min_rows and min_served must be >= 10, got {self.min_rows!r} and {self.min_served!r}")

    def margin(self, measure: Literal["error", "loss"], *, is_slice: bool) -> float:
        """By how much the candidate may not be worse."""
        if measure == "error":
            return self.slice_margin_error if is_slice else self.margin_error
        return self.slice_margin_loss if is_slice else self.margin_loss


def _require(name: str, value: float, low: float, high: float, *, may_be_low: bool = False) -> None:
    if not (math.isfinite(value) and (low < value or (may_be_low and low == value)) and value < high):
        raise ValueError(f"{name} must be {'>=' if may_be_low else '>'} {low} and < {high}, got {value!r}")
