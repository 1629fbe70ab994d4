"""The one way an event gets onto the bus."""

from clipdrift_contract.bus.log import Publisher
from clipdrift_contract.clock import Clock
from clipdrift_contract.envelope import MSGPACK, ContentType, IdSource, encode, topic_of
from clipdrift_contract.events import Event, key_of


class EventPublisher:
    """Encodes events and appends them to their topics. Thread-safe, never blocks on the network.

    Args:
        publisher: Where records go; closed together with this object.
        source: CloudEvents source, such as "serving" or "monitor".
        clock: Gives the record's time.
        content_type: How the payload is written; msgpack unless somebody must read it by eye.
    """

    def __init__(self, publisher: Publisher, *, source: str, clock: Clock, content_type: ContentType = MSGPACK) -> None:
        self._publisher = publisher
        self._source = source
        self._clock = clock
        self._content_type: ContentType = content_type
        self._ids = IdSource()

    def publish(self, event: Event, *, event_id: str | None = None) -> str:
        """Queue `event`; returns its id. A caller that may publish the same event twice gives it the same id both times.

        Raises:
            RetryableError: The publisher's queue is full; nothing was queued.
        """
        chosen = event_id if event_id is not None else self._ids.next()
        now_ms = self._clock.now_ms()
        headers, value = encode(event, event_id=chosen, source=self._source, time_ms=now_ms, content_type=self._content_type)
        self._publisher.publish(topic_of(event), key_of(event), headers, value, timestamp_ms=now_ms)
        return chosen

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything published so far is acknowledged; raises RetryableError when it is not in time."""
        self._publisher.flush(timeout_seconds)

    def num_queued(self) -> int:
        """Events not yet acknowledged."""
        return self._publisher.num_queued()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Flush and release; idempotent."""
        self._publisher.close(timeout_seconds)
