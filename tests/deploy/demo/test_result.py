"""What result.json says, on a demo small enough to reckon by hand."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny_demo as tiny
from sklearn.metrics import log_loss

from clipdrift_contract.clock import MS_PER_DAY, format_moment
from clipdrift_deploy.demo.figures import months_of
from clipdrift_deploy.demo.result import Worth, count_accuracy, live_accuracy_error, model_result, write_result

CELL = ("one", "2013-03", "")


def test_equal_tables_differ_by_nothing_and_others_by_their_worst_cell() -> None:
    table = {CELL: (10, 9), ("one", "2013-04", ""): (4, 1)}

    assert live_accuracy_error(table, dict(table)) == 0.0
    assert live_accuracy_error(table, {**table, CELL: (10, 8)}) == pytest.approx(0.1)
    assert live_accuracy_error({**table, CELL: (20, 18)}, table) == 0.0, "counts may differ where the accuracy does not"


def test_a_cell_that_one_side_lacks_is_wholly_wrong_unless_it_is_empty() -> None:
    assert live_accuracy_error({CELL: (10, 9)}, {}) == 1.0
    assert live_accuracy_error({}, {CELL: (10, 9)}) == 1.0
    assert live_accuracy_error({CELL: (0, 0)}, {}) == 0.0


def test_accuracy_is_counted_by_month_and_slice_of_what_was_answered() -> None:
    time_N = np.array([0, 1, 2, 31]) * 86_400_000
    scores_NK = np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan], [0.3, 0.7]], np.float32)

    table = count_accuracy(
        "one", scores_NK, np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1]), ("a", "b"), months_of(time_N)
    )

    assert table == {
        ("one", "1970-01", ""): (2, 1), ("one", "1970-01", "a"): (1, 1), ("one", "1970-01", "b"): (1, 0),
        ("one", "1970-02", ""): (1, 1), ("one", "1970-02", "a"): (0, 0), ("one", "1970-02", "b"): (1, 1),
        ("one", "", ""): (3, 2), ("one", "", "a"): (1, 1), ("one", "", "b"): (2, 1),
    }  # fmt: skip


def test_the_oracle_is_the_arm_that_was_best_in_hindsight() -> None:
    found = model_result(tiny.facts())

    assert found.oracle_arms == {"2013-03": "q90", "2013-04": "q90"}
    assert [month.n for month in found.months] == [31 * tiny.ROWS_A_DAY, 30 * tiny.ROWS_A_DAY]
    assert all(month.oracle.nll <= month.stale.nll for month in found.months)
    assert found.months[1].live == found.months[1].oracle, "in April the loop's second version answers everything, as well"


def test_the_recovered_share_is_that_of_the_lives() -> None:
    facts = tiny.facts()
    truth_NK = np.concatenate([facts.lives[month.name].scores["q90"] for month in facts.months])
    stale, live, oracle = (log_loss(facts.label_N, one) for one in (facts.stale_NK, facts.live_NK, truth_NK))

    assert model_result(facts).recovered_share.nll == pytest.approx((stale - live) / (stale - oracle))


def test_a_retrain_that_helped_is_not_false_and_says_what_it_gained() -> None:
    facts = tiny.facts()
    (retrain,) = model_result(facts).retrains
    served = facts.version_N == "v2"
    gain = log_loss(facts.label_N[served], facts.stale_NK[served]) - log_loss(facts.label_N[served], facts.live_NK[served])

    assert (retrain.promoted, retrain.false_retrain, retrain.verdict, retrain.winner) == (True, False, "pass", "q90")
    assert retrain.nll_gain == pytest.approx(gain)
    assert retrain.at.startswith("2013-03-23")


def test_a_promoted_version_that_does_worse_than_its_predecessor_is_a_false_retrain() -> None:
    (retrain,) = model_result(tiny.facts(live_after=0.15)).retrains

    assert retrain.promoted
    assert retrain.nll_gain is not None
    assert retrain.nll_gain < 0
    assert retrain.false_retrain


def test_a_retrain_that_did_not_go_into_service_is_neither_promoted_nor_false() -> None:
    (retrain,) = model_result(tiny.facts(told=tiny.story(is_promoted=False))).retrains

    assert (retrain.promoted, retrain.false_retrain, retrain.nll_gain) == (False, False, None)


def test_arms_are_told_by_the_brier_score_of_all_rows() -> None:
    (retrain,) = model_result(tiny.facts()).retrains
    same, wide = retrain.arms

    assert same.against_same is None
    assert wide.against_same == pytest.approx((-0.03, -0.04, -0.02))
    assert wide.against_champion == pytest.approx((-0.05, -0.06, -0.04))
    assert (wide.accuracy, wide.nll) == (0.75, 0.5)
    assert (same.clip, wide.clip) == ("global norm 0.05", "global norm 0.3")


def test_notes_are_no_alarms() -> None:
    told = tiny.story(tiny.signal("feature_drift", "note"))

    assert [alarm.kind for alarm in model_result(tiny.facts(told=told)).alarms] == ["repairable"]


def test_by_rote_counts_a_retrain_each_month_but_the_first() -> None:
    always = model_result(tiny.facts()).always

    assert (always.num_retrains, always.cpu_seconds) == (1, 2.0)
    assert always.recovered_share.nll == pytest.approx(0.0), "with the same clipping this one is as stale as the stale"


@pytest.mark.parametrize(
    ("told", "verdict"),
    [(("unknown", "not_implicated"), "not_implicated"), (("implicated", "associated"), "implicated"), ((), "not_implicated")],
)
def test_the_diagnosis_is_the_strongest_verdict_that_was_ever_given(told: tuple[str, ...], verdict: str) -> None:
    more = [tiny.decision("alert", 30 + i, clipping) for i, clipping in enumerate(told)]

    assert model_result(tiny.facts(told=tiny.story(*more))).diagnosis == verdict


def test_the_file_is_json_with_the_keys_that_are_promised(tmp_path: Path) -> None:
    write_result(tiny.result(), tmp_path / "result.json")

    read = json.loads((tmp_path / "result.json").read_text())
    one = read["models"]["one"]
    assert {"wall_seconds", "num_predictions", "num_labels", "serving_errors", "live_accuracy_error", "models"} <= read.keys()
    assert {"months", "alarms", "retrains", "diagnosis", "recovered_share", "control"} <= one.keys()
    assert {"month", "n", "stale", "live", "oracle"} <= one["months"][0].keys()
    assert set(one["months"][0]["live"]) == {"accuracy", "auc", "nll", "ece"}
    assert {"at", "cause", "arms", "verdict", "promoted", "false_retrain"} <= one["retrains"][0].keys()
    assert one["control"] == {"num_labels": 1200, "num_alarms": 0, "num_retrains": 0}
    assert set(one["recovered_share"]) == {"auc", "nll"}


def test_a_retrain_of_unknown_outcome_is_told_as_such() -> None:
    story = tiny.story(is_promoted=False)
    story.outcomes.clear()

    (retrain,) = model_result(tiny.facts(told=story)).retrains

    assert (retrain.verdict, retrain.arms, retrain.winner) == (None, (), "")
    assert msgspec.json.encode(retrain)


@pytest.mark.parametrize(("end", "until"), [("promoted", 30), ("taken out", 30), ("running", None)])
def test_a_rollout_tells_its_steps_its_end_and_what_the_monitor_says_it_was_worth(end: str, until: int | None) -> None:
    facts = msgspec.structs.replace(
        tiny.facts(told=tiny.rollout_story(end)), worths={"k": Worth(verdict="worth it", words="It gained.")}
    )
    (one,) = model_result(facts).rollouts

    assert (one.version, one.end, one.cpu_seconds) == ("v2", end, 5.0)
    assert [step.stage for step in one.steps] == ["shadow", "canary 0.1"]
    assert one.ended_at == ("" if until is None else format_moment(tiny.START_MS + until * MS_PER_DAY))
    assert one.share == pytest.approx(7 / 8 if until else 38 / 39, abs=0.01), "of the rows that tiny says it answered"
    assert (one.worth, one.worth_words) == ("worth it", "It gained.")
