"""Events a second through each bus, published and read back and checked, the buses in turn. The last line is one JSON object.

Kafka is a real broker when KAFKA_HOME names a distribution (Java is needed), otherwise librdkafka's mock broker, which keeps
its log in memory: its figures are the client's cost, without disk and replication.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance" / "bus"))
from bus_places import KafkaPlace, MockPlace, Place, SqlitePlace

_NUM_EVENTS = 20_000
_NUM_LONE = 50
_NUM_KEYS = 64
_VALUE_BYTES = 300
_ROUNDS = 5
_PATIENCE_SECONDS = 60.0
_HEADERS = {"ce_id": b"0123456789abcdef-0", "ce_type": b"io.clipdrift.GradWindow", "content-type": b"application/msgpack"}


def value_of(number: int) -> bytes:
    return b"%d " % number + b"x" * (_VALUE_BYTES - len(b"%d " % number))


def measure(place: Place) -> dict[str, float]:
    """One round on a topic of its own: figures, after what was read has been found to be what was written."""
    bus, topic = place.open(), place.topic()
    publisher = bus.publisher()
    publisher.publish(topic, b"first", _HEADERS, value_of(0), timestamp_ms=0)  # connects
    publisher.flush(_PATIENCE_SECONDS)

    started = time.perf_counter()
    for number in range(1, _NUM_EVENTS + 1):
        publisher.publish(topic, b"key-%d" % (number % _NUM_KEYS), _HEADERS, value_of(number), timestamp_ms=number)
    publisher.flush(_PATIENCE_SECONDS)
    published_seconds = time.perf_counter() - started

    consumer = bus.consumer(None, [topic])
    while not (records := list(consumer.poll(1, 1.0))):
        pass
    started = time.perf_counter()
    while len(records) < _NUM_EVENTS + 1:
        batch = consumer.poll(2_000, 1.0)
        records += batch
        if time.perf_counter() - started > _PATIENCE_SECONDS:
            sys.exit(f"{place.address}: {_NUM_EVENTS + 1 - len(records)} events are missing")
    read_seconds = time.perf_counter() - started
    check(records)

    lone_ms = []
    for number in range(_NUM_LONE):
        started = time.perf_counter()
        publisher.publish(topic, b"lone", _HEADERS, value_of(number), timestamp_ms=number)
        publisher.flush(_PATIENCE_SECONDS)
        lone_ms.append(1e3 * (time.perf_counter() - started))
    consumer.close()
    publisher.close()
    return {
        "publish_per_second": _NUM_EVENTS / published_seconds,
        "consume_per_second": _NUM_EVENTS / read_seconds,
        "lone_acknowledged_ms": statistics.median(lone_ms),
    }


def check(records: list) -> None:
    """Nothing lost, nothing twice, every byte as written, order kept by key."""
    by_key = defaultdict(list)
    for record in records:
        number = int(record.value.split(b" ", 1)[0])
        assert record.value == value_of(number), "a value has changed"
        by_key[record.key].append(number)
    everything = sorted(number for numbers in by_key.values() for number in numbers)
    assert everything == list(range(_NUM_EVENTS + 1)), "not all came once"
    assert all(numbers == sorted(numbers) for numbers in by_key.values()), "order was lost"


def main() -> None:
    home = os.environ.get("KAFKA_HOME")
    with tempfile.TemporaryDirectory() as folder:
        kafka = KafkaPlace(Path(home), Path(folder) / "kafka") if home else MockPlace()
        places = {"sqlite": SqlitePlace(Path(folder) / "bus.sqlite"), "kafka" if home else "kafka_mock": kafka}
        rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
        try:
            for number in range(_ROUNDS):
                for name, place in places.items():
                    rounds[name].append(measure(place))
                    print(f"round {number + 1} {name}: { ({k: round(v, 2) for k, v in rounds[name][-1].items()}) }", flush=True)
        finally:
            kafka.stop()
    medians = {
        name: {key: round(statistics.median(one[key] for one in found), 2) for key in found[0]}
        for name, found in rounds.items()
    }
    print(json.dumps({"bench": "bus", "num_events": _NUM_EVENTS, "value_bytes": _VALUE_BYTES, "rounds": _ROUNDS, **medians}))


if __name__ == "__main__":
    main()
