import numpy as np
import pytest

from clipdrift_trainer.evaluation.calibration import fit_temperature
from clipdrift_trainer.evaluation.clustering import between_block_variance, cluster_errors, lag1_autocorrelation
from clipdrift_trainer.evaluation.scores import area_under_roc, expected_calibration_error, score_slices
from clipdrift_trainer.tasks.fitting import to_scores

DAY = 86_400_000


def made(num_rows=4_000, sharpness=1.0, seed=0):
    generator = np.random.default_rng(seed)
    logit = generator.normal(size=num_rows) * 1.5
    label = (generator.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(float)
    return np.stack([np.zeros(num_rows), logit * sharpness], axis=1), label


def nll(logits, label, temperature):
    return -np.log(to_scores(logits, "binary", temperature)[np.arange(len(label)), label.astype(int)]).mean()


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_auc_equals_scikit_learns_also_with_ties(decimals):
    metrics = pytest.importorskip("sklearn.metrics")
    logits, label = made()
    score = np.round(logits[:, 1], decimals)
    assert area_under_roc(score, label) == pytest.approx(metrics.roc_auc_score(label, score), abs=1e-12)


def test_auc_of_one_class_is_unknown():
    assert area_under_roc(np.array([0.1, 0.9]), np.array([1, 1])) is None


def test_slices_add_up_to_all_rows_together():
    logits, label = made()
    slice_N = np.arange(len(label)) % 3
    everything, *parts = score_slices(to_scores(logits, "binary"), label, slice_N, ("a", "b", "c"), "binary", [1, 2, 3])
    assert (everything.slice, everything.num_train) == ("", 6)
    for name in ("num_rows", "num_correct", "nll_sum", "brier_sum", "num_train"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(everything, name))


def test_an_empty_slice_has_zeros_and_no_auc():
    logits, label = made(50)
    empty = score_slices(to_scores(logits, "binary"), label, np.zeros(50), ("a", "b"), "binary")[2]
    assert (empty.num_rows, empty.ece, empty.auc) == (0, 0.0, None)


def test_regression_counts_errors_in_the_labels_unit():
    everything, _ = score_slices(np.array([[1.0], [4.0]]), np.array([2.0, 2.0]), np.zeros(2), ("all",), "regression")
    assert (everything.squared_error_sum, everything.absolute_error_sum) == (5.0, 3.0)


def test_an_honest_model_has_a_small_calibration_error_and_a_sharpened_one_a_large():
    honest, label = made(20_000)
    assert expected_calibration_error(to_scores(honest, "binary"), label) < 0.02
    assert expected_calibration_error(to_scores(honest * 5, "binary"), label) > 0.1


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_the_temperature_undoes_a_sharpening(sharpness):
    logits, label = made(20_000, sharpness)
    assert fit_temperature(logits, label) == pytest.approx(sharpness, rel=0.06)


@pytest.mark.parametrize("seed", range(10))
def test_a_temperature_never_worsens_the_log_loss_of_its_own_data(seed):
    logits, label = made(20, sharpness=3.0 ** (seed - 5), seed=seed)
    assert nll(logits, label, fit_temperature(logits, label)) <= nll(logits, label, 1.0)


def test_independent_errors_show_no_clustering():
    generator = np.random.default_rng(0)
    error = generator.random(20_000) < 0.2
    assert abs(lag1_autocorrelation(error)) < 0.03
    assert between_block_variance(error, np.arange(20_000) // 200) < 2e-4


def test_the_variance_of_the_days_own_rates_is_recovered():
    generator = np.random.default_rng(1)
    rate = np.repeat(generator.choice([0.1, 0.3], 400), 200)  # variance .01
    error = generator.random(len(rate)) < rate
    assert between_block_variance(error, np.arange(len(rate)) // 200) == pytest.approx(0.01, rel=0.1)
    assert lag1_autocorrelation(error) > 0.04


def test_the_days_hold_every_row_once():
    logits, label = made(1_000)
    time_ms = np.arange(1_000, dtype=np.int64) * (DAY // 100)
    everything, first, second = cluster_errors(to_scores(logits, "binary"), label, time_ms, np.arange(1_000) % 2, ("a", "b"))
    assert [day.num_rows for day in everything.days] == [100] * 10
    for part in ("num_rows", "num_errors"):
        total = sum(getattr(d, part) for d in everything.days)
        assert total == sum(getattr(d, part) for d in (*first.days, *second.days))


def test_rows_out_of_time_order_are_refused():
    logits, label = made(3)
    with pytest.raises(ValueError, match="time order"):
        cluster_errors(to_scores(logits, "binary"), label, np.array([2, 1, 3]), np.zeros(3), ("all",))
