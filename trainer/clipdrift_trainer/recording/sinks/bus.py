"""The bus as a sink: what the monitor reads."""

from collections.abc import Sequence

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_trainer.recording.sinks.sink import Telemetry, event_id


class BusSink:
    """Publishes events under their own ids and waits until the bus has acknowledged them.

    Args:
        publisher: Stays open: it belongs to the caller.
        timeout_seconds: How long to wait for an acknowledgement before asking again; what is queued is not queued twice.
    """

    name = "bus"
    target = ""  # of a project there is one, wherever it moves
    needs_every_window = True

    def __init__(self, publisher: EventPublisher, timeout_seconds: float = 2.0) -> None:
        self._publisher = publisher
        self._timeout_seconds = timeout_seconds
        self._queued: set[str] = set()  # in the publisher's own queue since the last acknowledgement

    def send(self, events: Sequence[Telemetry]) -> None:
        for event in events:
            identity = event_id(event)
            if identity not in self._queued:
                self._publisher.publish(event, event_id=identity)
                self._queued.add(identity)
        self._publisher.flush(self._timeout_seconds)
        self._queued.clear()

    def close(self) -> None: ...
