"""Versions go into service, are replaced and brought back by rules, and every step is on record."""

import msgspec
import pytest
from dialogue import DAY, day_of, labels, outcome, predictions, rows, run_end

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Decision, Deployment, RetrainRequest, ServedVersion
from clipdrift_monitor.decisions.decide import cooldown_ms
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import ModelState


def ordered(dialogue, why="to see"):
    """A model in service, judged for a few days, for which a person has ordered a retrain."""
    dialogue.go(run_end(), *(batch for day in range(2, 6) for batch in day_of(day)))
    return dialogue.ask(dialogue.engine.commands.order, "pump", why, "a person")


def promoted(dialogue):
    request = ordered(dialogue)
    dialogue.go(run_end("v2", retrain_key=request.key, day=6))
    dialogue.go(outcome(request))
    return request


def deployments(dialogue):
    return sorted((one.generation, one.champion.version) for one in dialogue.published(Deployment).values())


def decisions(dialogue, action):
    return [one for one in dialogue.published(Decision).values() if one.action == action]


# --- the first version ---


def test_the_first_run_of_a_model_goes_into_service_by_itself_and_a_later_one_does_not(dialogue):
    dialogue.go(run_end("v1"))
    dialogue.go(run_end("v2", day=3), run_end("v3", day=4, retrain_key="k"))

    assert deployments(dialogue) == [(1, "v1")]
    assert dialogue.state.in_service == ServedVersion(version="v1", uri="file:///models/v1.onnx", digest="sha256:v1")
    assert dialogue.audit_words() == ["deploy"]


def test_a_retrain_that_nobody_here_ordered_does_not_become_the_first_version(dialogue):
    dialogue.go(run_end("v9", retrain_key="of another life"))

    assert dialogue.state.in_service is None
    assert deployments(dialogue) == []


# --- outcomes ---


def test_an_outcome_that_passed_is_promoted_and_the_tests_begin_again(dialogue):
    dialogue.go(run_end())
    for day in range(2, 9):
        dialogue.go(*day_of(day, accuracy=0.3))
    before = msgspec.msgpack.decode(dialogue.store.harm("pump"))
    request = dialogue.ask(dialogue.engine.commands.order, "pump", "to see", "a person")
    dialogue.go(run_end("v2", retrain_key=request.key, day=9))
    dialogue.go(outcome(request))

    assert deployments(dialogue) == [(1, "v1"), (2, "v2")]
    after = msgspec.msgpack.decode(dialogue.store.harm("pump"))
    assert before["history"]
    assert after["history"] == []
    assert after["sudden"]["sums"] == [0.0] * 5
    assert (dialogue.state.levels, dialogue.state.open_blocks, dialogue.state.drift.features) == ({}, {}, {})
    assert dialogue.state.num_version_labels == 0
    assert [one.version for one in dialogue.state.served_before] == ["v1"]
    assert dialogue.state.num_retrains == {"pass": 1}
    assert "the gate says pass" in decisions(dialogue, "promote")[0].reasons
    assert dialogue.store.retrains("pump")[0].state == "finished"


def test_an_outcome_that_comes_before_its_run_waits_for_it_over_a_restart(dialogue):
    request = ordered(dialogue)
    dialogue.go(outcome(request))
    waiting = dialogue.state
    dialogue.restart()
    dialogue.go(run_end("v2", retrain_key=request.key, day=6))

    assert waiting.in_service.version == "v1"
    assert waiting.history.running_key == request.key
    assert dialogue.state.in_service.version == "v2"
    assert dialogue.state.waiting_outcome is None


def test_an_outcome_of_an_older_generation_is_held(dialogue):
    promoted(dialogue)
    request = dialogue.ask(dialogue.engine.commands.order, "pump", "once more", "a person")
    dialogue.ask(dialogue.engine.commands.roll_back, "pump", "it was slow", "a person")
    dialogue.go(run_end("v3", retrain_key=request.key, day=7))
    dialogue.go(outcome(request, version="v3"))

    assert dialogue.state.in_service.version == "v1"
    assert "no longer in service" in decisions(dialogue, "hold")[0].reasons[-1]
    assert dialogue.state.history.running_key == ""
    assert dialogue.state.tried is None  # it says nothing about the clipping of the version that came back


def test_a_version_that_was_rolled_back_stays_out(dialogue):
    promoted(dialogue)
    dialogue.ask(dialogue.engine.commands.roll_back, "pump", "it was slow", "a person")
    request = dialogue.ask(dialogue.engine.commands.order, "pump", "once more", "a person")
    dialogue.go(outcome(request, version="v2"))

    assert dialogue.state.in_service.version == "v1"
    assert "was rolled back before and stays out" in decisions(dialogue, "hold")[0].reasons[-1]


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_retrain_that_did_not_pass_changes_nothing_and_doubles_the_cooldown(dialogue, verdict):
    policy = dialogue.config.policy
    request = ordered(dialogue)
    usual = cooldown_ms(dialogue.state.history, policy)
    dialogue.go(outcome(request, verdict=verdict))
    once = cooldown_ms(dialogue.state.history, policy)
    second = dialogue.ask(dialogue.engine.commands.order, "pump", "another reason", "a person")
    dialogue.go(outcome(second, verdict=verdict))
    twice = cooldown_ms(dialogue.state.history, policy)
    third = dialogue.ask(dialogue.engine.commands.order, "pump", "a third reason", "a person")
    dialogue.go(run_end("v2", retrain_key=third.key, day=6), outcome(third))

    assert (usual, once, twice) == (14 * MS_PER_DAY, 28 * MS_PER_DAY, 56 * MS_PER_DAY)
    assert cooldown_ms(dialogue.state.history, policy) == usual
    assert [one.reasons[0] for one in decisions(dialogue, "hold")] == [f"the gate says {verdict}"] * 2
    assert dialogue.state.num_retrains == {verdict: 2, "pass": 1}


def test_an_outcome_that_nobody_ordered_is_ignored(dialogue):
    request = ordered(dialogue)
    before = dialogue.state

    dialogue.go(outcome(msgspec.structs.replace(request, key="another")))
    dialogue.go(outcome(msgspec.structs.replace(request, model="pipe")))

    assert dialogue.state == before
    assert set(dialogue.engine.snapshot.models) == {"pump"}


def test_an_outcome_that_came_before_its_order_was_known_here_counts_when_it_comes_again(dialogue_of):
    old, new = dialogue_of("old"), dialogue_of("new")
    told = outcome(ordered(old), verdict="fail")
    new.go(told, ids=["outcome"])  # the store was lost, and the order with it
    request = ordered(new)
    new.go(told, ids=["outcome"])

    assert request.key == told.key
    assert new.state.num_retrains == {"fail": 1}
    new.go(told, ids=["outcome"])
    assert new.state.num_retrains == {"fail": 1}


def test_an_outcome_counts_once_however_often_it_comes(dialogue):
    request = promoted(dialogue)
    dialogue.go(outcome(request), ids=["again"])
    dialogue.restart()
    dialogue.go(outcome(request), ids=["and again"])

    assert deployments(dialogue) == [(1, "v1"), (2, "v2")]
    assert dialogue.state.num_retrains == {"pass": 1}


# --- people ---


def test_a_rollback_restores_the_version_before_and_keeps_the_other_out(dialogue):
    promoted(dialogue)
    deployment = dialogue.ask(dialogue.engine.commands.roll_back, "pump", "it was slow", "Ada")

    assert (deployment.generation, deployment.champion.version) == (3, "v1")
    assert deployments(dialogue) == [(1, "v1"), (2, "v2"), (3, "v1")]
    assert dialogue.state.quarantine == ["sha256:v2"]
    assert dialogue.state.served_before == []
    assert decisions(dialogue, "rollback")[0].reasons == ("Ordered by Ada: it was slow",)
    with pytest.raises(CommandError, match="pump has no earlier version to go back to"):
        dialogue.ask(dialogue.engine.commands.roll_back, "pump", "again", "Ada")
    assert dialogue.state.generation == 3


def test_an_order_is_refused_while_a_retrain_runs_and_when_it_would_be_the_same_again(dialogue):
    request = ordered(dialogue)
    with pytest.raises(CommandError, match=f"is running already: {request.key}"):
        dialogue.ask(dialogue.engine.commands.order, "pump", "impatience", "Ada")
    dialogue.go(outcome(request, verdict="inconclusive"))

    with pytest.raises(CommandError, match="the same retrain was ordered before"):
        dialogue.ask(dialogue.engine.commands.order, "pump", "to see", "Ada")
    assert list(dialogue.published(RetrainRequest).values()) == [request]


def test_what_people_did_is_in_the_audit_and_its_chain_holds(dialogue):
    promoted(dialogue)
    dialogue.ask(dialogue.engine.commands.roll_back, "pump", "it was slow", "Ada")

    people = [(row.actor, row.action, row.subject) for row in dialogue.store.audit() if row.actor != "monitor"]
    assert people == [
        ("a person", "decide retrain", people[0][2]),
        ("Ada", "decide rollback", "pump-rollback-3"),
        ("Ada", "deploy", "pump"),
    ]
    assert dialogue.store.verify_audit().is_intact


# --- a store that was lost ---


def test_a_new_store_on_an_old_bus_takes_over_what_is_in_service_and_goes_on_above_it(dialogue_of):
    old = dialogue_of("old")
    promoted(old)
    events = list(old.published().items())
    new = dialogue_of("new")
    runs_last = sorted(events, key=lambda one: "Deployment" not in type(one[1]).__name__)
    new.go(*(event for _, event in runs_last), ids=[name for name, _ in runs_last])
    request = new.ask(new.engine.commands.order, "pump", "after the loss", "Ada")
    new.go(run_end("v3", retrain_key=request.key, day=7), outcome(request, version="v3"))

    assert new.state.generation == 3
    assert new.state.in_service.version == "v3"
    assert [one.version for one in new.state.served_before] == ["v2"]
    assert "adopt" in new.audit_words()
    assert new.state.num_labels == old.state.num_labels


def test_a_deployment_whose_run_is_not_known_yet_waits_for_it_and_is_not_undone_by_an_older_run(dialogue):
    served = ServedVersion(version="v2", uri="file:///models/v2.onnx", digest="sha256:v2")
    dialogue.go(Deployment(model="pump", generation=7, champion=served, decided_at_ms=2 * DAY))
    dialogue.go(run_end("v1"))
    before = dialogue.state
    dialogue.restart()
    dialogue.go(run_end("v2", retrain_key="k", day=2))

    assert before.in_service is None
    assert (dialogue.state.generation, dialogue.state.in_service.version) == (7, "v2")
    assert dialogue.num_records("clipdrift.deployments") == 1
    dialogue.go(*day_of(2, version="v2"), *day_of(3, version="v2"), *day_of(4, version="v2"))
    assert dialogue.state.num_version_labels == 400


def test_an_older_deployment_changes_nothing(dialogue):
    promoted(dialogue)
    before = dialogue.state
    served = ServedVersion(version="v1", uri="file:///models/v1.onnx", digest="sha256:v1")

    dialogue.go(Deployment(model="pump", generation=2, champion=served, decided_at_ms=9 * DAY))

    assert dialogue.state == before


def test_rows_of_the_version_before_count_for_it_and_never_for_the_tests_of_the_new_one(dialogue):
    promoted(dialogue)
    columns = rows(7)
    dialogue.go(predictions(columns, first=70_000), labels(columns, first=70_000))
    dialogue.go(*day_of(8, version="v2"), *day_of(9, version="v2"), *day_of(10, version="v2"))

    assert dialogue.state.num_labels == 1_600
    assert dialogue.state.num_version_labels == 400
    assert {key.version for key in dialogue.sums() if key.start_ms == 7 * DAY} == {"v1"}


# --- pure steps ---


def test_at_most_ten_versions_are_kept_to_go_back_to():
    state = ModelState(model="pump")
    for number in range(1, 15):
        served = ServedVersion(version=f"v{number}", uri="", digest=f"d{number}")
        rollout.adopt(state, Deployment(model="pump", generation=number, champion=served, decided_at_ms=number))

    assert [one.version for one in state.served_before] == [f"v{number}" for number in range(4, 14)]


def test_a_model_without_a_version_cannot_go_back():
    with pytest.raises(rollout.RolloutError, match="no earlier version"):
        rollout.roll_back(ModelState(model="pump"), 0, "why", "id")
