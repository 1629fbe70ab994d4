"""Where the windows of a run go: Prometheus' counts at once, and every sink by a thread of its own."""

import atexit
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from clipdrift_contract import metrics as names
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.events import GradWindow, RunEnd
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.recording.sinks.backlog import (
    MAX_SPOOL_BYTES,
    Backlog,
    Waiting,
    left_behind,
    other_targets,
    spool_path,
)
from clipdrift_trainer.recording.sinks.bus import BusSink
from clipdrift_trainer.recording.sinks.counts import WindowCounts
from clipdrift_trainer.recording.sinks.delivery import Backoff, Delivery, backlogs_of
from clipdrift_trainer.recording.sinks.lines import LinesSink
from clipdrift_trainer.recording.sinks.sink import Sink, Telemetry

_log = logging.getLogger(__name__)
_MAX_INBOX = 1_000
_MOST_FILES = 16  # of dead runs that are tended at a time


class WindowSink:
    """Takes windows in the training thread, and never makes it wait: for no sink, no disk, no network.

    A thread writes each window to a file for each sink, below `spool`, and a thread for each sink sends it from there. So a
    sink that is slow or away holds up neither the training nor the other sinks, and what a killed run could not send is sent at
    the next start, in order. Each attempt that fails is counted (`clipdrift_trainer_sink_failures_total`), and so is each
    window that is lost because no room is left (`clipdrift_trainer_windows_lost_total`).

    Use it as `on_window`, best in a `with` block: its end waits for the sinks. Without one, the end of the process does.

    Args:
        publisher: The bus, which is then one of the sinks; None: no bus. It is not closed.
        metrics: The process's metrics.
        num_steps: Planned steps of the run, for the progress gauge.
        sinks: Further places; each is closed at the end.
        spool: Folder for what waits; processes may share it. None: it waits in memory, within a bound.
        max_spool_bytes: Most bytes that may wait there for one sink.
        backoff: How long a sink that failed is left alone.
        close_seconds: How long the end waits for the sinks.

    Example:
        >>> from clipdrift_contract.metrics import MetricSet, TRAINER_STEPS
        >>> from clipdrift_trainer.recording.sinks.lines import LinesReader, LinesSink
        >>> import tempfile
        >>> metrics, path = MetricSet(), Path(tempfile.mkdtemp()) / "run.jsonl"
        >>> with WindowSink(None, metrics, num_steps=50, sinks=[LinesSink(path)]) as on_window:
        ...     on_window(GradWindow(run_id="r", model="m", started_at_ms=0, ended_at_ms=1, step_first=0, num_steps=50,
        ...                          num_clipped=0))
        >>> [window.num_steps for window in LinesReader(path).read()]
        [50]
    """

    def __init__(
        self,
        publisher: EventPublisher | None,
        metrics: MetricSet,
        num_steps: int,
        *,
        sinks: Sequence[Sink] = (),
        spool: Path | None = None,
        max_spool_bytes: int = MAX_SPOOL_BYTES,
        backoff: Backoff | None = None,
        close_seconds: float = 10.0,
    ) -> None:
        placed: list[Sink] = [*([BusSink(publisher)] if publisher is not None else []), *sinks]
        if len({sink.name for sink in placed}) != len(placed):
            raise ValueError(f"sinks must have different names, got {', '.join(sink.name for sink in placed)}")
        self._counts = WindowCounts(metrics, num_steps)
        self._unsent = metrics.gauge(names.TRAINER_WINDOWS_UNSENT)
        self._failures = metrics.counter(names.TRAINER_SINK_FAILURES)
        self._lost = metrics.counter(names.TRAINER_WINDOWS_LOST)
        self._spool = spool
        self._max_spool_bytes = max_spool_bytes
        self._close_seconds = close_seconds
        self._model = ""
        self._inbox: deque[tuple[Telemetry, bool]] = deque()
        self._arrived = threading.Condition()
        self._is_writing = False
        self._is_closed = False
        life = uuid.uuid4().hex
        self._backoff = backoff or Backoff()
        self._deliveries = [self._deliver(sink, life) for sink in placed]
        self._of_dead_runs = [one for sink in placed if isinstance(sink, LinesSink) for one in self._deliver_beside(sink)]
        self._writer = threading.Thread(target=self._write_all, name="telemetry", daemon=True)
        if self._deliveries:
            self._writer.start()
            atexit.register(self.close)

    def __call__(self, window: GradWindow) -> None:
        """Count the window and hand it to the sinks. Never blocks, never raises."""
        try:
            self._counts.add(window)
        except Exception:  # noqa: BLE001  training must not end for its telemetry
            _log.exception("the window of %s at step %d could not be counted", window.model, window.step_first)
        self._hand_over(window, True)

    def end(self, run: RunEnd) -> None:
        """Hand the end of the run to all sinks but the bus: there the training itself puts it."""
        self._hand_over(run, False)

    def drain(self, timeout_seconds: float) -> bool:
        """Wait until every sink has what it was given; whether all have, in time."""
        deadline = time.monotonic() + timeout_seconds
        with self._arrived:
            is_written = self._arrived.wait_for(lambda: not self._inbox and not self._is_writing, timeout_seconds)
        return is_written and all(delivery.drain(deadline) for delivery in self._deliveries)

    def close(self) -> None:
        """Wait for the sinks, at most `close_seconds`, and let go of them. What they did not take stays below `spool`.

        Idempotent.
        """
        if self._is_closed:
            return
        deadline = time.monotonic() + self._close_seconds
        with self._arrived:
            self._is_closed = True
            self._arrived.notify_all()
        if not self._deliveries:
            return
        atexit.unregister(self.close)
        self._writer.join(self._close_seconds)
        for delivery in self._of_dead_runs:  # they had the whole run for it
            delivery.close(time.monotonic())
        for delivery in self._deliveries:
            num_left = delivery.close(deadline)
            if num_left and delivery.sink.needs_every_window:
                self._say_what_is_left(delivery.sink, num_left, delivery.num_in_file())
            if isinstance(delivery.sink, BusSink) and self._model:
                self._unsent.labels(self._model).set(num_left)

    def __enter__(self) -> "WindowSink":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _deliver(self, sink: Sink, life: str) -> Delivery:
        own, left = Backlog(), []
        if self._spool is not None:
            left = left_behind(self._spool, sink)
            own = Backlog(spool_path(self._spool, life, sink), max_bytes=self._max_spool_bytes)
        return self._delivery(sink, left, backlogs_of(sink, own, left))

    def _deliver_beside(self, sink: LinesSink) -> list[Delivery]:
        """Each run may have a file of its own, which no later run writes to: what waits for those of dead runs."""
        if self._spool is None:
            return []
        others = [sink.beside(target) for target in other_targets(self._spool, sink)[:_MOST_FILES]]
        return [self._delivery(one, left, left) for one in others if (left := left_behind(self._spool, one))]

    def _delivery(self, sink: Sink, left: Sequence[Backlog], backlogs: Sequence[Waiting]) -> Delivery:
        if num_left := sum(map(len, left)):
            _log.info("%d windows that an earlier run could not send to %s are sent now", num_left, _named(sink))
        return Delivery(
            sink,
            backlogs,
            on_failure=lambda model: self._failures.labels(model, sink.name).inc(),
            on_lost=lambda model: self._lost.labels(model, sink.name).inc(),
            on_change=self._show_waiting if isinstance(sink, BusSink) else None,
            backoff=self._backoff,
        )

    def _show_waiting(self, num_waiting: int) -> None:
        if self._model:
            self._unsent.labels(self._model).set(num_waiting)

    def _hand_over(self, event: Telemetry, is_for_bus: bool) -> None:
        self._model = event.model
        if not self._deliveries:
            return
        with self._arrived:
            has_room = len(self._inbox) < _MAX_INBOX and not self._is_closed
            if has_room:
                self._inbox.append((event, is_for_bus))
                self._arrived.notify_all()
        if not has_room:
            for delivery in self._deliveries:
                self._lost.labels(event.model, delivery.sink.name).inc()

    def _write_all(self) -> None:
        while True:
            with self._arrived:
                self._is_writing = False
                self._arrived.notify_all()
                self._arrived.wait_for(lambda: self._inbox or self._is_closed)
                if not self._inbox:
                    return
                event, is_for_bus = self._inbox.popleft()
                self._is_writing = True
            for delivery in self._deliveries:
                if is_for_bus or not isinstance(delivery.sink, BusSink):
                    delivery.put(event)

    def _say_what_is_left(self, sink: Sink, num_left: int, num_in_file: int) -> None:
        place = f"{sink.name} {sink.target}".rstrip()
        if num_in_file:
            _log.warning(
                "%d windows wait in %s and are sent at the next start that sends to %s", num_in_file, self._spool, place
            )
        if num_lost := num_left - num_in_file:
            _log.warning("%d windows could not be sent to %s and are lost", num_lost, place)
            self._lost.labels(self._model, sink.name).inc(num_lost)


def _named(sink: Sink) -> str:
    return f"{sink.name} {sink.target}".rstrip()
