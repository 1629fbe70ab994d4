import itertools

import msgspec
import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Diagnosis
from clipdrift_monitor.decisions.decide import History, cause_key, cooldown_ms, decide
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.harm import TEST_NAMES, HarmConfig

NOW = 200 * MS_PER_DAY
POLICY = Policy()
CAUSES = ("none", "drift", "mix_shift", "calibration", "clipping", "harder_days", "data_broken", "training_fault")


def ruling(alarms=("repairable",), cause="drift", num_labels=50_000, history=None, policy=POLICY):
    diagnosis = Diagnosis(cause=cause, clipping="unknown", words=f"Words on {cause}.")
    return decide(diagnosis, alarms, num_labels, NOW, history or History(), policy)


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
    assert len(ruling(num_labels=0, history=history, policy=Policy(may_retrain=False)).reasons) == 2 + 5


def test_a_retrain_is_never_ordered_without_a_proven_repair():
    for size in range(3):
        for alarms in itertools.combinations(("sudden_break", "worse_than_validated"), size):
            for cause in CAUSES:
                assert ruling(alarms=alarms, cause=cause).action in ("none", "alert")


@pytest.mark.parametrize("cause", ["data_broken", "training_fault"])
def test_what_is_broken_is_never_learned(cause):
    for size in range(1, 4):
        for alarms in itertools.combinations(TEST_NAMES, size):
            assert ruling(alarms=alarms, cause=cause).action == "alert"


def test_broken_data_alert_without_any_alarm_and_an_old_training_fault_does_not():
    assert ruling(alarms=(), cause="data_broken").action == "alert"
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
