"""A model whose block cannot be judged stands still and says so; the others go on, and it catches up once it can be judged."""

import msgspec
import pytest
from dialogue import DAY, POLICY, day_of, profile, run_end
from final_state import differences, final_state

from clipdrift_contract.events import Deployment, ServedVersion
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.reader import Reader

DETECTOR = """
from pathlib import Path
from clipdrift_monitor.detectors.detector import Drift

class Brittle:
    name, kinds, min_effect = "brittle", frozenset(("ordered",)), 0.1

    def compare(self, bins):
        if bins.edges[:1] == (-0.5,) and bins.num_rows in %s and Path(__file__).with_suffix(".broken").exists():
            raise ZeroDivisionError("nothing to divide by")
        return Drift(score=0.0, p_value=1.0, num_rows=bins.num_rows)
"""
BAD_ROWS = (137, 138)  # of the days that the detector fails at


def valve(event):
    return msgspec.structs.replace(event, model="valve")


def run_of_valve():
    known = profile()
    pressure = msgspec.structs.replace(known.features[0], edges=(-0.6, 0.6))
    return valve(run_end(run_id="run-of-valve", profile=msgspec.structs.replace(known, features=(pressure, known.features[1]))))


def live(dialogue, days, bad_days=()):
    """Days of both models; of the bad ones the detector of pump's knows nothing."""
    for day in days:
        size = BAD_ROWS[0] if day in bad_days else 150
        said, learned = day_of(day, num_rows=size)
        dialogue.go(said, learned, *map(valve, day_of(day, num_rows=150)))


def judged_days(dialogue, model):
    return [msgspec.msgpack.decode(body)["start_ms"] // DAY for body in dialogue.store.blocks(model)]


@pytest.fixture
def brittle_of(dialogue_of, tmp_path):
    """Makes dialogues with a detector that somebody wrote."""

    (tmp_path / "brittle.py").write_text(DETECTOR % (BAD_ROWS,))
    drift = msgspec.structs.replace(POLICY.drift, numeric=(f"{tmp_path}/brittle.py:Brittle",))

    def make(name, *, is_broken=True):
        if is_broken:
            (tmp_path / "brittle.broken").touch()
        made = dialogue_of(name, policy=msgspec.structs.replace(POLICY, drift=drift))
        made.go(run_end(), run_of_valve())
        return made

    return make


def test_a_model_that_cannot_be_judged_says_so_and_the_others_are_judged(brittle_of, caplog):
    dialogue = brittle_of("one")
    live(dialogue, range(2, 9), bad_days=(4,))

    assert judged_days(dialogue, "pump") == [2, 3]
    assert judged_days(dialogue, "valve") == [2, 3, 4, 5, 6, 7]
    assert dialogue.state.word == "not judged"
    assert dialogue.state.judging_fault.start_ms == 4 * DAY
    assert dialogue.state.judging_fault.error == "ZeroDivisionError: nothing to divide by"
    assert dialogue.state.num_labels == 6 * 150 + 137, "its rows are counted all the same"
    assert dialogue.engine.snapshot.models["valve"].word == "healthy"
    told = [row for row in dialogue.store.audit() if row.action == "cannot judge"]
    assert [(row.subject, row.body) for row in told] == [
        (f"pump-v1-{4 * DAY}", '{"error":"ZeroDivisionError: nothing to divide by"}')
    ]
    assert "report this error" in caplog.text
    exposition = Exporter(
        Reader(dialogue.config, dialogue.store, lambda: dialogue.engine.snapshot), dialogue.metrics, dialogue.config
    ).exposition()
    assert b'clipdrift_monitor_judging_stopped{model="pump"} 1.0' in exposition
    assert b'clipdrift_monitor_judging_stopped{model="valve"} 0.0' in exposition


def test_it_is_tried_again_with_the_next_block_and_after_a_restart_and_not_at_every_turn(brittle_of, caplog):
    dialogue = brittle_of("one")
    live(dialogue, range(2, 6), bad_days=(3,))
    num_tried = caplog.text.count("cannot be judged")
    columns = day_of(5, num_rows=30, epoch="more")
    dialogue.go(*columns).turn(20)
    num_within_a_day = caplog.text.count("cannot be judged")
    live(dialogue, [6], bad_days=())
    num_with_the_next = caplog.text.count("cannot be judged")
    dialogue.restart()
    dialogue.turn(3)

    assert num_tried == num_within_a_day
    assert num_with_the_next == num_within_a_day + 1
    assert caplog.text.count("cannot be judged") > num_with_the_next
    assert judged_days(dialogue, "pump") == [2]
    assert dialogue.audit_words().count("cannot judge") == 1


def test_once_it_can_be_judged_it_ends_as_one_that_always_could(brittle_of, tmp_path):
    whole = brittle_of("whole", is_broken=False)
    live(whole, range(2, 10), bad_days=(4, 6))
    broken = brittle_of("broken")
    live(broken, range(2, 9), bad_days=(4, 6))
    assert judged_days(broken, "pump") == [2, 3]
    (tmp_path / "brittle.broken").unlink()
    broken.restart()
    live(broken, [9])

    found, expected = final_state(broken), final_state(whole)
    words = found.pop("audit")
    assert words.count("cannot judge") == words.count("judges again") == 1
    assert sorted(word for word in words if "judge" not in word) == sorted(expected.pop("audit"))
    assert differences(found, expected) == []
    assert broken.state.word == "healthy"


def test_a_version_that_comes_into_service_is_judged_whatever_stopped_the_one_before(brittle_of):
    dialogue = brittle_of("one")
    live(dialogue, range(2, 6), bad_days=(3,))
    served = ServedVersion(version="v2", uri="file:///models/v2.onnx", digest="sha256:v2")
    dialogue.go(run_end("v2", day=5), Deployment(model="pump", generation=7, champion=served, decided_at_ms=6 * DAY))
    for day in range(6, 10):
        dialogue.go(*day_of(day, version="v2", num_rows=150, epoch="f"))

    assert dialogue.state.judging_fault is None
    assert judged_days(dialogue, "pump") == [2, 6, 7, 8]
