"""The intervals keep their promise where errors come in days, on worlds whose true figures are known by size."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import clustered_worlds as worlds

from clipdrift_trainer.evaluation.intervals import score_intervals
from clipdrift_trainer.evaluation.scores import score_slices

DAY = 86_400_000
SETTINGS = {  # make, kind, rows, days
    "two classes, honest": (worlds.binary, "binary", 1_200, 10),
    "two classes, too sure": (lambda *a: worlds.binary(*a, sharpness=1.6), "binary", 1_200, 10),
    "a rare class": (lambda *a: worlds.binary(*a, base=-3.5), "binary", 2_000, 15),
    "four classes": (worlds.multiclass, "multiclass", 800, 10),
    "values": (worlds.regression, "regression", 1_200, 10),
}


@cache
def covered(name):
    make, kind, num_rows, num_days = SETTINGS[name]
    num_worlds = 400 if kind == "multiclass" else 600  # its areas take time
    truth = {one.metric: one.value for one in figures(make(np.random.default_rng(1), 200_000, 10_000), kind)}
    generator = np.random.default_rng(2)
    hits = dict.fromkeys(truth, 0)
    for _ in range(num_worlds):
        for one in figures(make(generator, num_rows, num_days), kind):
            hits[one.metric] += one.low <= truth[one.metric] <= one.high
    return {metric: count / num_worlds for metric, count in hits.items()}


def figures(world, kind):
    return score_intervals(*world, np.zeros(len(world[1])), (), kind)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_interval_covers_the_truth_in_about_19_of_20_worlds(name):
    for metric, share in covered(name).items():
        # an honest model's calibration error lies at the edge of what is possible, where no interval misses on both sides
        assert 0.92 <= share <= (0.99 if metric == "ece" else 0.98), (metric, share)


def test_rows_taken_as_independent_would_not_keep_that_promise():
    generator = np.random.default_rng(2)
    truth = worlds.binary(np.random.default_rng(1), 200_000, 10_000)
    accuracy = (truth[0].argmax(axis=1) == truth[1]).mean()
    hits = 0
    for _ in range(200):
        scores, label, _ = worlds.binary(generator, 6_000, 10, day_spread=1.5)
        rate = (scores.argmax(axis=1) == label).mean()
        hits += abs(rate - accuracy) <= 1.96 * np.sqrt(rate * (1 - rate) / len(label))
    assert hits / 200 < 0.8


def test_figures_are_those_of_the_slices_sums():
    world = worlds.binary(np.random.default_rng(0), 900, 8)
    slice_N = np.arange(900) % 3
    sums = {one.slice: one for one in score_slices(world[0], world[1], slice_N, ("a", "b", "c"), "binary")}
    found = score_intervals(*world, slice_N, ("a", "b", "c"), "binary")
    metrics = ("accuracy", "nll", "brier", "ece", "overconfidence", "auc")
    assert {(one.slice, one.metric) for one in found} == {(name, one) for name in ("", "a", "b", "c") for one in metrics}
    for one in found:
        total = sums[one.slice]
        expected = {
            "accuracy": total.num_correct / total.num_rows, "nll": total.nll_sum / total.num_rows,
            "brier": total.brier_sum / total.num_rows, "auc": total.auc,
        }  # fmt: skip
        assert (one.num_rows, one.num_blocks) == (total.num_rows, 8)
        assert one.low <= one.value <= one.high
        if one.metric in expected:
            assert one.value == pytest.approx(expected[one.metric])


def test_a_model_that_promises_too_much_is_overconfident_in_the_slice_where_it_does():
    scores, label, time_ms = worlds.binary(np.random.default_rng(0), 4_000, 20)
    is_sharp_N = np.arange(4_000) % 2 == 1
    logit_N = np.log(scores[:, 1] / scores[:, 0]) * np.where(is_sharp_N, 4.0, 1.0)
    score_N = 1 / (1 + np.exp(-logit_N))
    found = score_intervals(np.stack([1 - score_N, score_N], 1), label, time_ms, is_sharp_N, ("honest", "sharp"), "binary")
    by_slice = {one.slice: one for one in found if one.metric == "overconfidence"}
    assert by_slice["sharp"].low > 0.05
    assert by_slice["honest"].low < 0.03


def test_regression_has_rmse_and_mae_in_the_labels_unit():
    error_N = np.array([3.0, -4.0, 3.0, -4.0])
    found = score_intervals(np.zeros((4, 1)), error_N, np.arange(4) * DAY, np.zeros(4), ("all",), "regression")
    expected = [("rmse", pytest.approx(12.5**0.5)), ("mae", 3.5)]
    assert [(one.metric, one.value) for one in found if one.slice == ""] == expected
    assert [(one.metric, one.value) for one in found if one.slice == "all"] == expected


@pytest.mark.parametrize("num_days", [1, 20])
def test_values_of_any_size_lie_within_their_intervals(num_days):
    generator = np.random.default_rng(0)
    label_N = generator.normal(5e9, 2e9, 1_000)
    scores_N1 = (label_N + generator.normal(0, 3e9, 1_000))[:, None]
    time_ms = np.arange(1_000) * num_days // 1_000 * DAY
    for one in score_intervals(scores_N1, label_N, time_ms, np.zeros(1_000), ("all",), "regression"):
        assert one.low <= one.value < one.high < float("inf")
        assert num_days == 1 or one.high < 2 * one.value


def test_a_slice_without_rows_has_no_figures_and_no_rows_have_none():
    world = worlds.binary(np.random.default_rng(0), 100, 5)
    assert {one.slice for one in score_intervals(*world, np.zeros(100), ("a", "empty"), "binary")} == {"", "a"}
    assert score_intervals(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0), ("a",), "binary") == ()


def test_one_day_one_row_and_one_class_leave_everything_open():
    found = score_intervals(np.array([[0.2, 0.8]]), np.ones(1), np.zeros(1, np.int64), np.zeros(1), (), "binary")
    by_metric = {one.metric: (one.value, one.low, one.high) for one in found}
    assert by_metric["accuracy"] == (1.0, 0.0, 1.0)
    assert by_metric["nll"][1:] == (0.0, pytest.approx(-np.log(1e-7)))  # where its probabilities are clipped
    assert by_metric["ece"] == (pytest.approx(0.2), 0.0, 1.0)
    assert "auc" not in by_metric


def test_a_perfect_and_a_worthless_model_have_finite_intervals():
    label = np.arange(100) % 2.0
    scores = np.stack([1 - label, label], axis=1)
    for given in (scores, 1 - scores):
        for one in score_intervals(given, label, np.arange(100) // 10 * DAY, np.zeros(100), (), "binary"):
            assert np.isfinite([one.value, one.low, one.high]).all()
            assert one.low <= one.value <= one.high


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="scores must be finite; 1 rows"):
        score_intervals(np.array([[np.nan, 1.0]]), np.ones(1), np.zeros(1, np.int64), np.zeros(1), (), "binary")
