"""Who may answer what, and when: every combination is tried, and each refusal names its reason."""

from itertools import product

import msgspec
import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_monitor.approvals import rules
from clipdrift_monitor.approvals.approval import Answer, Binding, Review
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.approvals.people import by_key, people_in

CONFIG = ApprovalConfig(needed="both", min_dwell_seconds=60.0, expectation_share=0.0)
BOUND = Binding(generation=3, candidate_digest="candidate", evidence_digest="evidence", policy_version="policy")
NOW = 1_000_000


def asked(config=CONFIG, requester="monitor", key="k", kind="promotion"):
    return rules.ask(
        kind, model="pump", key=key, version="v2", binding=BOUND, requester=requester, words="?", at_ms=NOW, config=config
    )


def given(**changed):
    whole = Answer(
        is_approved=True, actor="ann", reason="it is better", at_ms=NOW + 61_000, evidence_digest="evidence", is_by_key=True
    )
    return msgspec.structs.replace(whole, **changed)


def opened(approval, actor="ann", expectation="", at_ms=NOW):
    return rules.look(approval, actor=actor, expectation=expectation, at_ms=at_ms)


@pytest.mark.parametrize(
    ("needed", "promotion", "retrain"),
    [("never", False, False), ("promotions", True, False), ("retrains", False, True), ("both", True, True)],
)
def test_the_policy_says_what_waits_for_a_person(needed, promotion, retrain):
    config = ApprovalConfig(needed=needed)
    assert (rules.is_needed("promotion", config), rules.is_needed("retrain", config)) == (promotion, retrain)


def test_an_approval_is_taken_exactly_where_each_rule_is_kept():
    """Every combination of the seven things an approver must do right: one of them wrong is enough to be refused, unless it is
    an emergency, which passes over looking and the requester, and over nothing else."""
    for has_key, has_reason, names_evidence, is_other, has_opened, has_waited, is_in_time, is_emergency in product(
        (True, False), repeat=8
    ):
        actor = "bob" if is_other else "ann"
        approval = asked(requester="ann")
        if has_opened:
            approval = opened(approval, actor)
        at_ms = NOW + (61_000 if has_waited else 59_000) + (0 if is_in_time else 8 * MS_PER_DAY)
        answer = given(
            actor=actor, reason="why" if has_reason else " ", evidence_digest="evidence" if names_evidence else "other",
            at_ms=at_ms, is_by_key=has_key, is_break_glass=is_emergency,
        )  # fmt: skip
        is_looked = has_opened and (has_waited or not is_in_time)
        is_right = has_key and has_reason and names_evidence and is_in_time and (is_emergency or (is_other and is_looked))
        try:
            state = rules.answer(approval, answer, CONFIG).state
        except rules.ApprovalError:
            state = "refused"
        assert state == ("approved" if is_right else "refused"), (answer, has_opened)


@pytest.mark.parametrize(
    ("changed", "config", "words"),
    [
        ({"is_by_key": False}, {}, "API key of the scope `approve`"),
        ({"reason": ""}, {}, "a reason is needed"),
        ({"evidence_digest": "old"}, {}, "open it again"),
        ({"actor": "bob"}, {}, "open the evidence first"),
        ({"at_ms": NOW + 1_000}, {}, "1 s ago; the policy wants 60 s"),
        ({"at_ms": NOW + 7 * MS_PER_DAY}, {}, "it has expired at"),
        ({"actor": "api"}, {"min_dwell_seconds": 0.0}, "names a person"),
        ({"is_break_glass": True}, {"may_break_glass": False}, "no emergencies"),
    ],
)
def test_a_refusal_says_why(changed, config, words):
    with pytest.raises(rules.ApprovalError, match=words):
        rules.answer(opened(asked()), given(**changed), msgspec.structs.replace(CONFIG, **config))


def test_a_rejection_needs_no_look_and_may_come_from_who_ordered_it_but_always_needs_a_reason():
    lenient = msgspec.structs.replace(CONFIG, is_reason_needed=False)
    found = rules.answer(asked(requester="ann"), given(is_approved=False), lenient)
    assert (found.state, found.answer.seconds) == ("rejected", None)
    with pytest.raises(rules.ApprovalError, match="reason"):
        rules.answer(asked(), given(is_approved=False, reason=""), lenient)
    assert rules.answer(opened(asked()), given(reason=""), lenient).state == "approved"


@pytest.mark.parametrize(
    ("requester", "approver"),
    [
        ("ann", "ann"),
        ("ann", " Ann "),
        ("ann (by key ops)", "ops"),
        ("ann (by key ops)", "ann"),
        ("ops", "bob (by key ops)"),
        ("x (by key zed) (by key ops)", "ops"),
    ],
)
def test_nobody_approves_their_own_order_under_any_of_their_names(requester, approver):
    with pytest.raises(rules.ApprovalError, match="another person approves"):
        rules.answer(opened(asked(requester=requester), approver), given(actor=approver), CONFIG)


def test_a_name_that_looks_like_a_key_does_not_hide_whose_key_it_was():
    for actor in ("ann", "ann (by key zed)", "a" * 64, "(by key zed)", ""):
        for holder in ("ops", "o" * 64, "o" * 54):
            words = by_key(actor, holder)
            assert holder in people_in(words), words
            assert len(words) <= 64


@pytest.mark.parametrize("name", Binding.__struct_fields__)
def test_an_approval_is_void_when_any_single_thing_it_is_bound_to_changes(name):
    other = msgspec.structs.replace(BOUND, **{name: 4 if name == "generation" else "another"})
    assert rules.what_changed(BOUND, other)
    assert rules.what_changed(BOUND, BOUND) == ""


def test_one_decision_is_made_and_no_second_one():
    done = rules.answer(opened(asked()), given(), CONFIG)
    for second in (lambda: rules.answer(done, given(is_approved=False), CONFIG), lambda: opened(done, "bob")):
        with pytest.raises(rules.ApprovalError, match="is approved already: by ann"):
            second()


def test_what_nobody_answers_is_over_at_its_moment_and_not_before():
    approval = asked()
    assert approval.expires_at_ms == NOW + 7 * MS_PER_DAY
    assert rules.expire(approval, approval.expires_at_ms - 1) is None
    over = rules.expire(approval, approval.expires_at_ms)
    assert (over.state, over.why_over) == ("expired", "nobody answered within 7 days")
    assert rules.expire(over, over.expires_at_ms + 1) is None


# --- automation bias ---


def test_the_first_look_counts_however_often_it_is_looked_again():
    once = opened(asked())
    assert opened(once, at_ms=NOW + 50_000) == once
    assert rules.answer(once, given(), CONFIG).answer.seconds == 61.0


def test_where_an_expectation_is_asked_nothing_is_opened_before_it_is_said_and_it_stays_as_first_said():
    blind = asked(msgspec.structs.replace(CONFIG, expectation_share=1.0))
    with pytest.raises(rules.ApprovalError, match="say first what you expect"):
        opened(blind)
    with pytest.raises(rules.ApprovalError, match="must be better, same or worse"):
        opened(blind, expectation="great")
    said = opened(opened(blind, expectation="worse"), expectation="better")
    assert rules.answer(said, given(), CONFIG).answer.expectation == "worse"


def test_who_is_asked_for_an_expectation_is_drawn_by_the_id_in_the_share_that_the_policy_names():
    config = msgspec.structs.replace(CONFIG, expectation_share=0.25)
    drawn = [asked(config, key=f"key-{number:05}").asks_expectation for number in range(4_000)]
    assert 0.225 < sum(drawn) / len(drawn) < 0.275  # 3.7 standard errors
    assert drawn == [asked(config, key=f"key-{number:05}").asks_expectation for number in range(4_000)]
    assert not any(
        asked(msgspec.structs.replace(CONFIG, expectation_share=0.0), key=str(i)).asks_expectation for i in range(99)
    )


def test_an_emergency_is_reviewed_once_and_by_another():
    done = rules.answer(asked(requester="ann"), given(is_break_glass=True), CONFIG)
    assert done.needs_review
    with pytest.raises(rules.ApprovalError, match="another person"):
        rules.review(done, Review(actor="ANN", reason="fine", at_ms=NOW))
    reviewed = rules.review(done, Review(actor="bob", reason="it was on fire", at_ms=NOW))
    assert not reviewed.needs_review
    with pytest.raises(rules.ApprovalError, match="already"):
        rules.review(reviewed, Review(actor="eve", reason="again", at_ms=NOW))
    with pytest.raises(rules.ApprovalError, match="only what was approved as an emergency"):
        rules.review(rules.answer(opened(asked()), given(), CONFIG), Review(actor="bob", reason="x", at_ms=NOW))


def test_a_rejection_is_never_an_emergency():
    assert not rules.answer(asked(), given(is_approved=False, is_break_glass=True), CONFIG).needs_review


@pytest.mark.parametrize(
    "wrong", [{"expiry_days": 0.0}, {"expiry_days": 400.0}, {"min_dwell_seconds": -1.0}, {"expectation_share": 1.5},
              {"rubber_stamp_seconds": float("nan")}]
)  # fmt: skip
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ApprovalConfig(**wrong)
