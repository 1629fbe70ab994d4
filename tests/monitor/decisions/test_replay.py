"""A replay with the policy of then decides as was decided then; another policy where it differs."""

import msgspec
import pytest
from court import Court
from dialogue import DAY, POLICY, rows

from clipdrift_contract.events import Deployment, RetrainOutcome, ServedVersion
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.decisions.replay import Past, Replay, Retrained, in_a_sentence, replay
from clipdrift_monitor.decisions.worth import RetrainCost


def changed(**changes):
    return msgspec.structs.replace(POLICY, **changes)


@pytest.fixture(scope="module")
def told():
    """Four good days, then fourteen bad ones."""
    court = Court()
    return [*court.judge_days(2, 6), *(court.judge(day, rows(day, accuracy=0.1)) for day in range(6, 20))]


def past(told, verdict=None, **changes):
    retrains = []
    for one in told:
        if one.request is not None:
            outcome = None
            if verdict is not None:
                outcome = RetrainOutcome(
                    key=one.request.key, model="pump", finished_at_ms=1, verdict=verdict, reasons=(), cpu_seconds=3600.0
                )  # fmt: skip
            retrains.append(Retrained(request=one.request, outcome=outcome))
    fields = {"blocks": [one.block for one in told], "decisions": [one.decision for one in told], "retrains": retrains}
    return Past(model="pump", **{**fields, **changes})


def test_the_policy_of_then_decides_as_was_decided_then(told):
    found = replay(past(told), POLICY)

    assert [one.would for one in found.blocks] == [one.decision.action for one in told]
    assert [one.terms for one in found.blocks] == [one.decision.terms for one in told]
    assert found.num_did == found.num_would
    assert found.num_did["retrain"] == 1
    assert len(found.cannot_know) == 1  # that alarms are those of then
    assert in_a_sentence(found).endswith("of 18 blocks 0 are ruled otherwise")


def test_a_dry_run_of_then_is_replayed_as_what_it_would_have_done(told):
    assert [one.would for one in replay(past(told), changed(is_dry_run=True)).blocks] == [one.decision.action for one in told]


def test_a_policy_that_may_not_retrain_and_one_for_which_none_pays_would_not_have(told):
    for policy in (changed(may_retrain=False), changed(cost=RetrainCost(per_retrain=1e9))):
        found = replay(past(told), policy)
        assert found.num_would.get("retrain", 0) == 0
        (other,) = [one for one in found.blocks if not one.is_alike]
        assert (other.did, other.would) == ("retrain", "alert")
        assert "under this policy may have been others" in found.cannot_know[-1]


def test_orders_that_were_not_carried_out_are_said_to_have_no_known_end_and_keep_the_next_back(told):
    eager = changed(cooldown_days=0.0, max_retrains_per_7_days=99, max_retrains_per_30_days=99)
    found = replay(past(told), eager)
    num_would = found.num_would["retrain"]
    assert num_would > 1
    assert f"not carried out then: {num_would - 1}." in found.cannot_know[1]
    assert replay(past(told), changed(cooldown_days=60.0)).num_would["retrain"] == 1


def test_only_the_blocks_between_are_told_and_those_before_count_all_the_same(told):
    ordered = next(one.decision.at_ms for one in told if one.request)
    later = replay(past(told), POLICY, start_ms=ordered + 1)
    assert "retrain" not in later.num_would  # its cooldown is not forgotten
    assert [one.at_ms for one in later.blocks] == [one.decision.at_ms for one in told if one.decision.at_ms > ordered]
    assert replay(past(told), POLICY, end_ms=ordered).blocks[-1].at_ms < ordered


def test_an_order_of_a_person_begins_the_cooldown_under_any_policy(told):
    known = past(told)
    first = msgspec.structs.replace(known.retrains[0].request, cause="ordered: by me", requested_at_ms=7 * DAY, decision_id="x")
    assert replay(past(told, retrains=[Retrained(request=first)]), POLICY).num_would.get("retrain", 0) == 0


def test_chances_are_those_that_were_known_then(told):
    chances = [
        one.terms["chance"] for one in replay(past(told, verdict="fail"), changed(cooldown_days=0.0)).blocks if one.terms
    ]
    assert chances[0] == pytest.approx(2 / 3)
    assert [round(one, 3) for one in (chances[0], chances[-1])] == [0.667, 0.5]
    others = [
        msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, verdict="pass"))
        for one in past(told, verdict="fail").retrains
    ]
    early = [msgspec.structs.replace(one, request=msgspec.structs.replace(one.request, as_of_ms=0)) for one in others]
    with_others = [one.terms["chance"] for one in replay(past(told, of_others=early), POLICY).blocks if one.terms]
    assert with_others[0] == pytest.approx(3 / 4)


def test_a_rollback_is_replayed_from_the_deployments_of_then(told):
    def deployed(version, generation, at_ms):
        served = ServedVersion(version=version, uri="", digest=version)
        return Deployment(model="pump", generation=generation, champion=served, decided_at_ms=at_ms)

    deployments = [deployed("v0", 1, 0), deployed("v1", 2, DAY)]
    broken = [one for one in told if "sudden_break" in one.block.alarms]
    quick = changed(rollback_within_blocks=60)
    found = replay(past(told, deployments=deployments), quick)
    assert [one.at_ms for one in found.blocks if one.would == "rollback"] == [broken[0].decision.at_ms]  # once
    assert replay(past(told, deployments=deployments[1:]), quick).num_would.get("rollback", 0) == 0


def test_nothing_is_told_of_an_empty_history_and_blocks_without_a_decision_are_passed_over(told):
    assert replay(Past(model="pump", blocks=(), decisions=()), Policy()).blocks == ()
    assert len(replay(past(told, decisions=[one.decision for one in told[3:]]), POLICY).blocks) == len(told) - 3
    found = replay(past(told), POLICY)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Replay) == found
