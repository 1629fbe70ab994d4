"""Incidents in a monitor's dialogue: opened from rows, told once, answered by people, kept over restarts."""

import msgspec
import numpy as np
import pytest
from dialogue import DAY, PRESSURE, SITE, TODAY, day_of, labels, predictions, profile, rows, run_end

from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, Incident
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.incidents.config import IncidentConfig
from clipdrift_monitor.state import ModelState

INPUTS = tuple(msgspec.structs.replace(PRESSURE, spec=msgspec.structs.replace(PRESSURE.spec, name=f"x{i}")) for i in range(20))
NOW = TODAY * DAY


def many_inputs(day, *, moved_by=0.0, harmed="", num_rows=200):
    """A day's predictions and labels of a model with 20 more inputs; the rows of the site `harmed` are answered wrongly."""
    columns = rows(day, num_rows)
    if harmed:
        is_there = columns["site"] == harmed
        columns["label"] = np.where(is_there, 1 - columns["predicted"], columns["label"])
    random = np.random.default_rng(day)
    said = predictions(columns, first=day * 10_000)
    inputs = tuple(
        FeatureColumn(name=one.spec.name, values=Column.of(random.normal(moved_by, size=num_rows))) for one in INPUTS
    )
    return msgspec.structs.replace(said, features=said.features + inputs), labels(columns, first=day * 10_000)


def told(dialogue):
    """Every incident on the bus, in the order of its revisions."""
    return sorted(dialogue.published(Incident).values(), key=lambda one: (one.opened_at_ms, one.incident_id, one.revision))


def broken(day):
    """A day whose predictions have no pressure."""
    columns = rows(day)
    columns["pressure"] = np.full(200, np.nan)
    return predictions(columns, first=day * 10_000), labels(columns, first=day * 10_000)


def in_trouble(dialogue):
    """A model whose feed is broken, and whose incident is open."""
    dialogue.go(run_end(), *day_of(2), *broken(3), *day_of(4), *day_of(5))
    (one,) = [one for one in dialogue.state.incidents if one.is_open]
    return one


def until(days):
    return NOW + round(days * DAY)


def test_twenty_inputs_that_move_and_a_harmed_slice_are_one_incident(dialogue):
    dialogue.go(run_end(profile=profile(features=(PRESSURE, SITE, *INPUTS))))
    for day in range(2, 8):
        dialogue.go(*many_inputs(day))
    for day in range(8, 14):
        dialogue.go(*many_inputs(day, moved_by=3.0, harmed="north"))

    (one,) = [one for one in dialogue.state.incidents if one.is_open]
    assert one.root in ("harm", "data")
    assert one.severity != "note"
    assert set(one.features) >= {f"x{i}" for i in range(20)}
    assert len({event.incident_id for event in told(dialogue)}) == 1
    assert len([event for event in told(dialogue) if event.is_news]) <= 3  # a note, a ticket, a page
    assert dialogue.store.incident(one.incident_id) == one


def test_an_incident_is_told_when_it_opens_and_when_it_is_over_and_kept_and_audited(dialogue):
    opened = in_trouble(dialogue)
    dialogue.go(*day_of(6), *day_of(7))

    assert [(one.change, one.is_news, one.revision) for one in told(dialogue)] == [
        ("opened", True, 1), ("resolved", False, 2),
    ]  # fmt: skip
    assert (opened.root, opened.severity, opened.first_window_ms) == ("data", "page", 3 * DAY)
    assert opened.decision_id == f"pump-v1-{3 * DAY}"
    assert dialogue.store.incidents("pump", limit=10) == [told(dialogue)[-1]]
    assert [word for word in dialogue.audit_words() if "incident" in word] == ["open incident", "resolve incident"]
    assert dialogue.state.num_incidents == {"data/page": 1}


def test_a_feed_that_comes_and_goes_is_one_incident(dialogue):
    dialogue.go(run_end(), *day_of(2))
    for day in range(3, 13):
        dialogue.go(*(broken(day) if day % 2 else day_of(day)))

    assert len({one.incident_id for one in told(dialogue)}) == 1
    assert [one.change for one in told(dialogue) if one.is_news] == ["opened"]


def test_labels_that_come_late_end_the_incident_and_raise_no_other(dialogue):
    columns = rows(3)
    late = labels(columns, first=30_000)
    dialogue.go(run_end(), *day_of(2), predictions(columns, first=30_000), *day_of(4), *day_of(5))
    before = [(one.root, one.is_open) for one in dialogue.state.incidents]
    dialogue.go(late)
    dialogue.go(*day_of(6), *day_of(7), *day_of(8))

    assert before == [("labels", True)]
    assert [(one.root, one.is_open) for one in dialogue.state.incidents] == [("labels", False)]
    assert [one.change for one in told(dialogue)] == ["opened", "resolved"]


def test_a_monitor_that_is_restarted_at_every_step_tells_the_same_incidents(dialogue_of):
    usual, restarted = dialogue_of("usual"), dialogue_of("restarted")
    days = [day_of(2), broken(3), broken(4), *(day_of(day) for day in range(5, 9)), broken(9), day_of(10), day_of(11)]
    for dialogue in (usual, restarted):
        dialogue.go(run_end())
        for day in days:
            dialogue.go(*day)
            if dialogue is restarted:
                dialogue.restart()
        dialogue.go()

    assert told(restarted) == told(usual)
    assert restarted.state.incidents == usual.state.incidents
    assert {one.change for one in told(usual)} >= {"opened", "resolved", "reopened"}


def test_a_person_sees_to_it_until_a_time_and_then_it_is_news_again(dialogue):
    one = in_trouble(dialogue)
    responses = dialogue.engine.responses
    answer = dialogue.ask(responses.acknowledge, one.incident_id, "mending the sensor", "Ada", until(1))
    dialogue.restart()
    dialogue.turn()
    kept = dialogue.state.incidents[0]
    dialogue.clock.advance_ms(DAY)
    dialogue.turn()

    assert (answer.change, answer.acknowledgement.actor) == ("acknowledged", "Ada")
    assert kept == answer
    assert [(event.change, event.is_news) for event in told(dialogue)] == [
        ("opened", True), ("acknowledged", False), ("lapsed", True),
    ]  # fmt: skip
    entry = next(row for row in dialogue.store.audit() if row.action == "incident acknowledged")
    assert (entry.actor, entry.subject) == ("Ada", one.incident_id)
    assert "mending the sensor" in entry.body


def test_the_same_word_twice_is_one_revision_and_one_row_in_the_audit_log(dialogue):
    one = in_trouble(dialogue)
    for _ in range(2):
        dialogue.ask(dialogue.engine.responses.silence, one.incident_id, "known", "Ada", until(1))
        dialogue.ask(dialogue.engine.responses.give_feedback, one.incident_id, "a drill", "Ada", "known")

    assert [event.change for event in told(dialogue)] == ["opened", "silenced", "feedback"]
    assert [word for word in dialogue.audit_words() if word.startswith("incident ")] == [
        "incident silenced", "incident feedback",
    ]  # fmt: skip


def test_two_words_in_one_turn_are_both_kept(dialogue):
    one = in_trouble(dialogue)
    responses = dialogue.engine.responses
    first = dialogue.engine.command(lambda draft: responses.silence(draft, one.incident_id, "known", "Ada", until(1)))
    dialogue.ask(responses.give_feedback, one.incident_id, "a drill", "Bob", "true")

    kept = dialogue.store.incident(one.incident_id)
    assert first.result(0).revision == 2
    assert (kept.revision, kept.silence.actor, kept.feedback[0].actor) == (3, "Ada", "Bob")


def test_feedback_reaches_an_incident_that_is_long_over_and_the_newest_counts(dialogue_of):
    dialogue = dialogue_of(incidents=IncidentConfig(reopen_days=1.0))
    one = in_trouble(dialogue)
    dialogue.go(*(batch for day in range(6, 12) for batch in day_of(day)))
    gone = dialogue.state.incidents
    dialogue.ask(dialogue.engine.responses.give_feedback, one.incident_id, "nothing was wrong", "Ada", "false")
    dialogue.ask(dialogue.engine.responses.give_feedback, one.incident_id, "it was, after all", "Ada", "true")
    dialogue.restart()
    dialogue.turn()

    assert gone == []
    assert [said.verdict for said in dialogue.store.incident(one.incident_id).feedback] == ["false", "true"]
    assert dialogue.state.num_feedback == {"false": 0, "true": 1}
    assert [past.verdict for past in dialogue.state.past_incidents] == ["true"]


@pytest.mark.parametrize(
    ("incident_id", "days", "words"),
    [("nothing", 1, "there is no incident 'nothing'"), (None, 0, "until a time"), (None, 31, "within the next 30 days")],
)
def test_a_word_that_cannot_be_is_refused_and_changes_nothing(dialogue, incident_id, days, words):
    one = in_trouble(dialogue)
    before = told(dialogue)

    with pytest.raises(CommandError, match=words):
        dialogue.ask(dialogue.engine.responses.acknowledge, incident_id or one.incident_id, "why", "Ada", until(days))
    assert told(dialogue) == before
    assert dialogue.store.incident(one.incident_id) == one


def test_a_state_from_before_there_were_incidents_is_read(dialogue):
    in_trouble(dialogue)
    new = {"incidents", "past_incidents", "num_incidents", "num_feedback"}
    saved = msgspec.msgpack.decode(dialogue.store.models()["pump"], strict=False)
    old = {name: value for name, value in saved.items() if name not in new}

    read = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=ModelState)
    assert (read.incidents, read.past_incidents, read.num_incidents, read.num_feedback) == ([], [], {}, {})
