import itertools

import msgspec
import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Diagnosis
from clipdrift_monitor.decisions.decide import Case, Deployed, History, cause_key, cooldown_ms, decide, noted, with_would
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.decisions.worth import PastRetrains, RetrainCost, Worth
from clipdrift_monitor.diagnosis.rules.broken import SKEW
from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.harm import TEST_NAMES, HarmConfig

NOW = 200 * MS_PER_DAY
POLICY = Policy()
CAUSES = ("none", "drift", "mix_shift", "calibration", "clipping", "harder_days", "data_broken", "training_fault")


def ruling(alarms=("repairable",), cause="drift", num_labels=50_000, history=None, policy=POLICY, open_tests=(), **case):
    diagnosis = Diagnosis(cause=cause, clipping="unknown", words=f"Words on {cause}.", fault=case.pop("fault", ""))
    known = noted(history or History(), alarms, open_tests)
    return decide(Case(diagnosis=diagnosis, alarms=alarms, num_labels=num_labels, at_ms=NOW, **case), known, policy)


def test_a_proven_repair_without_obstacles_is_ordered():
    found = ruling()
    assert found.action == "retrain"
    assert "Words on drift." in found.reasons


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_labels": 999}, "999 labels so far"),
        ({"history": History(running_key="k")}, "running already"),
        ({"history": History(last_retrain_ms=NOW - 13 * MS_PER_DAY)}, "less than 14 days ago"),
        ({"history": History(retrain_times_ms=[NOW - day * MS_PER_DAY for day in (16, 20, 29)])}, "3 retrains in 30 days"),
        ({"history": History(retrain_times_ms=[NOW - day * MS_PER_DAY for day in (1, 6)])}, "2 retrains in 7 days"),
        ({"maturity": 0.49}, "Only 49% of this block have a label"),
        ({"worth": Worth(gain=0.0001, rows_a_day=100.0)}, "does not pay: waiting is expected to lose 0.28"),
        ({"policy": Policy(may_retrain=False)}, "clipdrift retrain"),
    ],
)
def test_each_obstacle_turns_the_order_into_an_alert_and_is_said(changes, reason):
    found = ruling(**changes)
    assert found.action == "alert"
    assert any(reason in one for one in found.reasons)


@pytest.mark.parametrize(
    "history",
    [
        History(last_retrain_ms=NOW - 14 * MS_PER_DAY),
        History(retrain_times_ms=[NOW - day * MS_PER_DAY for day in (20, 25, 30)]),
    ],
    ids=["cooldown over", "the oldest is 30 days ago"],
)
def test_an_obstacle_that_has_passed_is_none(history):
    assert ruling(history=history).action == "retrain"


def test_all_obstacles_are_said_at_once():
    history = History(running_key="k", last_retrain_ms=NOW, retrain_times_ms=[NOW] * 3)
    assert len(ruling(num_labels=0, history=history, policy=Policy(may_retrain=False)).reasons) == 2 + 6


def test_a_retrain_is_never_ordered_without_a_proven_repair():
    for size in range(3):
        for alarms in itertools.combinations(("sudden_break", "worse_than_validated"), size):
            for cause in CAUSES:
                for deployed in (Deployed(num_blocks=2, previous="v1"), Deployed(num_blocks=2)):
                    assert ruling(alarms=alarms, cause=cause, deployed=deployed).action != "retrain"


@pytest.mark.parametrize("cause", ["data_broken", "training_fault"])
def test_what_is_broken_is_never_learned(cause):
    for size in range(1, 4):
        for alarms in itertools.combinations(TEST_NAMES, size):
            assert ruling(alarms=alarms, cause=cause).action == "alert"


def test_broken_data_alert_without_any_alarm_and_a_suspicion_or_an_old_training_fault_does_not():
    assert ruling(alarms=(), cause="data_broken", is_data_broken=True).action == "alert"
    assert ruling(alarms=(), cause="data_broken").action == "none"
    assert ruling(alarms=(), cause="training_fault").action == "none"


@pytest.mark.parametrize(("failures", "days"), [(0, 14), (1, 28), (2, 56), (6, 896), (50, 896)])
def test_the_cooldown_doubles_with_each_failure_in_a_row(failures, days):
    assert cooldown_ms(History(num_failures_in_a_row=failures), POLICY) == days * MS_PER_DAY


def test_a_failure_keeps_the_next_order_back_for_twice_as_long():
    times = {"last_retrain_ms": NOW - 20 * MS_PER_DAY, "num_failures_in_a_row": 1}
    assert ruling(history=History(**times)).action == "alert"
    assert ruling(history=History(**{**times, "num_failures_in_a_row": 0})).action == "retrain"


def test_the_same_cause_at_the_same_block_is_the_same_order():
    given = ("m", "sha256:1", "drift", 7, POLICY)
    assert cause_key(*given) == cause_key("m", "sha256:1", "drift", 7, Policy())
    others = [
        ("n", "sha256:1", "drift", 7, POLICY),
        ("m", "sha256:2", "drift", 7, POLICY),
        ("m", "sha256:1", "mix_shift", 7, POLICY),
        ("m", "sha256:1", "drift", 8, POLICY),
        ("m", "sha256:1", "drift", 7, Policy(cooldown_days=7.0)),
    ]
    assert len({cause_key(*one) for one in (given, *others)}) == 6


def test_fields_of_a_key_cannot_run_into_each_other():
    assert cause_key("ab", "c", "d", 1, POLICY) != cause_key("a", "bc", "d", 1, POLICY)


@pytest.mark.parametrize(
    "change",
    [{"min_labels": 2}, {"budget": Budget(share_sudden=0.05)}, {"harm": HarmConfig(tolerance=0.01)}, {"seeds": (0, 1)}],
)
def test_any_setting_changes_the_policys_version(change):
    assert msgspec.structs.replace(POLICY, **change).version != POLICY.version
    assert len(POLICY.version) == 12


# --- N of M ---

BLOCKS = {"needed_blocks": 3, "of_blocks": 4}


@pytest.mark.parametrize(
    ("recent", "action"),
    [
        ([], "alert"),
        ([2, 1], "retrain"),
        ([2, 0, 1], "retrain"),
        ([2, 0, 0], "alert"),
        ([1, 1], "retrain"),
        ([2, 1, 0, 0], "alert"),
    ],
)
def test_so_many_of_the_last_blocks_must_speak_for_a_repair(recent, action):
    assert ruling(history=History(recent=recent), policy=Policy(**BLOCKS)).action == action


def test_the_last_block_that_is_needed_may_bring_no_new_proof_but_one_of_them_must():
    def without_alarm(recent):
        return ruling(alarms=(), open_tests=("repairable",), history=History(recent=recent), policy=Policy(**BLOCKS)).action

    assert without_alarm([2, 1]) == "retrain"
    assert without_alarm([1, 1]) == "none"
    assert without_alarm([2, 1, 1, 1]) == "none"


def test_what_still_lacks_is_said():
    assert "the policy wants 3 of 4" in ruling(policy=Policy(**BLOCKS)).reasons[1]


@pytest.mark.parametrize("blocks", [(0, 1), (2, 1), (1, 61)])
def test_a_policy_that_can_never_be_met_is_refused(blocks):
    with pytest.raises(ValueError, match="needed_blocks and of_blocks"):
        Policy(needed_blocks=blocks[0], of_blocks=blocks[1])


# --- worth ---


def test_both_sides_are_kept_as_numbers_and_said():
    worth = Worth(gain=0.01, gain_low=0.004, gain_high=0.016, rows_a_day=1000.0)
    found = ruling(
        worth=worth, past=PastRetrains(num_passed=1, num_failed=2), policy=Policy(cost=RetrainCost(per_retrain=50.0))
    )
    assert found.action == "retrain"
    assert found.terms["loss"] == pytest.approx(280.0)
    assert (found.terms["loss_low"], found.terms["loss_high"]) == (pytest.approx(112.0), pytest.approx(448.0))
    assert (found.terms["chance"], found.terms["cost"], found.terms["net"]) == (0.5, 50.0, pytest.approx(90.0))
    assert (found.terms["gain"], found.terms["rows_a_day"]) == (0.01, 1000.0)
    assert "waiting is expected to lose 280 [112, 448], a retrain helps with chance 0.50 and costs 50." in found.reasons[-1]


def test_a_project_whose_retrains_never_pass_stops_paying_for_them():
    worth, policy = Worth(gain=0.01, rows_a_day=1000.0), Policy(cost=RetrainCost(per_retrain=50.0))
    actions = [ruling(worth=worth, policy=policy, past=PastRetrains(num_failed=n)).action for n in range(12)]
    assert actions[0] == "retrain"
    assert actions[-1] == "alert"
    assert actions == sorted(actions, reverse=True)  # and never takes it up again


# --- rollback ---

BROKEN = {"alarms": ("sudden_break",), "cause": "harder_days"}
NEW = Deployed(num_blocks=2, previous="v1")


def test_a_break_right_after_a_deployment_goes_back_to_the_version_before():
    found = ruling(**BROKEN, deployed=NEW)
    assert found.action == "rollback"
    assert "v1 served before and is at hand" in found.reasons[0]
    assert found.terms == {"blocks_since_deployment": 2.0}
    assert ruling(alarms=("sudden_break", "repairable"), deployed=NEW).action == "rollback"  # never learned, either


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deployed": Deployed(num_blocks=4, previous="v1")}, "too long"),
        ({"deployed": Deployed(num_blocks=1)}, "No repair"),
        ({"policy": Policy(may_roll_back=False)}, "clipdrift rollback"),
        ({"history": History(last_rollback_ms=NOW - 13 * MS_PER_DAY)}, "a person should look"),
        ({"cause": "data_broken"}, "mended, not learned"),
        ({"alarms": ("worse_than_validated",)}, "No repair"),
    ],
)
def test_nothing_is_rolled_back_where_that_would_not_help_or_is_not_allowed(changes, words):
    found = ruling(**{**BROKEN, "deployed": NEW, **changes})
    assert found.action == "alert"
    assert words in " ".join(found.reasons)


def test_skew_of_a_new_version_is_a_fault_of_its_deployment():
    assert ruling(**{**BROKEN, "cause": "data_broken"}, fault=SKEW, deployed=NEW).action == "rollback"


# --- dry run ---

DRY = Policy(is_dry_run=True)


def test_a_dry_run_says_what_it_would_have_done_and_does_nothing():
    found = ruling(policy=DRY)
    assert (found.action, found.would) == ("alert", "retrain")
    assert found.reasons[-1] == "This is a dry run: nothing is ordered."
    broken = ruling(**BROKEN, deployed=NEW, policy=DRY)
    assert (broken.action, broken.would) == ("alert", "rollback")
    assert ruling(alarms=(), policy=DRY).would == "none"
    assert ruling().would == "none"  # what is done is not said to be done only perhaps


def test_a_dry_run_keeps_its_own_cooldown_and_leaves_none_behind():
    later = with_would(History(), "retrain", NOW - 13 * MS_PER_DAY)
    assert ruling(policy=DRY, history=later).would == "none"
    assert ruling(policy=POLICY, history=later).action == "retrain"
    assert ruling(policy=DRY, history=with_would(History(), "retrain", NOW - 14 * MS_PER_DAY)).would == "retrain"
    assert with_would(History(), "none", NOW) == History()
    assert with_would(History(), "rollback", NOW).last_rollback_ms == NOW


def test_a_history_from_before_is_read_as_one_with_nothing_more_in_it():
    old = msgspec.msgpack.encode({"running_key": "k", "retrain_times_ms": [1], "num_failures_in_a_row": 2})
    assert msgspec.msgpack.decode(old, type=History) == History(running_key="k", retrain_times_ms=[1], num_failures_in_a_row=2)
