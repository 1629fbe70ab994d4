"""What people say to an incident."""

import msgspec
import pytest
from incident_story import DAY, Story, signal

from clipdrift_monitor.incidents.config import IncidentConfig
from clipdrift_monitor.incidents.response import (
    ResponseError,
    acknowledge,
    give_feedback,
    is_hushed,
    lapse,
    silence,
    verdict_of,
)

NOW = 1_000 * DAY
CONFIG = IncidentConfig(max_hold_days=30.0)
HOLD = {"actor": "Ada", "reason": "the feed is being mended", "at_ms": NOW, "until_ms": NOW + DAY, "config": CONFIG}


def incident(kind="sudden_break"):
    story = Story()
    story.day(5, signal(kind))
    return story.open()


def over():
    story = Story(quiet_windows=1)
    story.day(5, signal("sudden_break"))
    story.day(6)
    return story.incidents[0]


@pytest.mark.parametrize("say", [acknowledge, silence])
def test_the_same_word_again_changes_nothing_and_another_is_a_revision(say):
    once = say(incident(), **HOLD)
    later = say(once, **{**HOLD, "at_ms": NOW + 5})

    assert once.revision == 2
    assert not once.is_news
    assert later is once
    assert say(once, **{**HOLD, "actor": "Bob"}).revision == 3


@pytest.mark.parametrize("say", [acknowledge, silence])
@pytest.mark.parametrize("until_ms", [NOW, NOW - DAY, NOW + 31 * DAY])
def test_a_word_that_is_past_or_for_too_long_is_refused(say, until_ms):
    with pytest.raises(ResponseError, match="within the next 30 days"):
        say(incident(), **{**HOLD, "until_ms": until_ms})


@pytest.mark.parametrize("say", [acknowledge, silence])
def test_what_is_over_needs_nobody_to_see_to_it(say):
    with pytest.raises(ResponseError, match="is over"):
        say(over(), **HOLD)


def test_a_silence_remembers_how_bad_it_was():
    assert silence(incident("worse_than_validated"), **HOLD).silence.severity == "ticket"


def test_a_word_holds_until_its_time_and_no_longer():
    held = silence(acknowledge(incident(), **HOLD), **{**HOLD, "until_ms": NOW + 2 * DAY})

    assert [is_hushed(held, NOW + days * DAY) for days in (0, 1, 2)] == [True, True, False]
    assert lapse(held, NOW + DAY - 1) is None


def test_an_acknowledgement_that_runs_out_is_news_again():
    lapsed = lapse(acknowledge(incident(), **HOLD), NOW + DAY)

    assert (lapsed.change, lapsed.is_news, lapsed.acknowledgement) == ("lapsed", True, None)
    assert lapse(lapsed, NOW + 2 * DAY) is None


@pytest.mark.parametrize("is_held_back", [True, False])
def test_a_silence_that_ends_is_news_where_it_held_some_back(is_held_back):
    silent = msgspec.structs.replace(silence(incident(), **HOLD), is_held_back=is_held_back)
    heard = lapse(silent, NOW + DAY)

    assert (heard.is_news, heard.silence, heard.is_held_back) == (is_held_back, None, False)


def test_an_acknowledgement_that_runs_out_within_a_silence_is_news_when_the_silence_ends():
    held = silence(acknowledge(incident(), **HOLD), **{**HOLD, "until_ms": NOW + 2 * DAY})
    forgotten = lapse(held, NOW + DAY)
    heard = lapse(forgotten, NOW + 2 * DAY)

    assert (forgotten.is_news, forgotten.is_held_back) == (False, True)
    assert heard.is_news


def test_nothing_lapses_on_an_incident_that_is_over():
    assert (
        lapse(msgspec.structs.replace(over(), acknowledgement=acknowledge(incident(), **HOLD).acknowledgement), NOW + DAY)
        is None
    )


def test_feedback_is_kept_with_who_and_why_and_the_newest_stands():
    one = give_feedback(over(), verdict="true", actor="Ada", reason="sensor was unplugged", at_ms=NOW)
    two = give_feedback(one, verdict="known", actor="Bob", reason="planned", at_ms=NOW + 1)

    assert [(said.verdict, said.actor, said.reason) for said in two.feedback] == [
        ("true", "Ada", "sensor was unplugged"), ("known", "Bob", "planned"),
    ]  # fmt: skip
    assert (verdict_of(over()), verdict_of(one), verdict_of(two)) == (None, "true", "known")


def test_the_same_feedback_again_changes_nothing_unless_another_was_given_between():
    one = give_feedback(over(), verdict="true", actor="Ada", reason="r", at_ms=NOW)
    assert give_feedback(one, verdict="true", actor="Ada", reason="r", at_ms=NOW + 9) is one

    two = give_feedback(one, verdict="false", actor="Bob", reason="r", at_ms=NOW + 1)
    assert verdict_of(give_feedback(two, verdict="true", actor="Ada", reason="r", at_ms=NOW + 2)) == "true"


def test_feedback_is_bounded():
    one = over()
    for number in range(120):
        one = give_feedback(one, verdict="true", actor="Ada", reason=str(number), at_ms=NOW)

    assert [said.reason for said in one.feedback] == [str(number) for number in range(70, 120)]
