"""Events off the bus; what cannot be read is parked with its reason, counted, and never read again."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from clipdrift_contract.bus.log import Consumer, Publisher, Record
from clipdrift_contract.clock import Clock
from clipdrift_contract.envelope import Envelope, decode
from clipdrift_contract.errors import PoisonError, RetryableError
from clipdrift_contract.events import POISON, Event
from clipdrift_contract.metrics import BUS_POISON, MetricSet

_log = logging.getLogger(__name__)


class Read(NamedTuple):
    record: Record
    envelope: Envelope
    event: Event


class EventReader:
    """Decodes what a consumer polls.

    A record that can never be decoded goes to the poison topic, byte for byte, with headers that say why and where it was.
    """

    def __init__(self, consumer: Consumer, *, publisher: Publisher, metrics: MetricSet, clock: Clock) -> None:
        self.consumer = consumer
        self._publisher = publisher
        self._poison = metrics.counter(BUS_POISON)
        self._clock = clock

    def poll(self, max_records: int = 500, timeout_seconds: float = 1.0) -> Sequence[Read]:
        """Decoded events, in order within each partition; poison is left out. Never raises for what a record holds."""
        events = []
        for record in self.consumer.poll(max_records, timeout_seconds):
            try:
                envelope, event = decode(record.headers, record.value)
            except PoisonError as error:
                self._park(record, str(error))
                continue
            events.append(Read(record, envelope, event))
        return events

    def _park(self, record: Record, reason: str) -> None:
        origin = f"{record.topic}/{record.partition}/{record.offset}"
        _log.error("poison at %s is parked on %s: %s", origin, POISON, reason)
        self._poison.labels(record.topic).inc()
        headers = {**record.headers, "poison_reason": reason.encode(), "poison_origin": origin.encode()}
        try:
            self._publisher.publish(POISON, record.key, headers, record.value, timestamp_ms=self._clock.now_ms())
        except RetryableError as error:  # the record itself stays in its topic; only the copy is missing
            _log.error("poison at %s could not be parked: %s", origin, error)
