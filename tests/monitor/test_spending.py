"""One budget for all models of a monitor, as they come and go."""

import msgspec
import pytest
from dialogue import POLICY, Dialogue, day_of, run_end

from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.harm import HarmState


def harm_of(dialogue, model="pump"):
    return msgspec.msgpack.decode(dialogue.store.harm(model), type=HarmState)


def a_second(dialogue):
    return dialogue.go(
        run_end(model="valve", run_id="run-valve", artifact_uri="file:///models/valve.onnx", artifact_digest="sha256:valve")
    )


def told_days(dialogue, last=6):
    dialogue.go(run_end())
    for day in range(2, last):
        dialogue.go(*day_of(day))
    return dialogue


def test_a_model_that_joins_takes_its_part_and_what_was_gathered_keeps_its_worth(dialogue):
    told_days(dialogue, last=8)
    before = harm_of(dialogue)
    a_second(dialogue)
    after = harm_of(dialogue)

    for test in ("sudden", "worse", "repairable"):
        alone, shared = getattr(before, test), getattr(after, test)
        assert shared.bound == pytest.approx(2 * alone.bound)
        assert shared.level / shared.bound == pytest.approx(alone.level / alone.bound)
        assert getattr(harm_of(dialogue, "valve"), test).bound == pytest.approx(shared.bound)
    assert after.repairable.level > 0


def test_a_new_version_takes_no_second_part(dialogue):
    told_days(dialogue, last=3)
    before = harm_of(dialogue)
    a_second(dialogue)
    a_second(dialogue)
    assert harm_of(dialogue).sudden.bound == pytest.approx(2 * before.sudden.bound)


def test_a_restart_changes_nothing(dialogue):
    told_days(a_second(dialogue))
    before = harm_of(dialogue)
    dialogue.restart()
    dialogue.go(*day_of(6))
    usual = harm_of(dialogue)
    dialogue.restart()
    dialogue.go()
    assert harm_of(dialogue) == usual
    assert usual.sudden.bound == before.sudden.bound


def test_another_budget_holds_from_the_next_start_on(tmp_path):
    with Dialogue(tmp_path) as first:
        usual = harm_of(told_days(first))
    twice = msgspec.structs.replace(POLICY, budget=Budget(days_per_false_page=200.0, days_per_false_ticket=10.0))
    with Dialogue(tmp_path, policy=twice) as later:
        later.go(*day_of(6), *day_of(7))
        assert harm_of(later).sudden.bound == pytest.approx(2 * usual.sudden.bound)
        assert harm_of(later).repairable.bound == pytest.approx(usual.repairable.bound)
