"""Figures by month against scikit-learn, and shares by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from clipdrift_deploy.demo.figures import Figures, LifeMonth, figures_of, months_of, recovered_share

DAY = 86_400_000


def figures(nll: float, auc: float | None) -> Figures:
    return Figures(accuracy=0.5, auc=auc, nll=nll, ece=0.1)


def life(name: str, n: int, *lives: tuple[float, float | None]) -> LifeMonth:
    stale, live, oracle = (figures(*one) for one in lives)
    return LifeMonth(month=name, n=n, stale=stale, live=live, oracle=oracle)


def test_figures_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    score_N = generator.random(500).round(2)  # with ties
    label_N = (generator.random(500) < score_N).astype(np.float64)
    scores_NK = np.stack([1 - score_N, score_N], axis=1)

    found = figures_of(scores_NK, label_N)

    assert found.accuracy == pytest.approx(accuracy_score(label_N, scores_NK.argmax(axis=1)))
    assert found.auc == pytest.approx(roc_auc_score(label_N, score_N))
    assert found.nll == pytest.approx(log_loss(label_N, np.clip(score_N, 1e-7, 1 - 1e-7)), rel=1e-6)


def test_the_calibration_error_of_honest_scores_is_small_and_of_boasting_ones_is_what_they_boast() -> None:
    generator = np.random.default_rng(4)
    label_N = (generator.random(20_000) < 0.7).astype(np.float64)

    honest = figures_of(np.tile([0.3, 0.7], (20_000, 1)), label_N)
    boasting = figures_of(np.tile([0.05, 0.95], (20_000, 1)), label_N)

    assert honest.ece == pytest.approx(abs(label_N.mean() - 0.7))
    assert boasting.ece == pytest.approx(0.95 - label_N.mean())


def test_where_only_one_class_occurs_there_is_no_auc() -> None:
    assert figures_of(np.array([[0.4, 0.6]]), np.array([1.0])).auc is None


def test_no_rows_have_no_figures() -> None:
    with pytest.raises(ValueError, match="no rows"):
        figures_of(np.zeros((0, 2)), np.zeros(0))


def test_months_follow_the_calendar_and_hold_every_row_once() -> None:
    time_N = np.arange(59, 59 + 92) * DAY + np.int64(1_356_998_400_000)  # 2013-03-01 to 2013-05-31, a row a day

    months = months_of(time_N)

    assert [(one.name, one.num_rows) for one in months] == [("2013-03", 31), ("2013-04", 30), ("2013-05", 31)]
    assert [one.rows for one in months] == [slice(0, 31), slice(31, 61), slice(61, 92)]
    assert all(one.start_ms <= time_N[one.first] < time_N[one.last - 1] < one.end_ms for one in months)
    assert months_of(time_N[:0]) == ()


def test_the_share_in_log_loss_counts_rows_and_in_auc_counts_months() -> None:
    months = [
        life("2013-03", 100, (0.9, 0.6), (0.7, 0.7), (0.5, 0.8)),
        life("2013-04", 300, (0.8, 0.7), (0.5, 0.9), (0.5, 0.9)),
    ]

    share = recovered_share(months)

    stale, live, oracle = 100 * 0.9 + 300 * 0.8, 100 * 0.7 + 300 * 0.5, 100 * 0.5 + 300 * 0.5
    assert share.nll == pytest.approx((stale - live) / (stale - oracle))
    assert share.auc == pytest.approx((0.8 - 0.65) / (0.85 - 0.65))


@pytest.mark.parametrize(("live", "expected"), [((0.9, 0.6), 0.0), ((0.5, 0.8), 1.0), ((1.1, 0.5), -0.5)])
def test_nothing_is_0_all_is_1_and_worse_than_nothing_is_negative(live: tuple[float, float], expected: float) -> None:
    share = recovered_share([life("2013-03", 10, (0.9, 0.6), live, (0.5, 0.8))])

    assert (share.nll, share.auc) == (pytest.approx(expected), pytest.approx(expected))


def test_where_the_oracle_is_no_better_there_was_nothing_to_recover() -> None:
    share = recovered_share([life("2013-03", 10, (0.5, 0.8), (0.4, 0.9), (0.5, 0.8))])

    assert (share.nll, share.auc) == (None, None)


def test_a_month_without_auc_is_left_out_of_the_mean() -> None:
    months = [
        life("2013-03", 10, (0.9, 0.6), (0.7, 0.7), (0.5, 0.8)),
        life("2013-04", 10, (0.9, None), (0.7, None), (0.5, None)),
    ]

    assert recovered_share(months).auc == pytest.approx(0.5)
