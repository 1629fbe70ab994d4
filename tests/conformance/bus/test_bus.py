"""What every bus promises (clipdrift_contract/bus/log.py), held against the SQLite file, a mock Kafka and a real one."""

import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from bus_places import HERE, NUM_PARTITIONS
from bus_writer import number_in

from clipdrift_contract.bus.log import TopicPartition
from clipdrift_contract.bus.partitioner import partition_of
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.envelope import encode
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import POISON, TOPICS, Deployment, ServedVersion
from clipdrift_contract.metrics import BUS_POISON, MetricSet

PATIENCE_SECONDS = 30.0
START_MS = 1_790_000_000_000
AWAY_SECONDS = 10.0


@pytest.fixture
def bus(place):
    opened = place.open()
    yield opened
    opened.close()


@pytest.fixture
def publisher(bus):
    opened = bus.publisher()
    yield opened
    opened.close()


@pytest.fixture
def consume(bus):
    """Opens consumers and closes them after the test, so that no group of one test disturbs another."""
    opened = []

    def open_consumer(group, topics, **hooks):
        opened.append(bus.consumer(group, topics, **hooks))
        return opened[-1]

    yield open_consumer
    for consumer in opened:
        consumer.close()


def group_of(topic):
    return f"group-{topic}"


def put(publisher, topic, numbers, key=None):
    for number in numbers:
        chosen = b"key-%d" % (number % 7) if key is None else key
        publisher.publish(
            topic, chosen, {"number": b"%d" % number}, b"value %d" % number, timestamp_ms=START_MS + 1000 * number
        )
    publisher.flush(PATIENCE_SECONDS)


def numbers_of(records):
    return [int(record.headers["number"]) for record in records]


def take(consumer, count, max_records=500):
    """Records until there are `count` of them, and then what comes without waiting: more than expected must show."""
    found = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.poll(max_records, 0.5)
    if max_records > 1:
        found += consumer.poll(max_records, 0.2)
    return found


def poll_until(is_reached, *consumers):
    """Polls all members at once, each in a thread of its own, as a group needs all of them for a rebalance; returns what they
    read."""
    found = defaultdict(list)
    deadline = time.monotonic() + PATIENCE_SECONDS
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1, f"member-{n}")) for n in range(len(consumers))]
        while not is_reached(found):
            assert time.monotonic() < deadline, "the members did not get there in time"
            polls = [thread.submit(member.poll, 500, 0.2) for thread, member in zip(threads, consumers, strict=True)]
            for number, poll in enumerate(polls):
                found[number] += poll.result()
    return found


def commit_when_settled(*consumers):
    """Commits for all members; while the group is rebalancing it polls on."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            for consumer in consumers:
                consumer.commit()
        except RetryableError:
            assert time.monotonic() < deadline, "the group does not settle"
            poll_until(bool, *consumers)
            continue
        return


def places_of(*topics):
    return {TopicPartition(topic, number) for topic in topics for number in range(NUM_PARTITIONS)}


# --- order, bytes, partitions ---


def test_what_is_published_is_read_byte_for_byte(place, publisher, consume):
    topic = place.topic()
    publisher.publish(topic, b"\x00key", {"a": b"\xff\x00", "b": b""}, b"\x00\x01\xff", timestamp_ms=START_MS)
    publisher.flush(PATIENCE_SECONDS)

    (record,) = take(consume(None, [topic]), 1)

    assert (record.topic, record.key, record.headers, record.value) == (
        topic, b"\x00key", {"a": b"\xff\x00", "b": b""}, b"\x00\x01\xff",
    )  # fmt: skip
    assert record.timestamp_ms == START_MS


def test_records_with_one_key_keep_their_order(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(300))

    by_key = defaultdict(list)
    for record in take(consume(None, [topic]), 300, max_records=17):
        by_key[record.key].append(int(record.headers["number"]))

    assert sum(map(len, by_key.values())) == 300
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def test_a_key_goes_to_the_partition_that_the_partitioner_names(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(50))

    records = take(consume(None, [topic]), 50)

    assert len(records) == 50
    assert all(record.partition == partition_of(record.key, NUM_PARTITIONS) for record in records)
    assert len({record.partition for record in records}) > 1


def test_offsets_of_a_partition_grow(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(40), key=b"one")

    offsets = [record.offset for record in take(consume(None, [topic]), 40)]

    assert len(offsets) == 40
    assert offsets == sorted(set(offsets))


def test_everything_flushed_is_no_longer_queued(place, publisher):
    put(publisher, place.topic(), range(10))
    assert publisher.num_queued() == 0


def test_max_records_bounds_what_one_poll_returns(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(30), key=b"one")
    consumer = consume(None, [topic])

    sizes = []
    while sum(sizes) < 30:
        sizes.append(len(consumer.poll(7, 1.0)))

    assert max(sizes) == 7


# --- groups ---


def test_a_group_goes_on_behind_what_it_committed(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(20), key=b"one")
    first = consume(group_of(topic), [topic])
    seen = []
    while len(seen) < 8:
        seen += first.poll(8 - len(seen), 1.0)
    first.commit()
    ahead = take(first, 5, max_records=5)
    first.close()

    second = consume(group_of(topic), [topic])
    resumed = take(second, 12)

    assert numbers_of(seen) == list(range(8))
    assert len(ahead) >= 5, "the first member had read on without committing"
    assert numbers_of(resumed) == list(range(8, 20))


def test_a_commit_may_name_its_offsets(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(10), key=b"one")
    consumer = consume(group_of(topic), [topic])
    records = take(consumer, 10)
    where = records[0].place

    assert consumer.committed(where) is None
    consumer.commit({where: records[4].offset})

    assert consumer.committed(where) == records[4].offset
    consumer.close()
    assert numbers_of(take(consume(group_of(topic), [topic]), 6)) == list(range(4, 10))


def test_two_groups_each_read_everything(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(25))
    assert sorted(numbers_of(take(consume(f"{topic}-a", [topic]), 25))) == list(range(25))
    assert sorted(numbers_of(take(consume(f"{topic}-b", [topic]), 25))) == list(range(25))


def test_a_lone_reader_gets_all_partitions_from_the_beginning_and_commits_nothing(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(25))
    first = consume(None, [topic])
    assert sorted(numbers_of(take(first, 25))) == list(range(25))
    assert first.assignment() == places_of(topic)
    first.commit()
    assert first.committed(TopicPartition(topic, 0)) is None

    assert sorted(numbers_of(take(consume(None, [topic]), 25))) == list(range(25))


class Moves(list):
    """Every assignment that the members of a group were given, in order."""

    def note(self, places):
        self.append(places)
        return {}


def assert_each_once(records, expected, is_settled):
    """None lost; and each once, unless a member of a slow machine was thought dead and its records were given to another."""
    numbers = numbers_of(records)
    assert set(numbers) == set(expected)
    if is_settled:
        assert sorted(numbers) == list(expected)


def test_a_group_of_two_shares_loses_nothing_and_keeps_partition_numbers_together(place, publisher, consume):
    predictions, labels = place.topic(), place.topic()
    topics, moves = [predictions, labels], Moves()
    put(publisher, predictions, range(100))
    one = consume(group_of(predictions), topics, on_assigned=moves.note)
    before = take(one, 100)
    one.commit()

    two = consume(group_of(predictions), topics, on_assigned=moves.note)
    poll_until(lambda _: len(one.assignment()) == len(two.assignment()) == NUM_PARTITIONS, one, two)

    assert one.assignment() | two.assignment() == places_of(*topics)
    assert not one.assignment() & two.assignment()
    for member in (one, two):
        numbers = [{place.partition for place in member.assignment() if place.topic == topic} for topic in topics]
        assert numbers[0] == numbers[1]

    num_moves = len(moves)
    put(publisher, predictions, range(100, 200))
    put(publisher, labels, range(200, 300))
    shared = poll_until(lambda found: len(set(numbers_of(found[0] + found[1]))) == 200, one, two)
    assert sorted(numbers_of(before)) == list(range(100))
    assert_each_once(shared[0] + shared[1], range(100, 300), len(moves) == num_moves)
    assert shared[0]
    assert shared[1]
    if len(moves) == num_moves:
        for member, records in ((one, shared[0]), (two, shared[1])):
            assert {record.place for record in records} <= member.assignment()


def test_when_a_member_leaves_the_others_take_over_where_it_committed(place, publisher, consume):
    topic, moves = place.topic(), Moves()
    one, two = (consume(group_of(topic), [topic], on_assigned=moves.note) for _ in range(2))
    poll_until(lambda _: len(one.assignment()) == len(two.assignment()) == NUM_PARTITIONS // 2, one, two)
    num_moves = len(moves)
    put(publisher, topic, range(60))
    shared = poll_until(lambda found: len(set(numbers_of(found[0] + found[1]))) == 60, one, two)
    is_settled = len(moves) == num_moves
    commit_when_settled(one, two)

    two.close()
    poll_until(lambda _: one.assignment() == places_of(topic), one)
    num_moves = len(moves)
    put(publisher, topic, range(60, 120))
    rest = poll_until(lambda found: set(numbers_of(found[0])) >= set(range(60, 120)), one)[0]

    assert_each_once(shared[0] + shared[1], range(60), is_settled)
    assert_each_once(rest, range(60, 120), len(moves) == num_moves)


def test_hooks_are_told_in_the_callers_thread_what_comes_and_goes(place, consume):
    topic = place.topic()
    told = []

    def note(what):
        def hook(places):
            told.append((what, set(places), threading.current_thread().name))
            return {}

        return hook

    one = consume(group_of(topic), [topic], on_assigned=note("assigned"), on_revoked=note("revoked"))
    poll_until(lambda _: one.assignment() == places_of(topic), one)
    two = consume(group_of(topic), [topic])
    poll_until(lambda _: len(one.assignment()) == len(two.assignment()) == NUM_PARTITIONS // 2, one, two)

    assert [what for what, _, _ in told][:2] == ["assigned", "revoked"]
    assert told[0][1] == told[1][1] == places_of(topic)
    assert told[-1][0] == "assigned"
    assert told[-1][1] == one.assignment()
    assert {thread for _, _, thread in told} == {"member-0_0"}


def test_an_owner_may_say_where_to_start(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(20), key=b"one")
    where = TopicPartition(topic, partition_of(b"one", NUM_PARTITIONS))

    consumer = consume(group_of(topic), [topic], on_assigned=lambda places: {where: 15} if where in places else {})

    assert numbers_of(take(consumer, 5)) == list(range(15, 20))
    assert consumer.position(where) == 20


def test_a_hook_that_fails_is_asked_again_and_nothing_is_lost(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(20), key=b"one")
    asked = []

    def on_assigned(places):
        asked.append(len(places))
        if len(asked) == 1:
            raise RetryableError("the owner's store is away")
        return {}

    consumer = consume(group_of(topic), [topic], on_assigned=on_assigned)
    with pytest.raises(RetryableError, match="store is away"):
        take(consumer, 1)

    assert numbers_of(take(consumer, 20)) == list(range(20))
    assert len(asked) >= 2


def test_one_group_reads_every_topic_of_the_product(place, bus, publisher, consume):
    for topic in TOPICS:
        place.make_topic(topic)
    bus.ensure_topics(TOPICS)
    bus.ensure_topics(TOPICS)
    assert {bus.num_partitions(topic) for topic in TOPICS} == {NUM_PARTITIONS}

    consumer = consume("everything", TOPICS)
    poll_until(lambda _: consumer.assignment() == places_of(*TOPICS), consumer)
    for number, topic in enumerate(TOPICS):
        publisher.publish(topic, b"m", {"number": b"%d" % number}, b"", timestamp_ms=START_MS)
    publisher.flush(PATIENCE_SECONDS)

    mine = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(mine) < len(TOPICS) and time.monotonic() < deadline:
        mine += [record for record in consumer.poll(500, 0.5) if "number" in record.headers]
    assert {record.topic: int(record.headers["number"]) for record in mine} == {t: n for n, t in enumerate(TOPICS)}
    consumer.commit()


# --- replay and lag ---


def test_seek_replays_from_an_offset(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(10), key=b"one")
    consumer = consume(group_of(topic), [topic])
    records = take(consumer, 10)

    consumer.seek(records[0].place, records[6].offset)

    assert consumer.position(records[0].place) == records[6].offset
    assert numbers_of(take(consumer, 4)) == [6, 7, 8, 9]


def test_a_seek_to_a_partition_of_others_is_refused(place, publisher, consume):
    topic = place.topic()
    consumer = consume(None, [topic])
    consumer.poll(1, 0.1)
    with pytest.raises(ValueError, match="is not assigned"):
        consumer.seek(TopicPartition("elsewhere", 0), 0)


@pytest.mark.parametrize("group", [None, "in a group"])
def test_seek_to_time_replays_from_the_first_record_at_or_after_it(place, publisher, consume, group):
    if not place.knows_time:
        pytest.skip("the mock broker has no index by time")
    topic = place.topic()
    put(publisher, topic, range(30))
    consumer = consume(group and group_of(topic), [topic])

    consumer.seek_to_time(START_MS + 21_500)
    assert sorted(numbers_of(take(consumer, 8))) == list(range(22, 30))

    consumer.seek_to_time(START_MS + 29_001)
    put(publisher, topic, [30])
    assert numbers_of(take(consumer, 1)) == [30], "behind the last record is where the next one will be"


def test_lag_counts_what_is_written_and_not_polled(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(10))
    consumer = consume(group_of(topic), [topic])
    assert consumer.lag() >= 1, "unknown is not none"

    take(consumer, 10)
    assert consumer.lag() == 0
    put(publisher, topic, range(10, 15))
    assert consumer.lag() == 5
    take(consumer, 5)
    assert consumer.lag() == 0


# --- what goes wrong ---


def deployment(generation):
    served = ServedVersion(version="1", uri="file:///m.onnx", digest="sha256:0")
    return Deployment(model="m", generation=generation, champion=served, decided_at_ms=0)


def reader_of(consumer, publisher, metrics):
    return EventReader(consumer, publisher=publisher, metrics=metrics, clock=ManualClock(START_MS))


def test_an_event_sent_twice_arrives_twice_under_one_id(place, publisher, consume):
    topic = place.topic()
    for event_id in ("a-0", "a-1", "a-0"):  # a sender that saw no acknowledgement sends again
        headers, value = encode(deployment(1), event_id=event_id, source="test", time_ms=START_MS)
        publisher.publish(topic, b"m", headers, value, timestamp_ms=START_MS)
    publisher.flush(PATIENCE_SECONDS)

    reader = reader_of(consume(None, [topic]), publisher, MetricSet())
    ids = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(ids) < 3 and time.monotonic() < deadline:
        ids += [read.envelope.id for read in reader.poll(500, 0.5)]

    assert ids == ["a-0", "a-1", "a-0"]


def test_poison_is_parked_with_its_reason_counted_and_passed_by(place, publisher, consume):
    topic = place.topic()
    place.make_topic(POISON)
    headers, value = encode(deployment(7), event_id="a-0", source="test", time_ms=START_MS)
    publisher.publish(topic, b"m", headers, value[:-3], timestamp_ms=START_MS)
    publisher.publish(topic, b"m", {}, b"not an event", timestamp_ms=START_MS)
    publisher.publish(topic, b"m", headers, value, timestamp_ms=START_MS)
    publisher.flush(PATIENCE_SECONDS)
    metrics = MetricSet()
    reader = reader_of(consume(group_of(topic), [topic]), publisher, metrics)

    events = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not events and time.monotonic() < deadline:
        events += reader.poll(500, 0.5)
    publisher.flush(PATIENCE_SECONDS)
    reader.consumer.commit()
    reader.consumer.close()

    assert [read.event.generation for read in events] == [7]
    assert metrics.counter(BUS_POISON).labels(topic)._value.get() == 2
    origin = f"{topic}/{events[0].record.partition}/"
    parked = []
    lone = consume(None, [POISON])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(parked) < 2 and time.monotonic() < deadline:
        parked += [r for r in lone.poll(500, 0.5) if r.headers.get("poison_origin", b"").decode().startswith(origin)]
    assert [record.value for record in parked] == [value[:-3], b"not an event"]
    assert b"does not parse" in parked[0].headers["poison_reason"]
    assert b"no header" in parked[1].headers["poison_reason"]
    again = reader_of(consume(group_of(topic), [topic]), publisher, metrics)
    assert not again.poll(500, 2.0)
    assert metrics.counter(BUS_POISON).labels(topic)._value.get() == 2, "what was parked is not read again"


def test_a_commit_of_a_member_that_was_overtaken_is_refused(place, publisher, consume):
    topic = place.topic()
    one = consume(group_of(topic), [topic])
    put(publisher, topic, range(10))
    take(one, 10)
    two = consume(group_of(topic), [topic])
    deadline = time.monotonic() + PATIENCE_SECONDS
    error = None
    while error is None and time.monotonic() < deadline:
        two.poll(10, 0.1)  # joins; the first member has not polled since
        try:
            one.commit()
        except RetryableError as refused:
            error = refused
    assert error is not None


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_bus_that_is_away_for_ten_seconds_loses_nothing(place, publisher, consume):
    topic = place.topic()
    put(publisher, topic, range(100))
    consumer = consume(group_of(topic), [topic])
    seen = take(consumer, 100)
    consumer.commit()

    with place.away():
        gone = time.monotonic()
        for number in range(100, 200):
            publisher.publish(topic, b"key-%d" % (number % 7), {"number": b"%d" % number}, b"", timestamp_ms=START_MS)
        assert publisher.num_queued() == 100, "publish did not wait for what is away"
        with pytest.raises(RetryableError):
            publisher.flush(0.5)
        while time.monotonic() - gone < AWAY_SECONDS:
            seen += consumer.poll(500, 1.0)
        assert publisher.num_queued() == 100, "nothing was dropped either"
    publisher.flush(PATIENCE_SECONDS)
    put(publisher, topic, range(200, 250))

    deadline = time.monotonic() + PATIENCE_SECONDS
    while set(numbers_of(seen)) != set(range(250)) and time.monotonic() < deadline:
        seen += consumer.poll(500, 0.5)

    assert set(numbers_of(seen)) == set(range(250))
    first_of = defaultdict(list)
    for record in seen:
        number = int(record.headers["number"])
        if number not in first_of[record.key]:
            first_of[record.key].append(number)
    assert all(numbers == sorted(numbers) for numbers in first_of.values()), "order is kept over the outage"
    poll_until(lambda _: consumer.lag() == 0, consumer)
    commit_when_settled(consumer)


def test_what_a_killed_writer_had_flushed_is_there_whole_and_in_order(place, consume):
    topic = place.topic()
    writer = subprocess.Popen(
        [sys.executable, HERE / "bus_writer.py", place.address, topic], stdout=subprocess.PIPE, text=True, cwd=HERE
    )
    assert writer.stdout is not None
    for _ in range(25):
        acknowledged = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)  # it is within its next batch by now
    acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().split())])
    writer.wait()
    writer.stdout.close()

    numbers = [number_in(record.value) for record in take(consume(None, [topic]), acknowledged + 1)]

    assert len(numbers) > acknowledged
    assert numbers == list(range(len(numbers))), "no gap, no repetition, no change of order"
