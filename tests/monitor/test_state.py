"""What is remembered of a model."""

import msgspec
import numpy as np
import pytest
from dialogue import day_of, run_end

from clipdrift_contract.events import Signal
from clipdrift_monitor.decisions.decide import History
from clipdrift_monitor.state import ModelState, OpenBlock


def signal(kind, severity):
    return Signal(
        signal_id=kind, model="m", version="v", kind=kind, severity=severity, detector=kind, window_start_ms=0, window_end_ms=1,
        statistic=1.0, threshold=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "running_key", "num_labels", "word"),
    [
        ([], "", 0, "no labels due yet"),
        ([], "", 5, "healthy"),
        ([("feature_drift", "note"), ("mix_drift", "note")], "", 5, "healthy"),
        ([("feature_drift", "note"), ("repairable", "ticket")], "", 5, "harmed"),
        ([("sudden_break", "page"), ("data_broken", "page")], "", 5, "data broken"),
        ([("labels_missing", "ticket")], "", 0, "harmed"),
        ([("data_broken", "page")], "key", 5, "retraining"),
    ],
)
def test_the_state_in_a_word(signals, running_key, num_labels, word):
    state = ModelState(
        model="m", open_signals=[signal(*one) for one in signals], history=History(running_key=running_key),
        num_version_labels=num_labels,
    )  # fmt: skip

    assert state.word == word


def test_errors_are_kept_in_the_order_of_their_predictions_and_equal_times_in_that_of_arrival():
    block = OpenBlock()
    block = block.with_labels(np.array([30, 10]), np.array([True, False]), 100)
    block = block.with_labels(np.array([20, 10]), np.array([False, True]), 100)

    assert list(block.errors_in_order()) == [0, 1, 0, 1]
    at_once = np.random.default_rng(0).random(500) < 0.5
    assert list(OpenBlock().with_labels(np.full(500, 7), at_once, 1_000).errors_in_order()) == at_once.tolist()


def test_an_open_block_keeps_no_more_labels_than_the_test_reads():
    block = OpenBlock()
    for _ in range(4):
        block = block.with_labels(np.arange(3), np.ones(3, bool), 7)

    assert (len(block.is_error), len(block.time_ms)) == (7, 7 * 8)


def test_a_state_is_read_back_as_it_was_saved_and_an_older_one_is_read_too(dialogue):
    dialogue.go(run_end(), *day_of(2), *day_of(3, accuracy=0.1), *day_of(4), *day_of(5))
    body = msgspec.msgpack.encode(dialogue.state)

    assert msgspec.msgpack.decode(body, type=ModelState) == dialogue.state
    older = {name: value for name, value in msgspec.msgpack.decode(body).items() if name != "waiting_deployment"}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(older), type=ModelState) == dialogue.state
