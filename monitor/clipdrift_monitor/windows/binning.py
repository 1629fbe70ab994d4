"""Bins of whole columns: the same answers as `bin_index` gives row by row, several times as fast.

Axes: N rows, K edges.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.columns import STRING, Column
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.profile import FeatureProfile, bin_index, summarise

Bins = npt.NDArray[Any]  # of any whole type that holds the largest bin
_MAX_COMPARED = 64  # edges; beyond, a search takes fewer steps than comparing with each
_MAX_VOCABULARIES = 256  # translations that a feature keeps: a column's words differ from batch to batch where there are many
_CELL_SHIFT = 16
_NUM_CELLS = 16_384  # half of all numbers of 16 bits: those below 2
_STEP = 32_768  # rows at once, so that what is worked on stays in the processor's cache


class Edges:
    """Finds the bin of each number: how many edges lie at or below it.

    Few edges are compared with each in turn, for all rows at once: no branch to guess wrong, four times as fast as a search.

    Args:
        edges: Rising; K edges make K + 1 bins.

    Example:
        >>> Edges((6.0, 18.0)).bins(np.array([5.0, 6.0, 20.0], "f4")).tolist()
        [0, 1, 2]
    """

    def __init__(self, edges: Sequence[float] | npt.NDArray[np.float64]) -> None:
        self._wide = np.asarray(edges, np.float64)
        with np.errstate(over="ignore"):
            narrow = self._wide.astype(np.float32)
        # a 4-byte number lies at or above an edge exactly where it lies at or above the next 4-byte number
        self._narrow = np.where(narrow < self._wide, np.nextafter(narrow, np.float32(np.inf)), narrow)

    def bins(self, values_N: npt.NDArray[Any]) -> Bins:
        """Bin of each value, shape [N], in 0..K; NaN is in any."""
        edges = self._narrow if values_N.dtype == np.float32 else self._wide
        if len(edges) > _MAX_COMPARED:
            return np.searchsorted(edges, values_N, side="right")
        found_N = np.zeros(len(values_N), np.uint8)
        is_above_N = np.empty(min(_STEP, len(values_N)), np.bool_)
        for start in range(0, len(values_N), _STEP):
            part = values_N[start : start + _STEP]
            above, count = is_above_N[: len(part)], found_N[start : start + len(part)]
            as_number = above.view(np.uint8)
            for edge in edges:
                np.greater_equal(part, edge, out=above)
                np.add(count, as_number, out=count)
        return found_N


class ProbabilityBins:
    """Finds the bin of each probability in any number of steps at once, where edges lie at least one part in 64 apart.

    The leading 16 bits of a 4-byte number name a cell of at most 1/128 of its size; a cell that holds one edge at most knows
    how many lie below it, and one comparison does the rest. Above one half the distance to 1, which is exact, takes the
    number's place.

    Args:
        edges: Rising, within (0, 1).

    Raises:
        ValueError: Two edges lie in one cell.
    """

    def __init__(self, edges: npt.NDArray[np.float64]) -> None:
        self._wide = Edges(edges)
        narrow = edges.astype(np.float32)
        self._narrow = np.where(narrow < edges, np.nextafter(narrow, np.float32(1)), narrow)
        cell_K = _cells(self._narrow)
        if len(np.unique(cell_K)) < len(edges):
            raise ValueError("edges of probabilities must lie at least one part in 64 apart")
        self._num_below = np.searchsorted(cell_K, np.arange(2 * _NUM_CELLS), side="left").astype(np.uint8)
        self._edge = np.full(2 * _NUM_CELLS, np.inf, np.float32)
        self._edge[cell_K] = self._narrow

    def bins(self, probability_N: npt.NDArray[Any]) -> Bins:
        """Bin of each probability, shape [N], in 0..K; what lies outside 0..1 is in the first or last."""
        if probability_N.dtype != np.float32:
            return self._wide.bins(probability_N)
        within_N = np.clip(probability_N, np.float32(0), np.float32(1))
        cell_N = _cells(within_N)
        found_N = self._num_below.take(cell_N)
        found_N += within_N >= self._edge.take(cell_N)
        return found_N


def _cells(probability_N: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """The cell of each probability; a higher cell holds higher ones."""
    is_high_N = probability_N >= np.float32(0.5)
    folded_N = np.where(is_high_N, np.float32(1) - probability_N, probability_N)
    cell_N = (folded_N.view(np.uint32) >> _CELL_SHIFT).astype(np.intp)
    return np.where(is_high_N, 2 * _NUM_CELLS - 1 - cell_N, cell_N)


class FeatureBins:
    """Finds the bin of each row's value of one feature; the bin behind the last counts missing values."""

    def __init__(self, feature: FeatureProfile) -> None:
        self._feature = feature
        self._edges = Edges(feature.edges)
        self._bin_of = {word: i for i, word in enumerate(feature.categories)}
        self._translations: dict[tuple[str, ...], npt.NDArray[np.intp]] = {}

    def bins(self, column: Column) -> Bins:
        """Bin of each row, shape [N], in 0..num_bins.

        Raises:
            PoisonError: The column does not fit itself.
            ValueError: It holds words where the profile has numbers.
        """
        is_words = column.dtype == STRING
        if self._feature.spec.kind == "categorical":
            if is_words and len(column.shape) == 1 and column.strings:
                return self._of_words(column)
            return bin_index(self._feature, column.array())
        if self._feature.summary == "length":
            return self._of_lengths(column)
        values = column.array()
        if values.dtype != np.float32 or values.ndim > 1:
            values = summarise(values.astype(np.float64), self._feature.summary)
        return self._of_numbers(values)

    def _of_numbers(self, values_N: npt.NDArray[Any]) -> Bins:
        found_N = self._edges.bins(values_N)
        is_there_N = np.isfinite(values_N)
        if not is_there_N.all():
            found_N[~is_there_N] = self._feature.num_bins
        return found_N

    def _of_lengths(self, column: Column) -> Bins:
        if column.dtype != STRING:
            raise ValueError(f"{self._feature.spec.name} is the length of words, got a column of {column.dtype}")
        lengths = np.array([len(word) for word in column.strings], np.float64)
        column.array()  # raises where a code stands for no word
        return self._edges.bins(lengths)[np.frombuffer(column.data, "<i4")] if column.strings else np.zeros(0, np.uint8)

    def _of_words(self, column: Column) -> Bins:
        translation = self._translations.get(column.strings)
        if translation is None:
            if len(self._translations) >= _MAX_VOCABULARIES:
                self._translations.clear()
            other = len(self._bin_of)
            translation = np.array([self._bin_of.get(word, other) for word in column.strings], np.intp)
            self._translations[column.strings] = translation
        try:
            code_N = np.frombuffer(column.data, "<u4").reshape(column.shape)
            return translation.take(code_N)  # a code below 0 lies beyond all words
        except (ValueError, IndexError) as error:
            raise PoisonError(f"a column of words does not fit itself: {error}") from error
