"""Harm in one slice, through a whole monitor: it is named, whatever of the others is well, and restarts change nothing."""

import numpy as np
from dialogue import DAY, day_of, labels, predictions, rows, run_end

from clipdrift_contract.events import BlockScore, ErrorClustering, Signal
from clipdrift_monitor.risk.severity import TEST_NAMES

HARMED_FROM, LAST = 10, 22


def clustering(name, num_rows):
    rate = num_rows // 5
    days = tuple(
        BlockScore(start_ms=i * DAY, num_rows=num_rows, num_errors=rate + i % 3, nll_sum=num_rows / 2, brier_sum=rate * 0.8)
        for i in range(8)
    )
    return ErrorClustering(slice=name, lag1_autocorrelation=0.0, between_hour_variance=0.0, between_day_variance=0.0, days=days)


def run():
    return run_end(clustering=(clustering("", 200), clustering("north", 100), clustering("south", 100)))


def harmed_north(day):
    """A day whose rows of north are wrong three times out of four; those of south are as ever."""
    columns = rows(day)
    is_wrong = (columns["slice"] == 0) & (np.random.default_rng(day).random(200) < 0.75)
    columns["label"] = np.where(is_wrong, 1 - columns["predicted"], columns["label"])
    return predictions(columns, first=day * 10_000), labels(columns, first=day * 10_000)


def days_of_two_worlds():
    return [day_of(day) if day < HARMED_FROM else harmed_north(day) for day in range(2, LAST)]


def harm_signals(dialogue):
    """Kind, slice and window of every alarm of a harm test."""
    signals = dialogue.published(Signal).values()
    return {(one.kind, one.slice, one.window_start_ms // DAY) for one in signals if one.kind in TEST_NAMES}


def test_a_harm_in_one_slice_raises_a_signal_that_names_it_and_the_other_slice_stays_clear(dialogue):
    dialogue.go(run())
    for events in days_of_two_worlds():
        dialogue.go(*events)

    found = harm_signals(dialogue)
    assert [one for one in found if one[1] == "north"]
    assert min(day for _, name, day in found if name == "north") >= HARMED_FROM
    assert not [one for one in found if one[1] == "south"]
    assert any("In slice north" in one.summary for one in dialogue.published(Signal).values() if one.slice == "north")


def test_without_harm_no_slice_is_accused(dialogue):
    dialogue.go(run())
    for day in range(2, LAST):
        dialogue.go(*day_of(day))
    assert harm_signals(dialogue) == set()


def test_a_monitor_that_is_restarted_every_day_says_the_same_of_slices(dialogue_of):
    usual, restarted = dialogue_of("usual"), dialogue_of("restarted")
    for dialogue in (usual, restarted):
        dialogue.go(run())
    for events in days_of_two_worlds():
        usual.go(*events)
        restarted.go(*events)
        restarted.restart()
        restarted.turn()
    assert harm_signals(restarted) == harm_signals(usual) != set()
    assert restarted.state.levels == usual.state.levels
