"""Approvals over HTTP: who may answer, under whose name, and what is shown before and after."""

import msgspec
import pytest
from dialogue import POLICY, TODAY, day_of, outcome, run_end
from monitor_house import TOKEN

from clipdrift_contract.access.keys import ApiKeys, make_key
from clipdrift_contract.clock import MS_PER_DAY, ManualClock
from clipdrift_contract.events import GateCheck
from clipdrift_monitor.api.access import Access
from clipdrift_monitor.approvals.config import ApprovalConfig

ROOT = "/api/v1/approvals"
CHECKS = (GateCheck(name="loss", outcome="pass", words="it is better", value=-0.02, low=-0.03, high=-0.01, bound=0.001),)


@pytest.fixture
def house(house_of, tmp_path):
    """A candidate of a retrain that `ann` ordered waits; ann, bob and a key for another model have keys."""

    def make(**changed):
        made = {
            name: make_key(name, scopes, models)
            for name, scopes, models in (
                ("ann", ["operate", "approve"], ()), ("bob", ["approve"], ()), ("of-valve", ["approve"], ("valve",)),
                ("operator", ["operate"], ()),
            )
        }  # fmt: skip
        file = tmp_path / "keys.toml"
        file.write_text("\n".join(one.lines() for one in made.values()))
        asking = ApprovalConfig(needed="promotions", min_dwell_seconds=0.0, expectation_share=0.0)
        policy = msgspec.structs.replace(POLICY, approval=msgspec.structs.replace(asking, **changed))
        access = Access(TOKEN, ApiKeys(ManualClock(now_ms=TODAY * MS_PER_DAY), file))
        days = [batch for day in range(2, 6) for batch in day_of(day)]
        found = house_of(run_end(), *days, access=access, policy=policy, api_keys_file=str(file))
        found.keys = {name: {"authorization": f"Bearer {one.secret}"} for name, one in made.items()}
        with found.at_work():
            found.post("/api/v1/models/pump/retrain", json={"reason": "to see"}, headers=found.keys["ann"])
        request = next(iter(found.dialogue.engine._memory.unfinished.values()))
        found.dialogue.go(run_end("v2", retrain_key=request.key, day=6))
        found.dialogue.go(outcome(request, checks=CHECKS))
        (found.approval,) = found.get(ROOT).json()["items"]
        found.place = f"{ROOT}/{found.approval['approval_id']}"
        return found

    return make


def answer_of(house, what, who, **changed):
    body = {"reason": "seen", "evidence_digest": house.approval["binding"]["evidence_digest"], **changed}
    headers = house.auth if who == "token" else house.keys[who]
    return house.post(f"{house.place}/{what}", json=body, headers=headers)


def look(house, who, **changed):
    return house.post(f"{house.place}/look", json=changed, headers=house.keys[who])


def test_a_person_opens_the_evidence_and_approves_under_the_name_of_their_key(house):
    house = house()
    before = house.get(house.place).json()
    with house.at_work():
        seen = look(house, "bob")
        done = answer_of(house, "approve", "bob")
    assert before["findings"]["checks"][0]["name"] == "loss"
    assert (seen.status_code, seen.json()["findings"]["verdict"]) == (200, "pass")
    assert (done.status_code, done.json()["state"], done.json()["answer"]["actor"]) == (200, "approved", "bob")
    assert done.json()["answer"]["is_by_key"] is True
    assert house.get("/api/v1/models/pump").json()["version"] == "v2"
    assert house.get(ROOT, state="waiting").json()["items"] == []
    assert house.get(ROOT).json()["figures"]["override"]["of"] == 1


def test_who_ordered_it_by_their_key_may_not_approve_it_and_may_withdraw_it(house):
    house = house()
    assert house.approval["requesters"] == ["ann"]
    with house.at_work():
        look(house, "ann")
        own = answer_of(house, "approve", "ann")
        under_another_name = answer_of(house, "approve", "ann", actor="zoe")
        withdrawn = answer_of(house, "reject", "ann", reason="ordered by mistake")
    assert (own.status_code, under_another_name.status_code) == (409, 409)
    assert "another person approves it" in own.json()["error"]
    assert withdrawn.json()["state"] == "rejected"


def test_keys_without_the_scope_or_for_other_models_and_strangers_are_refused(house):
    house = house()
    answers = {who: answer_of(house, "approve", who).status_code for who in ("operator", "of-valve")}
    assert answers == {"operator": 403, "of-valve": 403}
    assert house.post(f"{house.place}/approve", json={"reason": "x", "evidence_digest": "x"}).status_code == 401
    assert (
        house.post(f"{ROOT}/nothing/approve", json={"reason": "x", "evidence_digest": "x"}, headers=house.auth).status_code
        == 404
    )
    assert house.get(f"{ROOT}/nothing").status_code == 404


def test_the_token_answers_only_where_the_policy_does_not_ask_for_a_key(house):
    strict = house()
    with strict.at_work():
        refused = answer_of(strict, "approve", "token", actor="bob")
    assert (refused.status_code, "API key" in refused.json()["error"]) == (409, True)


def test_without_the_keys_rule_the_token_answers_under_the_name_that_is_given(house):
    lenient = house(is_key_needed=False)
    with lenient.at_work():
        lenient.post(f"{lenient.place}/look", json={"actor": "bob"}, headers=lenient.auth)
        nameless = answer_of(lenient, "approve", "token", is_break_glass=False)
        done = answer_of(lenient, "approve", "token", actor="bob")
    assert nameless.status_code == 409
    assert (done.json()["answer"]["actor"], done.json()["answer"]["is_by_key"]) == ("bob", False)


def test_findings_are_withheld_until_an_expectation_is_said_where_that_was_drawn(house):
    house = house(expectation_share=1.0)
    hidden = house.get(house.place).json()
    assert hidden["findings"] is None
    assert "Say first what you expect" in hidden["next"]
    with house.at_work():
        unsaid = look(house, "bob")
        said = look(house, "bob", expectation="same")
        done = answer_of(house, "approve", "bob")
    assert (unsaid.status_code, "say first" in unsaid.json()["error"]) == (409, True)
    assert said.json()["findings"]["reasons"] == ["the gate says pass"]
    assert done.json()["answer"]["expectation"] == "same"
    assert house.get(house.place).json()["findings"]["verdict"] == "pass"


def test_an_emergency_is_answered_at_once_and_reviewed_by_another(house):
    house = house()
    with house.at_work():
        done = answer_of(house, "approve", "ann", is_break_glass=True, reason="customers cannot pay")
        own = house.post(f"{house.place}/review", json={"reason": "fine"}, headers=house.keys["ann"])
        other = house.post(f"{house.place}/review", json={"reason": "it was so"}, headers=house.keys["bob"])
    assert (done.json()["state"], own.status_code, other.json()["review"]["actor"]) == ("approved", 409, "bob")


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("look", {"expectation": "great"}),
        ("approve", {"reason": "x"}),
        ("approve", {"reason": "x" * 2_001, "evidence_digest": "e"}),
        ("approve", {"reason": "x", "evidence_digest": "e", "actor": "\x07"}),
        ("reject", []),
        ("review", {"reason": " "}),
    ],
)
def test_what_is_no_answer_is_refused_with_how_it_should_be(house, what, body):
    house = house()
    refused = house.post(f"{house.place}/{what}", json=body, headers=house.keys["bob"])
    assert refused.status_code == 400
    assert refused.json()["error"]


def test_who_orders_a_retrain_is_told_that_another_person_is_asked_first(house_of):
    asking = ApprovalConfig(needed="retrains", is_key_needed=False)
    house = house_of(run_end(), *day_of(2), policy=msgspec.structs.replace(POLICY, approval=asking))
    with house.at_work():
        ordered = house.post("/api/v1/models/pump/retrain", json={"reason": "to see", "actor": "ann"}, headers=house.auth)
    assert ordered.status_code == 202
    (asked,) = house.get(ROOT, state="waiting").json()["items"]
    assert asked["approval_id"] == ordered.json()["approval"] == house.get("/api/v1/models/pump").json()["approval"]
    assert house.get("/api/v1/models/pump/retrains").json()["items"] == []
