"""Does what was written down with a decision: publishes its events, starts its jobs. Doing it twice does it once."""

import logging
from typing import Any, get_args

import msgspec

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.events import Event, RetrainRequest
from clipdrift_monitor.actions.jobs import Jobs
from clipdrift_monitor.store.store import OutboxEntry, Store

START_RETRAIN = "start_retrain"
_FLUSH_SECONDS = 10.0
_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}
_log = logging.getLogger(__name__)


def to_publish(event: Event, event_id: str) -> OutboxEntry:
    """An event to be published under an id that is the same however often it is tried."""
    return OutboxEntry(event_id=event_id, kind=type(event).__name__, body=msgspec.msgpack.encode(event))


def to_start(request: RetrainRequest) -> OutboxEntry:
    """A retrain to be started."""
    return OutboxEntry(event_id=f"start-{request.key}", kind=START_RETRAIN, body=msgspec.msgpack.encode(request))


class Outbox:
    """Carries out the store's outbox. One thread.

    Args:
        store: Holds the entries.
        publisher: Takes the events.
        jobs: Starts the retrains.
    """

    def __init__(self, store: Store, publisher: EventPublisher, jobs: Jobs) -> None:
        self._store = store
        self._publisher = publisher
        self._jobs = jobs

    def carry_out(self) -> int:
        """Carry out all entries, in order; how many there were.

        Raises:
            RetryableError: The bus or the store is away; what was not done stays in the outbox.
        """
        num_done = 0
        while entries := self._store.outbox():
            starts = []
            for entry in entries:
                if entry.kind == START_RETRAIN:
                    starts.append(msgspec.msgpack.decode(entry.body, type=RetrainRequest))
                else:
                    event = msgspec.msgpack.decode(entry.body, type=_TYPES[entry.kind])
                    self._publisher.publish(event, event_id=entry.event_id)
            self._publisher.flush(_FLUSH_SECONDS)
            for request in starts:
                self._start(request)
            self._store.done([entry.event_id for entry in entries])
            num_done += len(entries)
        return num_done

    def _start(self, request: RetrainRequest) -> None:
        self._jobs.order(request)
        if self._jobs.state(request.key) != "requested":  # begun in an earlier life
            return
        row = self._store.retrain(request.key)
        if row is not None and row.state != "finished":
            self._store.note_attempt(request.key, row.attempts + 1)
            self._jobs.start(request.key)
