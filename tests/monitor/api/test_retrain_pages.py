"""Pages of retrains, rollouts and approvals: rendered from what a monitor went through, none blank, each with what to do."""

import sys
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from dialogue import POLICY, TODAY, day_of, outcome, run_end
from monitor_house import TOKEN
from test_pages import Text as PageText

from clipdrift_contract.access.keys import ApiKeys, make_key
from clipdrift_contract.clock import MS_PER_DAY, ManualClock
from clipdrift_contract.events import GateCheck
from clipdrift_monitor.api.access import Access
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from traffic import begun, go_days, newest

CHECKS = (
    GateCheck(
        name="loss", outcome="pass", words="It is better on newer days.", value=-0.02, low=-0.03, high=-0.01, bound=0.001,
        unit="Brier", num_rows=400, num_blocks=10,
    ),
    GateCheck(name="slice", slice="<b>south</b>", outcome="pass", words="No slice is worse.", value=0.0, bound=0.01),
    GateCheck(name="membership", outcome="unreachable", words="Nobody could measure it.", is_decisive=False),
)  # fmt: skip
STEPS = RolloutPolicy(steps=(0.2, 0.5), min_labels=100, predecessor_days=5.0, evidence=EvidenceConfig())


class Text(PageText):
    VOID = PageText.VOID | {"input"}


def page(house, path, status=200, answer=None):
    answer = answer or house.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    read = Text(answer.text)
    assert "script" not in read.tags
    assert [link for link in read.links if not link.startswith(("/", "#main", "https://ci.example/"))] == []
    assert "None" not in read.text.replace("None so far", "").replace("None is over yet", "")
    assert "Next:" in read.text
    return read.text


@pytest.fixture
def rolling(house_of):
    """A model whose candidate takes traffic."""
    house = house_of(policy=msgspec.structs.replace(POLICY, rollout=STEPS))
    house.request = begun(house.dialogue)
    return house


@pytest.fixture
def asked(house_of, tmp_path):
    """A candidate that waits for a person; bob and ann, who ordered it, have keys."""

    def make(**changed):
        made = {name: make_key(name, ["operate", "approve"]) for name in ("ann", "bob")}
        file = tmp_path / "keys.toml"
        file.write_text("\n".join(one.lines() for one in made.values()))
        asking = ApprovalConfig(needed="promotions", min_dwell_seconds=0.0, expectation_share=0.0)
        policy = msgspec.structs.replace(POLICY, approval=msgspec.structs.replace(asking, **changed))
        access = Access(TOKEN, ApiKeys(ManualClock(now_ms=TODAY * MS_PER_DAY), file))
        days = [batch for day in range(2, 6) for batch in day_of(day)]
        house = house_of(run_end(), *days, access=access, policy=policy, api_keys_file=str(file))
        request = house.dialogue.ask(house.dialogue.engine.commands.order, "pump", "to see", "ann")
        house.dialogue.go(run_end("v2", retrain_key=request.key, day=6))
        house.dialogue.go(outcome(request, checks=CHECKS, run_url="https://ci.example/runs/7", wall_seconds=61.0))
        house.secrets = {name: one.secret for name, one in made.items()}
        house.request = request
        (approval,) = house.get("/api/v1/approvals").json()["items"]
        house.digest, house.place = approval["binding"]["evidence_digest"], f"/approvals/{approval['approval_id']}"
        return house

    return make


def send(house, **fields):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return house.post(house.place, content=urlencode(fields), headers=headers)


def test_before_anything_was_asked_or_tried_each_page_says_what_would_bring_it_about(house_of):
    house = house_of(run_end())
    assert "the policy asks nobody" in page(house, "/approvals")
    text = page(house, "/models/pump/retrains")
    assert "None so far: no repair was proven to help" in text
    assert "No promise of the gate has been measured in production yet." in text
    assert "None is over yet." in text
    for path in ("/models/pump/retrains/abc", "/models/pump/rollouts/abc", "/approvals/abc", "/models/none/retrains"):
        assert house.get(path).status_code == 404


def test_a_running_rollout_is_drawn_over_time_and_linked_from_everywhere(rolling):
    go_days(rolling.dialogue, 6, 30, until=lambda: newest(rolling.dialogue).stage == "canary 0.2")
    go_days(rolling.dialogue, 30, 33)
    state = rolling.dialogue.state
    assert state.rollout is not None
    place = f"/models/pump/rollouts/{state.rollout.rollout_id}"
    told = rolling.get("/api/v1/models/pump").json()["rollout"]
    assert (told["version"], told["stage"], told["weight"]) == ("v2", state.rollout.stage.name, state.rollout.stage.weight)
    assert told["words"] == state.finding.plain
    for path in ("/", "/models/pump", "/models/pump/retrains"):
        assert place in rolling.get(path).text, path
    answer = rolling.get(place)
    text = page(rolling, place, answer=answer)
    assert answer.text.count("<svg") == 4
    assert "shadow → canary 0.2 → canary 0.5 → in service" in text
    assert "waits for labels" in text
    assert "error rate" in text
    assert state.finding.words in text or state.finding.plain in text


def test_a_rollout_that_is_over_says_how_it_ended_and_what_it_was_worth(rolling):
    go_days(rolling.dialogue, 6, 40, worse=0.25, until=lambda: rolling.dialogue.state.rollout is None)
    past = rolling.dialogue.state.past_rollouts[-1]
    text = page(rolling, f"/models/pump/rollouts/{past.rollout_id}")
    assert past.end == "rolled back"
    assert "The candidate is kept out, the cooldown doubled." in text
    assert past.reasons[0] in text
    listed = page(rolling, "/models/pump/retrains")
    assert "rolled back" in listed
    assert "not worth it" in listed
    one = page(rolling, f"/models/pump/retrains/{rolling.request.key}")
    assert "It did not come into service" in one


def test_a_promoted_candidate_has_its_promise_beside_what_came(rolling):
    day = go_days(rolling.dialogue, 6, 60, until=lambda: rolling.dialogue.state.in_service.version == "v2")
    go_days(rolling.dialogue, day + 1, day + 8)
    text = page(rolling, "/models/pump/retrains")
    assert "promoted" in text
    assert "on the same rows" in text
    assert "Promises that were measured: 1." in text


def test_a_retrains_page_shows_each_check_with_value_interval_and_bound_and_escapes_names(asked):
    house = asked()
    text = page(house, f"/models/pump/retrains/{house.request.key}")
    assert "-0.02 Brier (-0.03 to -0.01) 0.001 Brier 400 rows, 10 blocks It is better on newer days." in text
    assert "slice of <b>south</b>" in text  # as text: the tag was escaped
    assert "on trial: shown, decides nothing" in text
    assert "https://ci.example/" in text
    assert "A person decides: see below." in text
    assert house.get(f"/models/pump/retrains/{house.request.key[:8]}").status_code == 200


def test_a_person_opens_looks_and_approves_with_forms(asked):
    house = asked()
    assert house.place in house.get("/").text
    before = page(house, house.place)
    assert "Open the evidence" in before
    with house.at_work():
        opened = page(house, "", answer=send(house, do="look", key=house.secrets["bob"]))
        done = page(
            house, "", answer=send(house, do="approve", key=house.secrets["bob"], reason="better", evidence_digest=house.digest)
        )
    assert "You opened it at" in opened
    assert "It is approved, and done." in done
    assert "approved by bob" in done
    assert "0 of 1 (0 to 79 %)" in page(house, "/approvals")
    assert house.get("/api/v1/models/pump").json()["version"] == "v2"


def test_a_form_is_refused_on_its_own_page_with_why_and_keeps_what_was_typed_but_no_key(asked):
    house = asked()
    with house.at_work():
        own = send(house, do="look", key=house.secrets["ann"])
        refused = send(house, do="approve", key=house.secrets["ann"], reason="mine <&>", evidence_digest=house.digest)
    assert own.status_code == 200
    text = page(house, "", 409, refused)
    assert "another person approves it" in text
    assert "mine <&>" in text
    assert house.secrets["ann"] not in refused.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"do": "approve"}, 401),
        ({"do": "approve", "key": "wrong"}, 401),
        ({"do": "approve", "key": "ключ"}, 401),
        ({"do": "dance", "key": TOKEN}, 400),
        ({"do": "look", "key": TOKEN, "expectation": "great"}, 400),
        ({"do": "look", "key": TOKEN, "actor": "\x07"}, 400),
    ],
)
def test_what_is_no_answer_is_said_on_the_page(asked, fields, status):
    house = asked()
    page(house, "", status, send(house, **fields))
    assert house.dialogue.state.waiting_approval is not None


def test_a_browsers_own_key_answers_nothing_so_no_other_page_can_answer_in_its_name(asked):
    house = asked()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    basic = house.post(
        house.place,
        content=urlencode({"do": "reject", "reason": "x", "evidence_digest": house.digest}),
        headers=headers | house.auth,
    )
    assert basic.status_code == 401
    assert "form-action 'self'" in basic.headers["content-security-policy"]
    assert "form-action 'none'" in house.get("/").headers["content-security-policy"]


def test_findings_are_on_no_page_before_an_expectation_was_said(asked):
    house = asked(expectation_share=1.0)
    for path in (house.place, f"/models/pump/retrains/{house.request.key}", "/models/pump/retrains", "/models/pump"):
        text = house.get(path).text
        assert "It is better on newer days." not in text, path
        assert "the gate says pass" not in text, path
    with house.at_work():
        unsaid = send(house, do="look", key=house.secrets["bob"])
        said = send(house, do="look", key=house.secrets["bob"], expectation="same")
    assert unsaid.status_code == 409
    assert "It is better on newer days." in page(house, "", answer=said)


def test_an_emergency_waits_for_its_review_on_the_pages(asked):
    house = asked()
    with house.at_work():
        send(house, do="approve", key=house.secrets["ann"], reason="fire", evidence_digest=house.digest, is_break_glass="yes")
        assert "Review what was approved as an emergency." in page(house, "/approvals")
        page(house, "", answer=send(house, do="review", key=house.secrets["bob"], reason="it was so"))
    assert "Reviewed by bob: it was so" in page(house, "/approvals")
