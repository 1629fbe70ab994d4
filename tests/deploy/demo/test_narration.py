"""Events in plain words, in the order in which a reader can follow them."""

import pytest
import tiny_demo as tiny

from clipdrift_contract.events import Event
from clipdrift_deploy.demo.narration import tell, tell_in_order

DAY = 86_400_000


@pytest.mark.parametrize(
    "event", [tiny.signal("mix_drift", "note"), tiny.decision("none"), tiny.decision("hold"), tiny.run(), tiny.window()]
)
def test_what_nobody_must_know_is_not_told(event: Event) -> None:
    assert tell(event) is None


def test_an_alarm_is_of_its_own_day_and_names_its_slice() -> None:
    line = tell(tiny.signal("sudden_break", "page", day=7, slice="JFK"))

    assert line is not None
    assert (line.day, line.what, line.why, line.tone) == ("8 March", "sudden break in JFK", "it would gain", "bad")


def test_a_decision_gives_all_its_reasons() -> None:
    line = tell(tiny.decision("retrain"))

    assert line is not None
    assert (line.what, line.why, line.tone) == ("decision: retrain", "A repair is proven. No cooldown.", "busy")


@pytest.mark.parametrize(
    ("verdict", "what", "tone"),
    [
        ("pass", "retrain passes the gate with arm q90", "good"),
        ("fail", "retrain fails the gate with arm q90", "plain"),
        ("inconclusive", "retrain stays inconclusive with arm q90", "plain"),
    ],
)
def test_an_outcome_says_verdict_and_arm(verdict: str, what: str, tone: str) -> None:
    line = tell(tiny.outcome(verdict=verdict))

    assert line is not None
    assert (line.what, line.tone) == (what, tone)


def test_at_one_moment_the_cause_stands_before_its_effect() -> None:
    alarm, ruled, ordered, found, swapped = (
        tiny.signal(day=21), tiny.decision(day=22), tiny.request(day=22), tiny.outcome(), tiny.deployment(2, "v2", 22)
    )  # fmt: skip

    lines = tell_in_order([swapped, found, ordered, ruled, alarm], {"k": ordered})

    assert [line.what.split()[0] for line in lines] == ["a", "decision:", "retrain", "retrain", "version"]
    assert [line.what for line in lines[2:4]] == ["retrain begins", "retrain passes the gate with arm q90"]
    assert lines[3].at_ms == ordered.as_of_ms, "an outcome is dated by its order, not by the clock on the wall"


def test_an_outcome_without_an_order_keeps_its_own_time() -> None:
    (line,) = tell_in_order([tiny.outcome()], {})

    assert line.at_ms == tiny.outcome().finished_at_ms


def test_lines_of_several_models_are_in_the_order_of_time() -> None:
    first, second = tiny.deployment(1, "a", 3, model="two"), tiny.deployment(1, "b", 1)

    assert [line.model for line in tell_in_order([first, second], {})] == ["one", "two"]


def test_a_decision_on_an_outcome_is_told_by_the_outcome_and_the_swap() -> None:
    ordered, found, swapped = tiny.request(day=22), tiny.outcome(), tiny.deployment(2, "v2", 22)

    lines = tell_in_order([tiny.decision("promote", day=22), swapped, ordered, found], {"k": ordered})

    assert [line.what.split()[0] for line in lines] == ["retrain", "retrain", "version"]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (
            "promoted",
            [
                ("version v1 goes into service", "good"), ("version v2 answers as a shadow, unseen", "busy"),
                ("version v2 answers 10% of the requests", "busy"), ("version v2 goes into service", "good"),
                ("version v2 answers alone", "plain"),
            ],
        ),
        (
            "taken out",
            [
                ("version v1 goes into service", "good"), ("version v2 answers as a shadow, unseen", "busy"),
                ("version v2 answers 10% of the requests", "busy"), ("version v1 answers everything again", "bad"),
            ],
        ),
    ],
)  # fmt: skip
def test_each_step_of_a_rollout_says_who_answers(end: str, told: list[tuple[str, str]]) -> None:
    in_order = tiny.rollout_story(end).in_order
    champions = {("one", one.generation): one.champion.version for one in in_order}

    assert [(line.what, line.tone) for line in tell_in_order(in_order, {}, champions)] == told
