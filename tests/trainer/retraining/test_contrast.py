"""Paired contrasts: the numbers, and that the interval keeps its promise when errors come in days."""

import math

import numpy as np
import pytest
import scipy.stats

from clipdrift_trainer.evaluation.blocks import UNKNOWN
from clipdrift_trainer.retraining.contrast import contrast, contrasts, losses_by_metric, pick

DAY = 86_400_000


def test_days_of_equal_size_give_the_t_interval_of_their_means() -> None:
    generator = np.random.default_rng(0)
    difference_DR = generator.normal(0.1, 1.0, (12, 50))
    time_ms = np.repeat(np.arange(12) * DAY, 50)

    found = contrast("", "brier", difference_DR.reshape(1, -1), time_ms)

    low, high = scipy.stats.t.interval(0.95, 11, loc=difference_DR.mean(), scale=scipy.stats.sem(difference_DR.mean(axis=1)))
    assert (found.num_blocks, found.num_rows) == (12, 600)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def test_a_day_weighs_by_its_rows() -> None:
    time_ms = np.array([0, 0, 0, DAY])

    found = contrast("", "brier", np.array([[1.0, 1.0, 1.0, 5.0]]), time_ms)

    assert found.difference == 2.0


@pytest.mark.parametrize(("day_sd", "num_days"), [(0.0, 12), (0.05, 12), (0.05, 6)])
def test_the_interval_covers_the_truth_in_about_19_of_20_worlds_even_when_whole_days_are_bad(
    day_sd: float, num_days: int
) -> None:
    generator = np.random.default_rng(1)
    worlds, covered = 600, 0
    for _ in range(worlds):
        rows_D = generator.integers(200, 400, num_days)
        day_effect = generator.normal(0.0, day_sd, num_days)
        difference_N = np.repeat(day_effect, rows_D) + generator.normal(0, 0.2, rows_D.sum())
        found = contrast("", "brier", difference_N[None], np.repeat(np.arange(num_days) * DAY, rows_D))
        covered += found.low <= 0.0 <= found.high
    assert 0.92 <= covered / worlds <= 0.98


def test_rows_taken_as_independent_would_not_keep_that_promise() -> None:
    # the reason for all of this: the same worlds, the interval that takes each row as evidence of its own
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        difference_N = np.repeat(generator.normal(0.0, 0.05, 12), 300) + generator.normal(0, 0.2, 3600)
        half = 1.96 * difference_N.std() / math.sqrt(len(difference_N))
        covered += abs(difference_N.mean()) <= half
    assert covered / 200 < 0.6


@pytest.mark.parametrize(
    ("num_seeds", "seed_sd", "at_least"), [(2, 0.2, 0.9), (2, 0.02, 0.86), (3, 0.02, 0.9), (2, 0.005, 0.93), (2, 0.0, 0.93)]
)
def test_with_few_seeds_the_interval_covers_the_truth_about_as_often_as_it_says(
    num_seeds: int, seed_sd: float, at_least: float
) -> None:
    # two seeds tell little of their own spread; with days - 1 degrees of freedom it was 75 of 100 where seeds matter most
    generator = np.random.default_rng(4)
    num_days, worlds, covered = 20, 1_000, 0
    time_ms = np.repeat(np.arange(num_days) * DAY, 10)
    for _ in range(worlds):
        by_seed_SN = generator.normal(0.0, seed_sd, (num_seeds, 1)) + generator.normal(0, 0.02, (num_seeds, len(time_ms)))
        by_day_N = np.repeat(generator.normal(0.0, 0.02, num_days), 10)  # of the days' own, so the same for all seeds
        found = contrast("", "brier", by_seed_SN + by_day_N, time_ms)
        covered += found.low <= 0.0 <= found.high
    assert at_least <= covered / worlds <= 0.98


def test_seeds_that_disagree_widen_the_interval() -> None:
    time_ms = np.repeat(np.arange(10) * DAY, 20)
    base_N = np.random.default_rng(2).normal(0, 0.1, 200)
    agree = contrast("", "brier", np.stack([base_N, base_N]), time_ms)
    disagree = contrast("", "brier", np.stack([base_N - 0.1, base_N + 0.1]), time_ms)

    assert agree.difference == pytest.approx(disagree.difference)
    assert disagree.high - disagree.low > 2 * (agree.high - agree.low)


@pytest.mark.parametrize(
    ("difference_N", "time_ms", "expected"),
    [
        (np.zeros(0), np.zeros(0, np.int64), 0.0),
        (np.array([0.5, 0.7]), np.array([0, 1]), 0.6),
        (np.array([0.5, np.nan]), np.array([0, DAY]), 0.0),
        (np.array([0.5, np.inf]), np.array([0, DAY]), 0.0),
    ],
)
def test_without_two_days_or_with_nonfinite_losses_nothing_is_known(
    difference_N: np.ndarray, time_ms: np.ndarray, expected: float
) -> None:
    found = contrast("", "brier", difference_N[None], time_ms)

    assert (found.difference, found.low, found.high) == (pytest.approx(expected), -UNKNOWN, UNKNOWN)


def test_the_sign_says_who_is_better_in_every_slice_and_metric() -> None:
    generator = np.random.default_rng(3)
    label_N = generator.integers(0, 2, 400).astype(float)
    good_N2 = np.stack([0.9 - 0.8 * label_N, 0.1 + 0.8 * label_N], axis=1)
    time_ms, slice_N = np.repeat(np.arange(8) * DAY, 50), np.tile([0, 1], 200)
    good = losses_by_metric(good_N2, label_N, "binary")
    poor = losses_by_metric(np.full((400, 2), 0.5), label_N, "binary")

    found = contrasts([good], [poor], time_ms, slice_N, ("a", "b"))

    assert {(one.slice, one.metric) for one in found} == {(s, m) for s in ("", "a", "b") for m in ("brier", "nll", "error")}
    assert all(one.high < 0 for one in found if one.metric != "error")
    assert pick(found, "brier", "a").num_rows == 200
    with pytest.raises(KeyError):
        pick(found, "auc")


def test_regression_is_judged_by_the_squared_error_in_units_of_the_labels_span() -> None:
    found = losses_by_metric(np.array([[3.0], [5.0]]), np.array([1.0, 5.0]), "regression", label_span=4.0)

    assert {metric: losses.tolist() for metric, losses in found.items()} == {"brier": [0.25, 0.0]}
