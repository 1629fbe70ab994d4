"""What the engine asks of people: on record, kept over restarts, void when its subject changes, and done when agreed to."""

import msgspec
import pytest
from dialogue import POLICY, Dialogue, OnceFailingStore, day_of, outcome, run_end

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import Decision, Deployment, RetrainRequest
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store import tables as t
from clipdrift_monitor.store.checking import check
from clipdrift_monitor.store.database import Database
from clipdrift_monitor.store.dump import back_up, restore
from clipdrift_monitor.store.store import Changes

ASKING = ApprovalConfig(needed="promotions", min_dwell_seconds=60.0, expectation_share=0.0, is_key_needed=False)


def policy(**changed):
    return msgspec.structs.replace(POLICY, approval=msgspec.structs.replace(ASKING, **changed))


@pytest.fixture
def talk(tmp_path):
    """A dialogue whose policy asks people for promotions."""
    with Dialogue(tmp_path, policy=policy()) as dialogue:
        yield dialogue


def ordered(dialogue, actor="ann"):
    dialogue.go(run_end(), *(batch for day in range(2, 6) for batch in day_of(day)))
    return dialogue.ask(dialogue.engine.commands.order, "pump", "to see", actor)


def asked(dialogue, actor="ann", **changed):
    """A candidate that has passed the gate and waits for a person."""
    request = ordered(dialogue, actor)
    dialogue.go(run_end("v2", retrain_key=request.key, day=6))
    dialogue.go(outcome(request, **changed))
    return dialogue.state.waiting_approval.approval


def say(dialogue, approval, *, is_approved=True, actor="bob", digest=None, **changed):
    named = {"reason": "seen", "evidence_digest": digest or approval.binding.evidence_digest, **changed}
    return dialogue.ask(
        lambda draft: dialogue.engine.approvals.answer(
            draft, approval.approval_id, is_approved=is_approved, actor=actor, **named
        )
    )


def look(dialogue, approval, actor="bob", expectation="", wait_ms=60_000):
    seen = dialogue.ask(dialogue.engine.approvals.look, approval.approval_id, actor, expectation)
    dialogue.clock.advance_ms(wait_ms)
    return seen


def in_service(dialogue):
    return sorted((one.generation, one.champion.version) for one in dialogue.published(Deployment).values())


def decided(dialogue, action):
    return [one for one in dialogue.published(Decision).values() if one.action == action]


# --- promotions ---


def test_a_candidate_that_passed_waits_and_goes_into_service_when_another_person_agrees(talk):
    approval = asked(talk)
    assert in_service(talk) == [(1, "v1")]
    assert [one.cause_key for one in decided(talk, "ask")] == [approval.key]
    look(talk, approval)
    answered = say(talk, approval)
    talk.turn(3)

    assert (answered.state, answered.answer.actor) == ("approved", "bob")
    assert in_service(talk) == [(1, "v1"), (2, "v2")]
    assert talk.state.waiting_approval is None
    assert [one for one in talk.audit_words() if one.startswith("approval")] == [
        "approval: ask", "approval: open evidence", "approval: approved",
    ]  # fmt: skip
    assert check(Database(f"sqlite:///{talk.store._database._engine.url.database}")).problems == ()


def test_what_was_asked_before_a_restart_is_answered_after_it(talk):
    approval = asked(talk)
    look(talk, approval)
    talk.restart()
    talk.turn(2)
    assert talk.state.waiting_approval.approval.opened_by("bob") is not None
    assert say(talk, approval).state == "approved"
    talk.restart()
    talk.turn(3)
    assert in_service(talk) == [(1, "v1"), (2, "v2")]
    with pytest.raises(CommandError, match="is approved: by bob"):
        say(talk, approval, is_approved=False)


@pytest.mark.parametrize("actor", ["ann", "ann (by key ops)"])
def test_who_ordered_the_retrain_approves_it_under_none_of_their_names(talk, actor):
    approval = asked(talk, actor)
    name = "ops" if "ops" in actor else "ann"
    look(talk, approval, name)
    with pytest.raises(CommandError, match="another person"):
        say(talk, approval, actor=name)
    assert in_service(talk) == [(1, "v1")]


def test_a_rejection_is_a_decision_with_the_persons_reason_and_the_next_retrain_is_far(talk):
    approval = asked(talk)
    say(talk, approval, is_approved=False, reason="the south is worse")
    talk.turn(3)
    (held,) = decided(talk, "hold")
    assert held.reasons == ("Rejected by bob: the south is worse",)
    assert held.cause_key == approval.key
    assert in_service(talk) == [(1, "v1")]
    assert (talk.state.history.num_failures_in_a_row, talk.state.history.last_failed_cause) == (1, approval.key)
    assert talk.state.num_approvals == {"promotion/rejected": 1}


def test_while_a_person_is_asked_no_other_retrain_is_ordered(talk):
    asked(talk)
    with pytest.raises(CommandError, match="a person is asked about pump already"):
        talk.ask(talk.engine.commands.order, "pump", "again", "eve")


def test_nobody_answers_and_it_is_over_by_itself(talk):
    approval = asked(talk)
    talk.clock.advance_ms(7 * MS_PER_DAY - 2_000)
    talk.turn()
    assert talk.state.waiting_approval is not None
    talk.clock.advance_ms(5_000)
    talk.turn(3)
    assert talk.state.waiting_approval is None
    assert talk.store.approval(approval.approval_id).state == "expired"
    assert "nobody answered within 7 days" in decided(talk, "hold")[0].reasons[0]


# --- void ---


def test_it_is_void_when_another_generation_is_in_service(talk):
    approval = asked(talk)
    talk.go(msgspec.structs.replace(next(iter(talk.published(Deployment).values())), generation=2, reason="by hand"))
    over = talk.store.approval(approval.approval_id)
    assert (over.state, over.why_over) == ("void", "another version is in service (generation 2, it was 1)")
    with pytest.raises(CommandError, match="is void"):
        say(talk, approval)


def test_it_is_void_when_the_policy_is_another_one_after_a_restart(talk):
    approval = asked(talk)
    talk.config = msgspec.structs.replace(talk.config, policy=msgspec.structs.replace(policy(), min_labels=7))
    talk.restart()
    talk.turn(3)
    assert "the policy is another one" in talk.store.approval(approval.approval_id).why_over


def test_it_is_void_when_the_candidates_file_is_another_one(talk):
    approval = asked(talk)
    look(talk, approval)
    other = run_end("v2", retrain_key=approval.key, day=6, artifact_digest="sha256:other")
    talk.store.commit(Changes(runs=[other]))
    talk.restart()
    with pytest.raises(CommandError, match="void: the candidate's file is another one"):
        say(talk, approval)
    talk.turn(2)
    assert talk.store.approval(approval.approval_id).state == "void"
    assert in_service(talk) == [(1, "v1")]


def test_it_is_void_when_the_outcome_it_rests_on_was_changed(talk):
    approval = asked(talk)
    look(talk, approval)
    row = talk.store.retrain(approval.key)
    talk.store.commit(Changes(outcomes=[msgspec.structs.replace(row.outcome, wall_seconds=1.0)]))
    with pytest.raises(CommandError, match="void: what it rests on has changed"):
        say(talk, approval)
    assert in_service(talk) == [(1, "v1")]


# --- retrains ---


def harmed(tmp_path, needed):
    """A model whose repair is proven, under a policy that asks for what `needed` says."""
    dialogue = Dialogue(tmp_path, policy=policy(needed=needed))
    dialogue.go(run_end())
    for day in range(2, 40):
        dialogue.go(*day_of(day, accuracy=0.3))
        if decided(dialogue, "ask") or decided(dialogue, "retrain"):
            return dialogue
    raise AssertionError("no repair was ever proven")


def test_a_retrain_is_asked_for_once_and_ordered_when_a_person_agrees(tmp_path):
    with harmed(tmp_path, "retrains") as talk:
        waiting = talk.state.waiting_approval
        assert waiting.approval.kind == "retrain"
        assert not talk.published(RetrainRequest)
        assert talk.state.word != "retraining"
        talk.go(*day_of(60, accuracy=0.3), *day_of(61, accuracy=0.3))
        assert len(decided(talk, "ask")) == 1
        look(talk, waiting.approval)
        say(talk, waiting.approval)
        talk.turn(3)
        assert [one.key for one in talk.published(RetrainRequest).values()] == [waiting.request.key]
        assert talk.jobs.started == [waiting.request.key]
        assert talk.state.word == "retraining"


def test_a_rejected_retrain_is_not_asked_for_again_within_the_cooldown(tmp_path):
    with harmed(tmp_path, "retrains") as talk:
        say(talk, talk.state.waiting_approval.approval, is_approved=False)
        talk.go(*day_of(60, accuracy=0.3), *day_of(61, accuracy=0.3), *day_of(62, accuracy=0.3))
        num_asked = len(decided(talk, "ask"))
        assert (num_asked, talk.jobs.started) == (1, [])


def test_a_person_who_orders_a_retrain_needs_another_to_agree(tmp_path):
    with Dialogue(tmp_path, policy=policy(needed="both")) as talk:
        request = ordered(talk)
        approval = talk.state.waiting_approval.approval
        assert (approval.kind, approval.requesters, talk.jobs.started) == ("retrain", ("ann",), [])
        look(talk, approval)
        say(talk, approval)
        talk.go(run_end("v2", retrain_key=request.key, day=6))
        talk.go(outcome(request))
        second = talk.state.waiting_approval.approval
        assert (second.kind, second.requesters) == ("promotion", ("ann",))
        assert talk.state.orderers == {}


def test_under_the_default_policy_nobody_is_asked(tmp_path):
    assert Policy().approval.needed == "never"
    with Dialogue(tmp_path) as talk:
        request = ordered(talk)
        talk.go(run_end("v2", retrain_key=request.key, day=6))
        talk.go(outcome(request))
        assert talk.state.waiting_approval is None
        assert in_service(talk) == [(1, "v1"), (2, "v2")]


# --- emergencies, tampering, old stores ---


def test_an_emergency_is_done_at_once_and_waits_for_a_review(talk):
    approval = asked(talk)
    say(talk, approval, actor="ann", is_break_glass=True, reason="it burns")
    talk.turn(2)
    assert in_service(talk) == [(1, "v1"), (2, "v2")]
    assert talk.store.approval(approval.approval_id).needs_review
    reviewed = talk.ask(talk.engine.approvals.review, approval.approval_id, "it did burn", "bob")
    assert not reviewed.needs_review


def test_a_changed_approval_is_refused_and_named_by_the_stores_check(talk):
    approval = asked(talk)
    forged = msgspec.structs.replace(approval, requesters=())
    waiting = msgspec.structs.replace(talk.state.waiting_approval, approval=forged)
    state = msgspec.structs.replace(talk.state, waiting_approval=waiting)
    talk.store.commit(Changes(models={"pump": msgspec.msgpack.encode(state)}, approvals=[forged]))
    talk.restart()
    with pytest.raises(CommandError, match="somebody changed the store"):
        say(talk, approval, actor="ann", is_break_glass=True)
    (problem,) = check(talk.store._database).problems
    assert problem == f"approval {approval.approval_id} was changed: it is not what row 6 of the audit log says of it"


def test_a_removed_approval_and_a_changed_row_of_the_audit_log_are_named(talk):
    approval = asked(talk)
    with talk.store._database.transaction() as connection:
        connection.execute(t.APPROVALS.delete())
        connection.execute(t.AUDIT.update().where(t.AUDIT.c.seq == 6).values(actor="nobody"))
    problems = check(talk.store._database).problems
    assert f"approval {approval.approval_id} is missing: row 6 of the audit log says that there is one" in problems
    assert "the audit log is broken at row 6: row 6 was changed" in problems


def test_a_state_that_was_saved_before_there_were_approvals_still_loads():
    saved = msgspec.msgpack.encode({"model": "pump", "history": {"running_key": "k"}})
    state = msgspec.msgpack.decode(saved, type=ModelState)
    assert (state.waiting_approval, state.history.asked_key, state.num_approvals) == (None, "", {})


def test_a_monitor_that_can_be_answered_by_nobody_is_not_started():
    from clipdrift_monitor.config import MonitorConfig

    with pytest.raises(ValueError, match="api_keys_file"):
        MonitorConfig(policy=msgspec.structs.replace(POLICY, approval=ApprovalConfig(needed="both")))


# --- cut off half-way ---


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_answer_that_is_cut_off_while_it_is_saved_is_done_whole_or_not_at_all(tmp_path, when):
    with Dialogue(tmp_path, policy=policy(), store_type=OnceFailingStore) as talk:
        approval = asked(talk)
        look(talk, approval)
        talk.store.fails = when
        with pytest.raises(RetryableError):
            say(talk, approval)
        talk.restart()
        talk.turn(3)
        is_done = when == "after"
        assert talk.store.approval(approval.approval_id).state == ("approved" if is_done else "waiting")
        assert in_service(talk) == ([(1, "v1"), (2, "v2")] if is_done else [(1, "v1")])
        if not is_done:
            assert say(talk, approval).state == "approved"
            talk.turn(3)
        assert in_service(talk) == [(1, "v1"), (2, "v2")]
        assert check(talk.store._database).problems == ()


def test_a_backup_brings_approvals_back_as_the_audit_log_says_of_them(talk, tmp_path):
    approval = asked(talk)
    look(talk, approval)
    say(talk, approval, is_approved=False)
    talk.turn(2)
    back_up(talk.store._database, tmp_path / "backup", 0)
    (tmp_path / "other").mkdir()
    other = Database(f"sqlite:///{tmp_path / 'other' / 'store.db'}")
    restore(other, tmp_path / "backup", force=False, now_ms=0)
    report = check(other)
    assert (report.problems, report.num_rows["approvals"]) == ((), 1)
    other.close()


def test_a_rollback_by_a_person_while_one_is_asked_makes_it_void(talk):
    first = asked(talk)
    look(talk, first)
    say(talk, first)
    talk.turn(3)
    talk.go(*(batch for day in range(8, 12) for batch in day_of(day, version="v2")))
    request = talk.ask(talk.engine.commands.order, "pump", "again", "ann")
    talk.go(run_end("v3", retrain_key=request.key, day=12))
    talk.go(outcome(request, version="v3"))
    second = talk.state.waiting_approval.approval
    talk.ask(talk.engine.commands.roll_back, "pump", "customers complain", "eve")
    talk.turn(2)
    assert talk.store.approval(second.approval_id).state == "void"
    assert talk.state.in_service.version == "v1"
