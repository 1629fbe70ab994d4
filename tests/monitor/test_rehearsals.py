"""The false alarms that a model's own days would bring, found out by the engine when nothing waits."""

import msgspec
import numpy as np
import pytest
from dialogue import DAY, day_of, run_end

from clipdrift_monitor.engine.replayed_days import begin_tests, lived_day, validated_days, with_errors
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import HarmConfig, start
from clipdrift_monitor.risk.realised import Rehearsal
from clipdrift_monitor.risk.reference import reference_of
from clipdrift_monitor.windows.window import Layout

HARM = start(reference_of(run_end()), Allotment())


def lived(dialogue, last=14):
    dialogue.go(run_end(), *(batch for day in range(2, last) for batch in day_of(day)))
    return dialogue


def rehearsed(dialogue, num_turns=460):
    dialogue.turn(num_turns)
    return dialogue.engine.snapshot.realised.get("pump", ())


def test_an_idle_monitor_says_what_its_promise_is_worth_on_the_models_own_days_and_the_same_after_a_restart(dialogue):
    lived(dialogue)
    kept = dialogue.state, dialogue.store.harm("pump")
    told = rehearsed(dialogue)
    found = {one.severity: one for one in told}

    assert set(found) == {"page", "ticket"}
    assert found["page"].promised == pytest.approx(90 / 100)
    assert found["ticket"].promised == pytest.approx(90 / 10)
    for one in found.values():
        assert 0 <= one.low <= one.mean <= one.high
        assert one.num_days == 8 + 11  # of validation, and judged in production
        assert one.num_replays == 20
    assert (dialogue.state, dialogue.store.harm("pump")) == kept
    dialogue.restart()
    dialogue.go()
    assert dialogue.engine.snapshot.realised == {}
    assert rehearsed(dialogue) == told


def test_nothing_is_said_of_a_model_with_too_few_days(dialogue):
    dialogue.go(run_end(clustering=()), *day_of(2), *day_of(3))
    assert rehearsed(dialogue, 40) == ()


def test_days_of_a_harm_are_not_rehearsed(dialogue):
    lived(dialogue, last=8)
    dialogue.go(*(batch for day in range(8, 16) for batch in day_of(day, accuracy=0.1)))
    dialogue.turn(1)
    (_, rehearsal) = dialogue.engine._rehearsals._current
    assert len(rehearsal._days) <= 8 + 7


def test_a_day_of_production_is_read_with_as_many_errors_as_it_had():
    layout = Layout(run_end().profile)
    sums = layout.zeros()
    for name, count in (("num_predictions", 100.0), ("num_labels", 90.0), ("num_correct", 60.0), ("brier_sum", 20.0)):
        sums[layout.head[name]] = count
    day = lived_day(layout, HARM, {0: sums, 1: sums}, 5 * DAY, DAY, 0.0)
    assert (day.block.num_labels, day.block.brier_sum, day.block.start_ms) == (180.0, 40.0, 5 * DAY)
    assert sum(day.block.errors) == pytest.approx(60, abs=25)
    assert lived_day(layout, HARM, {0: sums, 1: sums}, 5 * DAY, DAY, 0.0) == day  # the order is drawn, and always the same


def test_days_of_validation_say_nothing_of_a_repair():
    days = validated_days(run_end(), HARM, DAY)
    assert len(days) == 8
    assert [day.block.num_errors for day in days] == [40, 41, 42, 40, 41, 42, 40, 41]
    tests = begin_tests(HARM, Allotment(), HarmConfig(min_block_labels=20))
    for number in range(60):
        assert "repairable" not in list(tests(days[number % 8], number))


def test_errors_that_are_not_known_are_not_made_up():
    (day, *_) = validated_days(run_end(), HARM, DAY)
    bare = msgspec.structs.replace(day.block, errors=b"")
    assert with_errors(bare, -1.0, 0.0, [0]).errors == b""
    assert len(with_errors(bare, 3.0, 0.0, [0]).errors) == bare.num_labels


def test_a_model_whose_days_are_worse_than_its_bound_is_said_to_break_the_promise():
    """Half of the days far beyond what the bound allows: the live tests would raise far more than the budget's alarms."""
    good = validated_days(run_end(), HARM, DAY)
    errors = np.ones(200, np.uint8).tobytes()
    bad = [one._replace(block=msgspec.structs.replace(one.block, errors=errors, brier_sum=150.0)) for one in good]
    rehearsal = Rehearsal([*good, *bad], lambda: begin_tests(HARM, Allotment(), HarmConfig()))
    for _ in range(20):
        rehearsal.replay()
    page = rehearsal.realised("page", 1.0)
    assert page.low > page.promised
