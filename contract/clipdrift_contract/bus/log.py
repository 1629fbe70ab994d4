"""What a bus promises: an append-only log of partitioned topics, read by consumer groups.

At least once: a record that was acknowledged is delivered, perhaps more than once. Records with one key keep their order.
Offsets of a partition grow but need not be dense. Consumers deduplicate by event id. One conformance suite holds every
implementation to this (tests/conformance/bus).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec


class TopicPartition(NamedTuple):
    topic: str
    partition: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One record as read: immutable bytes, with the place it was read from."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    headers: dict[str, bytes]
    value: bytes

    @property
    def place(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


class Publisher(Protocol):
    """Appends records. Thread-safe. `publish` never blocks on the network; `flush` may."""

    def publish(self, topic: str, key: bytes, headers: Mapping[str, bytes], value: bytes, *, timestamp_ms: int) -> None:
        """Queue one record; it is durable once `flush` has returned.

        Raises:
            RetryableError: The bounded queue is full (the bus has been away too long); nothing was queued.
        """
        ...

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything queued before this call is acknowledged.

        Raises:
            RetryableError: Not acknowledged in time; what is queued stays queued and a later flush may deliver it.
        """
        ...

    def num_queued(self) -> int:
        """Records queued and not yet acknowledged."""
        ...

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Flush and release; idempotent."""
        ...


# Both hooks run inside `Consumer.poll`, in its caller's thread, once the partitions have come or gone: a hook that is told of
# revoked partitions can no longer commit them. What a hook raises passes through poll, and the hook is asked again.
AssignedHook = Callable[[Collection[TopicPartition]], Mapping[TopicPartition, int]]
RevokedHook = Callable[[Collection[TopicPartition]], None]


class Consumer(Protocol):
    """Reads records of the partitions assigned to it. One thread only. Outages are waited out, never raised, by `poll`."""

    def poll(self, max_records: int = 500, timeout_seconds: float = 1.0) -> Sequence[Record]:
        """Up to `max_records` records, in order within each partition; empty when nothing came in time.

        Calls the hooks given to `Bus.consumer` when partitions come or go; a broker that is away gives an empty result.
        """
        ...

    def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Remember, for the group, the next offset to read (default: behind everything polled).

        Raises:
            RetryableError: The group is rebalancing or the bus is away; records may then be delivered again.
        """
        ...

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Read on from `offset` (or the first record behind it)."""
        ...

    def seek_to_time(self, time_ms: int) -> None:
        """Read on, in every assigned partition, from the first record with a timestamp at or after `time_ms`.

        Joins first where that has not happened. On Kafka the first such record is found by the broker's time index.

        Raises:
            RetryableError: The bus is away.
        """
        ...

    def assignment(self) -> frozenset[TopicPartition]: ...

    def position(self, place: TopicPartition) -> int:
        """The next offset that poll will read.

        Raises:
            RetryableError: It was not looked up yet, and the bus is away.
        """
        ...

    def committed(self, place: TopicPartition) -> int | None:
        """The offset that the group has committed, or None.

        Raises:
            RetryableError: The bus is away.
        """
        ...

    def lag(self) -> int:
        """Records written and not yet polled, over the assigned partitions (an upper bound where offsets are not dense).

        Never raises. While it cannot be known (no poll has joined yet, the bus is away) it is the last one known, and at least
        1: unknown is not none.
        """
        ...

    def close(self) -> None:
        """Leave the group at once; idempotent."""
        ...


class Bus(Protocol):
    """A place where publishers and consumers meet."""

    def publisher(self) -> Publisher: ...

    def consumer(
        self,
        group: str | None,
        topics: Sequence[str],
        *,
        on_assigned: AssignedHook | None = None,
        on_revoked: RevokedHook | None = None,
    ) -> Consumer:
        """Join `group`, or, with None, read all partitions alone and from the beginning, committing nothing.

        A group starts behind its committed offset, or at the beginning. `on_assigned` may return offsets to start from instead,
        for an owner that keeps its offsets in its own store, in one transaction with its state.
        """
        ...

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create those that are not there; idempotent.

        Raises:
            RetryableError: The bus is away.
        """
        ...

    def num_partitions(self, topic: str) -> int: ...

    def close(self) -> None: ...
