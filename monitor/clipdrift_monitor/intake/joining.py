"""Batches of one kind put below one another: what is counted in one go costs one go, however small the batches are."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np

from clipdrift_contract.columns import STRING, Column
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch

Batch = PredictionBatch | LabelBatch
_COMMON = ("sequence", "event_time_ms", "slice_index", "predicted", "scores")
_OF_LABELS = (*_COMMON, "label", "label_time_ms")
_ITEM_BYTES = {
    STRING: 4, "|b1": 1, "|i1": 1, "|u1": 1, "<i2": 2, "<u2": 2, "<f2": 2, "<i4": 4, "<u4": 4, "<f4": 4, "<i8": 8, "<u8": 8,
    "<f8": 8,
}  # fmt: skip


def kind_of(batch: Batch) -> Hashable:
    """Equal for batches that may be joined: of one version in one role under one deployment, with the same columns; labels, and
    what a shadow answered, of one serving process."""
    columns = [getattr(batch, name) for name in (_OF_LABELS if isinstance(batch, LabelBatch) else _COMMON)]
    if isinstance(batch, LabelBatch):
        names: tuple[str, ...] = (batch.epoch,)
    else:
        names = tuple([one.name for one in batch.features])
        names += (batch.epoch,) if batch.role == "shadow" else ()
        columns += [one.values for one in batch.features]
    return (
        type(batch), batch.model, batch.version, batch.role, batch.generation, names, tuple([one.dtype for one in columns]),
        tuple([one.shape[1:] for one in columns]),
    )  # fmt: skip


def grouped(batches: Iterable[Batch], max_rows: int) -> Iterator[list[Batch]]:
    """Batches that may be joined, together, each group in the order in which they came and of no more rows than `max_rows`,
    unless it is one batch."""
    open_groups: dict[Hashable, tuple[list[Batch], int]] = {}
    for batch in batches:
        kind, num_rows = kind_of(batch), len(batch.sequence)
        group, num_before = open_groups.get(kind, ([], 0))
        if group and num_before + num_rows > max_rows:
            yield group
            group, num_before = [], 0
        group.append(batch)
        open_groups[kind] = group, num_before + num_rows
    yield from (group for group, _ in open_groups.values())


def join(batches: Sequence[Batch]) -> Batch:
    """One batch with the rows of all, which are of one kind.

    Raises:
        PoisonError: A column of one of them does not hold what its shape says.
    """
    first = batches[0]
    if len(batches) == 1:
        return first
    names = _OF_LABELS if isinstance(first, LabelBatch) else _COMMON
    columns: dict[str, Any] = {name: join_columns([getattr(batch, name) for batch in batches]) for name in names}
    if isinstance(first, PredictionBatch):
        predictions = [batch for batch in batches if isinstance(batch, PredictionBatch)]
        by_place = zip(*(batch.features for batch in predictions), strict=True)
        columns["features"] = tuple(
            FeatureColumn(name=same[0].name, values=join_columns([one.values for one in same])) for same in by_place
        )
        columns["num_unrecorded"] = sum(batch.num_unrecorded for batch in predictions)
    return msgspec.structs.replace(first, **columns)


def join_columns(columns: Sequence[Column]) -> Column:
    """One column with the rows of all, which are of one type and shape.

    Raises:
        PoisonError: One does not hold what its shape says.

    Example:
        >>> parts = [Column.of(np.array(words, object)) for words in (["b", "a"], ["c"], ["a"])]
        >>> join_columns(parts).array().tolist()
        ['b', 'a', 'c', 'a']
    """
    first = columns[0]
    row_bytes = _ITEM_BYTES.get(first.dtype, 0) * prod(first.shape[1:])
    for column in columns:
        if not column.shape or len(column.data) != column.shape[0] * row_bytes:
            raise PoisonError(f"column of {column.dtype} and shape {column.shape} holds {len(column.data)} bytes")
    shape = (sum([column.shape[0] for column in columns]), *first.shape[1:])
    if first.dtype == STRING and any(column.strings != first.strings for column in columns):
        return _join_words(columns, shape)
    return Column(dtype=first.dtype, shape=shape, data=b"".join([column.data for column in columns]), strings=first.strings)


def _join_words(columns: Sequence[Column], shape: tuple[int, ...]) -> Column:
    """Each part's codes said anew in one list of words."""
    code_of: dict[str, int] = {}
    parts = []
    for column in columns:
        mine = np.array([code_of.setdefault(word, len(code_of)) for word in column.strings], "<i4")
        try:
            parts.append(mine.take(np.frombuffer(column.data, "<u4")).tobytes())
        except IndexError as error:
            raise PoisonError(f"string column has a code outside 0..{len(column.strings) - 1}") from error
    return Column(dtype=STRING, shape=shape, data=b"".join(parts), strings=tuple(code_of))
