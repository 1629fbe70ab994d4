"""Held-out rows that were trained on: their figures say how well the model remembers, not how well it predicts."""

import msgspec
import numpy as np

from clipdrift_trainer.quality.finding import Finding, level_of, passed, skipped
from clipdrift_trainer.quality.intervals import wilson
from clipdrift_trainer.quality.table import Table
from clipdrift_trainer.quality.twins import Twins, exact_twins

COPIES_AGREE = 0.9
"""Least agreement of labels beyond chance for equal rows to count as copies; equal rows of coarse data agree as far as their
features tell, which is less."""
_MIN_COPIES = 3
_COARSE = 0.7  # below this share of distinct training rows, equal rows are the nature of the data


class DuplicatesPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Held-out rows that equal a training row in every feature, and in the label as often as only copies do."""

    enabled: bool = True
    """Off: not looked for."""
    warn_share: float = 0.005
    """Share of the held-out rows from which on it warns."""
    stop_share: float = 0.2
    """Share of the held-out rows from which on training makes no sense."""

    def __post_init__(self) -> None:
        if not 0 < self.warn_share <= self.stop_share:
            raise ValueError(f"duplicates need 0 < warn_share <= stop_share, got {self.warn_share!r} and {self.stop_share!r}")


def check_duplicates(table: Table, policy: DuplicatesPolicy) -> Finding:
    """Unmistakable where they are many and the training rows are not full of equal rows themselves."""
    num_held_out = int(table.is_held_out_N.sum())
    if not num_held_out or num_held_out == len(table):
        return skipped("there are no two sides to compare")
    twins = exact_twins(table)
    share = len(twins) / num_held_out
    distinct = distinct_share(table)
    figures = {"share": share, "num_rows": float(len(twins)), "distinct_train_share": distinct}
    if len(twins) < _MIN_COPIES or share < policy.warn_share:
        return passed(f"{len(twins):,} of {num_held_out:,} held-out rows equal a training row", **figures)
    if not are_copies(twins, distinct):
        words = f"{share:.1%} of the held-out rows equal a training row, but their labels do not: rows are coarse, not copied"
        return passed(words, **figures, label_agreement=agreement(twins))
    low, high = wilson(len(twins), num_held_out)
    level = level_of(share, policy.warn_share, policy.stop_share)
    return Finding(
        level=level,
        words=f"{share:.1%} of the held-out rows ({len(twins):,}, 95 % interval {low:.1%} to {high:.1%}) equal a training row "
        "in every feature and in the label: give each event once, and see whether load() joins rows twice",
        figures={**figures, "share_low": low, "share_high": high, "label_agreement": agreement(twins)},
        rows=twins.held_out_P,
        is_unmistakable=distinct >= _COARSE,
    )


def are_copies(twins: Twins, distinct: float) -> bool:
    """Whether labels agree as only those of copies do. Where one label alone occurs they cannot tell, and rows that are
    seldom equal within the training rows must."""
    return bool(twins.kappa >= COPIES_AGREE) or (np.isnan(twins.kappa) and distinct > 1 - (1 - _COARSE) / 10)


def agreement(twins: Twins) -> float:
    return float(twins.same_label_P.mean())


def distinct_share(table: Table) -> float:
    """Number of different training rows over their number; 1 for none."""
    key_N = table.keys[~table.is_held_out_N]
    return len(np.unique(key_N)) / len(key_N) if len(key_N) else 1.0
