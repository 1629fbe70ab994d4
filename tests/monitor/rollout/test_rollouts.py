"""A candidate takes traffic step by step, what it does is weighed, and it is promoted or out again: once, whatever happens."""

import msgspec
import pytest
from dialogue import POLICY, day_of, outcome, run_end
from traffic import actions, begun, day_of_rollout, go_days, newest, replaced

from clipdrift_contract.events import Decision, Deployment
from clipdrift_monitor.decisions.decide import cooldown_ms
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig

ROLLOUT = RolloutPolicy(
    steps=(0.2, 0.5), min_labels=200, predecessor_days=4.0, max_days=40.0, evidence=EvidenceConfig(needs_slice_proof=False)
)
CANARY = msgspec.structs.replace(POLICY, rollout=ROLLOUT)


@pytest.fixture
def watched(dialogue_of):
    return dialogue_of("watched", policy=CANARY)


def stages(dialogue):
    return [one.stage for one in sorted(dialogue.published(Deployment).values(), key=lambda one: one.generation)]


def test_an_equal_candidate_goes_through_shadow_and_canary_steps_and_is_promoted(watched):
    begun(watched)
    first = newest(watched)
    day = go_days(watched, 6, 40, until=lambda: watched.state.in_service.version == "v2")

    assert (first.champion.version, first.shadow.version, first.canary, first.stage) == ("v1", "v2", None, "shadow")
    assert day is not None
    assert stages(watched) == ["", "shadow", "canary 0.2", "canary 0.5", ""]
    assert actions(watched) == ["canary", "canary", "canary", "promote"]
    assert {one.rollout_id for one in watched.published(Deployment).values()} == {"", first.rollout_id}
    assert newest(watched).shadow.version == "v1"
    assert [one.end for one in watched.state.past_rollouts] == ["promoted"]
    assert watched.state.rollout is None


def test_a_candidate_that_is_worse_is_rolled_back_kept_out_and_the_next_retrain_waits_twice_as_long(watched):
    request = begun(watched)
    usual = cooldown_ms(watched.state.history, CANARY)
    day = go_days(watched, 6, 40, worse=0.3, until=lambda: watched.state.rollout is None)

    assert day is not None
    assert watched.state.in_service.version == "v1"
    assert newest(watched).canary is newest(watched).shadow is None
    assert watched.state.quarantine == ["sha256:v2"]
    assert cooldown_ms(watched.state.history, CANARY) == 2 * usual
    assert watched.state.history.last_failed_cause == request.key
    assert watched.state.past_rollouts[0].end == "rolled back"
    assert actions(watched)[-1] == "rollback"
    (told,) = [one for one in watched.published(Decision).values() if one.action == "rollback"]
    assert told.cause_key == request.key
    assert told.evidence_digest
    assert told.terms["harm"] >= 1
    assert "points higher" in " ".join(told.reasons)
    assert watched.state.worths[-1].verdict == "not worth it"
    assert watched.state.worths[-1].cpu_seconds == 20.0

    again = watched.ask(watched.engine.commands.order, "pump", "once more", "a person")
    watched.go(outcome(again, version="v2"))
    assert watched.state.rollout is None
    assert actions(watched)[-1] == "hold"


def test_a_candidate_that_is_worse_only_in_the_canary_is_rolled_back_there(watched):
    begun(watched)
    go_days(watched, 6, 30, until=lambda: newest(watched).stage == "canary 0.2")
    reached = watched.state.rollout.stage.name
    day = go_days(watched, 20, 50, worse=0.4, until=lambda: watched.state.rollout is None)

    assert reached == "canary 0.2"
    assert day is not None
    assert watched.state.past_rollouts[0].end == "rolled back"
    assert watched.state.past_rollouts[0].stage.startswith("canary")
    assert watched.state.in_service.version == "v1"


DISGUISES = {
    "the champion's rows as the canary's": {"version": "v1"},
    "the canary's rows as the champion's": {"role": "champion"},
    "a version of long ago": {"version": "v0"},
    "an earlier deployment's rows": {"generation": 1},
    "rows of no deployment": {"generation": 0},
}


@pytest.mark.parametrize("what", DISGUISES)
def test_only_rows_of_the_candidate_in_its_role_under_its_deployment_count(watched, what):
    begun(watched)
    day = go_days(watched, 6, 30, until=lambda: newest(watched).stage == "canary 0.2")
    watched.go(run_end("v0"))
    before = watched.state.comparison
    canary = [one for one in day_of_rollout(watched, day, worse=0.5, epoch="other") if one.role == "canary"]
    watched.go(*(msgspec.structs.replace(one, **DISGUISES[what]) for one in canary))
    disguised = watched.state.comparison
    watched.go(*(msgspec.structs.replace(one, epoch="as they are") for one in canary))

    assert disguised.periods == before.periods
    assert disguised.served == before.served
    assert watched.state.comparison.periods[-1].candidate
    assert f"{newest(watched).generation}/canary" in watched.state.comparison.served


def test_what_the_canary_answers_stands_in_no_window_of_the_champion_and_a_shadow_in_none(watched):
    begun(watched)
    before = watched.state.num_predictions
    watched.go(*day_of_rollout(watched, 6, num_rows=100))
    in_shadow = {key.version for key in watched.sums() if key.start_ms == 6 * 86_400_000}
    go_days(watched, 7, 30, until=lambda: newest(watched).stage == "canary 0.2")
    events = day_of_rollout(watched, 31)
    watched.go(*events)

    assert watched.engine.snapshot.models["pump"].num_predictions >= before + 100
    assert in_shadow == {"v1"}
    rows = {key.version: sum(sums[0] for other, sums in watched.sums().items() if other == key)
            for key in watched.sums() if key.start_ms == 31 * 86_400_000}  # fmt: skip
    assert set(rows) == {"v1", "v2"}
    canary = sum(len(one.sequence) for one in events if one.role == "canary" and hasattr(one, "features"))
    assert canary


def test_pairs_are_found_whichever_half_comes_first_and_over_a_restart(dialogue_of):
    found = []
    for name in ("as it comes", "labels first", "restart between"):
        dialogue = dialogue_of(name, policy=CANARY)
        begun(dialogue)
        events = day_of_rollout(dialogue, 6, num_rows=300)
        shadow = [one for one in events if one.role == "shadow"]
        others = [one for one in events if one.role != "shadow"]
        first, then = (others, shadow) if name == "labels first" else (shadow, others)
        dialogue.go(*first)
        if name == "restart between":
            assert dialogue.store.waiting_rows("pump")
            dialogue.restart()
        dialogue.go(*then)
        assert dialogue.store.waiting_rows("pump") == {}
        found.append(dialogue.state.comparison.periods)

    assert found[0][0].pairs
    assert found[0] == found[1] == found[2]


def test_rows_that_find_no_room_to_wait_are_counted_and_what_waits_is_bounded(dialogue_of):
    policy = msgspec.structs.replace(CANARY, rollout=msgspec.structs.replace(ROLLOUT, max_waiting_rows=50))
    dialogue = dialogue_of("narrow", policy=policy)
    begun(dialogue)
    dialogue.go(*(one for one in day_of_rollout(dialogue, 6, num_rows=80) if one.role == "shadow"))

    assert dialogue.state.comparison.num_left_out == 30
    assert len(dialogue.store.waiting_rows("pump")) == 1


def told_of(dialogue):
    state = dialogue.state
    return state.rollout, state.finding, state.evidence, state.comparison, state.past_rollouts, state.worths, state.worth_open


@pytest.mark.parametrize("worse", [0.0, 0.3])
def test_a_monitor_that_is_killed_every_day_ends_as_one_that_never_was(dialogue_of, worse):
    whole, killed = dialogue_of("whole", policy=CANARY), dialogue_of("killed", policy=CANARY)
    for dialogue in (whole, killed):
        begun(dialogue)
        for day in range(6, 26):
            dialogue.go(*day_of_rollout(dialogue, day, worse=worse, num_rows=1_000))
            if dialogue is killed:
                dialogue.restart()
        dialogue.go()

    assert stages(killed) == stages(whole)
    assert actions(killed) == actions(whole)
    assert told_of(killed) == told_of(whole)
    assert killed.store.verify_audit().is_intact


def test_labels_that_come_late_are_waited_for_and_no_step_is_taken_on_a_clock(watched):
    begun(watched)
    for day in range(6, 16):
        watched.go(*day_of_rollout(watched, day, is_labelled=False))
    unlabelled = watched.state

    assert unlabelled.rollout.stage.name == "shadow"
    assert unlabelled.finding.num_labels == 0


def test_a_rollout_that_shows_neither_is_held_and_the_champion_serves_alone(dialogue_of):
    policy = msgspec.structs.replace(CANARY, rollout=msgspec.structs.replace(ROLLOUT, max_days=5.0))
    dialogue = dialogue_of("held", policy=policy)
    begun(dialogue)
    go_days(dialogue, 6, 20, num_rows=20, until=lambda: dialogue.state.rollout is None)

    assert dialogue.state.past_rollouts[0].end == "held"
    assert (newest(dialogue).champion.version, newest(dialogue).shadow) == ("v1", None)
    assert dialogue.state.quarantine == []
    assert actions(dialogue) == ["canary", "hold"]
    assert dialogue.state.worths[-1].verdict == "unknown"


def test_a_held_rollout_may_wait_for_a_person_who_ends_it(dialogue_of):
    policy = msgspec.structs.replace(CANARY, rollout=msgspec.structs.replace(ROLLOUT, max_days=5.0, on_hold="wait"))
    dialogue = dialogue_of("waits", policy=policy)
    begun(dialogue)
    go_days(dialogue, 6, 20, num_rows=20)
    waiting = dialogue.state.rollout
    dialogue.restart()
    deployment = dialogue.ask(dialogue.engine.commands.roll_back, "pump", "nobody needs it", "Ada")

    assert waiting.is_held
    assert actions(dialogue) == ["canary", "hold", "rollback"]
    assert (deployment.champion.version, deployment.shadow) == ("v1", None)


@pytest.mark.parametrize("stage", ["shadow", "canary 0.2", "canary 0.5"])
def test_a_persons_rollback_ends_a_rollout_at_once_at_every_stage(watched, stage):
    begun(watched)
    day = go_days(watched, 6, 40, until=lambda: newest(watched).stage == stage) if stage != "shadow" else 6
    old = newest(watched)
    deployment = watched.ask(watched.engine.commands.roll_back, "pump", "customers call", "Ada")
    watched.turn(2)
    before = watched.state
    watched.go(*day_of_rollout(watched, day + 2, worse=0.4, at=old))

    assert (deployment.champion.version, deployment.canary, deployment.shadow) == ("v1", None, None)
    assert deployment.generation == old.generation + 1
    assert before.past_rollouts[0].end == "withdrawn"
    assert before.past_rollouts[0].reasons == ("Ordered by Ada: customers call",)
    assert before.quarantine == ["sha256:v2"]
    assert watched.state.comparison is None
    assert watched.state.rollout is None
    assert [row.actor for row in watched.store.audit() if row.action == "decide rollback"] == ["Ada"]


def test_a_second_outcome_while_a_rollout_runs_is_held_and_a_retrain_is_not_ordered_by_itself(watched):
    begun(watched)
    go_days(watched, 6, 8)
    request = watched.ask(watched.engine.commands.order, "pump", "impatience", "a person")
    watched.go(run_end("v3", retrain_key=request.key, day=8))
    watched.go(outcome(request, version="v3"))

    assert watched.state.rollout.candidate.version == "v2"
    assert "one goes at a time" in next(one for one in watched.published(Decision).values() if one.action == "hold").reasons[-1]
    assert watched.state.history.rollout_id == watched.state.rollout.rollout_id


def test_a_step_of_a_rollout_does_not_make_the_comparison_of_the_next_retrain_void(watched):
    begun(watched)
    go_days(watched, 6, 40, worse=0.3, until=lambda: watched.state.rollout is None)
    request = watched.ask(watched.engine.commands.order, "pump", "another try", "a person")
    watched.go(run_end("v3", retrain_key=request.key, day=20))
    watched.go(outcome(request, version="v3"))

    assert watched.state.rollout.candidate.version == "v3"


def test_a_candidate_that_fails_its_requests_is_rolled_back_before_any_label_comes(watched):
    begun(watched)
    go_days(watched, 6, 30, until=lambda: newest(watched).stage == "canary 0.2")
    for number in range(3):
        for event in day_of_rollout(watched, 30, is_labelled=False, epoch=f"life {number}", num_rows=1_000):
            watched.go(replaced(event, num_failed=400) if event.role == "canary" else event)
        if watched.state.rollout is None:
            break

    assert watched.state.rollout is None
    assert watched.state.past_rollouts[0].end == "rolled back"
    assert "failed" in watched.state.past_rollouts[0].reasons[0]


def test_what_a_retrain_was_worth_is_measured_on_the_rows_that_the_predecessor_answers_too(watched):
    request = begun(watched)
    day = go_days(watched, 6, 40, until=lambda: watched.state.in_service.version == "v2")
    measuring = watched.state.worth_open
    tested = dict(watched.state.live)
    go_days(watched, day + 1, day + 12, worse=0.3, until=lambda: watched.state.worth_open is None)  # now the predecessor errs
    worth = watched.state.worths[-1]

    assert (measuring.key, measuring.predecessor, measuring.verdict) == (request.key, "v1", "measuring")
    assert worth.verdict == "worth it"
    assert worth.gain == pytest.approx(
        0.3 * (0.8 * 0.6 - 0.2 * 0.6), abs=0.02
    )  # Brier .04 or .64: turned round costs .6 or gains it
    assert worth.gain_low < worth.gain < worth.gain_high
    assert (worth.wall_seconds, worth.cpu_seconds) == (30.0, 20.0)
    assert newest(watched).shadow is None
    assert newest(watched).champion.version == "v2"
    assert "account retrain" in watched.audit_words()
    assert tested is not None


def test_the_tests_of_the_model_in_service_go_on_when_its_predecessor_stops_answering(watched):
    begun(watched)
    day = go_days(watched, 6, 40, until=lambda: watched.state.in_service.version == "v2")
    go_days(watched, day + 1, day + 12, until=lambda: watched.state.worth_open is None)

    assert watched.state.num_version_labels > 0
    assert watched.state.generation == watched.state.champion_generation + 1


def test_a_rollback_after_a_promotion_says_that_the_retrain_was_not_worth_it_and_doubles_the_cooldown(watched):
    begun(watched)
    go_days(watched, 6, 40, until=lambda: watched.state.in_service.version == "v2")
    usual = cooldown_ms(watched.state.history, CANARY)
    deployment = watched.ask(watched.engine.commands.roll_back, "pump", "it was slow", "Ada")
    watched.turn(2)

    assert (deployment.champion.version, deployment.shadow) == ("v1", None)
    assert watched.state.worths[-1].verdict == "not worth it"
    assert cooldown_ms(watched.state.history, CANARY) == 2 * usual
    assert watched.state.worth_open is None
    assert watched.state.comparison is None


def test_a_canary_that_a_lost_store_had_begun_is_ended_by_the_next_one(dialogue_of):
    old = dialogue_of("old", policy=CANARY)
    begun(old)
    go_days(old, 6, 30, until=lambda: newest(old).stage == "canary 0.2")
    events = list(old.published().items())
    new = dialogue_of("new", policy=CANARY)
    new.go(*(event for _, event in events), ids=[name for name, _ in events])

    assert newest(new).generation == newest(old).generation + 1
    assert (newest(new).champion.version, newest(new).canary, newest(new).shadow) == ("v1", None, None)
    assert new.state.rollout is None


def test_no_steps_mean_at_once_as_the_policy_says(dialogue_of):
    policy = msgspec.structs.replace(CANARY, rollout=RolloutPolicy(steps=(), predecessor_days=0.0))
    dialogue = dialogue_of("at once", policy=policy)
    begun(dialogue)

    assert dialogue.state.in_service.version == "v2"
    assert actions(dialogue) == ["promote"]
    assert newest(dialogue).shadow is None
    dialogue.go(*day_of(7, version="v2"))
