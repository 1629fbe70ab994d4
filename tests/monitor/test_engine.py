"""Counted once, judged once, ordered once: whatever comes twice, late, out of order, or is cut off."""

import shutil
import threading

import msgspec
import numpy as np
import pytest
from dialogue import DAY, TODAY, OnceFailingStore, day_of, labels, outcome, predictions, profile, rows, run_end
from hypothesis import given, settings
from hypothesis import strategies as st

from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import MS_PER_HOUR
from clipdrift_contract.columns import Column
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import (
    DEPLOYMENTS,
    LABELS,
    POISON,
    PREDICTIONS,
    TRAINING,
    Decision,
    Deployment,
    RetrainRequest,
    Signal,
)
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.engine.engine import GROUP, TOPICS
from clipdrift_monitor.store.store import Store

HARMED = [batch for day in range(2, 6) for batch in day_of(day)] + [
    batch for day in range(6, 13) for batch in day_of(day, accuracy=0.1)
]


class Killed(BaseException):
    """The process is gone at this point."""


class KilledStore(Store):
    """Ends the process in the middle of a named call, before or after its work."""

    dies_in = ""

    def _point(self, name):
        if self.dies_in == name:
            type(self).dies_in = self.dies_in = ""
            raise Killed

    def commit(self, changes):
        if changes.requests:
            self._point("before commit")
        super().commit(changes)
        if changes.requests:
            self._point("after commit")

        if any(run.state == "dispatching" for run in changes.ci_runs.values()):
            self._point("before start")
        if any(run.run_id for run in changes.ci_runs.values()):
            self._point("after start")

    def done(self, event_ids):
        if any(name.startswith("retrain-request-") for name in event_ids):
            self._point("before done")
        super().done(event_ids)


def harmed(dialogue):
    """Tell of a model whose harm is proven at the end, day by day."""
    dialogue.go(run_end())
    for before, after in zip(HARMED[::2], HARMED[1::2], strict=True):
        dialogue.go(before, after)
    return dialogue


# --- counted once ---


def test_an_event_that_comes_twice_counts_once_in_one_batch_in_two_and_over_a_restart(dialogue):
    said, learned = day_of(2, num_rows=50)

    dialogue.go(run_end(), said, learned, said, learned, ids=["r", "p", "l", "p", "l"])
    once = dialogue.sums()
    dialogue.go(said, learned, ids=["p", "l"])
    in_this_life = dialogue.counted(PREDICTIONS, "duplicate"), dialogue.counted(LABELS, "duplicate")
    dialogue.restart()
    dialogue.go(said, learned, ids=["p", "l"])

    assert (dialogue.state.num_predictions, dialogue.state.num_labels) == (50, 50)
    assert dialogue.sums() == once
    assert in_this_life == (2, 2)


def test_a_receipt_that_is_redeemed_twice_counts_once_in_one_batch_in_two_and_over_a_restart(dialogue):
    columns = rows(2, 50)
    twice = {name: np.concatenate([values, values]) for name, values in columns.items()}
    same = Column.of(np.concatenate([np.arange(50), np.arange(50)]).astype("u8"))

    dialogue.go(run_end(), predictions(columns), msgspec.structs.replace(labels(twice), sequence=same))
    first = dialogue.sums()
    dialogue.go(labels(columns))
    dialogue.restart()
    dialogue.go(labels({**columns, "label": 1 - columns["label"]}))

    assert dialogue.state.num_labels == 50
    assert dialogue.sums() == first
    assert dialogue.counted(LABELS, "duplicate") == 1


def test_the_same_number_of_another_serving_life_is_another_prediction(dialogue):
    columns = rows(2, 50)

    dialogue.go(run_end(), labels(columns, epoch="e1"), labels(columns, epoch="e2"))

    assert dialogue.state.num_labels == 100


def test_labels_may_come_before_their_predictions(dialogue_of):
    said, learned = day_of(2, num_rows=80)
    usual, turned = dialogue_of("usual"), dialogue_of("turned")

    usual.go(run_end()).go(said).go(learned)
    turned.go(run_end()).go(learned).go(said)

    assert turned.sums() == usual.sums()
    assert turned.state == usual.state


def test_rows_before_their_run_are_kept_over_a_restart_and_placed_when_it_comes(dialogue_of):
    said, learned = day_of(2, num_rows=80)
    usual, waiting = dialogue_of("usual"), dialogue_of("waiting")

    usual.go(run_end()).go(said, learned)
    waiting.go(said).go(learned)
    before = waiting.sums()
    waiting.restart()
    waiting.go(run_end())

    assert before == {}
    assert waiting.sums() == usual.sums()
    assert waiting.store.unplaced("pump", "v1") == []


def test_rows_that_come_in_one_batch_with_their_run_and_before_it_are_placed(dialogue):
    said, learned = day_of(2, num_rows=80)

    dialogue.go(learned, said, run_end())  # labels and predictions are other topics than runs: read in any order

    assert (dialogue.state.num_predictions, dialogue.state.num_labels) == (80, 80)


def test_a_run_that_never_comes_does_not_fill_the_store(dialogue):
    dialogue.engine.rows.max_waiting_batches = 3
    for number in range(6):
        dialogue.go(predictions(rows(2, 5), first=5 * number))

    assert len(dialogue.store.unplaced("pump", "v1")) == 3
    assert dialogue.counted(PREDICTIONS, "poison") == 3
    dialogue.go(run_end())
    assert dialogue.state.num_predictions == 15


COLUMNS = rows(2, 5)
LABELLED = labels(COLUMNS, first=100)
MADE = predictions(COLUMNS, first=100)
UNFIT = {
    "a label column that is too short": msgspec.structs.replace(LABELLED, label=Column.of(np.ones(4))),
    "label times for other rows": msgspec.structs.replace(LABELLED, label_time_ms=Column.of(np.ones(6, "i8"))),
    "times that one row would lend to all": msgspec.structs.replace(LABELLED, event_time_ms=Column.of(np.ones(1, "i8"))),
    "a slice that the profile has not": msgspec.structs.replace(LABELLED, slice_index=Column.of(np.full(5, 3, "i2"))),
    "a slice below the first": msgspec.structs.replace(LABELLED, slice_index=Column.of(np.full(5, -1, "i2"))),
    "words where numbers belong": msgspec.structs.replace(LABELLED, sequence=Column.of(np.array(["a"] * 5, object))),
    "a label that is no number": msgspec.structs.replace(LABELLED, label=Column.of(np.full(5, np.nan))),
    "a class that the model has not": msgspec.structs.replace(LABELLED, label=Column.of(np.full(5, 2.0))),
    "a class between two": msgspec.structs.replace(LABELLED, predicted=Column.of(np.full(5, 0.5))),
    "scores of other classes": msgspec.structs.replace(LABELLED, scores=Column.of(np.ones((5, 3), "f4") / 3)),
    "scores that are infinite": msgspec.structs.replace(LABELLED, scores=Column.of(np.full((5, 2), np.inf, "f4"))),
    "microseconds taken for milliseconds": msgspec.structs.replace(
        LABELLED, event_time_ms=Column.of(LABELLED.event_time_ms.array() * 0 + 1_700_000_000_000_000)
    ),
    "a buffer that is cut off": msgspec.structs.replace(
        LABELLED, label=Column(dtype="<f8", shape=(5,), data=LABELLED.label.data[:-3])
    ),
    "predictions with a feature of other rows": msgspec.structs.replace(
        MADE, features=(msgspec.structs.replace(MADE.features[0], values=Column.of(np.ones(1))),)
    ),
    "predictions with words for a number": msgspec.structs.replace(
        MADE, features=(msgspec.structs.replace(MADE.features[0], values=Column.of(np.array(["x"] * 5, object))),)
    ),
    "predictions in the wrong shape": msgspec.structs.replace(MADE, predicted=Column.of(np.ones((5, 1)))),
}


@pytest.mark.parametrize("what", UNFIT)
def test_columns_that_do_not_fit_are_poison_and_change_nothing(dialogue, what):
    batch = UNFIT[what]
    dialogue.go(run_end(), *day_of(2, num_rows=20))
    before, state = dialogue.sums(), dialogue.state

    dialogue.go(batch)
    dialogue.go(LABELLED)  # its receipts are still to be redeemed

    topic = PREDICTIONS if "predictions" in what else LABELS
    assert dialogue.counted(topic, "poison") == 1
    assert dialogue.state.num_predictions == state.num_predictions
    assert dialogue.state.num_labels == state.num_labels + 5
    assert sum(sums[0] for sums in dialogue.sums().values()) == sum(sums[0] for sums in before.values())


def test_a_record_that_is_no_event_is_parked_once_and_not_read_again_after_a_restart(dialogue):
    dialogue.go(run_end())
    dialogue.tell_raw(LABELS, b"\xff", {"ce_id": b"x"})
    dialogue.go()

    dialogue.restart()
    dialogue.go()

    assert dialogue.num_records(POISON) == 1


def test_a_version_is_what_its_first_run_made(dialogue):
    dialogue.go(run_end())
    dialogue.go(run_end(artifact_digest="sha256:other", run_id="again", profile=profile(features=())))
    dialogue.go(*day_of(2))

    assert dialogue.counted(TRAINING, "poison") == 1
    assert dialogue.store.run("pump", "v1").artifact_digest == "sha256:v1"
    assert dialogue.state.num_labels == 200


def test_a_run_with_the_id_of_another_models_run_is_poison_and_takes_nothing_from_it(dialogue):
    dialogue.go(run_end(), *day_of(2))
    dialogue.go(run_end(model="valve"))
    dialogue.restart()
    dialogue.go(*day_of(3))

    assert dialogue.counted(PREDICTIONS, "applied") == 1
    assert list(dialogue.engine.snapshot.models) == ["pump"]
    assert dialogue.store.run("valve", "v1") is None


@pytest.mark.parametrize("when", [{"as_of_ms": 2**63}, {"as_of_ms": -1}, {"ended_at_ms": 1_700_000_000_000_000}])
def test_a_run_at_a_time_that_cannot_be_is_poison(dialogue, when):
    dialogue.go(run_end("v0", **when))
    dialogue.go(run_end())

    assert dialogue.counted(TRAINING, "poison") == 1
    assert dialogue.state.in_service.version == "v1"


BROKEN_PROFILES = {
    "no counts of slices": profile(slice_counts=()),
    "edges without counts": profile(score_edges=(0.5,)),
    "a feature without counts": profile(features=(msgspec.structs.replace(profile().features[0], counts=(1,)),)),
    "values without a range": profile(task="regression", label_low=1.0, label_high=1.0),
    "one class": profile(classes=("only",)),
}


@pytest.mark.parametrize("what", BROKEN_PROFILES)
def test_a_run_whose_profile_does_not_fit_itself_is_poison_and_the_next_one_is_the_first(dialogue, what):
    dialogue.go(run_end("v0", profile=BROKEN_PROFILES[what]))
    dialogue.go(run_end())

    assert dialogue.counted(TRAINING, "poison") == 1
    assert dialogue.state.in_service.version == "v1"


def test_a_run_without_a_profile_is_not_put_into_service_and_its_rows_are_poison(dialogue):
    dialogue.go(run_end(profile=None))
    dialogue.go(*day_of(2))

    assert dialogue.state.in_service is None
    assert (dialogue.counted(PREDICTIONS, "poison"), dialogue.counted(LABELS, "poison")) == (1, 1)
    assert dialogue.state.num_predictions == 0


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_sums_are_the_same_whatever_the_order_and_batching_of_events(tmp_path_factory, data):
    from dialogue import Dialogue

    columns = rows(2, 24)
    cuts = sorted(data.draw(st.sets(st.integers(1, 23), max_size=4)))
    parts = [slice(a, b) for a, b in zip([0, *cuts], [*cuts, 24], strict=True)]
    pieces = [{name: values[part] for name, values in columns.items()} for part in parts]
    events = [run_end()] + [
        make(piece, first=part.start) for make in (predictions, labels) for piece, part in zip(pieces, parts, strict=True)
    ]
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    shuffled = data.draw(st.permutations(list(zip(events, groups, strict=True))))

    with Dialogue(tmp_path_factory.mktemp("usual")) as usual, Dialogue(tmp_path_factory.mktemp("shuffled")) as other:
        usual.go(run_end(), predictions(columns), labels(columns))
        for group in range(3):
            other.go(*(event for event, of_group in shuffled if of_group == group))

        assert other.sums().keys() == usual.sums().keys()
        for key, sums in usual.sums().items():
            assert other.sums()[key] == pytest.approx(sums, abs=1e-9)
        assert other.state.num_labels == usual.state.num_labels == 24
        assert other.state.open_blocks[2 * DAY].errors_in_order() == usual.state.open_blocks[2 * DAY].errors_in_order()


# --- state and offset are one ---


@pytest.mark.parametrize("fails", ["before", "after"])
def test_after_a_commit_that_failed_memory_is_as_the_store_and_everything_is_applied_once(dialogue_of, fails):
    usual, failing = dialogue_of("usual"), dialogue_of("failing", store_type=OnceFailingStore)
    events = [run_end(), *day_of(2), *day_of(3), *day_of(4)]
    usual.go(*events)
    failing.tell(*events)
    failing.store.fails = fails

    with pytest.raises(RetryableError):
        failing.turn()
    failing.go()

    assert failing.sums() == usual.sums()
    assert failing.state == usual.state
    assert failing.state == msgspec.msgpack.decode(failing.store.models()["pump"], type=type(failing.state))
    assert failing.published().keys() >= usual.published(Decision).keys() | usual.published(Deployment).keys()
    assert failing.audit_words() == usual.audit_words()


def test_a_block_whose_judgement_could_not_be_saved_is_judged_again_without_any_further_event(dialogue_of):
    dialogue = dialogue_of(store_type=OnceFailingStore)
    days = [rows(day, 50) for day in range(2, 7)]
    alone = [
        make({name: values[i : i + 1] for name, values in day.items()}, first=50 * number + i)
        for make in (predictions, labels)
        for number, day in enumerate(days)
        for i in range(50)
    ]
    dialogue.go(run_end())
    dialogue.tell(*alone)  # as many records as one turn reads: there may be more, so nothing is judged yet
    dialogue.turn()
    before, read = dialogue.store.blocks("pump"), dialogue.engine.snapshot
    dialogue.store.fails = "before"
    with pytest.raises(RetryableError):
        dialogue.turn()
    dialogue.turn()

    assert before == []
    assert (read.lag, read.is_idle) == (0, False)
    assert [msgspec.msgpack.decode(body)["start_ms"] // DAY for body in dialogue.store.blocks("pump")] == [2, 3, 4]


def test_an_alarm_that_could_not_be_saved_is_told_once(dialogue_of):
    usual, failing = dialogue_of("usual"), dialogue_of("failing", store_type=OnceFailingStore)
    harmed(usual)
    failing.go(run_end())
    for before, after in zip(HARMED[::2], HARMED[1::2], strict=True):
        failing.tell(before, after)
        failing.store.fails = "before"
        with pytest.raises(RetryableError):
            failing.turn()
        failing.go()

    assert len(usual.told_alarms) >= 2
    assert [told.block for told in failing.told_alarms] == [told.block for told in usual.told_alarms]


# --- a killed monitor goes on where it was ---


def test_a_monitor_that_is_killed_after_every_turn_ends_as_one_that_never_was(dialogue_of):
    usual, killed = dialogue_of("usual"), dialogue_of("killed")
    harmed(usual)
    killed.go(run_end())
    for before, after in zip(HARMED[::2], HARMED[1::2], strict=True):
        killed.tell(before)
        killed.turn()
        killed.restart()
        killed.go(after)
        killed.restart()
    killed.go()

    assert killed.sums() == usual.sums()
    assert killed.state == usual.state
    assert killed.state.open_signals
    assert killed.store.harm("pump") == usual.store.harm("pump")
    assert killed.published(Signal).keys() == usual.published(Signal).keys()
    assert killed.published(Decision).keys() == usual.published(Decision).keys()


@pytest.mark.parametrize("point", ["before commit", "after commit", "before done", "before start", "after start"])
def test_one_retrain_is_ordered_and_started_wherever_the_monitor_is_killed_round_the_decision(dialogue_of, point):
    dialogue = dialogue_of(store_type=KilledStore)
    dialogue.store.dies_in = point
    with pytest.raises(Killed):
        harmed(dialogue)
    for _ in range(2):
        dialogue.restart()
        dialogue.go()
        dialogue.turn(20)  # until a run that may have been begun must be seen

    assert len(dialogue.published(RetrainRequest)) == 1
    assert len(dialogue.store.retrains("pump")) == 1
    assert len(set(dialogue.jobs.started)) == len(dialogue.jobs.started) == 1
    assert list(dialogue.jobs.states.values()) == ["running"]
    assert dialogue.store.outbox() == []
    assert dialogue.store.verify_audit().is_intact


class LossyBus(SqliteBus):
    """Loses the answer to one flush: what was sent is there, and its sender does not know."""

    is_lossy = False

    def publisher(self):
        return LossyPublisher(self, super().publisher())


class LossyPublisher:
    def __init__(self, bus, inner):
        self._bus, self._inner = bus, inner
        self.publish, self.close = inner.publish, inner.close

    def flush(self, timeout_seconds):
        self._inner.flush(timeout_seconds)
        if self._bus.is_lossy:
            self._bus.is_lossy = False
            raise RetryableError("the answer was lost")


def test_what_was_sent_without_an_answer_is_sent_again_under_the_same_id(dialogue_of):
    dialogue = dialogue_of(bus_type=LossyBus)
    dialogue.tell(run_end())
    dialogue.bus.is_lossy = True
    with pytest.raises(RetryableError):
        dialogue.turn()
    num_waiting = dialogue.store.num_outbox()
    dialogue.go()

    assert num_waiting == 1
    assert dialogue.num_records(DEPLOYMENTS) == 2
    assert list(dialogue.published(Deployment)) == ["deployment-pump-1"]
    assert dialogue.counted(DEPLOYMENTS, "duplicate") == 1
    assert dialogue.store.num_outbox() == 0


def test_a_bus_that_is_older_than_the_store_is_read_from_its_start_and_counts_nothing_twice(dialogue_of, tmp_path):
    dialogue = dialogue_of("one")
    dialogue.go(run_end(), *day_of(2), ids=["r", "p2", "l2"])
    dialogue.go(*day_of(3), *day_of(4), ids=["p3", "l3", "p4", "l4"])
    dialogue.restart()
    dialogue.store.close()
    (tmp_path / "restored").mkdir()
    shutil.copy(tmp_path / "one" / "store.db", tmp_path / "restored" / "store.db")

    restored = dialogue_of("restored")  # its bus is empty
    restored.go(*day_of(2), ids=["p2", "l2"])
    deployed = list(restored.published(Deployment))
    restored.go(*day_of(5), ids=["p5", "l5"])

    assert restored.state.num_labels == restored.state.num_predictions == 800
    assert restored.counted(LABELS, "duplicate") == 1
    assert deployed == ["deployment-pump-1"]  # for servers that start on the new bus
    restored.restart()
    restored.go(*day_of(6), ids=["p6", "l6"])
    assert restored.num_records(DEPLOYMENTS) == 1
    assert restored.state.num_labels == 1_000


# --- blocks ---


def blocks_of(dialogue):
    return [msgspec.msgpack.decode(body)["start_ms"] // DAY for body in dialogue.store.blocks("pump")]


def test_a_block_is_judged_once_in_order_and_only_after_the_horizon(dialogue):
    dialogue.go(run_end(), *day_of(2), *day_of(3))
    late = rows(4, 1)
    late["time_ms"] = np.array([4 * DAY - 1])
    dialogue.go(predictions(late, first=77))
    before = blocks_of(dialogue)
    late["time_ms"] = np.array([4 * DAY])
    dialogue.go(predictions(late, first=78))
    at_the_horizon = blocks_of(dialogue)
    dialogue.go(*day_of(6), *day_of(5))

    assert before == [2]  # the labels of day 3, an hour later, have closed day 2
    assert at_the_horizon == [2]
    dialogue.go(*day_of(8))
    assert blocks_of(dialogue) == [2, 3, 4, 5, 6]
    assert [one.at_ms // DAY for one in reversed(dialogue.store.listed("decisions", "pump", 50, 0))] == [4, 5, 6, 7, 8]


def test_blocks_may_be_shorter_than_a_day(dialogue_of):
    hours = 6 * MS_PER_HOUR
    dialogue = dialogue_of(window_ms=hours, label_horizon_ms=MS_PER_HOUR)
    dialogue.go(run_end(), *day_of(2), *day_of(3))

    starts = [msgspec.msgpack.decode(body)["start_ms"] for body in dialogue.store.blocks("pump")]
    due_ms = (dialogue.state.watermark_ms - MS_PER_HOUR) // hours * hours
    assert starts == list(range(2 * DAY, due_ms, hours))
    assert len(starts) >= 7
    assert sum(msgspec.msgpack.decode(body)["view"]["num_labels"] for body in dialogue.store.blocks("pump")) <= 400


def test_a_late_label_counts_for_accuracy_and_not_for_the_test(dialogue):
    columns = rows(2)
    early = {name: values[:150] for name, values in columns.items()}
    late = {name: values[150:] for name, values in columns.items()}
    dialogue.go(run_end(), predictions(columns), labels(early), *day_of(3), *day_of(4))
    block, harm = dialogue.store.blocks("pump")[0], dialogue.store.harm("pump")

    dialogue.go(labels(late, first=150))

    again = msgspec.msgpack.decode(dialogue.store.blocks("pump")[0])
    assert again.pop("correction")["after"]["num_labels"] == 200
    assert again == {name: value for name, value in msgspec.msgpack.decode(block).items() if name != "correction"}
    assert again["view"]["num_labels"] == 150
    assert dialogue.store.harm("pump") == harm
    assert dialogue.state.num_labels == 600
    assert sum(sums[1] for key, sums in dialogue.sums().items() if key.start_ms == 2 * DAY) == 200
    assert dialogue.counted(LABELS, "late") == 1


def test_small_blocks_wait_until_they_are_enough_together(dialogue):
    dialogue.go(run_end(), *day_of(2, num_rows=10), *day_of(3, num_rows=10), *day_of(5, num_rows=10))

    first, second = (msgspec.msgpack.decode(body) for body in dialogue.store.blocks("pump"))
    assert first["statements"] == []
    assert len(second["statements"]) == 3
    assert len(dialogue.store.listed("decisions", "pump", 50, 0)) == 2


def test_a_time_that_cannot_be_yet_does_not_move_the_watermark(dialogue):
    dialogue.go(run_end(), *day_of(TODAY - 2), *day_of(TODAY - 1), *day_of(TODAY))
    columns, before_ms = rows(TODAY + 1_000, 5), dialogue.state.watermark_ms

    dialogue.go(predictions(columns, first=5), labels(columns, first=5))

    now_ms = dialogue.clock.now_ms()
    assert dialogue.state.watermark_ms == before_ms <= now_ms + DAY
    assert max(blocks_of(dialogue)) < TODAY
    assert all(start_ms <= now_ms + DAY for start_ms in dialogue.state.open_blocks)


def test_every_block_has_one_decision_also_to_do_nothing(dialogue):
    dialogue.go(run_end(), *(batch for day in range(2, 8) for batch in day_of(day)))

    decisions = dialogue.store.listed("decisions", "pump", 50, 0)
    assert [one.action for one in decisions] == ["none"] * 5
    assert [one.reasons for one in decisions] == [("No test raised an alarm.",)] * 5
    assert len({one.evidence_digest for one in decisions}) == 5
    assert dialogue.audit_words() == ["deploy", *["decide none"] * 5]


# --- signals ---


def test_an_alarm_that_repeats_keeps_its_id_and_is_counted_once(dialogue):
    harmed(dialogue)

    breaks = [one for one in dialogue.published(Signal).values() if one.kind == "sudden_break"]
    assert len(breaks) >= 3
    assert len({one.signal_id for one in breaks}) == 1
    assert len({one.window_end_ms for one in breaks}) == len(breaks)
    assert {one.window_start_ms for one in breaks} == {min(one.window_start_ms for one in breaks)}
    assert dialogue.state.num_signals["sudden_break/page"] == 1


def test_an_alarm_closes_when_its_evidence_is_gone_and_a_later_one_is_another(dialogue):
    harmed(dialogue)
    broken = dialogue.state.open_signals[0]
    for day in range(13, 40):
        dialogue.go(*day_of(day))

    closed = [one for one in dialogue.published(Signal).values() if one.signal_id == broken.signal_id and not one.is_open]
    assert broken.kind == "sudden_break"
    assert len(closed) == 1
    assert "sudden_break" not in {one.kind for one in dialogue.state.open_signals}
    kept = {one.signal_id: one for one in dialogue.store.listed("signals", "pump", 50, 0)}
    assert not kept[broken.signal_id].is_open
    dialogue.go(*day_of(40, accuracy=0.1), *day_of(41), *day_of(42))
    assert dialogue.state.num_signals["sudden_break/page"] == 2


def test_signals_that_are_open_when_their_version_is_replaced_are_told_closed_on_the_bus_and_in_the_store(dialogue):
    harmed(dialogue)
    before = {one.signal_id for one in dialogue.state.open_signals}
    request = next(iter(dialogue.published(RetrainRequest).values()))

    dialogue.go(run_end("v2", retrain_key=request.key, day=11))
    dialogue.go(outcome(request))

    assert dialogue.state.in_service.version == "v2"
    assert len(before) >= 2
    assert dialogue.state.open_signals == []
    closed = [one.signal_id for one in dialogue.published(Signal).values() if not one.is_open]
    assert sorted(closed) == sorted(before)
    assert {one.signal_id for one in dialogue.store.listed("signals", "pump", 50, 0) if not one.is_open} == before


def test_notes_never_count_as_alarms(dialogue):
    dialogue.go(run_end())
    for day in range(2, 6):
        columns = rows(day)
        columns["pressure"] = columns["pressure"] + 2.0
        dialogue.go(predictions(columns, first=day * 1_000), labels(columns, first=day * 1_000))

    assert {(one.kind, one.severity) for one in dialogue.state.open_signals} == {("feature_drift", "note")}
    assert dialogue.state.word == "healthy"
    assert dialogue.told_alarms == []
    assert set(dialogue.state.num_decisions) == {"none"}


# --- jobs ---


def test_a_job_that_dies_is_started_again_and_at_last_given_up_as_inconclusive(dialogue):
    dialogue.jobs.dies_at_once = True
    harmed(dialogue)
    dialogue.turn(20)

    (row,) = dialogue.store.retrains("pump")
    assert dialogue.jobs.started == [row.key] * 3
    assert (row.state, row.attempts, row.outcome.verdict) == ("finished", 3, "inconclusive")
    assert "ended 3 times without an outcome; its log ends with the last words" in row.outcome.reasons[0]
    assert dialogue.state.history.running_key == ""
    assert dialogue.state.num_retrains == {"inconclusive": 1}


def test_a_finished_job_whose_outcome_never_came_is_started_to_publish_it_again(dialogue):
    harmed(dialogue)
    (key,) = dialogue.jobs.started
    dialogue.jobs.states[key] = "finished"
    dialogue.turn(4)

    assert dialogue.jobs.started == [key, key]
    dialogue.go(run_end("v2", retrain_key=key, day=11), outcome(dialogue.jobs.requests[key]))
    assert dialogue.state.in_service.version == "v2"
    assert dialogue.jobs.started == [key, key]


def test_a_running_job_is_left_alone_for_as_long_as_it_runs_also_after_a_restart(dialogue):
    harmed(dialogue)
    dialogue.turn(10)
    dialogue.restart()
    dialogue.turn(10)

    assert len(dialogue.jobs.started) == 1
    assert not dialogue.engine.snapshot.is_idle
    assert dialogue.state.word == "retraining"


# --- commands and readers ---


def test_a_command_whose_commit_fails_is_answered_with_the_error_and_has_changed_nothing(dialogue_of):
    dialogue = dialogue_of(store_type=OnceFailingStore)
    dialogue.go(run_end(), *day_of(2))
    dialogue.store.fails = "before"

    with pytest.raises(RetryableError, match="locked"):
        dialogue.ask(dialogue.engine.commands.order, "pump", "to see", "a person")
    dialogue.go()

    assert dialogue.state.history.running_key == ""
    assert dialogue.store.retrains("pump") == []


def test_a_command_is_answered_also_when_the_turn_fails_before_its_commit(dialogue_of):
    class BlindStore(Store):
        is_blind = False

        def retrain(self, key):
            if self.is_blind:
                self.is_blind = False
                raise RetryableError("the test's store is away")
            return super().retrain(key)

    dialogue = dialogue_of(store_type=BlindStore)
    dialogue.go(run_end(), *day_of(2))
    dialogue.store.is_blind = True
    future = dialogue.engine.command(lambda draft: dialogue.engine.commands.order(draft, "pump", "to see", "me"))

    with pytest.raises(RetryableError):
        dialogue.turn()

    with pytest.raises(RetryableError, match="away"):
        future.result(0)
    dialogue.go()
    assert dialogue.state.history.running_key == ""


def test_what_a_command_changed_is_shown_by_the_time_that_it_is_answered(dialogue):
    dialogue.go(run_end(), *day_of(2))
    future = dialogue.engine.command(lambda draft: dialogue.engine.commands.order(draft, "pump", "to see", "me"))
    shown = []
    future.add_done_callback(lambda done: shown.append(dialogue.state.history.running_key))
    dialogue.turn()

    assert shown == [future.result(0).key]


def test_a_command_that_was_given_up_is_not_carried_out(dialogue):
    dialogue.go(run_end(), *day_of(2))
    future = dialogue.engine.command(lambda draft: dialogue.engine.commands.order(draft, "pump", "to see", "me"))
    future.cancel()
    dialogue.turn(2)

    assert dialogue.store.retrains("pump") == []


def test_a_command_for_a_model_that_is_not_in_service_is_refused_and_names_those_there_are(dialogue):
    dialogue.go(run_end())

    with pytest.raises(CommandError, match="no model 'pipe' is in service; there are: pump"):
        dialogue.ask(dialogue.engine.commands.order, "pipe", "why not", "me")


def test_idle_is_only_said_when_nothing_is_left_to_read_to_judge_to_send_or_to_wait_for(dialogue):
    seen = []
    dialogue.tell(run_end(), *day_of(2), *day_of(3), *day_of(4))
    for _ in range(4):
        dialogue.turn()
        snapshot = dialogue.engine.snapshot
        seen.append((snapshot.is_idle, snapshot.models["pump"].judged_until_ms // DAY))

    assert all(judged == 4 for is_idle, judged in seen if is_idle)
    assert seen[-1][0]


def test_nothing_is_taken_while_a_part_of_the_bus_is_with_another_and_all_of_it_afterwards(dialogue):
    dialogue.go(run_end(), *day_of(2))
    before = dialogue.sums()
    other = dialogue.bus.consumer(
        GROUP, TOPICS
    )  # a second monitor; or a life that was cut off, which is a member for some seconds
    other.poll(1, 0.0)
    dialogue.tell(*(batch for epoch in "abcdefgh" for day in range(3, 6) for batch in day_of(day, epoch=epoch)))
    dialogue.turn(5)
    shared, sums = dialogue.engine.snapshot, dialogue.sums()
    other.close()
    dialogue.go()

    assert sums == before
    assert (shared.is_idle, shared.waits_for[:42]) == (False, "a part of the bus is with another monitor,")
    assert dialogue.state.num_labels == 200 + 8 * 3 * 200
    assert (dialogue.engine.snapshot.is_idle, dialogue.engine.snapshot.waits_for) == (True, "")
    assert [msgspec.msgpack.decode(body)["view"]["num_labels"] for body in dialogue.store.blocks("pump")] == [200, 1_600, 1_600]


def test_an_outage_is_shown_and_the_thread_waits_it_out(dialogue_of):
    dialogue = dialogue_of(store_type=OnceFailingStore)
    dialogue.tell(run_end(), *day_of(2))
    dialogue.store.fails = "before"
    thread = threading.Thread(target=dialogue.engine.run)
    thread.start()

    def snapshot_when(is_so):
        while not is_so(dialogue.engine.snapshot) and thread.is_alive():
            thread.join(0.005)
        return dialogue.engine.snapshot

    away = snapshot_when(lambda snapshot: snapshot.waits_for)
    back = snapshot_when(lambda snapshot: snapshot.is_idle)
    dialogue.engine.stop()
    thread.join(20)

    assert not thread.is_alive()
    assert (away.is_idle, away.waits_for) == (False, "the test's store is locked")
    assert back.waits_for == ""
    assert back.models["pump"].num_labels == 200


def test_a_snapshot_does_not_change_when_the_engine_goes_on(dialogue):
    dialogue.go(run_end(), *day_of(2))
    kept = dialogue.engine.snapshot
    before = msgspec.msgpack.encode(kept.models["pump"])

    for day in range(3, 8):
        dialogue.go(*day_of(day, accuracy=0.1))

    assert msgspec.msgpack.encode(kept.models["pump"]) == before
    assert kept.models["pump"].watermark_ms == int(rows(2)["time_ms"].max()) + MS_PER_HOUR
