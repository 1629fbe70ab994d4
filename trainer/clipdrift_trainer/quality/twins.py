"""Pairs of a held-out row and a training row that are the same row: equal in every feature, or all but equal.

Equal rows are no copies where rows are coarse: a row of three categories has many equals by nature. What tells copies is that
their labels are equal too, beyond what the class shares bring about.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipdrift_trainer.quality.table import Ints, Table

_SAME_VALUE = 1e-3  # of the label's standard deviation: nearer values of a regression count as the same label


@dataclass(frozen=True, eq=False)
class Twins:
    """Held-out rows P with the training row that each equals, as positions in all rows."""

    held_out_P: Ints
    train_P: Ints
    same_label_P: npt.NDArray[np.bool_]
    chance: float  # share of equal labels that pairs drawn at random from the two sides of these pairs would show

    def __len__(self) -> int:
        return len(self.held_out_P)

    @cached_property
    def kappa(self) -> float:
        """Agreement of the labels beyond chance: 1 for copies, 0 for strangers, NaN where only one label occurs."""
        if not len(self) or self.chance >= 1:
            return float("nan")
        return float((self.same_label_P.mean() - self.chance) / (1 - self.chance))


def pair_up(table: Table, held_out_P: Ints, train_P: Ints) -> Twins:
    """The pairs with what their labels say."""
    ours_P, theirs_P = table.rows.label[held_out_P], table.rows.label[train_P]
    if table.task.kind == "regression":
        same_P = np.abs(ours_P - theirs_P) <= _SAME_VALUE * max(float(table.rows.label.std()), 1e-12)
        return Twins(held_out_P, train_P, same_P, 0.0)
    num_classes = len(table.task.classes)
    ours_K, theirs_K = (np.bincount(side_P.astype(int), minlength=num_classes) for side_P in (ours_P, theirs_P))
    chance = float((ours_K * theirs_K).sum() / max(1, len(held_out_P)) ** 2)
    return Twins(held_out_P, train_P, ours_P == theirs_P, chance)


def exact_twins(table: Table) -> Twins:
    """Each held-out row that equals a training row in every feature, paired with the first such row."""
    key_N = table.keys
    train = np.flatnonzero(~table.is_held_out_N)
    known, first = np.unique(key_N[train], return_index=True)
    held_out = np.flatnonzero(table.is_held_out_N)
    if not len(known):
        return pair_up(table, held_out[:0], held_out[:0])
    at = np.minimum(np.searchsorted(known, key_N[held_out]), len(known) - 1)
    is_twin = known[at] == key_N[held_out]
    return pair_up(table, held_out[is_twin], train[first[at[is_twin]]])


def coordinates(table: Table, max_dimensions: int = 64) -> npt.NDArray[np.float32]:
    """Every row as a point [N, D], scaled so that two rows drawn at random lie about 1.4 apart; missing numbers at the median.

    Numbers are centred at their median and scaled by half the distance of their 16 % and 84 % quantiles; every category is a
    random direction, so that two categories lie far apart. Of more dimensions than `max_dimensions` an even choice is taken.
    """
    generator = np.random.default_rng(1)
    pieces: list[npt.NDArray[np.float32]] = []
    for spec in table.task.features:
        if spec.kind == "categorical":
            code_N = table.frame[spec.name].rank("dense").fill_null(0).to_numpy().astype(np.int64)
            pieces.append(generator.normal(size=(int(code_N.max(initial=0)) + 1, 3)).astype(np.float32)[code_N])
        else:
            column = table.rows.features[spec.name]
            pieces.append(_scaled(column.reshape(len(column), -1).astype(np.float32)))
    joined = np.concatenate(pieces, axis=1) if pieces else np.zeros((len(table), 0), np.float32)
    joined = joined[:, joined.std(axis=0) > 0] if len(joined) else joined
    if joined.shape[1] > max_dimensions:
        joined = joined[:, np.unique(np.linspace(0, joined.shape[1] - 1, max_dimensions).astype(int))]
    return joined / np.float32(np.sqrt(max(1, joined.shape[1])))


def _scaled(numbers_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    some_SD = numbers_ND[:: max(1, len(numbers_ND) // 5_000)]
    filled = np.where(np.isnan(some_SD).all(axis=0), 0.0, some_SD) if len(some_SD) else np.zeros((1, numbers_ND.shape[1]))
    low, middle, high = np.nanquantile(filled, (0.16, 0.5, 0.84), axis=0)
    # where most values are equal the quantiles lie close, or coincide: a third of the standard deviation is the least scale
    scale = np.maximum((high - low) / 2, np.nanstd(filled, axis=0) / 3)
    scaled = np.clip(np.nan_to_num((numbers_ND - middle) / np.where(scale > 0, scale, 1.0)), -10, 10)
    return np.asarray(scaled, np.float32)
