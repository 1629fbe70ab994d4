"""Windows rebuilt from the bus: after a store lost some, after a bug that counted wrongly, or for another reference profile.

Only sums are written. What was judged stays judged, no test is fed, nothing is told twice.
"""

import time
from collections.abc import Callable, Iterator

import msgspec

from clipdrift_contract.bus.log import Bus, Consumer, Record
from clipdrift_contract.clock import LATEST_MS, Clock
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ClipdriftError, PoisonError, RetryableError
from clipdrift_contract.events import LABELS, PREDICTIONS, LabelBatch, PredictionBatch
from clipdrift_monitor.intake.intake import Intake
from clipdrift_monitor.intake.joining import Batch, grouped, join
from clipdrift_monitor.intake.label_book import LabelBook
from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.lease import PATIENCE_SECONDS, Lease
from clipdrift_monitor.store.store import Changes, Store
from clipdrift_monitor.windows.span import merged
from clipdrift_monitor.windows.window import Floats, Layout, WindowKey

_RECORDS_AT_ONCE = 64
_MAX_ROWS = 32_768
_MAX_EMPTY_POLLS = 30
_WINDOWS_AT_ONCE = 500
_HEAD = 2  # entries that every vector begins with: predictions, labels


class BackfillError(ClipdriftError):
    """The bus holds less than the store; nothing was written."""


class Backfilled(msgspec.Struct, frozen=True, kw_only=True):
    """What was rebuilt: windows written, of them changed, rows read; batches that could not be counted."""

    num_windows: int
    num_changed: int
    num_predictions: int
    num_labels: int
    num_poison: int
    num_without_run: int  # of a version whose run the store does not know


class _Span(WindowBook):
    """Windows that start in [start, end); others are left out."""

    def __init__(self, start_ms: int, end_ms: int) -> None:
        super().__init__(lambda model, key: None)
        self._start_ms, self._end_ms = start_ms, end_ms

    def add(self, model: str, key: WindowKey, sums: Floats) -> None:
        if self._start_ms <= key.start_ms < self._end_ms:
            super().add(model, key, sums)


def backfill(
    bus: Bus, store: Store, model: str, *, start_ms: int, end_ms: int, window_ms: int, part_ms: int = 0, clock: Clock,
    is_forced: bool = False, owner: str = "backfill", wait: Callable[[float], None] = time.sleep,
) -> Backfilled:  # fmt: skip
    """Rebuild the windows of a model that start in [start, end) from all that the monitor has read of the bus.

    Each event and each receipt counts once, as it did when the monitor read it. What it has not read yet is left to it.

    Args:
        bus: Read from its beginning, in no group.
        store: No monitor may be at work on it.
        model: Whose windows.
        start_ms: A multiple of `window_ms`, as `end_ms` is.
        end_ms: Of the span.
        window_ms: Width of a window, as the monitor has it.
        part_ms: Width of the parts in which the monitor keeps sums; what it merged since is merged again by it.
        is_forced: Also where the bus holds fewer rows of a window than the store: it may have let go of old ones.
        clock: For how long no sign of a monitor must be seen.
        owner: Told to a monitor that wants to start meanwhile.
        wait: Waits for so many seconds.

    Raises:
        ValueError: The span is no span of whole windows.
        RetryableError: A monitor is at work, or bus or store is away.
        BackfillError: The bus holds less than the store; nothing was written.
    """
    if not start_ms < end_ms or start_ms % window_ms or end_ms % window_ms:
        raise ValueError(f"a span of whole windows of {window_ms} ms is needed, got {start_ms} to {end_ms}")
    lease = Lease(store, owner, clock)
    _take(lease, clock, wait)
    try:
        rebuilt, found = _rebuild(bus, store, model, _Span(start_ms, end_ms), part_ms or window_ms)
        kept = {(model, key): sums for key, sums in store.windows(model, start_ms, end_ms)}
        if not is_forced:
            _check_none_smaller(_whole(kept, window_ms), _whole(rebuilt, window_ms))
        changed = {place: sums for place, sums in rebuilt.items() if not _is_same(kept.get(place), sums)}
        places = list(changed)
        for first in range(0, len(places), _WINDOWS_AT_ONCE):
            store.commit(Changes(windows={place: changed[place] for place in places[first : first + _WINDOWS_AT_ONCE]}))
            lease.beat()
        return msgspec.structs.replace(found, num_windows=len(rebuilt), num_changed=len(changed))
    finally:
        lease.let_go()


def _take(lease: Lease, clock: Clock, wait: Callable[[float], None]) -> None:
    """A monitor that was killed shows no beat for a while; one that lives shows one."""
    until = clock.monotonic_seconds() + PATIENCE_SECONDS + 1.0
    while not lease.take():
        if clock.monotonic_seconds() >= until:
            raise RetryableError("a monitor is at work on this store: stop it first")
        wait(1.0)


def _rebuild(
    bus: Bus, store: Store, model: str, book: _Span, window_ms: int
) -> tuple[dict[tuple[str, WindowKey], Floats], Backfilled]:
    intake = Intake(book, LabelBook(lambda model, epoch, chunk: None), window_ms, 0)
    state, layouts, counts = ModelState(model=model), dict[str, Layout | None](), dict.fromkeys(("poison", "without_run"), 0)
    seen: set[str] = set()
    consumer = bus.consumer(None, (PREDICTIONS, LABELS))
    try:
        for records in _records(consumer, store):
            batches: list[Batch] = []
            for event_id, batch in _batches(records, model):
                if event_id in seen:
                    continue
                seen.add(event_id)
                if batch.version not in layouts:
                    run = store.run(model, batch.version)
                    layouts[batch.version] = None if run is None or run.profile is None else Layout(run.profile)
                if layouts[batch.version] is None:
                    counts["without_run"] += 1
                else:
                    batches.append(batch)
            for group in grouped(batches, _MAX_ROWS):
                layout = layouts[group[0].version]
                assert layout is not None
                counts["poison"] += _add(intake, state, layout, group)
    finally:
        consumer.close()
    found = Backfilled(
        num_windows=0, num_changed=0, num_predictions=state.num_predictions, num_labels=state.num_labels,
        num_poison=counts["poison"], num_without_run=counts["without_run"],
    )  # fmt: skip
    return dict(book.changes()), found


def _records(consumer: Consumer, store: Store) -> Iterator[list[Record]]:
    """What lies before the offsets that the store has, in pieces."""
    until, num_empty = store.offsets(), 0
    while num_empty < _MAX_EMPTY_POLLS:
        records = consumer.poll(_RECORDS_AT_ONCE, 0.0 if not num_empty else 1.0)
        yield [record for record in records if record.offset < until.get(record.place, 0)]
        if records:
            num_empty = 0
        elif consumer.lag() == 0:
            return
        else:
            num_empty += 1
    raise RetryableError("the bus gives nothing now, and there is more on it")


def _batches(records: list[Record], model: str) -> Iterator[tuple[str, Batch]]:
    for record in records:
        try:
            envelope, event = decode(record.headers, record.value)
        except PoisonError:
            continue  # it was parked when the monitor read it
        if isinstance(event, PredictionBatch | LabelBatch) and event.model == model:
            yield envelope.id, event


def _add(intake: Intake, state: ModelState, layout: Layout, group: list[Batch]) -> int:
    """Count batches of one kind; how many of them are poison."""
    try:
        batch = join(group)
        if isinstance(batch, PredictionBatch):
            intake.take_predictions(state, layout, batch, LATEST_MS)
        else:
            intake.take_labels(state, layout, batch, LATEST_MS)
    except PoisonError:
        return 1 if len(group) == 1 else sum(_add(intake, state, layout, [one]) for one in group)
    return 0


def _whole(parts: dict[tuple[str, WindowKey], Floats], window_ms: int) -> dict[tuple[str, WindowKey], Floats]:
    """Of each window the number of predictions and labels alone: profiles may differ."""
    heads = (((key, sums[:_HEAD])) for (_, key), sums in parts.items())
    return {("", key): sums for key, sums in merged(heads, width_ms=window_ms).items()}


def _check_none_smaller(kept: dict[tuple[str, WindowKey], Floats], rebuilt: dict[tuple[str, WindowKey], Floats]) -> None:
    smaller = [key for (model, key), sums in kept.items() if _is_less(rebuilt.get((model, key)), sums)]
    if smaller:
        raise BackfillError(
            f"the bus holds fewer rows than the store of {len(smaller)} windows, the first starts at {smaller[0].start_ms}: "
            "it has let go of old records; rebuild a later span, or force it"
        )


def _is_less(rebuilt: Floats | None, kept: Floats) -> bool:
    return rebuilt is None or bool((rebuilt[:_HEAD] < kept[:_HEAD]).any())


def _is_same(kept: Floats | None, rebuilt: Floats) -> bool:
    return kept is not None and len(kept) == len(rebuilt) and bool((kept == rebuilt).all())
