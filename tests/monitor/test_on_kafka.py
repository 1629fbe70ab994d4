"""The engine on the distributed bus: the same dialogue as on the embedded one."""

import os
import sys
from pathlib import Path

import pytest
from dialogue import DAY, Dialogue, day_of, run_end

from clipdrift_contract.events import LABELS, TOPICS

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance" / "bus"))


@pytest.fixture(params=["mock", "kafka"])
def broker(request, tmp_path):
    from bus_places import KafkaPlace, MockPlace

    home = os.environ.get("KAFKA_HOME")
    if request.param == "kafka" and not home:
        pytest.skip("KAFKA_HOME is not set")
    place = MockPlace() if request.param == "mock" else KafkaPlace(Path(home), tmp_path / "broker")
    for topic in TOPICS:
        place.make_topic(topic)
    yield place
    place.stop()


def go_on(dialogue, *events, num_turns=100):
    """Brokers need turns to let a member in, so turns are taken until all is read."""
    dialogue.tell(*events)
    for _ in range(num_turns):
        dialogue.turn(wait_seconds=0.5)
        if dialogue.engine.snapshot.is_idle:
            return
    pytest.fail(f"not idle after {num_turns} turns: {dialogue.engine.snapshot}")


@pytest.mark.broker
def test_events_are_counted_once_over_a_restart_and_blocks_are_judged(broker, tmp_path):
    with Dialogue(tmp_path, bus_type=lambda *_, **__: broker.open()) as dialogue:
        go_on(dialogue, run_end(), *day_of(2), *day_of(3), *day_of(4))
        before = dialogue.sums()
        dialogue.restart()
        go_on(dialogue, *day_of(5))

        assert dialogue.state.num_labels == dialogue.state.num_predictions == 800
        assert dialogue.counted(LABELS, "duplicate") == 0
        assert {key: sums for key, sums in dialogue.sums().items() if key.start_ms < 5 * DAY} == before
        assert len(dialogue.store.blocks("pump")) == 3
