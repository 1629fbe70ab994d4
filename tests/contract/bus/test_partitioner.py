"""Kafka's default partitioner, exactly: checked against kafka-python's own, which follows the Java client."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka.partitioner.default import DefaultPartitioner
from kafka.partitioner.default import murmur2 as kafka_murmur2

from clipdrift_contract.bus.partitioner import murmur2, partition_of


class Cluster:
    """What kafka-python's partitioner asks a cluster for."""

    def __init__(self, num_partitions):
        self._partitions = set(range(num_partitions))

    def topics(self):
        return {"t"}

    def partitions_for_topic(self, topic):
        return self._partitions

    available_partitions_for_topic = partitions_for_topic


@given(st.binary(max_size=64))
@example(b"")
@example(b"\x80\xff\xfe")
def test_the_hash_is_kafka_pythons(key):
    assert murmur2(key) == kafka_murmur2(key)


@given(st.binary(max_size=64), st.integers(1, 200))
def test_the_partition_is_kafka_pythons(key, num_partitions):
    theirs = DefaultPartitioner().partition("t", key, key, b"", b"", Cluster(num_partitions))
    assert partition_of(key, num_partitions) == theirs


# org.apache.kafka.common.utils.UtilsTest.testMurmur2, as signed 32-bit numbers
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(key, expected):
    assert murmur2(key) == expected % 2**32


def test_many_keys_reach_all_partitions():
    assert {partition_of(b"model/%d" % number, 4) for number in range(100)} == {0, 1, 2, 3}


def test_no_partitions_is_an_error():
    with pytest.raises(ValueError, match="num_partitions must be >= 1"):
        partition_of(b"key", 0)
