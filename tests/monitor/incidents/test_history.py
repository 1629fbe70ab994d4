"""What is remembered of incidents, and how often they were right."""

import msgspec
import pytest
from incident_story import DAY, Story, signal

from clipdrift_monitor.incidents.history import remember
from clipdrift_monitor.incidents.precision import precision_of
from clipdrift_monitor.incidents.response import give_feedback


def incidents(num_incidents, every_days=20):
    story = Story(quiet_windows=1)
    for number in range(num_incidents):
        story.day(number * every_days, signal("sudden_break", day=number * every_days))
        story.day(number * every_days + 1)
    return [one for one in story.told if one.change == "opened"]


def test_an_incident_is_remembered_once_with_its_worst_severity_and_the_newest_verdict():
    (one,) = incidents(1)
    milder = msgspec.structs.replace(one, severity="note", revision=2)
    judged = give_feedback(milder, verdict="false", actor="Ada", reason="a test", at_ms=0)

    (kept,) = remember(remember([], [one]), [judged])
    assert (kept.incident_id, kept.severity, kept.verdict) == (one.incident_id, "page", "false")


def test_what_opened_more_than_90_days_before_the_newest_is_forgotten():
    kept = remember([], incidents(10))

    assert [one.opened_at_ms // DAY for one in kept] == [2 + day for day in (100, 120, 140, 160, 180)]


def test_the_memory_is_bounded():
    (one,) = incidents(1)
    many = [msgspec.structs.replace(one, incident_id=f"i{number:04}") for number in range(700)]

    kept = remember([], many)
    assert [kept[0].incident_id, kept[-1].incident_id, len(kept)] == ["i0200", "i0699", 500]


def test_precision_leaves_out_what_was_known_and_says_nothing_of_nothing():
    found = precision_of({"true": 8, "false": 2, "known": 5})
    assert (found.value, found.num_known) == (0.8, 5)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, as R's binom.confint gives it

    assert precision_of({"known": 3}).value is None
    assert precision_of({}).low is None
