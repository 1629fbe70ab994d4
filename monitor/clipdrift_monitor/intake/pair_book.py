"""Rows that a shadow and the model in service both answered, put together when the label comes, whichever of the two is first.

A shadow's rows carry the numbers of the champion's, so a row is known by (epoch, sequence). What waits for its other half is
kept in chunks of neighbouring numbers, for the store; how much may wait is bounded.

Axes: N rows, K scores.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import LabelBatch, PredictionBatch

CHUNK = 1_024
Place = tuple[str, str, int]  # model, epoch, chunk
Rows = npt.NDArray[Any]  # structured, as `_dtype` says
Side = Literal["answers", "labels"]


class Pairs(NamedTuple):
    """N rows with both halves, in one order: what the shadow answered, and what the champion answered, with the label."""

    shadow: Rows
    champion: Rows


class PairBook:
    """Halves by (model, epoch, sequence). What was changed is also in `changes` until `forget_changes`, for the store.

    Args:
        load: Packed chunks of a model that the store holds.
    """

    def __init__(self, load: Callable[[str], Mapping[tuple[str, int], bytes]]) -> None:
        self._load = load
        self._chunks: dict[str, dict[tuple[str, int], dict[Side, Rows]]] = {}
        self._changed: set[Place] = set()

    def add(self, model: str, epoch: str, side: Side, rows: Rows, at_most: int) -> tuple[Pairs, int]:
        """Put halves in; gives the pairs that this completes, and how many halves found no room.

        Args:
            model: Of the rows.
            epoch: Of the process that numbered them.
            side: "answers" of a shadow, or "labels" with what the champion answered.
            rows: As `answers_of` and `labels_of` make them.
            at_most: Halves of the model that may wait.
        """
        chunks = self._of(model)
        room = at_most - sum(len(rows) for chunk in chunks.values() for rows in chunk.values())
        done: list[tuple[Rows, Rows]] = []
        num_left_out = 0
        number_N = rows["sequence"] // np.uint64(CHUNK)
        other: Side = "labels" if side == "answers" else "answers"
        for number in np.unique(number_N).tolist():
            mine = rows[number_N == number]
            chunk = chunks.setdefault((epoch, int(number)), {})
            waiting = chunk.get(other)
            if waiting is not None and len(waiting):
                _, at_mine, at_theirs = np.intersect1d(mine["sequence"], waiting["sequence"], return_indices=True)
                done.append((mine[at_mine], waiting[at_theirs]))
                chunk[other] = np.delete(waiting, at_theirs)
                mine = np.delete(mine, at_mine)
            kept = mine[: max(0, room)]
            room -= len(kept)
            num_left_out += len(mine) - len(kept)
            known = chunk.get(side)
            chunk[side] = kept if known is None or not len(known) else np.concatenate([known, kept.astype(known.dtype)])
            self._changed.add((model, epoch, int(number)))
        mine, theirs = (np.concatenate([pair[i] for pair in done]) if done else rows[:0] for i in (0, 1))
        return (Pairs(mine, theirs) if side == "answers" else Pairs(theirs, mine)), num_left_out

    def let_go(self, model: str, before_ms: int) -> None:
        """Halves of an earlier time wait no more."""
        for (epoch, number), chunk in self._of(model).items():
            for side, rows in chunk.items():
                if len(rows) and (is_old_N := rows["time_ms"] < before_ms).any():
                    chunk[side] = rows[~is_old_N]
                    self._changed.add((model, epoch, number))

    def changes(self) -> Iterator[tuple[Place, bytes | None]]:
        """Chunks that were changed, packed; None: nothing waits in them."""
        for model, epoch, number in self._changed:
            chunk = self._chunks[model].get((epoch, number), {})
            yield (model, epoch, number), _packed(chunk) if any(len(rows) for rows in chunk.values()) else None

    def forget_changes(self) -> None:
        """The store has them now."""
        for model, epoch, number in self._changed:
            chunk = self._chunks[model].get((epoch, number), {})
            if not any(len(rows) for rows in chunk.values()):
                self._chunks[model].pop((epoch, number), None)
        self._changed.clear()

    def clear(self) -> None:
        """Forget everything that is not in the store."""
        self._chunks.clear()
        self._changed.clear()

    def num_waiting(self, model: str) -> int:
        """Halves of a model that wait."""
        return sum(len(rows) for chunk in self._of(model).values() for rows in chunk.values())

    def _of(self, model: str) -> dict[tuple[str, int], dict[Side, Rows]]:
        if model not in self._chunks:
            self._chunks[model] = {place: _unpacked(body) for place, body in self._load(model).items()}
        return self._chunks[model]


def answers_of(batch: PredictionBatch) -> Rows:
    """What a shadow answered, as the book keeps it."""
    return _rows(batch, np.full(len(batch.sequence), np.nan))


def labels_of(batch: LabelBatch, chosen_N: npt.NDArray[np.bool_]) -> Rows:
    """The chosen rows' labels, with what the champion answered, as the book keeps it."""
    return _rows(batch, batch.label.array())[chosen_N]


def _rows(batch: PredictionBatch | LabelBatch, label_N: npt.NDArray[Any]) -> Rows:
    scores_NK = batch.scores.array()
    rows = np.zeros(len(batch.sequence), _dtype(scores_NK.shape[1]))
    for name, column in (
        ("sequence", batch.sequence), ("time_ms", batch.event_time_ms), ("slice", batch.slice_index),
        ("predicted", batch.predicted),
    ):  # fmt: skip
        rows[name] = column.array()
    rows["label"] = label_N
    rows["scores"] = scores_NK
    return rows


def _dtype(num_scores: int) -> np.dtype[Any]:
    return np.dtype([
        ("sequence", "<u8"), ("time_ms", "<i8"), ("slice", "<i2"), ("predicted", "<f8"), ("label", "<f8"),
        ("scores", "<f4", (num_scores,)),
    ])  # fmt: skip


def _packed(chunk: Mapping[Side, Rows]) -> bytes:
    return msgspec.msgpack.encode(
        {side: (rows.dtype["scores"].shape[0], rows.tobytes()) for side, rows in chunk.items() if len(rows)}
    )


def _unpacked(body: bytes) -> dict[Side, Rows]:
    found = msgspec.msgpack.decode(body, type=dict[Side, tuple[int, bytes]])
    return {side: np.frombuffer(rows, _dtype(num_scores)) for side, (num_scores, rows) in found.items()}
