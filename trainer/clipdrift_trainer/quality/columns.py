"""Columns that carry nothing: constant ones, and ones that repeat another."""

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_trainer.quality.finding import Finding, level_of, listed, passed, skipped
from clipdrift_trainer.quality.table import Column, Floats, Table

_MIN_ROWS = 20


class ColumnsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Features with one value, and features that another one repeats."""

    enabled: bool = True
    """Off: not looked for."""
    warn_count: int = 1
    """Number of such features from which on it warns."""
    stop_count: int = 1_000_000
    """Number from which on it stops, in mode enforce; by default never."""
    same_correlation: float = 0.999999
    """Numbers whose correlation reaches this, either way, repeat each other."""

    def __post_init__(self) -> None:
        if not 1 <= self.warn_count <= self.stop_count:
            raise ValueError(f"columns need 1 <= warn_count <= stop_count, got {self.warn_count!r} and {self.stop_count!r}")
        if not 0.9 <= self.same_correlation <= 1:
            raise ValueError(f"columns.same_correlation must be in .9..1, got {self.same_correlation!r}")


def check_columns(table: Table, policy: ColumnsPolicy) -> Finding:
    """On training rows; a sequence is constant where all its elements are."""
    train = ~table.sampled_held_out
    if train.sum() < _MIN_ROWS:
        return skipped("too few training rows")
    constant = _constant(table, train)
    repeated = _repeated([one for one in table.columns if one.feature not in constant], train, policy.same_correlation)
    num = len(constant) + len(repeated)
    words = [f"{name} has one value only" for name in constant]
    words += [f"{later} repeats {earlier}" for earlier, later in repeated]
    if not num:
        return passed("every feature varies, and none repeats another", constant=0.0, repeated=0.0)
    return Finding(
        level=level_of(num, policy.warn_count, policy.stop_count),
        words=f"{listed(words, 5)}: they carry nothing of their own; see whether load() fills them",
        figures={"constant": float(len(constant)), "repeated": float(len(repeated))},
        features=tuple(dict.fromkeys((*constant, *(later for _, later in repeated)))),
    )


def _constant(table: Table, train: npt.NDArray[np.bool_]) -> list[str]:
    varies = {column.feature for column in table.columns if len(np.unique(column.values[train])) > 1}
    return [spec.name for spec in table.task.features if spec.name not in varies]


def _repeated(columns: list[Column], train: npt.NDArray[np.bool_], same: float) -> list[tuple[str, str]]:
    """Pairs of features of one value a row: (the earlier, the one that repeats it)."""
    single = [one for one in columns if one.name == one.feature]
    found = []
    for position, later in enumerate(single):
        for earlier in single[:position]:
            if earlier.is_category == later.is_category and _repeats(earlier, later, train, same):
                found.append((earlier.feature, later.feature))
                break
    return found


def _repeats(earlier: Column, later: Column, train: npt.NDArray[np.bool_], same: float) -> bool:
    first, second = earlier.values[train], later.values[train]
    if not np.array_equal(np.isnan(first), np.isnan(second)):
        return False
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if len(first) < _MIN_ROWS:
        return False
    return _renamed(first, second) if earlier.is_category else _correlation(first, second) >= same


def _renamed(first: Floats, second: Floats) -> bool:
    """The same categories under other names: as many pairs as there are values on each side."""
    num_pairs = len(np.unique(first * (second.max() + 1) + second))
    return num_pairs == len(np.unique(first)) == len(np.unique(second)) > 1


def _correlation(first: Floats, second: Floats) -> float:
    spread = first.std() * second.std()
    return abs(float(((first - first.mean()) * (second - second.mean())).mean() / spread)) if spread > 0 else 0.0
