import numpy as np
import pytest
from scipy.optimize import minimize

from clipdrift_monitor.risk.challengers import base_rate, logit, recalibration, sigmoid


def test_recalibration_minimises_the_log_loss_with_its_ridge():
    random = np.random.default_rng(1)
    score_B = np.linspace(0.02, 0.98, 40)
    labels_B = random.integers(5, 80, 40).astype(float)
    hits_B = random.binomial(labels_B.astype(int), sigmoid(0.6 * logit(score_B) - 0.5)).astype(float)

    def loss(parameters):
        fitted = sigmoid(parameters[0] * logit(score_B) + parameters[1])
        return -(hits_B * np.log(fitted) + (labels_B - hits_B) * np.log(1 - fitted)).sum() + 25 * (parameters[0] - 1) ** 2

    expected = minimize(loss, [1.0, 0.0], tol=1e-10).x
    assert recalibration(score_B, labels_B, hits_B) == pytest.approx(expected, abs=1e-4)


def test_recalibration_finds_what_was_done_to_the_scores():
    score_B = np.linspace(0.05, 0.95, 60)
    labels_B = np.full(60, 1e5)
    slope, shift = recalibration(score_B, labels_B, labels_B * sigmoid(0.5 * logit(score_B) + 0.7))
    assert (slope, shift) == pytest.approx((0.5, 0.7), abs=2e-3)


@pytest.mark.parametrize("hits", [0.0, 1.0])
def test_labels_of_one_class_give_a_finite_fit(hits):
    score_B, labels_B = np.array([0.2, 0.5, 0.8]), np.full(3, 1e4)
    slope, shift = recalibration(score_B, labels_B, hits * labels_B)
    assert np.isfinite([slope, shift]).all()
    fitted = sigmoid(slope * logit(score_B) + shift)
    assert np.abs(fitted - hits).max() < 0.01


def test_scores_of_exactly_zero_and_one_give_a_finite_fit():
    slope, shift = recalibration(np.array([0.0, 1.0]), np.array([100.0, 100.0]), np.array([10.0, 90.0]))
    assert np.isfinite([slope, shift]).all()


def test_too_few_labels_change_nothing():
    few = np.array([10.0, 10.0])
    assert recalibration(np.array([0.2, 0.8]), few, few) == (1.0, 0.0)
    np.testing.assert_array_equal(base_rate(np.array([0.2, 0.8]), few, few), [0.2, 0.8])


def test_the_base_rate_is_the_share_of_past_hits():
    np.testing.assert_allclose(base_rate(np.array([0.2, 0.8]), np.array([60.0, 40.0]), np.array([10.0, 20.0])), 0.3)
