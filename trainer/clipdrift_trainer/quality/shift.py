"""How different the held-out rows are from the training rows, feature by feature: a note, never a reason to stop."""

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_trainer.quality.finding import Finding, passed, skipped
from clipdrift_trainer.quality.table import Column, Floats, Table

_MIN_ROWS = 50
_NOTABLE = 0.1


class ShiftPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A note on features that differ between training and held-out rows."""

    enabled: bool = True
    """Off: not looked at."""


def check_shift(table: Table, policy: ShiftPolicy) -> Finding:
    """Always passes: whole days are held out, so some difference is the weather's."""
    held_out = table.sampled_held_out
    if min(held_out.sum(), (~held_out).sum()) < _MIN_ROWS:
        return skipped("too few rows on one side")
    if not table.columns:
        return skipped("there are no features")
    distances = {column.name: distance(column, held_out) for column in table.columns}
    name = max(distances, key=lambda one: distances[one])
    words = f"training and held-out rows differ most in {name} (Jensen-Shannon distance {distances[name]:.2f})"
    if distances[name] >= _NOTABLE:
        words += ": the held-out figures are those of somewhat other rows"
    return passed(words, distance=distances[name])


def distance(column: Column, held_out: npt.NDArray[np.bool_]) -> float:
    """Jensen-Shannon distance of the column's bins on both sides, less what chance alone brings about: 0 equal, 1 disjoint.

    Missing values are a bin of their own.

    Source: Lin 1991; for two samples of one distribution over K bins the divergence is about (K - 1) (1/n + 1/m) / (8 ln 2)
    bits, since it is then an eighth of a chi-square distance.
    """
    # missing values, 0, stay a bin of their own; of a number's up to 64 bins four are joined, so that each holds enough rows
    bins = column.bins if column.is_category else (column.bins + 3) // 4
    num_bins = int(bins.max(initial=0)) + 1
    sides = [np.bincount(bins[side], minlength=num_bins) for side in (held_out, ~held_out)]
    first, second = (count / max(1, count.sum()) for count in sides)
    divergence = _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2
    num_used = int(((sides[0] + sides[1]) > 0).sum())
    by_chance = (num_used - 1) * sum(1 / max(1, count.sum()) for count in sides) / (8 * np.log(2))
    return float(np.sqrt(max(0.0, divergence - by_chance)))


def _entropy(share: Floats) -> float:
    present = share[share > 0]
    return float(-(present * np.log2(present)).sum())
