"""Publishes the events that were written down with a decision. Doing it twice does it once."""

import logging
from typing import Any, get_args

import msgspec

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.events import Event
from clipdrift_monitor.store.store import OutboxEntry, Store

_START_RETRAIN = "start_retrain"  # in stores from before runs were kept: whoever reads those knows the order itself
_FLUSH_SECONDS = 10.0
_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}
_log = logging.getLogger(__name__)


def to_publish(event: Event, event_id: str) -> OutboxEntry:
    """An event to be published under an id that is the same however often it is tried."""
    return OutboxEntry(event_id=event_id, kind=type(event).__name__, body=msgspec.msgpack.encode(event))


class Outbox:
    """Carries out the store's outbox. One thread.

    Args:
        store: Holds the entries.
        publisher: Takes the events.
    """

    def __init__(self, store: Store, publisher: EventPublisher) -> None:
        self._store = store
        self._publisher = publisher

    def carry_out(self) -> int:
        """Carry out all entries, in order; how many there were.

        Raises:
            RetryableError: The bus or the store is away; what was not done stays in the outbox.
        """
        num_done = 0
        while entries := self._store.outbox():
            for entry in entries:
                if entry.kind == _START_RETRAIN:
                    continue
                event = msgspec.msgpack.decode(entry.body, type=_TYPES[entry.kind])
                self._publisher.publish(event, event_id=entry.event_id)
            self._publisher.flush(_FLUSH_SECONDS)
            self._store.done([entry.event_id for entry in entries])
            num_done += len(entries)
        return num_done
