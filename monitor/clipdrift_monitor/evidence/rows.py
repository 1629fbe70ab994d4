"""Recorded rows of one model version off the bus: streamed, filtered, sampled, joined with their labels.

Array axes: N rows of a batch, K scores.
"""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.bus.log import Bus, Record
from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import PoisonError, RetryableError
from clipdrift_contract.events import LABELS, PREDICTIONS, LabelBatch, PredictionBatch
from clipdrift_contract.profile import summarise
from clipdrift_monitor.evidence.order import EvidenceOrder

MAX_ROWS = 5_000  # a side: Evidently's distances no longer change beyond it, its time and the file's size do
_MAX_RECORDS = 100
_POLL_SECONDS = 1.0
_MAX_EMPTY_POLLS = 30
_log = logging.getLogger(__name__)
Columns = dict[str, npt.NDArray[Any]]


class Side(NamedTuple):
    """The rows of one window: how many there are, and a sample of them in time order.

    `outputs` has "predicted" [N], "scores" [N, K], "slice_index", "event_time_ms" and "label" (NaN where there is none).
    """

    num_rows: int
    features: Columns
    outputs: Columns

    @property
    def num_sampled(self) -> int:
        return len(self.outputs["predicted"]) if self.outputs else 0

    @property
    def num_labelled(self) -> int:
        return int(np.isfinite(self.outputs["label"]).sum()) if self.outputs else 0


class Found(NamedTuple):
    reference: Side
    current: Side


class Sampler:
    """Keeps a uniform sample of the rows added to it: those with the smallest keys, whatever order they come in.

    Args:
        max_rows: Rows kept.

    Example:
        >>> sampler = Sampler(2)
        >>> sampler.add(np.array([30, 10, 20], "u8"), {"x": np.array([3.0, 1.0, 2.0])})
        >>> sampler.num_rows, sorted(sampler.sample()[1]["x"].tolist())
        (3, [1.0, 2.0])
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._limit = np.uint64(2**64 - 1)
        self._pieces: list[tuple[npt.NDArray[np.uint64], Columns]] = []
        self._num_kept = 0
        self.num_rows = 0

    def add(self, key_N: npt.NDArray[np.uint64], columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Add N rows; two rows with one key are one row."""
        self.num_rows += len(key_N)
        small_N = key_N <= self._limit
        if small_N.any():
            self._pieces.append((key_N[small_N], {name: values[small_N] for name, values in columns.items()}))
            self._num_kept += int(small_N.sum())
        if self._num_kept > 2 * self._max_rows:
            self._shrink()

    def sample(self) -> tuple[npt.NDArray[np.uint64], Columns]:
        """Keys and columns of the rows kept."""
        if not self._pieces:
            return np.zeros(0, np.uint64), {}
        self._shrink()
        return self._pieces[0]

    def _shrink(self) -> None:
        key_N = np.concatenate([keys for keys, _ in self._pieces])
        key_N, index_N = np.unique(key_N, return_index=True)
        index_N = index_N[: self._max_rows]
        names = dict.fromkeys(name for _, columns in self._pieces for name in columns)
        columns = {name: self._joined(name)[index_N] for name in names}
        key_N = key_N[: self._max_rows]
        if len(key_N) == self._max_rows:
            self._limit = key_N[-1]
        self._pieces, self._num_kept = [(key_N, columns)], len(key_N)

    def _joined(self, name: str) -> npt.NDArray[Any]:
        """One column of all pieces; a piece that lacks it counts as missing values."""
        model = next(columns[name] for _, columns in self._pieces if name in columns)
        missing: Any = None if model.dtype.kind == "O" else np.nan
        parts = [
            columns[name] if name in columns else np.full((len(keys), *model.shape[1:]), missing)
            for keys, columns in self._pieces
        ]
        return np.concatenate(parts)


def key_of_rows(epoch: str, sequence_N: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A pseudo-random 64-bit key for each prediction, the same in every life: a seeded sample needs no generator.

    Source: the finalizer of SplitMix64 (Steele, Lea, Flood 2014) over the sequence number, offset by a digest of the epoch.
    """
    offset = int.from_bytes(hashlib.blake2b(epoch.encode(), digest_size=8).digest(), "little")
    x = np.asarray(sequence_N, np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.array([offset], np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


def read_rows(bus: Bus, order: EvidenceOrder, max_rows: int = MAX_ROWS) -> Found:
    """Both windows' rows; memory is bounded by the sample, not by the bus.

    Raises:
        RetryableError: The bus is away.
    """
    windows = _windows(order)
    samplers = [Sampler(max_rows) for _ in windows]
    slice_index = order.slice_names.index(order.slice) if order.slice in order.slice_names else None
    for batch in _batches(bus, PREDICTIONS, order):
        if isinstance(batch, PredictionBatch):
            with _leaving_out_misfits():
                _add(batch, windows, samplers, slice_index)
    samples = [sampler.sample() for sampler in samplers]
    labels = _labels(bus, order, np.sort(np.concatenate([keys for keys, _ in samples])))
    sides = [_side(sampler, *sample, labels) for sampler, sample in zip(samplers, samples, strict=True)]
    return Found(*sides)


def _windows(order: EvidenceOrder) -> tuple[tuple[int, int], tuple[int, int]]:
    return (order.reference_start_ms, order.reference_end_ms), (order.current_start_ms, order.current_end_ms)


def _add(
    batch: PredictionBatch, windows: tuple[tuple[int, int], ...], samplers: list[Sampler], slice_index: int | None
) -> None:
    time_N, slice_N = batch.event_time_ms.array(), batch.slice_index.array()
    columns: Columns = {}
    for (start_ms, end_ms), sampler in zip(windows, samplers, strict=True):
        chosen_N = (time_N >= start_ms) & (time_N < end_ms)
        if slice_index is not None:
            chosen_N &= slice_N == slice_index
        if not chosen_N.any():
            continue
        columns = columns or _columns(batch)  # a batch outside both windows is never unpacked
        key_N = key_of_rows(batch.epoch, batch.sequence.array())
        sampler.add(key_N[chosen_N], {name: values[chosen_N] for name, values in columns.items()})


def _columns(batch: PredictionBatch) -> Columns:
    columns: Columns = {
        "=predicted": batch.predicted.array(),
        "=scores": batch.scores.array(),
        "=slice_index": batch.slice_index.array(),
        "=event_time_ms": batch.event_time_ms.array(),
    }
    for feature in batch.features:
        values = feature.values.array()
        columns[feature.name] = values if values.dtype.kind == "O" else summarise(values.astype(np.float64))
    return columns


def _labels(bus: Bus, order: EvidenceOrder, key_sorted_M: npt.NDArray[np.uint64]) -> dict[int, float]:
    """The first label of each sampled row, by its key."""
    labels: dict[int, float] = {}
    if not len(key_sorted_M):
        return labels
    for batch in _batches(bus, LABELS, order):
        if not isinstance(batch, LabelBatch):
            continue
        with _leaving_out_misfits():
            key_N, label_N = key_of_rows(batch.epoch, batch.sequence.array()), batch.label.array()
            place_N = np.minimum(np.searchsorted(key_sorted_M, key_N), len(key_sorted_M) - 1)
            known_N = key_sorted_M[place_N] == key_N
            for key, label in zip(key_N[known_N].tolist(), label_N[known_N].tolist(), strict=True):
                labels.setdefault(key, label)  # a receipt counts once
    return labels


@contextlib.contextmanager
def _leaving_out_misfits() -> Iterator[None]:
    """Columns of a batch that do not fit each other: the monitor counts it, here it is only left out."""
    try:
        yield
    except (PoisonError, ValueError, IndexError) as error:
        _log.warning("a batch is left out, its columns do not fit: %s", error)


def _side(sampler: Sampler, key_N: npt.NDArray[np.uint64], columns: Columns, labels: dict[int, float]) -> Side:
    if not len(key_N):
        return Side(sampler.num_rows, {}, {})
    order_N = np.argsort(columns["=event_time_ms"], kind="stable")
    label_N = np.array([labels.get(key, np.nan) for key in key_N.tolist()])
    features = {name: values[order_N] for name, values in columns.items() if not name.startswith("=")}
    outputs = {name[1:]: values[order_N] for name, values in columns.items() if name.startswith("=")}
    return Side(sampler.num_rows, features, {**outputs, "label": label_N[order_N]})


def _batches(bus: Bus, topic: str, order: EvidenceOrder) -> Iterator[PredictionBatch | LabelBatch]:
    """Batches of the order's model and version that lie on the topic now, each once."""
    seen: set[str] = set()
    for record in _records(bus, topic, min(order.reference_start_ms, order.current_start_ms) - MS_PER_DAY):
        if record.headers.get("ce_subject", order.model.encode()) != order.model.encode():
            continue  # another model's: not even decoded
        try:
            envelope, event = decode(record.headers, record.value)
            if not isinstance(event, PredictionBatch | LabelBatch) or envelope.id in seen:
                continue
            if (event.model, event.version) == (order.model, order.version):
                seen.add(envelope.id)
                yield event
        except PoisonError as error:  # the monitor parks and counts it; here it is only left out
            _log.warning("a record of %s is left out: %s", topic, error)


def _records(bus: Bus, topic: str, from_ms: int) -> Iterator[Record]:
    """What lies on the topic at this moment, from a record time on; a record is written after the event it tells of."""
    consumer = bus.consumer(None, (topic,))
    try:
        consumer.seek_to_time(from_ms)
        num_left, num_empty = consumer.lag(), 0  # a bus that is written to all the time must not keep us for ever
        while num_left > 0 and consumer.lag() > 0:
            records = consumer.poll(_MAX_RECORDS, _POLL_SECONDS)
            num_left -= len(records)
            num_empty = 0 if records else num_empty + 1
            if num_empty > _MAX_EMPTY_POLLS:
                raise RetryableError(
                    f"nothing came from the bus for {num_empty * _POLL_SECONDS:.0f} s; {num_left} records are left"
                )
            yield from records
    finally:
        consumer.close()
