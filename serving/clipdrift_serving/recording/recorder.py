"""Keeps references to what was predicted and turns them, off the hot path, into columnar events of up to 512 rows.

What is kept is one reference a turn of the loop, not one a request: the rows of every request that ran together. Everything
that costs something (joining, sampling, the field policy, packing, writing) happens once for some 512 rows, in `flush`.

Axes: N rows, K scores.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract import metrics as names
from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch, Role
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_serving.dataplane.receipts import Origin, Receipt, rows_of, scores_in
from clipdrift_serving.recording.spool import SpoolFullError
from clipdrift_serving.recording.tally import Tally

BATCH_ROWS = 512
_Place = tuple[str, str, Role, int]  # model, version, role, generation
_ARRAYS = ("sequence", "event_time_ms", "slice_index", "predicted", "scores")
_log = logging.getLogger(__name__)


class Predicted(NamedTuple):
    """The N rows of one model version that ran together, as references to arrays that exist anyway: one request or many."""

    model: str
    version: str
    role: Role
    generation: int
    sequence: npt.NDArray[Any]  # u8 [N]
    event_time_ms: npt.NDArray[Any]  # i8 [N]
    slice_index: npt.NDArray[Any]  # i2 [N]
    predicted: npt.NDArray[Any]  # f8 [N]
    scores: npt.NDArray[Any]  # f4 [N, K]
    features: Mapping[str, npt.NDArray[Any]]
    request_ids: Sequence[tuple[str, int]] = ()  # per request the caller's own id ("": none) and its number of rows
    profile: ReferenceProfile | None = None  # of the version: what it declares may be recorded


class Labelled(msgspec.Struct, frozen=True, gc=False):
    """A receipt with its label."""

    receipt: Receipt
    label: float
    label_time_ms: int


class EventSink(Protocol):
    """Where events go: the spool."""

    def append(self, event: PredictionBatch | LabelBatch) -> None:
        """Keep one event.

        Raises:
            SpoolFullError: There is no room; nothing was kept.
        """
        ...


class FeatureFilter(Protocol):
    """What of the features may be recorded; see recording/fields.py."""

    def apply(
        self, model: str, profile: ReferenceProfile | None, features: Mapping[str, npt.NDArray[Any]]
    ) -> Mapping[str, npt.NDArray[Any]]:
        """The columns to record, each of N rows; called in the recorder's thread, for many rows at a time."""
        ...


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Which share of the predicted rows is recorded. Receipts and labels are never sampled."""

    ratio: float = 1.0
    """Share of the rows, above 0 and at most 1."""
    by_model: dict[str, float] = {}
    """Shares of single models, in place of `ratio`."""

    def __post_init__(self) -> None:
        for name, ratio in (("ratio", self.ratio), *self.by_model.items()):
            if not 0 < ratio <= 1:
                raise ValueError(f"{name}: the share of rows that is recorded must be above 0 and at most 1, got {ratio!r}")

    def chosen(self, model: str, epoch: str, sequence_N: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Which rows are recorded, shape [N]; None: all. The same row is chosen for every version (champion and shadow).

        Source: the rows whose hash, spread evenly over 0..2^64, lies below the ratio; the hash is the finaliser of SplitMix64
        (Steele, Lea, Flood 2014) over the sequence number and the epoch.

        Example:
            >>> chosen = Sampling(ratio=0.25).chosen("m", "0123456789abcdef", np.arange(100_000, dtype="u8"))
            >>> round(float(chosen.mean()), 2)
            0.25
        """
        ratio = self.by_model.get(model, self.ratio)
        if ratio >= 1:
            return None
        hash_N = sequence_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
            int.from_bytes(epoch.encode()[-8:], "little")
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            hash_N = (hash_N ^ (hash_N >> np.uint64(shift))) * np.uint64(factor)
        below: npt.NDArray[np.bool_] = (hash_N ^ (hash_N >> np.uint64(31))) < np.uint64(int(ratio * 2.0**64))
        return below


class Recorder:
    """Collects predictions and writes them to the spool. One thread (the event loop's) only; bounded memory.

    Every row that `add` is given is recorded or counted, by its reason, as not recorded: "memory" (too many wait),
    "spool_full", "sampled", "fault" (it cannot be packed). The next event that is written says how many there were since the
    last.

    Args:
        spool: Where events go.
        epoch: Identity of this process's life.
        metrics: For counts of what was not recorded.
        max_pending_rows: Rows kept in memory at most.
        fields: What of the features may be recorded; None: all of them.
        sampling: Which share of the rows is recorded.
        remember: Called with what has request ids, also where it is not recorded; None: request ids are not kept.
    """

    def __init__(
        self,
        spool: EventSink,
        epoch: str,
        metrics: MetricSet,
        max_pending_rows: int,
        *,
        fields: FeatureFilter | None = None,
        sampling: Sampling | None = None,
        remember: Callable[[Predicted], None] | None = None,
    ) -> None:
        self._spool = spool
        self._epoch = epoch
        self._dropped = metrics.counter(names.SERVING_UNRECORDED)
        self._queue_gauge = metrics.gauge(names.SERVING_RECORDER_QUEUE)
        self._max_pending_rows = max_pending_rows
        self._fields = fields
        self._sampling = sampling or Sampling()
        self._remember = remember
        self._pending: list[Predicted] = []
        self._num_pending = 0
        self._num_unrecorded: dict[str, int] = {}
        self._tallies: WeakValueDictionary[_Place, Tally] = WeakValueDictionary()

    @property
    def num_pending_rows(self) -> int:
        return self._num_pending

    def tally(self, model: str, version: str, role: Role, generation: int) -> Tally:
        """Where to count how requests to a version in its role fare; the same one as long as anybody holds it.

        What stands in it goes with the next batch of that version, or, where requests fail and no row comes of them, by itself.
        """
        place = (model, version, role, generation)
        found = self._tallies.get(place)
        if found is None:
            found = self._tallies[place] = Tally()
        return found

    def add(self, predicted: Predicted) -> None:
        """Keep a reference; counted as dropped when too many wait."""
        if self._remember is not None and predicted.request_ids:
            self._remember(predicted)
        num_rows = len(predicted.sequence)
        if self._num_pending + num_rows > self._max_pending_rows:
            self._drop(predicted.model, num_rows, "memory")
            return
        self._pending.append(predicted)
        self._num_pending += num_rows

    def flush(self) -> None:
        """Write everything that waits to the spool, each version's rows in the order in which they were answered."""
        pending, self._pending, self._num_pending = self._pending, [], 0
        for group in _grouped(pending):
            try:
                self._write(group)
            except Exception:  # noqa: BLE001  what cannot be packed must not end the recording of everything else
                _log.exception("predictions of %s are dropped", group[0].model)
                self._drop(group[0].model, sum(len(one.sequence) for one in group), "fault")
        for place, tally in list(self._tallies.items()):
            if tally.num_failed or len(tally.latency_ns) >= BATCH_ROWS:
                self._tell_alone(place, tally)
        self._queue_gauge.set(self._num_pending)

    def add_labels(self, labelled: Sequence[Labelled]) -> None:
        """Write labels to the spool at once: when this returns they survive a crash.

        Raises:
            SpoolFullError: They could not be written; the caller must not acknowledge them.
        """
        for origin, group in _grouped_labels(labelled):
            for start in range(0, len(group), BATCH_ROWS):
                self._spool.append(_label_batch(origin, group[start : start + BATCH_ROWS]))

    def _write(self, group: list[Predicted]) -> None:
        """Pack and write one version's rows; raises, for what cannot be packed, only before the first of them is written."""
        first = group[0]
        tally = self._tallies.get((first.model, first.version, first.role, first.generation)) or Tally()
        for batch in list(self._batches(group)):
            batch = msgspec.structs.replace(
                batch,
                num_unrecorded=self._num_unrecorded.get(batch.model, 0),
                num_failed=tally.num_failed,
                latency_histogram=tally.latency_histogram(),
            )
            try:
                self._spool.append(batch)
            except SpoolFullError as error:
                _log.error("predictions are dropped: %s", error)
                self._drop(batch.model, len(batch.sequence), "spool_full")
            except Exception:  # noqa: BLE001  as in flush; the batches before it are written and must not be counted too
                _log.exception("predictions of %s are dropped", batch.model)
                self._drop(batch.model, len(batch.sequence), "fault")
            else:
                self._num_unrecorded.pop(batch.model, None)
                tally.clear()

    def _tell_alone(self, place: _Place, tally: Tally) -> None:
        """A batch without rows that says how requests fared; kept for the next flush where there is no room."""
        model, version, role, generation = place
        none = np.zeros(0)
        batch = PredictionBatch(
            model=model, version=version, epoch=self._epoch, sequence=Column.of(none.astype("u8")),
            event_time_ms=Column.of(none.astype("i8")), slice_index=Column.of(none.astype("i2")), predicted=Column.of(none),
            scores=Column.of(np.zeros((0, 1), "f4")), role=role, generation=generation, num_failed=tally.num_failed,
            latency_histogram=tally.latency_histogram(),
        )  # fmt: skip
        try:
            self._spool.append(batch)
        except SpoolFullError as error:
            _log.error("how requests to %s fared is not told yet: %s", model, error)
            del tally.latency_ns[BATCH_ROWS:]  # a sample; it must not grow while there is no room
        else:
            tally.clear()

    def _batches(self, group: list[Predicted]) -> Iterator[PredictionBatch]:
        first = group[0]
        joined = {name: _joined([getattr(one, name) for one in group]) for name in _ARRAYS}
        features: Mapping[str, npt.NDArray[Any]] = {
            name: _joined([one.features[name] for one in group]) for name in first.features
        }
        chosen_N = self._sampling.chosen(first.model, self._epoch, joined["sequence"])
        if chosen_N is not None:
            joined = {name: values[chosen_N] for name, values in joined.items()}
            features = {name: values[chosen_N] for name, values in features.items()}
        if self._fields is not None:
            features = self._fields.apply(first.model, first.profile, features)
        for start in range(0, len(joined["sequence"]), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            packed: dict[str, Any] = {name: Column.of(values[part]) for name, values in joined.items()}
            yield PredictionBatch(
                model=first.model,
                version=first.version,
                epoch=self._epoch,
                role=first.role,
                generation=first.generation,
                features=tuple(FeatureColumn(name=name, values=Column.of(values[part])) for name, values in features.items()),
                **packed,
            )
        if chosen_N is not None:
            self._drop(first.model, int(len(chosen_N) - chosen_N.sum()), "sampled")

    def _drop(self, model: str, num_rows: int, reason: str) -> None:
        if num_rows:
            self._num_unrecorded[model] = self._num_unrecorded.get(model, 0) + num_rows
            self._dropped.labels(model, reason).inc(num_rows)


def _joined(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _grouped(pending: list[Predicted]) -> Iterator[list[Predicted]]:
    """Rows of one version together; the order within a version is kept."""
    groups: dict[tuple[Any, ...], list[Predicted]] = {}
    for one in pending:
        groups.setdefault((one.model, one.version, one.role, one.generation, one.scores.shape[1]), []).append(one)
    yield from groups.values()


def _grouped_labels(labelled: Sequence[Labelled]) -> Iterator[tuple[Origin, list[Labelled]]]:
    """Labels whose receipts share an origin and a number of classes; in order."""
    groups: dict[tuple[Origin, int], list[Labelled]] = {}
    origin, num_classes, group = None, -1, []
    for one in labelled:
        receipt = one.receipt
        if receipt.origin is not origin or receipt.num_classes != num_classes:  # most come in runs of one origin
            origin, num_classes = receipt.origin, receipt.num_classes
            group = groups.setdefault((origin, num_classes), [])
        group.append(one)
    for (of, _), found in groups.items():
        yield of, found


def _label_batch(origin: Origin, group: list[Labelled]) -> LabelBatch:
    rows_N = rows_of([one.receipt for one in group])
    return LabelBatch(
        model=origin.model,
        version=origin.version,
        epoch=origin.epoch,
        role=origin.role,
        generation=origin.generation,
        sequence=Column.of(rows_N["sequence"]),
        event_time_ms=Column.of(rows_N["event_time_ms"]),
        slice_index=Column.of(rows_N["slice_index"]),
        predicted=Column.of(rows_N["predicted"]),
        scores=Column.of(scores_in(rows_N, group[0].receipt.num_classes).astype(np.float32)),
        label=Column.of(np.array([one.label for one in group], "f8")),
        label_time_ms=Column.of(np.array([one.label_time_ms for one in group], "i8")),
    )
