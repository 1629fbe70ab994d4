"""A job over HTTP: one run has the key, says that it lives, and what it tells is told once. A webhook is a wake-up, no more."""

import hashlib
import hmac
import json
from concurrent.futures import ThreadPoolExecutor, wait

import msgspec
import pytest
from dialogue import outcome, run_end
from monitor_house import HOOK_SECRET

from clipdrift_contract.events import RetrainOutcome, RunEnd

MINE, OTHER = {"run": "github-1-1"}, {"run": "github-2-1"}
LINK = "https://ci.example/runs/1"
CLAIM = {**MINE, "url": LINK}


@pytest.fixture
def house(house_of):
    return house_of(run_end())


def ask(house, path, **named):
    """What a call is answered, while the engine takes turns."""
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(house.post, path, **named)
        while wait([answer], 0.002).not_done:
            house.dialogue.turn()
    return answer.result()


def tell(house, key, what, body):
    return ask(house, f"/api/v1/retrains/{key}/{what}", content=msgspec.json.encode(body), headers=house.auth)


@pytest.fixture
def ordered(house):
    """A retrain that was ordered, and whose run is at the CI."""
    key = ask(house, "/api/v1/models/pump/retrain", json={"reason": "why"}, headers=house.auth).json()["key"]
    house.dialogue.turn(4)
    return key


def found(house, key, version="v2", **changed):
    """What a job tells at its end."""
    request = house.dialogue.jobs.requests[key]
    return {
        **MINE,
        "outcome": outcome(request, version=version, **changed), "run_end": run_end(version, retrain_key=key),
    }  # fmt: skip


def test_one_run_has_the_key_and_may_ask_again_and_no_other_gets_it(house, ordered):
    first = tell(house, ordered, "claim", CLAIM)
    again = tell(house, ordered, "claim", CLAIM)
    second = tell(house, ordered, "claim", OTHER)

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["request"]["key"] == ordered
    assert (first.json()["attempt"], first.json()["beat_seconds"]) == (1, 60)
    assert (second.status_code, second.json()["error"]) == (409, f"retrain {ordered} is being carried out by github-1-1")
    run = house.get(f"/api/v1/retrains/{ordered}").json()["run"]
    assert (run["state"], run["owner"], run["owner_url"]) == ("running", "github-1-1", LINK)


def test_a_claim_outlives_the_monitor(house, ordered):
    tell(house, ordered, "claim", CLAIM)
    house.dialogue.restart()
    house.dialogue.turn()
    house.open()

    assert tell(house, ordered, "claim", OTHER).status_code == 409
    assert tell(house, ordered, "beat", MINE).status_code == 200


def test_what_a_job_tells_leads_to_its_candidate_s_deployment_with_the_run_s_link_and_twice_is_once(house, ordered):
    tell(house, ordered, "claim", CLAIM)
    told = tell(house, ordered, "outcome", found(house, ordered))
    at_once = tell(house, ordered, "outcome", found(house, ordered))
    house.dialogue.go()
    later = tell(house, ordered, "outcome", found(house, ordered))
    house.dialogue.go()

    assert [one.json()["is_taken"] for one in (told, at_once, later)] == [True, True, True]
    assert house.dialogue.state.in_service.version == "v2"
    kept = house.dialogue.store.retrain(ordered)
    assert kept.outcome.run_url == LINK
    assert len(house.dialogue.published(RetrainOutcome)) == 1
    assert len([one for one in house.dialogue.published(RunEnd).values() if one.version == "v2"]) == 1
    assert [row.action for row in house.dialogue.store.audit()].count("late outcome") == 0


def test_a_run_that_was_told_nothing_can_tell_nothing(house, ordered):
    unclaimed = tell(house, ordered, "outcome", found(house, ordered))
    house.dialogue.go()

    assert (unclaimed.status_code, unclaimed.json()["is_taken"]) == (200, False)
    assert house.dialogue.store.retrain(ordered).outcome is None
    assert house.dialogue.state.in_service.version == "v1"


def test_a_success_that_comes_after_its_retrain_was_cancelled_is_kept_as_a_version_and_never_promoted(house, ordered):
    tell(house, ordered, "claim", CLAIM)
    cancelled = tell(house, ordered, "cancel", {"reason": "the sensor was fixed", "actor": "Ada"})
    beat = tell(house, ordered, "beat", MINE)
    late = tell(house, ordered, "outcome", found(house, ordered))
    twice = tell(house, ordered, "cancel", {"reason": "again", "actor": "Ada"})
    house.dialogue.go()
    house.dialogue.turn(5)

    assert (cancelled.status_code, cancelled.json()) == (202, {"key": ordered, "state": "running"})
    assert (beat.status_code, beat.json()["error"]) == (
        409, f"retrain {ordered} of pump was cancelled by Ada: the sensor was fixed",
    )  # fmt: skip
    assert late.json()["is_taken"] is False
    assert twice.status_code == 409
    assert house.dialogue.state.in_service.version == "v1"
    assert house.dialogue.store.run("pump", "v2") is not None
    row = house.dialogue.store.retrain(ordered)
    assert (row.outcome.verdict, row.outcome.reasons) == ("inconclusive", ("it was cancelled by Ada: the sensor was fixed",))
    assert row.run.state == "cancelled"
    assert house.dialogue.jobs.states[ordered] == "cancelled"
    assert [row.actor for row in house.dialogue.store.audit() if row.action == "cancel"] == ["Ada"]


def test_a_claim_that_was_not_heard_of_is_free_again(house, ordered):
    tell(house, ordered, "claim", CLAIM)
    house.dialogue.clock.advance_ms(16 * 60_000)
    second = tell(house, ordered, "claim", OTHER)
    beat = tell(house, ordered, "beat", MINE)
    late = tell(house, ordered, "outcome", found(house, ordered))

    assert second.status_code == 200
    assert (beat.status_code, late.json()["is_taken"]) == (409, False)
    assert "carried out by github-2-1" in late.json()["words"]


@pytest.mark.parametrize(
    ("what", "body", "words"),
    [
        ("claim", {}, "the body must be like"),
        ("claim", {"run": ""}, "run must be 1 to 200 printable characters"),
        ("claim", {"run": "a\nb"}, "run must be 1 to 200 printable characters"),
        ("claim", {"run": "a", "url": "javascript:alert(1)"}, "url must begin with https:// or http://"),
        ("beat", {"run": "a", "more": 1}, "unknown field"),
        ("outcome", {"run": "a", "outcome": {}}, "the body must be like"),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_refused_with_how_it_should_be(house, ordered, what, body, words):
    answer = tell(house, ordered, what, body)

    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_an_outcome_that_does_not_fit_its_order_is_refused(house, ordered):
    tell(house, ordered, "claim", CLAIM)
    right = found(house, ordered)
    wrong = [
        {**right, "outcome": msgspec.structs.replace(right["outcome"], key="other")},
        {**right, "run_end": None},
        {**right, "run_end": msgspec.structs.replace(right["run_end"], model="other")},
        {**right, "run_end": msgspec.structs.replace(right["run_end"], retrain_key="other")},
        {**right, "run_end": msgspec.structs.replace(right["run_end"], as_of_ms=2**60)},
    ]
    answers = [tell(house, ordered, "outcome", body) for body in wrong]

    assert [answer.status_code for answer in answers] == [409] * 5
    assert house.dialogue.store.num_outbox() == 0


def test_what_was_never_ordered_is_unknown(house):
    for what, body in (("claim", CLAIM), ("beat", MINE), ("cancel", {"reason": "r"})):
        assert tell(house, "nothing", what, body).status_code == 404
    assert house.get("/api/v1/retrains/nothing").status_code == 404


def test_jobs_need_the_token_or_a_key_of_their_scope(house, ordered):
    assert house.post(f"/api/v1/retrains/{ordered}/claim", json=CLAIM).status_code == 401


# --- webhooks ---


def proven(hook, body):
    if hook == "github":
        return {"x-hub-signature-256": f"sha256={hmac.new(HOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()}"}
    return {"x-gitlab-token": HOOK_SECRET} if hook == "gitlab" else {"authorization": f"Bearer {HOOK_SECRET}"}


def said(hook, key):
    return json.dumps(
        {
            "github": {"action": "completed", "workflow_run": {"id": 7, "display_title": f"retrain pump {key} 1"}},
            "gitlab": {"object_kind": "pipeline", "object_attributes": {"id": 7, "name": f"retrain pump {key} 1"}},
            "buildbot": {"buildrequestid": 7, "properties": {"key": [key, "Force"]}},
        }[hook]
    ).encode()


@pytest.mark.parametrize("hook", ["github", "gitlab", "buildbot"])
def test_a_webhook_brings_a_look_at_its_run_at_once_and_decides_nothing_itself(house, ordered, hook):
    house.dialogue.jobs.states[ordered] = "dead"
    body = said(hook, ordered)
    answer = ask(house, f"/api/v1/hooks/{hook}", content=body, headers=proven(hook, body))
    other = ask(house, f"/api/v1/hooks/{hook}", content=said(hook, "other"), headers=proven(hook, said(hook, "other")))

    assert (answer.status_code, answer.json()) == (202, {"num_woken": 1})
    assert other.json() == {"num_woken": 0}
    assert house.dialogue.store.retrain(ordered).state == "running"


@pytest.mark.parametrize("hook", ["github", "gitlab", "buildbot"])
def test_a_webhook_of_who_does_not_know_the_secret_is_refused(house, hook):
    body = said(hook, "k")
    other = "github" if hook != "github" else "gitlab"

    for headers in ({}, proven(other, body), house.auth):
        assert house.post(f"/api/v1/hooks/{hook}", content=body, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"x"', b"{", b"\xff", b'{"workflow_run": 3, "object_attributes": [], "properties": 1}']
)
@pytest.mark.parametrize("hook", ["github", "gitlab", "buildbot"])
def test_whatever_a_webhook_holds_is_nothing_or_refused(house, ordered, hook, body):
    answer = ask(house, f"/api/v1/hooks/{hook}", content=body, headers=proven(hook, body))

    assert answer.status_code in (202, 400)
