"""Class shares and counts: can the rarer classes be learned, and be judged?"""

import msgspec
import numpy as np

from clipdrift_trainer.quality.finding import Finding, Level, level_of, listed, passed, skipped, worst
from clipdrift_trainer.quality.table import Table


class BalancePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How rare a class may be."""

    enabled: bool = True
    """Off: not looked for."""
    warn_share: float = 0.01
    """Share of the training rows below which a class warns."""
    warn_train_rows: int = 30
    """Number of training rows below which a class warns."""
    warn_held_out_rows: int = 10
    """Number of held-out rows below which a class warns: its figures are chance."""
    stop_train_rows: int = 2
    """Number of training rows below which it stops, in mode enforce."""

    def __post_init__(self) -> None:
        if not 0 <= self.warn_share < 0.5:
            raise ValueError(f"balance.warn_share must be in 0...5, got {self.warn_share!r}")
        if not 0 <= self.stop_train_rows <= self.warn_train_rows:
            raise ValueError(
                f"balance needs 0 <= stop_train_rows <= warn_train_rows, got {self.stop_train_rows!r}, {self.warn_train_rows!r}"
            )


def check_balance(table: Table, policy: BalancePolicy) -> Finding:
    """Every class that the task declares; a regression passes unless its labels are all the same."""
    label = table.rows.label
    if not len(label):
        return skipped("there are no rows")
    if table.task.kind == "regression":
        if label.min() < label.max():  # the standard deviation of equal values may be 1e-17
            spread = float(label.std())
            return passed(f"labels spread with a standard deviation of {spread:.4g}", standard_deviation=spread)
        return Finding(level="stop", words=f"every label is {label[0]:g}: there is nothing to learn", is_unmistakable=False)
    names = table.task.classes
    train_K, held_K = (
        np.bincount(label[side].astype(int), minlength=len(names)) for side in (~table.is_held_out_N, table.is_held_out_N)
    )
    share_K = train_K / max(1, train_K.sum())
    levels: list[Level] = []
    words: list[str] = []
    for name, num_train, num_held, share in zip(names, train_K, held_K, share_K, strict=True):
        level: Level = level_of(-num_train, -policy.warn_train_rows + 1, -policy.stop_train_rows + 1)
        if level == "pass" and (share < policy.warn_share or num_held < policy.warn_held_out_rows):
            level = "warn"
        if level != "pass":
            levels.append(level)
            words.append(f"{name}: {share:.2%} ({num_train:,} training rows, {num_held:,} held-out)")
    rarest = int(train_K.argmin())
    figures = {"minority_share": float(share_K[rarest]), "minority_rows": float(train_K[rarest])}
    if not levels:
        return passed(f"the rarest class is {names[rarest]}, {share_K[rarest]:.1%} of the training rows", **figures)
    return Finding(
        level=worst(levels),
        words=f"rare classes: {listed(words)}; accuracy says nothing about them, so judge by log loss and by class"
        ", and get more of them before you weigh them up",
        figures=figures,
    )
