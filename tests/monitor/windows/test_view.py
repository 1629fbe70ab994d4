import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint
from window_batches import DAY_MS, labels, predictions, profile, rows

from clipdrift_monitor.windows.view import view, wilson_interval
from clipdrift_monitor.windows.window import SCORE_EDGES, Layout, label_sums, prediction_sums


def vector_of(layout, columns, num_labelled=None):
    total = layout.zeros()
    num_rows = len(columns["label"])
    chosen = np.arange(num_rows) < (num_rows if num_labelled is None else num_labelled)
    for _, sums in (
        *prediction_sums(layout, predictions(columns), DAY_MS),
        *label_sums(layout, labels(columns), chosen, DAY_MS),
    ):
        total += sums
    return total


def reported_calibration_error(scores_NK, label_N, num_bins=15):
    """Guo et al. 2017, equation 3, bin by bin."""
    confidence, is_right = scores_NK.max(axis=1), scores_NK.argmax(axis=1) == label_N
    found = 0.0
    for k in range(num_bins):
        inside = (confidence >= k / num_bins) & (confidence < (k + 1) / num_bins)
        if inside.any():
            found += inside.mean() * abs(is_right[inside].mean() - confidence[inside].mean())
    return found


def test_figures_of_two_classes_are_sklearns():
    layout, columns = Layout(profile()), rows(3000, 1)
    seen = view(layout, vector_of(layout, columns))
    p, y = columns["scores"][:, 1], columns["label"]
    assert seen.num_labels == 3000
    assert seen.accuracy == accuracy_score(y, p > 0.5)
    assert seen.nll == pytest.approx(log_loss(y, p), rel=1e-9)
    assert seen.brier == pytest.approx(brier_score_loss(y, p), rel=1e-9)
    assert seen.auc == pytest.approx(roc_auc_score(y, np.searchsorted(SCORE_EDGES, p, side="right")), rel=1e-12)
    assert seen.auc == pytest.approx(roc_auc_score(y, p), abs=1e-3)  # ties within a bin cost next to nothing
    assert seen.label_delay_seconds == 90.0
    assert seen.mean_absolute_error is None


@pytest.mark.parametrize(("task", "num_classes"), [("binary", 2), ("multiclass", 4)])
@pytest.mark.parametrize("too_sure", [1.0, 3.0])
def test_calibration_error_is_the_one_that_training_reports(task, num_classes, too_sure):
    layout, columns = Layout(profile(task, num_classes)), rows(4000, 2, task, num_classes)
    sharpened = columns["scores"] ** too_sure
    columns["scores"] = sharpened / sharpened.sum(axis=1, keepdims=True)
    expected = reported_calibration_error(columns["scores"], columns["label"])
    assert view(layout, vector_of(layout, columns)).ece == pytest.approx(expected, abs=0.006)


def test_an_honest_model_of_few_rows_shows_no_more_calibration_error_than_chance_gives():
    layout = Layout(profile())
    errors = [view(layout, vector_of(layout, rows(1000, seed))).ece for seed in range(20)]
    assert np.mean(errors) < np.sqrt(15 / (2 * np.pi * 1000))


def test_figures_of_more_classes_are_sklearns():
    layout, columns = Layout(profile("multiclass", 4)), rows(2000, 3, "multiclass", 4)
    seen = view(layout, vector_of(layout, columns))
    assert seen.accuracy == accuracy_score(columns["label"], columns["scores"].argmax(axis=1))
    assert seen.nll == pytest.approx(log_loss(columns["label"], columns["scores"], labels=range(4)), rel=1e-9)
    assert seen.auc is None


def test_figures_of_values_are_errors_and_no_accuracy_is_claimed():
    layout, columns = Layout(profile("regression")), rows(500, 4, "regression")
    seen = view(layout, vector_of(layout, columns))
    assert seen.mean_absolute_error == pytest.approx(np.abs(columns["predicted"] - columns["label"]).mean())
    assert (seen.accuracy, seen.accuracy_low, seen.nll, seen.ece, seen.auc) == (None,) * 5


def test_maturity_is_the_share_of_predictions_with_a_label():
    layout, columns = Layout(profile()), rows(100, 5)
    assert view(layout, vector_of(layout, columns, num_labelled=25)).maturity == 0.25
    without = view(layout, vector_of(layout, columns, num_labelled=0))
    assert (without.num_predictions, without.num_labels, without.maturity, without.accuracy) == (100, 0, 0.0, None)
    assert view(layout, layout.zeros()).maturity is None


def test_auc_is_unknown_where_a_class_is_absent():
    layout, columns = Layout(profile()), rows(100, 6)
    columns["label"] = np.zeros(100)
    assert view(layout, vector_of(layout, columns)).auc is None


@pytest.mark.parametrize(("num_correct", "num_labels"), [(0, 1), (1, 1), (0, 50), (50, 50), (8, 10), (997, 1000), (123, 456)])
def test_the_interval_is_wilsons_by_scipy_and_statsmodels(num_correct, num_labels):
    found = wilson_interval(num_correct, num_labels)
    by_scipy = binomtest(num_correct, num_labels).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((by_scipy.low, by_scipy.high), abs=1e-6)
    assert found == pytest.approx(proportion_confint(num_correct, num_labels, method="wilson"), abs=1e-6)


def test_an_interval_of_no_labels_is_refused():
    with pytest.raises(ValueError, match="at least one label"):
        wilson_interval(0, 0)
