"""Events through a bus: which topic, which key, which id; and what a reader does with what it cannot read."""

import sys
from pathlib import Path

import pytest

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.envelope import JSON
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import POISON, TOPICS, Deployment
from clipdrift_contract.metrics import BUS_POISON, MetricSet

sys.path.insert(0, str(Path(__file__).parents[1]))
from write_golden import EVENT_TYPES, example

NOW_MS = 1_362_736_800_000


@pytest.fixture
def bus(tmp_path):
    return SqliteBus(tmp_path / "bus.sqlite")


@pytest.fixture
def publisher(bus):
    opened = bus.publisher()
    yield opened
    opened.close()


@pytest.fixture
def events(publisher):
    return EventPublisher(publisher, source="test", clock=ManualClock(NOW_MS))


def reader_of(bus, topics, publisher, metrics=None):
    consumer = bus.consumer(None, topics)
    return EventReader(consumer, publisher=publisher, metrics=metrics or MetricSet(), clock=ManualClock(NOW_MS))


def test_every_event_arrives_on_its_topic_under_its_key_as_it_was(bus, publisher, events):
    sent = {events.publish(example(kind)): example(kind) for kind in EVENT_TYPES}
    events.flush(10.0)

    reads = reader_of(bus, TOPICS, publisher).poll(500, 0.0)

    assert {read.envelope.id: read.event for read in reads} == sent
    for read in reads:
        assert read.record.timestamp_ms == read.envelope.time_ms == NOW_MS
        assert read.envelope.source == "test"


def test_every_event_gets_an_id_of_its_own_unless_it_has_one(bus, publisher, events):
    first, second = events.publish(example(Deployment)), events.publish(example(Deployment))
    named = [events.publish(example(Deployment), event_id="mine") for _ in range(2)]
    events.flush(10.0)
    assert first != second
    assert named == ["mine", "mine"]
    assert [read.envelope.id for read in reader_of(bus, TOPICS, publisher).poll(500, 0.0)] == [first, second, "mine", "mine"]


def test_json_is_there_for_those_who_read_by_eye(bus, publisher):
    events = EventPublisher(publisher, source="test", clock=ManualClock(NOW_MS), content_type=JSON)
    events.publish(example(Deployment))
    events.flush(10.0)
    (read,) = reader_of(bus, TOPICS, publisher).poll(500, 0.0)
    assert read.record.value.startswith(b'{"model":"model 101"')
    assert read.event == example(Deployment)


def test_closing_the_events_closes_their_publisher(bus, events):
    events.publish(example(Deployment))
    events.close()
    assert events.num_queued() == 0
    assert len(bus.consumer(None, TOPICS).poll(10, 0.0)) == 1


class FullPublisher:
    """A bus that has been away too long."""

    def publish(self, topic, key, headers, value, *, timestamp_ms):
        raise RetryableError("the queue is full")


def test_poison_that_cannot_be_parked_does_not_stop_the_reader(bus, publisher, events):
    publisher.publish("clipdrift.deployments", b"m", {}, b"poison", timestamp_ms=0)
    events.publish(example(Deployment))
    events.flush(10.0)
    metrics = MetricSet()

    reads = reader_of(bus, TOPICS, FullPublisher(), metrics).poll(500, 0.0)

    assert [read.event for read in reads] == [example(Deployment)]
    assert metrics.counter(BUS_POISON).labels("clipdrift.deployments")._value.get() == 1


def test_parked_poison_says_where_it_was(bus, publisher, events):
    publisher.publish("clipdrift.deployments", b"m", {"ce_id": b"x"}, b"poison", timestamp_ms=0)
    publisher.flush(10.0)
    reader_of(bus, ["clipdrift.deployments"], publisher).poll(500, 0.0)
    publisher.flush(10.0)

    (parked,) = bus.consumer(None, [POISON]).poll(10, 0.0)

    assert (parked.key, parked.value, parked.headers["ce_id"]) == (b"m", b"poison", b"x")
    assert parked.headers["poison_origin"].startswith(b"clipdrift.deployments/")
    assert parked.headers["poison_origin"].endswith(b"/0")
