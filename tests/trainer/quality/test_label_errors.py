"""Confident learning: against cleanlab, on planted noise, and on outcomes that are chance."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from toy_table import table

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.quality.confident import confident_classes, joint, label_issues, plateau
from clipdrift_trainer.quality.cross_fitting import Predict, by_linear_model, by_own_model, cross_fit, folds
from clipdrift_trainer.quality.label_errors import LabelErrorsPolicy, check_label_errors, judge_classes, judge_residuals
from clipdrift_trainer.quality.table import Table

CLASSES = tuple("abcd")


def noisy(
    num_rows: int = 3_000, share: float = 0.05, seed: int = 0, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in four clusters, their labels of which a share is wrong, and which those are."""
    generator = np.random.default_rng(seed)
    centre = np.array([[3, 0], [-3, 0], [0, 3], [0, -3]])
    true = generator.integers(4, size=num_rows)
    point = centre[true] + spread * generator.normal(size=(num_rows, 2))
    wrong = generator.choice(num_rows, int(share * num_rows), replace=False)
    label = true.copy()
    label[wrong] = (true[wrong] + generator.integers(1, 4, len(wrong))) % 4
    return point, label, np.sort(wrong)


def scores_of(point: np.ndarray, sharpness: float = 0.5) -> np.ndarray:
    centre = np.array([[3, 0], [-3, 0], [0, 3], [0, -3]])
    logit = -sharpness * ((point[:, None] - centre) ** 2).sum(axis=2)
    exponent = np.exp(logit - logit.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_confident_counts_equal_cleanlabs(seed: int) -> None:
    point, label, _ = noisy(seed=seed, spread=1.8)
    scores = scores_of(point)
    expected = compute_confident_joint(label, scores, calibrate=False)

    counted = confident_classes(scores, label)

    ours = np.zeros((4, 4), int)
    np.add.at(ours, (label[counted >= 0], counted[counted >= 0]), 1)
    assert ours.tolist() == expected.tolist()
    assert joint(scores, label).sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_issues_are_nearly_those_of_cleanlab(seed: int) -> None:
    point, label, _ = noisy(seed=seed, spread=1.4)
    scores = scores_of(point)
    expected = set(find_label_issues(label, scores, return_indices_ranked_by="self_confidence", n_jobs=1).tolist())

    ours = set(label_issues(scores, label).tolist())

    assert len(ours & expected) / len(ours | expected) >= 0.97


def test_planted_errors_are_found_and_come_first() -> None:
    point, label, wrong = noisy()

    issues = label_issues(scores_of(point), label)

    assert len(set(issues.tolist()) & set(wrong.tolist())) / len(wrong) >= 0.9
    assert np.isin(issues[:50], wrong).mean() >= 0.95


def test_issues_of_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        label_issues(np.array([[np.nan, 1.0]]), np.array([0]))


def test_an_absent_class_is_nobodys_true_label() -> None:
    scores = np.tile([0.05, 0.9, 0.05], (50, 1))

    assert label_issues(scores, np.ones(50, int)).tolist() == []


@pytest.mark.parametrize("finder", ["clipdrift", "cleanlab"])
def test_five_percent_of_wrong_labels_warn_with_an_interval_that_holds_them(finder: str) -> None:
    point, label, wrong = noisy()

    found = judge_classes(scores_of(point), label, np.arange(len(label)), CLASSES, LabelErrorsPolicy(finder=finder))

    assert found.level == "warn"
    assert found.figures["noise_rate_low"] < 0.05 < found.figures["noise_rate_high"]
    assert np.isin(found.rows, wrong).mean() >= 0.85
    assert found.figures["rate_a_low"] <= found.figures["rate_a"] <= found.figures["rate_a_high"]


def test_clean_labels_pass_also_where_clusters_touch() -> None:
    point, label, _ = noisy(share=0.0, spread=1.5)

    found = judge_classes(scores_of(point), label, np.arange(len(label)), CLASSES, LabelErrorsPolicy())

    assert found.level == "pass"
    assert len(found.rows), "the least credible rows are named all the same"


def test_outcomes_that_are_chance_are_no_wrong_labels() -> None:
    generator = np.random.default_rng(0)
    chance = 1 / (1 + np.exp(-3 * generator.normal(size=5_000)))
    label = (generator.random(5_000) < chance).astype(int)
    scores = np.stack([1 - chance, chance], axis=1)

    found = judge_classes(scores, label, np.arange(5_000), ("no", "yes"), LabelErrorsPolicy())

    assert found.level in ("pass", "skipped")
    half, _, tenth = plateau(scores, label)
    assert tenth[1] / tenth[0] < half[1] / half[0] / 2


def test_a_model_that_knows_nothing_judges_nobody() -> None:
    label = np.random.default_rng(0).integers(2, size=1_000)

    found = judge_classes(np.full((1_000, 2), 0.5), label, np.arange(1_000), ("no", "yes"), LabelErrorsPolicy())

    assert found.level == "skipped"


def test_gross_values_of_a_regression_are_named_worst_first() -> None:
    residual = np.random.default_rng(0).normal(size=2_000)
    residual[100:140] = 50 + np.arange(40)

    found = judge_residuals(residual, np.arange(2_000), LabelErrorsPolicy())

    assert found.level == "warn"
    assert found.rows.tolist() == list(range(139, 99, -1))
    assert judge_residuals(np.random.default_rng(0).standard_t(3, 5_000), np.arange(5_000), LabelErrorsPolicy()).level == "pass"


def test_a_day_is_never_on_both_sides_of_a_fold() -> None:
    days = np.repeat(np.arange(10), 7)

    fold = folds(days, 3)

    assert all(len(set(fold[days == day])) == 1 for day in range(10))
    assert set(fold) == {0, 1, 2}
    assert np.bincount(folds(np.zeros(9, int), 3)).tolist() == [3, 3, 3], "one day only: stretches of rows"


@pytest.mark.parametrize("predict", [by_linear_model, by_own_model(ClipSpec(), max_steps=40)], ids=["linear", "own"])
def test_every_row_is_scored_by_a_model_that_did_not_see_it(predict: Predict) -> None:
    seen: list[tuple[set[int], set[int]]] = []
    point, label, _ = noisy(600)
    rows = table({"x": point[:, 0], "y": point[:, 1]}, label, CLASSES)

    def watched(one: Table, train: np.ndarray, asked: np.ndarray) -> np.ndarray:
        seen.append((set(train.tolist()), set(asked.tolist())))
        return predict(one, train, asked)

    scores = cross_fit(rows, np.arange(600), 3, watched)

    assert all(not train & asked for train, asked in seen)
    assert set().union(*(asked for _, asked in seen)) == set(range(600))
    assert (scores.argmax(axis=1) == label).mean() > 0.85


@pytest.mark.parametrize("model", ["own", "linear"])
def test_the_check_finds_planted_errors_with_either_model(model: str) -> None:
    point, label, wrong = noisy(2_000)
    rows = table({"x": point[:, 0], "y": point[:, 1]}, label, CLASSES)

    found = check_label_errors(rows, LabelErrorsPolicy(enabled=True, model=model, max_steps=60))

    assert found.level == "warn"
    assert len(set(found.rows.tolist()) & set(wrong.tolist())) / len(wrong) >= 0.85


def test_the_linear_model_reads_categories_gaps_and_values() -> None:
    generator = np.random.default_rng(0)
    site = generator.choice(["a", "b"], 800)
    x = np.where(generator.random(800) < 0.2, np.nan, generator.normal(size=800))
    value = 5 * (site == "a") + np.nan_to_num(x) + 3 * np.isnan(x) + 100
    rows = table({"site": site, "x": x}, value, ())

    predicted = cross_fit(rows, np.arange(800), 4, by_linear_model)[:, 0]

    assert np.abs(predicted - value).max() < 0.2


def test_few_rows_are_not_judged() -> None:
    assert check_label_errors(table({"x": np.arange(50)}, np.zeros(50)), LabelErrorsPolicy(enabled=True)).level == "skipped"
