"""How many independent rows the held-out rows are worth: rows of one day hang together."""

import msgspec
import numpy as np

from clipdrift_trainer.evaluation.clustering import between_block_variance
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.quality.finding import Finding, level_of, listed, passed, skipped
from clipdrift_trainer.quality.table import Floats, Ints, Table


class EffectiveSizePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows are needed, counted as independent ones."""

    enabled: bool = True
    """Off: not looked for."""
    warn_rows: float = 30.0
    """Effective number of held-out rows below which it warns."""
    stop_rows: float = 5.0
    """Effective number below which it stops, in mode enforce."""

    def __post_init__(self) -> None:
        if not 0 <= self.stop_rows <= self.warn_rows:
            raise ValueError(f"effective_size needs 0 <= stop_rows <= warn_rows, got {self.stop_rows!r} and {self.warn_rows!r}")


def check_effective_size(table: Table, policy: EffectiveSizePolicy) -> Finding:
    """By how the labels cluster in days; what is left when the features have explained a part of it clusters less."""
    held_out, train = np.flatnonzero(table.is_held_out_N), np.flatnonzero(~table.is_held_out_N)
    if not len(held_out):
        return skipped("no rows are held out")
    correlation = day_correlation(table)
    figures = {"day_correlation": correlation}
    for name, rows in (("held_out", held_out), ("train", train)):
        figures[f"{name}_rows"] = float(len(rows))
        figures[f"{name}_effective_rows"] = effective_rows(table.days[rows], correlation)
    effective = figures["held_out_effective_rows"]
    words = f"{len(held_out):,} held-out rows are worth {effective:,.0f} independent ones"
    level = level_of(-effective, -policy.warn_rows, -policy.stop_rows)
    if level == "pass":
        return passed(words, **figures)
    return Finding(level=level, words=f"{words}: differences between models will not show; hold more days out", figures=figures)


def day_correlation(table: Table) -> float:
    """Correlation of two labels of one day, the highest of all classes; a regression counts as above or below its median."""
    label = table.rows.label
    if table.task.kind == "regression":
        outcomes: list[Floats] = [(label > np.median(label)).astype(np.float64)]
    else:
        outcomes = [(label == index).astype(np.float64) for index in range(len(table.task.classes))]
    found = [0.0]
    for outcome in outcomes:
        variance = float(outcome.var())
        if variance > 0:
            found.append(min(1.0, between_block_variance(outcome, table.days) / variance))
    return max(found)


def effective_rows(day: Ints, correlation: float) -> float:
    """Number of independent rows that say as much about a mean as these clustered ones.

    Source: Kish 1965, design effect 1 + (m - 1) rho with m the mean size of a row's own day, sum n_d^2 / sum n_d.

    Example:
        >>> effective_rows(np.repeat([0, 1, 2, 3], 25), 0.25)   # 100 / (1 + 24 / 4)
        14.285714285714286
    """
    count = np.unique(day, return_counts=True)[1].astype(np.float64)
    return float(count.sum() / (1 + ((count**2).sum() / count.sum() - 1) * correlation)) if len(count) else 0.0


class SlicesPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Slices that hold too few rows to be judged."""

    enabled: bool = True
    """Off: not looked for."""
    warn_rows: int = 30
    """Number of held-out rows below which a slice warns; a slice without any row in training and held-out is not there."""

    def __post_init__(self) -> None:
        if self.warn_rows < 0:
            raise ValueError(f"slices.warn_rows must be >= 0, got {self.warn_rows!r}")


def check_slices(table: Table, policy: SlicesPolicy) -> Finding:
    """The declared slices with their rows on both sides."""
    if table.task.slices is None:
        return skipped("the task declares no slices")
    names, index_N = slice_names(table.task), slice_index(table.task, table.rows)
    count_2S = [np.bincount(index_N[side], minlength=len(names)) for side in (~table.is_held_out_N, table.is_held_out_N)]
    found = [
        (position, f"{name} ({train:,} training rows, {held:,} held-out)")
        for position, (name, train, held) in enumerate(zip(names, *count_2S, strict=True))
        if train + held > 0 and held < policy.warn_rows
    ]
    present = [int(held) for train, held in zip(*count_2S, strict=True) if train + held > 0]
    figures = {"fewest_held_out_rows": float(min(present, default=0))}
    if not found:
        return passed(f"each of {len(present)} slices has at least {min(present, default=0):,} held-out rows", **figures)
    return Finding(
        level="warn",
        words=f"too few rows to be judged: {listed([words for _, words in found])}; join slices, or wait for more",
        figures=figures,
        features=(table.task.slices.feature,),
        rows=np.flatnonzero(np.isin(index_N, [position for position, _ in found])),
    )
