"""Brings events to one sink from a thread of its own: in order, again and again until they arrive."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from clipdrift_contract.errors import RetryableError
from clipdrift_trainer.recording.sinks.backlog import Backlog, Newest, Waiting
from clipdrift_trainer.recording.sinks.sink import Sink, Telemetry

_BATCH = 50
_GRACE_SECONDS = 0.2  # for a thread that has just begun to close its sink
_log = logging.getLogger(__name__)


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long a sink that failed is left alone: twice as long after each failure in a row."""

    first_seconds: float = 0.5
    most_seconds: float = 30.0

    def seconds(self, num_failures: int) -> float:
        """
        Example:
            >>> [Backoff().seconds(failures) for failures in (1, 2, 3, 20)]
            [0.5, 1.0, 2.0, 30.0]
        """
        return float(min(self.most_seconds, self.first_seconds * 2 ** min(num_failures - 1, 30)))


class Delivery:
    """One sink with what waits for it.

    Args:
        sink: The place.
        backlogs: What waits, the oldest first; new events go to the last one.
        on_failure: Called with the model's name for each attempt that failed.
        on_lost: Called with the model's name for each event that is lost: no room for it, or it can never be delivered.
        backoff: How long to wait after a failure.
        on_change: Called with the number that waits, whenever it has changed.
    """

    def __init__(
        self,
        sink: Sink,
        backlogs: Iterable[Waiting],
        *,
        on_failure: Callable[[str], None],
        on_lost: Callable[[str], None],
        backoff: Backoff,
        on_change: Callable[[int], None] | None = None,
    ) -> None:
        self.sink = sink
        self._backlogs = list(backlogs)
        self._on_failure = on_failure
        self._on_lost = on_lost
        self._backoff = backoff
        self._on_change = on_change
        self._changed = threading.Condition()
        self._ends_at: float | None = None  # on the monotonic clock; None: the run goes on
        self._num_failures = 0
        self._has_refused = False
        self._batch = _BATCH
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    def put(self, event: Telemetry) -> None:
        """Keep `event` until the sink has it. May write to a file; never waits for the sink."""
        with self._changed:
            is_kept = self._backlogs[-1].append(event)
            self._tell()
        if not is_kept:
            self._on_lost(event.model)

    def num_waiting(self) -> int:
        """Events that the sink has not taken yet."""
        with self._changed:
            return sum(len(backlog) for backlog in self._backlogs)

    def num_in_file(self) -> int:
        """Those of them that outlive this process."""
        with self._changed:
            return sum(backlog.num_in_file() for backlog in self._backlogs)

    def drain(self, deadline: float) -> bool:
        """Wait until nothing waits, at most until `deadline` on the monotonic clock; whether nothing does."""
        with self._changed:
            while waiting := any(len(backlog) for backlog in self._backlogs):
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    break
                self._changed.wait(left)
        return not waiting

    def close(self, deadline: float) -> int:
        """Deliver what can be delivered until `deadline`, then let go of the sink; returns the number of events left.

        A sink that hangs is left behind with its thread, which ends when the sink comes back or the process goes.
        """
        with self._changed:
            self._ends_at = deadline
            self._changed.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()) + _GRACE_SECONDS)
        if self._thread.is_alive():
            _log.warning("%s does not come back; it is left behind", self.sink.name)
        return self.num_waiting()

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            backlog, events = taken
            if not events:  # all of it was damaged
                continue
            try:
                self.sink.send(events)
            except Exception as error:  # noqa: BLE001  training must not end for its telemetry
                self._failed(backlog, events, error)
            else:
                self._num_failures, self._batch = 0, _BATCH
                self._let_go(backlog, len(events))
        try:
            self.sink.close()
        except Exception:  # noqa: BLE001  the run is over, and so is what could be done
            _log.exception("%s could not be closed", self.sink.name)
        with self._changed:
            for backlog in self._backlogs:
                backlog.close()

    def _next(self) -> tuple[Waiting, list[Telemetry]] | None:
        """What is to be sent now; waits for it. None: this is the end."""
        with self._changed:
            while self._ends_at is None or time.monotonic() < self._ends_at:
                for backlog in self._backlogs:
                    if len(backlog):
                        return backlog, backlog.first(self._batch)
                if self._ends_at is not None:
                    break
                self._changed.wait()
        return None

    def _let_go(self, backlog: Waiting, count: int) -> None:
        with self._changed:
            backlog.forget(count)
            if not len(backlog) and backlog is not self._backlogs[-1]:
                self._backlogs.remove(backlog)
                backlog.close()
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        if self._on_change is not None:
            self._on_change(sum(len(backlog) for backlog in self._backlogs))

    def _failed(self, backlog: Waiting, events: list[Telemetry], error: Exception) -> None:
        self._on_failure(events[0].model)
        if isinstance(error, RetryableError):
            self._num_failures += 1
            if self._num_failures == 1:
                _log.warning("%s is away (%s); telemetry waits", self.sink.name, error)
            self._pause()
        elif len(events) > 1:
            self._batch = 1  # to find the one that cannot be delivered
        else:
            trace = None if self._has_refused else error  # one trace tells as much as a thousand
            _log.error("%s refuses an event of %s, which is lost: %s", self.sink.name, events[0].model, error, exc_info=trace)
            self._has_refused = True
            self._on_lost(events[0].model)
            self._let_go(backlog, 1)

    def _pause(self) -> None:
        """Leave the sink alone for a while, not beyond the end; that the end is near cuts the wait short, once."""
        with self._changed:
            seconds = self._backoff.seconds(self._num_failures)
            if self._ends_at is None:
                self._changed.wait_for(lambda: self._ends_at is not None, seconds)
            else:
                left = self._ends_at - time.monotonic()
                self._changed.wait_for(lambda: False, max(0.0, min(seconds, left)))


def backlogs_of(sink: Sink, own: Backlog, left: Iterable[Backlog]) -> list[Waiting]:
    """What waits for `sink` at the start of a run: what dead runs left, then the run's own."""
    if not sink.needs_every_window:
        return [Newest()]
    return [*left, own]
