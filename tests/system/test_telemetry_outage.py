"""A training goes on while Kafka is gone, and Kafka has all of its windows afterwards, once and in order."""

import os
import sys
import time
from pathlib import Path

import pytest

from clipdrift_contract.bus.kafka import KafkaBus
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.envelope import decode
from clipdrift_contract.events import TRAINING, GradWindow
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.recording.sinks import WindowSink

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance" / "bus"))
from bus_kafka_broker import KafkaBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.system]


def window(step: int) -> GradWindow:
    return GradWindow(run_id="r", model="m", started_at_ms=step, ended_at_ms=step, step_first=step, num_steps=50, num_clipped=0)


@pytest.fixture
def broker(tmp_path: Path) -> KafkaBroker:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set")
    started = KafkaBroker(Path(home), tmp_path / "kafka")
    started.start()
    yield started
    started.kill()


def test_windows_of_an_outage_arrive_once_and_in_order_and_the_training_never_waits(
    broker: KafkaBroker, tmp_path: Path
) -> None:
    bus = KafkaBus([broker.server])
    publisher = EventPublisher(bus.publisher(), source="trainer", clock=SystemClock())
    longest = 0.0
    with WindowSink(publisher, MetricSet(), 5_000, spool=tmp_path / "spool", close_seconds=60.0) as sink:
        for number in range(60):
            if number == 20:
                assert sink.drain(30)
                broker.kill()
            if number == 40:
                assert not sink.drain(3)
                broker.start()
            began = time.monotonic()
            sink(window(50 * number))
            longest = max(longest, time.monotonic() - began)
    publisher.close()
    read = _read(bus, 60)
    bus.close()
    assert read == [50 * number for number in range(60)]
    assert longest < 0.5
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_one_run_left_behind_the_next_one_brings(broker: KafkaBroker, tmp_path: Path) -> None:
    bus = KafkaBus([broker.server])
    bus.ensure_topics([TRAINING])
    broker.kill()
    dead = EventPublisher(bus.publisher(), source="trainer", clock=SystemClock())
    with WindowSink(dead, MetricSet(), 100, spool=tmp_path, close_seconds=3.0) as sink:
        sink(window(0))
    dead.close(0.0)
    broker.start()
    publisher = EventPublisher(bus.publisher(), source="trainer", clock=SystemClock())
    with WindowSink(publisher, MetricSet(), 100, spool=tmp_path, close_seconds=60.0) as sink:
        sink(window(50))
    publisher.close()
    read = _read(bus, 2)
    bus.close()
    assert read == [0, 50]


def _read(bus: KafkaBus, num_expected: int) -> list[int]:
    """Steps of the windows on the bus, each event id once, as consumers count them."""
    consumer = bus.consumer(None, (TRAINING,))
    found: dict[str, int] = {}
    deadline = time.monotonic() + 30
    while len(found) < num_expected and time.monotonic() < deadline:
        for envelope, event in (decode(record.headers, record.value) for record in consumer.poll(500, 0.5)):
            found.setdefault(envelope.id, event.step_first)
    consumer.close()
    return list(found.values())
