"""What a temperature gains is measured on rows that it was not fitted on."""

import numpy as np
import pytest
import scipy.optimize

from clipdrift_trainer.evaluation.calibration import (
    cross_fitted_gain,
    fit_temperature,
    gain_of_temperature,
    trusted_temperature,
)
from clipdrift_trainer.evaluation.scores import expected_calibration_error
from clipdrift_trainer.tasks.fitting import to_scores

DAY = 86_400_000


def made(num_rows=2_000, sharpness=1.0, num_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    logits_NK = generator.normal(size=(num_rows, num_classes))
    label_N = (to_scores(logits_NK, "multiclass").cumsum(axis=1) < generator.random((num_rows, 1))).sum(axis=1)
    return logits_NK * sharpness, label_N.clip(0, num_classes - 1).astype(float), np.arange(num_rows) // 100 * DAY


def nll(logits_NK, label_N, temperature):
    scores = to_scores(logits_NK, "multiclass", temperature)
    return -np.log(scores[np.arange(len(label_N)), label_N.astype(int)]).mean()


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 5.0])
def test_the_temperature_is_the_one_that_scipys_minimiser_finds(num_classes, sharpness):
    logits_NK, label_N, _ = made(sharpness=sharpness, num_classes=num_classes)
    best = scipy.optimize.minimize_scalar(lambda x: nll(logits_NK, label_N, np.exp(x)), bounds=(-3, 3), method="bounded")
    assert fit_temperature(logits_NK, label_N) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_a_temperature_stays_between_a_twentieth_and_twenty():
    logits_NK, label_N, _ = made(sharpness=1e6)
    assert fit_temperature(logits_NK, label_N) == pytest.approx(np.exp(3.0), rel=1e-6)


def test_the_gain_is_the_log_loss_and_calibration_error_before_and_after():
    logits_NK, label_N, _ = made(sharpness=3.0)
    found = gain_of_temperature(logits_NK, label_N, 2.5)
    assert found.nll_before == pytest.approx(nll(logits_NK, label_N, 1.0))
    assert found.nll_after == pytest.approx(nll(logits_NK, label_N, 2.5))
    assert found.ece_after == pytest.approx(expected_calibration_error(to_scores(logits_NK, "multiclass", 2.5), label_N))
    assert (found.temperature, found.num_rows) == (2.5, 2_000)


def test_a_model_that_is_too_sure_gains_by_what_its_other_days_teach():
    logits_NK, label_N, time_ms = made(sharpness=3.0)
    found = cross_fitted_gain(logits_NK, label_N, time_ms)
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.nll_after < found.nll_before - 0.05
    assert found.ece_after < 0.3 * found.ece_before
    # a little worse than the temperature fitted on the same rows: it has not seen them
    assert found.nll_after > nll(logits_NK, label_N, found.temperature)


def test_rows_never_judge_the_temperature_that_was_fitted_on_them():
    logits_NK, label_N, time_ms = made(200, sharpness=2.0)  # two days: each is judged by the other's temperature
    found = cross_fitted_gain(logits_NK, label_N, time_ms)
    by_hand = [
        nll(logits_NK[judged], label_N[judged], fit_temperature(logits_NK[fitted], label_N[fitted]))
        for judged, fitted in ((slice(0, 100), slice(100, 200)), (slice(100, 200), slice(0, 100)))
    ]
    assert found.nll_after == pytest.approx(np.mean(by_hand))


def test_days_that_disagree_show_a_gain_below_zero():
    logits_NK = np.tile([[0.0, 2.0]], (200, 1))
    label_N = np.where(np.arange(200) < 100, 1.0, np.arange(200) % 2)  # right on one day, at chance on the other
    found = cross_fitted_gain(logits_NK, label_N, np.arange(200) // 100 * DAY)
    assert found.nll_after > found.nll_before


@pytest.mark.parametrize(
    ("num_rows", "is_right"), [(3, [True]), (99, [True, True, True, False]), (500, [True]), (500, [False])]
)
def test_few_rows_and_rows_that_are_all_right_or_all_wrong_show_no_temperature(num_rows, is_right):
    logits_NK, label_N = np.tile([[0.0, 4.0]], (num_rows, 1)), np.resize(is_right, num_rows).astype(float)
    assert fit_temperature(logits_NK, label_N) != 1.0
    assert trusted_temperature(logits_NK, label_N, np.arange(num_rows) // 20 * DAY) == 1.0


def test_a_temperature_that_the_other_days_do_not_gain_by_is_not_trusted():
    logits_NK = np.tile([[0.0, 2.0]], (200, 1))
    label_N = np.where(np.arange(200) < 100, np.arange(200) % 50 > 0, np.arange(200) % 2).astype(float)
    assert fit_temperature(logits_NK, label_N) != 1.0
    assert trusted_temperature(logits_NK, label_N, np.arange(200) // 100 * DAY) == 1.0


@pytest.mark.parametrize("num_days", [1, 2, 10])
def test_a_temperature_that_the_rows_show_is_the_one_that_suits_all_of_them(num_days):
    logits_NK, label_N, _ = made(200, sharpness=3.0)
    found = trusted_temperature(logits_NK, label_N, np.arange(200) * num_days // 200 * DAY)
    assert found == fit_temperature(logits_NK, label_N) > 2


def test_an_honest_model_is_left_alone_more_often_than_a_fit_would_and_never_changed_much():
    moved = []
    for seed in range(40):
        logits_NK, label_N, time_ms = made(300, seed=seed)
        moved.append(abs(np.log(trusted_temperature(logits_NK, label_N, time_ms))))
    assert np.mean(np.array(moved) == 0) > 0.5
    assert max(moved) < 0.5


def test_one_day_and_no_rows_tell_nothing():
    logits_NK, label_N, _ = made(100)
    assert cross_fitted_gain(logits_NK, label_N, np.zeros(100, np.int64)) is None
    assert cross_fitted_gain(logits_NK[:0], label_N[:0], np.zeros(0, np.int64)) is None
    with pytest.raises(ValueError, match="no rows"):
        gain_of_temperature(logits_NK[:0], label_N[:0], 1.0)
