"""A task's rows as the checks look at them: one polars frame of all rows, and single columns of an even sample.

Array names end in their axes: N all rows, S sampled rows, B bins, K classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.profile import FeatureProfile, ReferenceProfile, summarise
from clipdrift_trainer.quality.row_keys import row_keys
from clipdrift_trainer.tasks.task import Rows, Task

MISSING_WORDS = ("", "nan", "NaN", "NAN", "None", "none", "null", "NULL", "<NA>", "N/A", "NA", "n/a")
"""What a missing category reads like once it has become a word."""
_MAX_ELEMENTS = 16  # of a sequence, looked at one by one
_MAX_BINS = 64
_ROWS_A_BIN = 20

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Column:
    """One number or category a row, on the sampled rows. A sequence gives a column for each of up to 16 elements, and one for
    its mean."""

    name: str  # the feature's own, with the element's position for a sequence: trace[3,1]
    feature: str
    is_category: bool
    values: Floats  # [S]; categories by their code; NaN where missing

    @cached_property
    def is_missing(self) -> npt.NDArray[np.bool_]:
        return np.isnan(self.values)

    @cached_property
    def num_distinct(self) -> int:
        return len(np.unique(self.values[~self.is_missing]))

    @cached_property
    def bins(self) -> Ints:
        """0 where missing, else 1 for the lowest values; categories, and numbers of few values, get a bin each."""
        bin_S: Ints = np.zeros(len(self.values), np.int64)
        present = self.values[~self.is_missing]
        if self.is_category:
            bin_S[~self.is_missing] = present.astype(np.int64) + 1
        elif len(present):
            num_bins = int(np.clip(len(present) // _ROWS_A_BIN, 2, _MAX_BINS))
            edges = np.unique(np.quantile(present, np.linspace(0, 1, num_bins + 1)[1:-1], method="inverted_cdf"))
            bin_S[~self.is_missing] = np.searchsorted(edges, present, side="right") + 1
        return bin_S


@dataclass(frozen=True, eq=False)
class Table:
    """N rows in time order, which of them are held out, and what the model in service was trained on (None: nothing is).

    Where there are more than `max_rows`, `sample` holds evenly spaced ones: the same rows give the same sample.
    """

    task: Task
    rows: Rows
    is_held_out_N: npt.NDArray[np.bool_]
    profile: ReferenceProfile | None = None
    max_rows: int = 20_000

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """A column a feature: numbers as Float32 and categories as String, null where missing; of a sequence its mean, lowest
        and highest number (`name:mean`, `name:min`, `name:max`), null where it has none."""
        columns: dict[str, pl.Series] = {}
        for spec in self.task.features:
            column = self.rows.features[spec.name]
            if spec.kind == "categorical":
                words = pl.Series(column.tolist(), dtype=pl.String)
                columns[spec.name] = words.set(words.is_in(MISSING_WORDS), None)
            elif column.ndim == 1:
                columns[spec.name] = pl.Series(column).fill_nan(None)
            else:
                flat = column.reshape(len(column), -1)
                low = np.fmin.reduce(flat, axis=1, initial=np.inf)
                high = np.fmax.reduce(flat, axis=1, initial=-np.inf)
                mean = summarise(column.astype(np.float64)).astype(np.float32)
                for part, number_N in (("mean", mean), ("min", low), ("max", high)):
                    finite = np.where(np.isfinite(number_N), number_N, np.nan).astype(np.float32)
                    columns[f"{spec.name}:{part}"] = pl.Series(finite).fill_nan(None)
        return pl.DataFrame(columns)

    @cached_property
    def days(self) -> Ints:
        return self.rows.time_ms // MS_PER_DAY

    @cached_property
    def keys(self) -> npt.NDArray[np.uint64]:
        """A digest of each row's features."""
        return row_keys(self.task, self.rows)

    @cached_property
    def sample(self) -> Ints:
        return evenly_spaced(len(self), self.max_rows)

    @cached_property
    def sampled_labels(self) -> Floats:
        return self.rows.label[self.sample]

    @cached_property
    def sampled_classes(self) -> Ints:
        """Class index of each sampled row; a regression's values fall into at most 8 classes of equal size."""
        if self.task.kind != "regression":
            return self.sampled_labels.astype(np.int64)
        edges = (
            np.unique(np.quantile(self.sampled_labels, np.linspace(0, 1, 9)[1:-1])) if len(self.sampled_labels) else np.zeros(0)
        )
        return np.searchsorted(edges, self.sampled_labels, side="right").astype(np.int64)

    @cached_property
    def sampled_held_out(self) -> npt.NDArray[np.bool_]:
        return self.is_held_out_N[self.sample]

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Every feature, on the sampled rows."""
        found: list[Column] = []
        for spec in self.task.features:
            if spec.kind == "categorical":
                found.append(Column(spec.name, spec.name, True, self._codes(spec.name)))
            else:
                found += _number_columns(spec.name, self.rows.features[spec.name][self.sample].astype(np.float64))
        return tuple(found)

    def _codes(self, name: str) -> Floats:
        words = self.frame[name].gather(self.sample)
        return words.rank("dense").cast(pl.Float64).fill_null(float("nan")).to_numpy() - 1

    def profile_of(self, feature: str) -> FeatureProfile | None:
        """What the model in service knows of one feature."""
        known = self.profile.features if self.profile is not None else ()
        return next((one for one in known if one.spec.name == feature and one.counts), None)

    def first(self, positions: npt.NDArray[Any]) -> Ints:
        """Positions in all rows of positions in the sample."""
        first: Ints = self.sample[positions]
        return first


def evenly_spaced(num_rows: int, limit: int) -> Ints:
    """At most `limit` of the positions 0..num_rows - 1, as far from each other as can be; all of them where they are no more.

    Example:
        >>> evenly_spaced(9, 3).tolist(), evenly_spaced(2, 3).tolist()
        ([0, 4, 8], [0, 1])
    """
    return np.arange(num_rows) if num_rows <= limit else np.linspace(0, num_rows - 1, limit).astype(np.int64)


def _number_columns(name: str, values: Floats) -> list[Column]:
    if values.ndim == 1:
        return [Column(name, name, False, values)]
    shape = values.shape[1:]
    num_elements = int(np.prod(shape))
    chosen = np.unique(np.linspace(0, num_elements - 1, min(num_elements, _MAX_ELEMENTS)).astype(int))
    flat = values.reshape(len(values), -1)
    parts = [
        Column(f"{name}[{','.join(str(int(i)) for i in np.unravel_index(at, shape))}]", name, False, flat[:, at])
        for at in chosen
    ]
    return [*parts, Column(f"{name} (mean)", name, False, summarise(values))]
