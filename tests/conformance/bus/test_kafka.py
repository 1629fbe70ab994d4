"""What is true of Kafka only, on a real broker: topics are made by Clipdrift, all with one number of partitions."""

import json

import pytest

from clipdrift_contract.bus.kafka import KafkaBus
from clipdrift_contract.errors import ConfigError

pytestmark = pytest.mark.broker


@pytest.fixture
def server(kafka_place):
    return json.loads(kafka_place.address)[1]


def test_a_missing_topic_is_created_with_our_partitions_and_not_by_the_broker(server):
    """The broker of these tests would create it by itself, with one partition."""
    publisher = KafkaBus([server], num_partitions=3).publisher()
    publisher.publish("made-by-publisher", b"key", {}, b"value", timestamp_ms=1_790_000_000_000)
    publisher.flush(30.0)
    publisher.close()
    assert KafkaBus([server], num_partitions=9).num_partitions("made-by-publisher") == 3


def test_a_group_on_topics_of_unequal_partitions_is_refused(server):
    KafkaBus([server], num_partitions=2).ensure_topics(["two-parts"])
    KafkaBus([server], num_partitions=3).ensure_topics(["three-parts"])
    bus = KafkaBus([server])
    consumer = bus.consumer("g", ["two-parts", "three-parts"])
    with pytest.raises(ConfigError, match=r"equally many partitions.*'two-parts': 2, 'three-parts': 3"):
        consumer.poll(1, 0.1)
    consumer.close()

    lone = bus.consumer(None, ["two-parts", "three-parts"])
    lone.poll(1, 0.1)
    assert len(lone.assignment()) == 5, "alone there is nobody to share with"
    lone.close()
