"""Labels that come late, and sooner for some rows than for others: no false alarm, and what was said is put right."""

import msgspec
import numpy as np
import pytest
from dialogue import DAY, Dialogue, labels, predictions, rows, run_end

from clipdrift_contract.clock import MS_PER_HOUR
from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, PredictionBatch
from clipdrift_monitor.state import JudgedBlock, ModelState


@pytest.fixture
def dialogue_of(tmp_path):
    opened = []

    def make(**settings):
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        opened.append(Dialogue(folder, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.__exit__()


def blocks_of(dialogue):
    bodies = dialogue.store.blocks("pump")
    return {block.start_ms // DAY: block for block in (msgspec.msgpack.decode(body, type=JudgedBlock) for body in bodies)}


def told_by_hour(dialogue, num_days, is_soon):
    """A model as good as validated. Labels of rows that `is_soon` come after an hour, all others after 40: in that order."""
    waiting = []
    for day in range(2, 2 + num_days):
        columns = rows(day, 300)
        first = day * 1_000
        whole, made = labels(columns, first=first), predictions(columns, first=first)
        delay_N = np.where(is_soon(columns), 1, 40) * MS_PER_HOUR
        whole = msgspec.structs.replace(whole, label_time_ms=Column.of(columns["time_ms"] + delay_N))
        for hour in range(0, 72, 6):
            from_ms, to_ms = (day * DAY + h * MS_PER_HOUR for h in (hour, hour + 6))
            for batch, at_N in ((made, columns["time_ms"]), (whole, columns["time_ms"] + delay_N)):
                chosen = (at_N >= from_ms) & (at_N < to_ms)
                if chosen.any():
                    waiting.append((to_ms, part_of(batch, chosen)))
    for _, event in sorted(waiting, key=lambda one: one[0]):
        dialogue.go(event)


def part_of(batch, chosen):
    columns = {
        name: Column.of(column.array()[chosen])
        for name, column in msgspec.structs.asdict(batch).items()
        if isinstance(column, Column)
    }
    if isinstance(batch, PredictionBatch):
        columns["features"] = tuple(
            FeatureColumn(name=one.name, values=Column.of(one.values.array()[chosen])) for one in batch.features
        )
    return msgspec.structs.replace(batch, **columns)


def are_errors(columns):
    return columns["predicted"] != columns["label"]


def are_positive(columns):
    return columns["label"] == 1


@pytest.mark.parametrize("is_soon", [are_errors, are_positive])
def test_labels_that_come_sooner_for_errors_or_for_one_class_do_not_look_like_harm(dialogue_of, is_soon):
    patient, hasty = dialogue_of(), dialogue_of(max_label_horizon_ms=0, label_horizon_ms=6 * MS_PER_HOUR)
    for dialogue in (patient, hasty):
        dialogue.go(run_end())
        told_by_hour(dialogue, 8, is_soon)

    judged = [block.view for block in blocks_of(patient).values()]
    assert len(judged) >= 5
    assert min(one.maturity for one in judged) > 0.9
    assert not patient.told_alarms
    assert not patient.jobs.requests
    if is_soon is are_errors:  # the plant bites: whoever does not wait sees a model that errs twice as often
        assert min(block.view.accuracy for block in blocks_of(hasty).values()) < 0.65


def test_a_judged_block_is_corrected_and_told_once_and_no_retrain_follows(dialogue_of):
    dialogue = dialogue_of(max_label_horizon_ms=0)
    columns = rows(2, 300)
    is_error = are_errors(columns)
    right, wrong = labels(columns, first=2_000), labels(columns, first=2_000)
    dialogue.go(run_end(), predictions(columns, first=2_000), part_of(right, ~is_error))
    for day in (3, 4):
        dialogue.go(predictions(rows(day), first=day * 1_000), labels(rows(day), first=day * 1_000))
    harm, num_decisions = dialogue.store.harm("pump"), len(dialogue.store.listed("decisions", "pump", 50, 0))
    said = blocks_of(dialogue)[2]

    dialogue.go(part_of(wrong, is_error))

    block = blocks_of(dialogue)[2]
    assert (said.view.accuracy, said.correction) == (1.0, None)
    assert block.view == said.view
    assert block.correction.after.num_labels == 300
    assert block.correction.after.accuracy == pytest.approx(1 - is_error.mean())
    assert block.correction.num_late_labels == is_error.sum()
    decisions = dialogue.store.listed("decisions", "pump", 50, 0)
    (told,) = [one for one in decisions if one.cause_key == "corrected"]
    assert len(decisions) == num_decisions + 1
    assert (told.action, told.reasons[0]) == ("none", f"Corrected: {block.correction.words}")
    assert dialogue.audit_words()[-1] == "decide none"
    assert told in dialogue.published(type(told)).values()
    assert dialogue.store.harm("pump") == harm
    assert not dialogue.jobs.requests
    assert dialogue.state.late_blocks == []


def test_a_correction_survives_a_restart_between_the_label_and_the_second_look(dialogue_of):
    one, two = dialogue_of(max_label_horizon_ms=0), dialogue_of(max_label_horizon_ms=0)
    for dialogue in (one, two):
        columns = rows(2, 300)
        dialogue.go(run_end(), predictions(columns, first=2_000))
        for day in (3, 4):
            dialogue.go(predictions(rows(day), first=day * 1_000), labels(rows(day), first=day * 1_000))
        if dialogue is two:
            dialogue.restart()
        dialogue.go(labels(columns, first=2_000))
        if dialogue is two:
            dialogue.restart()
            dialogue.turn(2)
    assert blocks_of(one) == blocks_of(two)
    assert blocks_of(one)[2].correction.words == "Accuracy is 78.0 % by 300 labels; there were none."


def test_a_state_and_a_block_of_before_load_with_nothing_late():
    state = msgspec.msgpack.decode(msgspec.msgpack.encode({"model": "m"}), type=ModelState)
    assert (state.late_blocks, state.delays.num_labels) == ([], 0)
    block = {"version": "v", "start_ms": 0, "end_ms": 1, "view": {"num_predictions": 0, "num_labels": 0, "num_correct": 0}}
    assert msgspec.convert(block, JudgedBlock).correction is None
