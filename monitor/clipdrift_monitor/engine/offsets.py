"""How far the bus was read."""

from collections.abc import Mapping
from contextlib import suppress

from clipdrift_contract.bus.log import Bus, Consumer, TopicPartition
from clipdrift_contract.errors import RetryableError

_FAR_OFFSET = 2**62


def moved(consumer: Consumer, known: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Offsets that are not as they are known; also behind records that no event could be read from."""
    found = {}
    for place in consumer.assignment():
        with suppress(RetryableError):  # a place that was never read yet, on a bus that is away
            if (offset := consumer.position(place)) != known.get(place, 0):
                found[place] = offset
    return found


def find_shorter(bus: Bus, topics: tuple[str, ...], kept: Mapping[TopicPartition, int]) -> frozenset[TopicPartition]:
    """Partitions that end before the offset kept, of a bus that was lost, or restored from before."""
    consumer = bus.consumer(None, topics)
    try:
        consumer.poll(1, 0.0)
        for place in consumer.assignment():
            consumer.seek(place, _FAR_OFFSET)
        return frozenset(place for place, offset in kept.items() if offset and not _lag_before(consumer, place, offset))
    finally:
        consumer.close()


def _lag_before(consumer: Consumer, place: TopicPartition, offset: int) -> int:
    """Records at and behind the one before `offset`, in this place alone: 0 where it ends before. The others are seeked far."""
    if place not in consumer.assignment():
        return 1  # not known
    consumer.seek(place, offset - 1)
    lag = consumer.lag()
    consumer.seek(place, _FAR_OFFSET)
    return lag
