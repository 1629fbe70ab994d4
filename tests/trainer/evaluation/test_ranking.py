import numpy as np
import pytest

from clipdrift_trainer.evaluation.blocks import Days
from clipdrift_trainer.evaluation.ranking import auc_interval, hand_till_auc, one_vs_rest_auc
from clipdrift_trainer.evaluation.scores import area_under_roc

DAY = 86_400_000


def made(num_rows=600, num_classes=4, decimals=3):
    generator = np.random.default_rng(num_classes)
    score_NK = generator.dirichlet(np.ones(num_classes), num_rows)
    label_N = (score_NK.cumsum(axis=1) < generator.random((num_rows, 1))).sum(axis=1).clip(0, num_classes - 1)
    rounded_NK = np.round(score_NK, decimals)
    rounded_NK[:, -1] = 1 - rounded_NK[:, :-1].sum(axis=1)
    return rounded_NK, label_N


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize("decimals", [6, 1])
def test_areas_equal_scikit_learns_also_with_ties(num_classes, decimals):
    metrics = pytest.importorskip("sklearn.metrics")
    score_NK, label_N = made(num_classes=num_classes, decimals=decimals)
    expected = metrics.roc_auc_score(label_N, score_NK, multi_class="ovo", average="macro")
    assert hand_till_auc(score_NK, label_N) == pytest.approx(expected, abs=1e-12)
    expected = metrics.roc_auc_score(label_N, score_NK, multi_class="ovr", average=None)
    assert one_vs_rest_auc(score_NK, label_N) == pytest.approx(tuple(expected), abs=1e-12)


def test_two_classes_give_the_common_area():
    score_NK, label_N = made(num_classes=2, decimals=2)
    assert hand_till_auc(score_NK, label_N) == pytest.approx(area_under_roc(score_NK[:, 1], label_N), abs=1e-12)


def test_a_class_that_is_absent_leaves_no_area():
    score_NK, label_N = made(num_classes=3)
    label_N = np.where(label_N == 2, 1, label_N)
    assert hand_till_auc(score_NK, label_N) is None
    assert auc_interval(score_NK, label_N, Days(np.arange(600) * DAY)) is None
    assert one_vs_rest_auc(score_NK, label_N)[2] is None


def test_rows_that_are_days_give_delongs_interval():
    score_NK, label_N = made(num_classes=2, decimals=6)
    found = auc_interval(score_NK, label_N, Days(np.arange(600) * DAY))
    positive, negative = score_NK[label_N == 1, 1], score_NK[label_N == 0, 1]
    is_above = positive[:, None] > negative[None, :]
    variance = is_above.mean(axis=1).var(ddof=1) / len(positive) + is_above.mean(axis=0).var(ddof=1) / len(negative)
    area = is_above.mean()
    centre, half = np.log(area / (1 - area)), 1.964 * variance**0.5 / (area * (1 - area))
    assert found.value == pytest.approx(area)
    assert found.low == pytest.approx(1 / (1 + np.exp(-(centre - half))), abs=2e-4)
    assert found.high == pytest.approx(1 / (1 + np.exp(-(centre + half))), abs=2e-4)


def test_a_class_that_comes_on_one_day_leaves_everything_open():
    label_N = np.array([0, 0, 0, 1, 1])
    score_NK = np.array([[1 - p, p] for p in (0.1, 0.2, 0.6, 0.5, 0.9)])
    assert auc_interval(score_NK, label_N, Days(np.array([0, 1, 2, 2, 2]) * DAY))[1:] == (0.0, 1.0)


def test_a_perfect_ranking_keeps_room_for_chance():
    label_N = np.arange(40) % 2
    found = auc_interval(np.stack([1 - label_N, label_N], 1).astype(float), label_N, Days(np.arange(40) // 4 * DAY))
    assert found.value == found.high == 1.0
    assert 0.7 < found.low < 0.9
