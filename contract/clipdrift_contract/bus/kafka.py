"""The distributed bus: Apache Kafka 2.4 or newer, by kafka-python.

Clients are made when they are first needed and made again after an outage, so a broker that is away never raises where the
contract says that outages are waited out. Topics are created by Clipdrift, never by the broker's auto-creation, whose number of
partitions would part predictions from their labels.
"""

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import kafka
import msgspec
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaConfigurationError, KafkaError, KafkaTimeoutError, UnsupportedSaslMechanismError

from clipdrift_contract.bus.log import AssignedHook, Consumer, Publisher, Record, RevokedHook, TopicPartition
from clipdrift_contract.errors import ClipdriftError, ConfigError, RetryableError

_DEFAULT_PARTITIONS = 4
_MAX_QUEUED = 100_000
_MAX_BATCH = 10_000
_MAX_RECORD_BYTES = 1_000_000  # what a broker takes by default (message.max.bytes 1048588), less what surrounds a record
_RECORD_OVERHEAD_BYTES = 100
_FOR_EVER_MS = 2**31 - 1
_CONNECT_MS = 3_000
_REQUEST_MS = 5_000
_PAUSE_SECONDS = 0.2
_JOIN_SECONDS = 1.0
_LEAVE_MS = 3_000
_log = logging.getLogger(__name__)

_COMMON: dict[str, Any] = {
    "bootstrap_timeout_ms": _CONNECT_MS,
    "reconnect_backoff_max_ms": 1_000,  # kafka-python's 30 s would lengthen every outage by as much
    "metadata_max_age_ms": 30_000,
    "metrics_enabled": False,
}
_PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable_idempotence": True,
    # A batch that expires may have been written all the same; sent again by us, it would come twice and out of order. So the
    # producer, which numbers its batches, retries for as long as it takes.
    "delivery_timeout_ms": _FOR_EVER_MS,
    "linger_ms": 5,
    "batch_size": 128 * 1024,
    "max_block_ms": _REQUEST_MS,
    "allow_auto_create_topics": False,
}
_CONSUMER: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "allow_auto_create_topics": False,
    "session_timeout_ms": 10_000,
    "heartbeat_interval_ms": 2_000,
}


class KafkaBus:
    """A bus on a Kafka cluster. Safe for many threads, processes and machines.

    Args:
        servers: Addresses to begin with, each "host:port".
        num_partitions: Partitions of each topic that is created; a topic that is there keeps its own number. The replication
            factor is the cluster's default.
        settings: kafka-python's own settings, such as security_protocol or sasl_mechanism; each client takes those it knows.

    Raises:
        ConfigError: A setting that no kafka-python client knows.
    """

    def __init__(
        self, servers: Sequence[str], *, num_partitions: int = _DEFAULT_PARTITIONS, settings: Mapping[str, Any] | None = None
    ) -> None:
        if num_partitions < 1:
            raise ValueError(f"num_partitions must be >= 1, got {num_partitions!r}")
        self._servers = list(servers)
        self._num_partitions = num_partitions
        self._settings = dict(settings or {})
        self._partitions_of: dict[str, int] = {}
        self._lock = threading.Lock()
        kinds = (kafka.KafkaProducer, kafka.KafkaConsumer, kafka.KafkaAdminClient)
        unknown = set(self._settings).difference(*(kind.DEFAULT_CONFIG for kind in kinds))
        if unknown:
            raise ConfigError(f"kafka-python knows no setting {', '.join(sorted(unknown))}")

    def publisher(self) -> Publisher:
        return KafkaPublisher(self)

    def consumer(
        self,
        group: str | None,
        topics: Sequence[str],
        *,
        on_assigned: AssignedHook | None = None,
        on_revoked: RevokedHook | None = None,
    ) -> Consumer:
        return KafkaConsumer(self, group, topics, on_assigned, on_revoked)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create those that are not there, each with this bus's number of partitions."""
        with self._lock:
            missing = [topic for topic in dict.fromkeys(topics) if topic not in self._partitions_of]
            if missing:
                self._partitions_of.update(self._create_topics(missing))

    def num_partitions(self, topic: str) -> int:
        self.ensure_topics([topic])
        return self._partitions_of[topic]

    def close(self) -> None:
        """Publishers and consumers own their connections; nothing is left to close."""

    def open_client(self, kind: Callable[..., Any], defaults: Mapping[str, Any]) -> Any:
        """A connected kafka-python client; ours over kafka-python's defaults, the user's settings over ours.

        Raises:
            RetryableError: No server answers.
            ConfigError: The settings contradict each other.
        """
        self._check_reachable()
        wanted = {**_COMMON, **defaults, **self._settings}
        known = kind.DEFAULT_CONFIG  # type: ignore[attr-defined]
        try:
            return kind(bootstrap_servers=self._servers, **{name: wanted[name] for name in wanted if name in known})
        except (KafkaConfigurationError, UnsupportedSaslMechanismError) as error:
            raise ConfigError(f"the Kafka settings do not work together: {error}") from error
        except KafkaError as error:
            raise RetryableError(f"no Kafka at {', '.join(self._servers)} now: {error}") from error

    def _create_topics(self, topics: Sequence[str]) -> dict[str, int]:
        """Their numbers of partitions, once all of them are there."""
        admin = self.open_client(kafka.KafkaAdminClient, {})
        try:
            found = _count_partitions(admin, topics)
            absent = [topic for topic in topics if topic not in found]
            if absent:
                shape = {"num_partitions": self._num_partitions, "replication_factor": -1}
                answer = admin.create_topics(dict.fromkeys(absent, shape), raise_errors=False)
                found.update(_wait_for_topics(admin, absent, str(answer)))
        except KafkaError as error:
            raise RetryableError(f"topics cannot be looked up now: {error}") from error
        finally:
            admin.close()
        return found

    def _check_reachable(self) -> None:
        """A client that cannot connect leaves its thread behind (kafka-python 3.0.12), so none is made while nobody listens."""
        reasons = []
        for server in self._servers:
            host, _, port = server.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_MS / 1000).close()
            except ValueError as error:
                raise ConfigError(f"a Kafka server is HOST:PORT, got {server!r}") from error
            except OSError as error:
                reasons.append(f"{server}: {error}")
                continue
            return
        raise RetryableError(f"no Kafka server can be reached: {'; '.join(reasons)}")


def _count_partitions(admin: Any, topics: Sequence[str]) -> dict[str, int]:
    described = admin.describe_topics(list(topics))
    return {topic["name"]: len(topic["partitions"]) for topic in described if topic["partitions"]}


def _wait_for_topics(admin: Any, topics: Sequence[str], answer: str) -> dict[str, int]:
    """A topic that was created (by us, or by another at this moment) takes a while until every broker knows of it."""
    deadline = time.monotonic() + _REQUEST_MS / 1000
    while len(found := _count_partitions(admin, topics)) < len(topics):
        if time.monotonic() > deadline:
            raise RetryableError(f"topics {sorted(set(topics) - set(found))} could not be created: {answer}")
        time.sleep(0.05)
    return found


class _Queued(msgspec.Struct, frozen=True):
    sequence: int
    topic: str
    timestamp_ms: int
    key: bytes
    headers: list[tuple[str, bytes]]
    value: bytes


class KafkaPublisher:
    """Sends through one thread, idempotent and acknowledged by all in-sync replicas. An outage is waited out; the queue is
    bounded. A record that the broker refuses for good holds up the queue, with a warning, until its cause is mended: nothing is
    dropped unseen."""

    def __init__(self, bus: KafkaBus, *, max_queued: int = _MAX_QUEUED) -> None:
        self._bus = bus
        self._max_queued = max_queued
        self._queue: deque[_Queued] = deque()
        self._num_published = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._gives_up = threading.Event()
        self._last_error = ""
        self._thread = threading.Thread(target=self._send_all, name="bus-sender", daemon=True)
        self._thread.start()

    def publish(self, topic: str, key: bytes, headers: Mapping[str, bytes], value: bytes, *, timestamp_ms: int) -> None:
        """As the contract says; also raises ValueError for a record of more than 1 MB, which a broker would refuse."""
        num_bytes = len(key) + len(value) + sum(len(n) + len(v) for n, v in headers.items()) + _RECORD_OVERHEAD_BYTES
        if num_bytes > _MAX_RECORD_BYTES:
            raise ValueError(f"a record has at most {_MAX_RECORD_BYTES} bytes, this one for {topic} has {num_bytes}")
        with self._changed:
            if self._is_closing:
                raise ClipdriftError("this publisher is closed")
            if len(self._queue) >= self._max_queued:
                raise RetryableError(f"{len(self._queue)} records wait for Kafka already: {self._last_error or 'too slow'}")
            queued = _Queued(self._num_published, topic, timestamp_ms, bytes(key), list(headers.items()), bytes(value))
            self._queue.append(queued)
            self._num_published += 1
            self._changed.notify_all()

    def flush(self, timeout_seconds: float) -> None:
        with self._changed:
            target = self._num_published
            if not self._changed.wait_for(lambda: self._is_sent(target), timeout_seconds):
                missing = sum(1 for queued in self._queue if queued.sequence < target)
                raise RetryableError(
                    f"{missing} records not acknowledged after {timeout_seconds} s: {self._last_error or 'no answer yet'}"
                )

    def num_queued(self) -> int:
        with self._changed:
            return len(self._queue)

    def close(self, timeout_seconds: float = 10.0) -> None:
        with contextlib.suppress(RetryableError):
            self.flush(timeout_seconds)
        self._gives_up.set()
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)

    def _is_sent(self, target: int) -> bool:
        return not self._queue or self._queue[0].sequence >= target

    def _send_all(self) -> None:
        producer: Any = None
        while batch := self._next_batch():
            try:
                self._bus.ensure_topics([queued.topic for queued in batch])
                producer = producer or self._bus.open_client(kafka.KafkaProducer, _PRODUCER)
                self._send(producer, batch)
            except Exception as error:  # noqa: BLE001  a dead thread would hold the queue unseen: say why, try again
                self._last_error = str(error)
                _log.warning("Kafka cannot be written now (%s); %d records wait", error, len(self._queue))
                self._gives_up.wait(_PAUSE_SECONDS)
        if producer is not None:
            producer.close(timeout=0)

    def _next_batch(self) -> list[_Queued]:
        """What has gathered; waits while there is nothing; empty at the end. The records stay queued until acknowledged."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if self._is_closing:
                return []
            return [self._queue[i] for i in range(min(len(self._queue), _MAX_BATCH))]

    def _send(self, producer: Any, batch: Sequence[_Queued]) -> None:
        """Returns when the whole batch is acknowledged; what is not stays at the head of the queue.

        Raises:
            KafkaError: What the first record that was not acknowledged failed of.
        """
        sent, failure = [], None
        for queued in batch:
            try:
                future = producer.send(queued.topic, queued.value, queued.key, queued.headers, timestamp_ms=queued.timestamp_ms)
            except KafkaError as error:
                failure = error
                break
            sent.append((queued, future))
        self._wait(producer)
        failed = [(queued, future) for queued, future in sent if not future.succeeded()]
        with self._changed:
            for _ in sent:
                self._queue.popleft()
            self._queue.extendleft(queued for queued, _ in reversed(failed))
            self._last_error = ""
            self._changed.notify_all()
        if failed and failed[0][1].is_done:
            failure = failed[0][1].exception
        if failure is not None:
            raise failure

    def _wait(self, producer: Any) -> None:
        while not self._gives_up.is_set():
            try:
                producer.flush(timeout=1.0)
            except KafkaTimeoutError:
                self._last_error = "the broker does not answer"
                continue
            return


class _Moves(kafka.ConsumerRebalanceListener):  # type: ignore[misc]
    """What the group gave and took. kafka-python calls this on its own thread, where a hook must not block, so it only notes;
    the consumer tells the owner's hooks from within `poll`."""

    def __init__(self) -> None:
        self.number = 0
        self.is_joining = True
        self.places: frozenset[TopicPartition] = frozenset()

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        self.places -= {TopicPartition(*place) for place in revoked}
        self.is_joining = True
        self.number += 1

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self.places |= {TopicPartition(*place) for place in assigned}
        self.is_joining = False
        self.number += 1


class KafkaConsumer:
    """Reads the log, alone (group None) or as a member of a group. One thread only.

    Partitions are shared out by range, so equal numbers of equally parted topics land on one member.
    """

    def __init__(
        self,
        bus: KafkaBus,
        group: str | None,
        topics: Sequence[str],
        on_assigned: AssignedHook | None,
        on_revoked: RevokedHook | None,
    ) -> None:
        if not topics:
            raise ValueError("a consumer needs at least one topic")
        self._bus = bus
        self._group = group
        self._topics = tuple(dict.fromkeys(topics))
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._client: Any = None
        self._moves = _Moves()
        self._num_moves_told = 0
        self._places: frozenset[TopicPartition] = frozenset()
        self._last_lag = 0
        self._is_closed = False

    def poll(self, max_records: int = 500, timeout_seconds: float = 1.0) -> Sequence[Record]:
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                records = self._take(max_records, left)
            except (KafkaError, _AwayError) as error:
                _log.warning("Kafka cannot be read now: %s", error)
                records = []
                time.sleep(min(_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
            if records or time.monotonic() >= deadline:
                return records

    def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        if self._group is None:
            return
        client = self._ready()
        chosen = None
        if offsets is not None:
            chosen = {_theirs(place): kafka.OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
        try:
            client.commit(chosen, timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            raise RetryableError(f"group {self._group} cannot commit now: {error!r}") from error

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._check_assigned(place)
        self._client.seek(_theirs(place), offset)

    def seek_to_time(self, time_ms: int) -> None:
        self._join()
        places = [_theirs(place) for place in self._places]
        try:
            found = self._client.offsets_for_times(dict.fromkeys(places, time_ms), timeout_ms=_REQUEST_MS)
            ends = self._client.end_offsets(places, timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            raise RetryableError(f"offsets cannot be looked up now: {error!r}") from error
        for place in places:
            self._client.seek(place, ends[place] if found.get(place) is None else found[place].offset)

    def assignment(self) -> frozenset[TopicPartition]:
        return self._places

    def position(self, place: TopicPartition) -> int:
        self._check_assigned(place)
        try:
            position = self._client.position(_theirs(place), timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            raise RetryableError(f"position of {place} is not known now: {error!r}") from error
        if position is None:
            raise RetryableError(f"position of {place} is not known now")
        return int(position)

    def committed(self, place: TopicPartition) -> int | None:
        if self._group is None:
            return None
        try:
            offset = self._ready().committed(_theirs(place), timeout_ms=_REQUEST_MS)
        except KafkaError as error:
            raise RetryableError(f"committed offset of {place} is not known now: {error!r}") from error
        return None if offset is None or offset < 0 else int(offset)

    def lag(self) -> int:
        if self._num_moves_told == 0:
            return max(1, self._last_lag)
        try:
            ends = self._client.end_offsets([_theirs(place) for place in self._places], timeout_ms=_REQUEST_MS)
            self._last_lag = sum(max(0, ends[_theirs(place)] - self.position(place)) for place in self._places)
        except (KafkaError, RetryableError) as error:
            _log.warning("the lag is not known now: %s", error)
            return max(1, self._last_lag)
        return self._last_lag

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._client is not None:
            with contextlib.suppress(KafkaError):
                self._client.close(autocommit=False, timeout_ms=_LEAVE_MS)

    # --- reading ---

    def _take(self, max_records: int, timeout_seconds: float) -> list[Record]:
        client = self._ready()
        if self._moves.is_joining:
            # kafka-python 3.0.12 forgets an answer to its join that comes while nobody polls, and joins anew, which sends all
            # other members back as well. So whoever joins waits for the answer.
            timeout_seconds = max(timeout_seconds, _JOIN_SECONDS)
        batches = client.poll(timeout_ms=round(timeout_seconds * 1000), max_records=max_records)
        if self._num_moves_told != self._moves.number:
            # These came from where the group stood; the owner has not yet been told that they are its own, nor said where to
            # begin. Back to the first of each, then the hooks.
            for place, batch in batches.items():
                client.seek(place, batch[0].offset)
            self._tell_moves()
            return []
        return [_record(found) for batch in batches.values() for found in batch]

    def _ready(self) -> Any:
        """The connected client.

        Raises:
            RetryableError: No server answers.
            ConfigError: The topics cannot be read as one group.
        """
        if self._is_closed:
            raise ClipdriftError("this consumer is closed")
        if self._client is None:
            self._client = self._open()
        return self._client

    def _open(self) -> Any:
        try:
            self._bus.ensure_topics(self._topics)
            counts = {topic: self._bus.num_partitions(topic) for topic in self._topics}
            if self._group is not None and len(set(counts.values())) > 1:
                raise ConfigError(
                    f"topics of one group need equally many partitions, so that predictions and their labels meet; got {counts}"
                )
            strategy = {"partition_assignment_strategy": [RangePartitionAssignor]}
            client = self._bus.open_client(kafka.KafkaConsumer, {**_CONSUMER, **strategy, "group_id": self._group})
        except RetryableError as error:
            raise _AwayError(str(error)) from error
        if self._group is None:
            places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
            client.assign([_theirs(place) for place in places])
            self._moves.on_partitions_assigned(places)
        else:
            client.subscribe(self._topics, listener=self._moves)
            for topic in self._topics:  # a leader that does not know a topic yet would share out nothing of it at first
                client.partitions_for_topic(topic)
        return client

    def _join(self) -> None:
        """Wait until there is an assignment.

        Raises:
            RetryableError: There is none in time.
        """
        deadline = time.monotonic() + _REQUEST_MS / 1000
        while self._num_moves_told == 0:
            if time.monotonic() > deadline:
                raise RetryableError(f"no partition of {self._topics} was assigned in time")
            for record in self._take(1, 0.1):
                self._client.seek(_theirs(record.place), record.offset)

    def _tell_moves(self) -> None:
        """Tell the owner's hooks, in the owner's thread; a hook that raises is asked again at the next poll."""
        number, places = self._moves.number, self._moves.places
        if self._places and self._on_revoked is not None:
            self._on_revoked(self._places)
        self._places = frozenset()
        chosen = self._on_assigned(sorted(places)) if places and self._on_assigned is not None else {}
        for place in places & frozenset(chosen):
            self._client.seek(_theirs(place), chosen[place])
        self._places, self._num_moves_told = places, number

    def _check_assigned(self, place: TopicPartition) -> None:
        if place not in self._places:
            raise ValueError(f"{place} is not assigned to this consumer; it has {sorted(self._places)}")


class _AwayError(RetryableError):
    """The bus itself is away, and not something that an owner's hook needed: `poll` waits this out and lets that one pass."""


def _theirs(place: TopicPartition) -> Any:
    return kafka.TopicPartition(*place)


def _record(found: Any) -> Record:
    return Record(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        timestamp_ms=found.timestamp,
        key=found.key or b"",
        headers={name: value or b"" for name, value in found.headers},
        value=found.value or b"",
    )
