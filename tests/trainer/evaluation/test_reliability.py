import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import clustered_worlds as worlds

from clipdrift_trainer.evaluation.blocks import Days
from clipdrift_trainer.evaluation.reliability import calibration_error_interval, reliability, reliability_bins
from clipdrift_trainer.evaluation.scores import expected_calibration_error

DAY = 86_400_000


def confidence(world):
    scores, label, time_ms = world
    return scores.max(axis=1), scores.argmax(axis=1) == label, Days(time_ms)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_bins_hold_every_row_once_and_rise(binning):
    scores, label, time_ms = worlds.binary(np.random.default_rng(0), 2_000, 10)
    found = reliability_bins(scores[:, 1], label == 1, Days(time_ms), binning=binning)
    assert sum(one.num_rows for one in found) == 2_000
    means = [one.probability_mean for one in found]
    assert means == sorted(means)
    assert sum(one.num_rows * one.event_rate for one in found) == pytest.approx(label.sum())
    assert all(0 <= one.event_rate_low <= one.event_rate <= one.event_rate_high <= 1 for one in found)


def test_bins_of_equal_width_are_those_of_the_calibration_error():
    scores, label, time_ms = worlds.binary(np.random.default_rng(0), 2_000, 10, sharpness=2.0)
    said, came, days = confidence((scores, label, time_ms))
    found = reliability_bins(said, came, days, binning="width")
    gaps = sum(one.num_rows * abs(one.probability_mean - one.event_rate) for one in found) / 2_000
    assert gaps == pytest.approx(expected_calibration_error(scores, label))


def test_bins_of_equal_mass_hold_about_equally_many():
    found = reliability_bins(np.random.default_rng(0).beta(1, 20, 3_000), np.zeros(3_000), Days(np.arange(3_000) // 300 * DAY))
    assert [one.num_rows for one in found] == [200] * 15


def test_equal_probabilities_are_never_parted():
    found = reliability_bins(np.array([0.3] * 50 + [0.7] * 50), np.ones(100), Days(np.arange(100) * DAY))
    assert [(one.num_rows, round(one.probability_mean, 6)) for one in found] == [(50, 0.3), (50, 0.7)]


def test_the_share_of_events_is_covered_in_about_19_of_20_bins_of_an_honest_model():
    generator, hits, count = np.random.default_rng(5), 0, 0
    for _ in range(60):
        scores, label, time_ms = worlds.binary(generator, 2_000, 15, day_spread=0.0)
        for one in reliability_bins(scores[:, 1], label == 1, Days(time_ms)):
            hits += one.event_rate_low <= one.probability_mean <= one.event_rate_high
            count += 1
    assert 0.92 <= hits / count <= 0.98


def test_a_report_gets_all_rows_in_both_binnings_and_each_slice_that_is_large_enough():
    world = worlds.binary(np.random.default_rng(0), 1_000, 10)
    slice_N = np.where(np.arange(1_000) < 150, 0, 1)
    found = reliability(*world, slice_N, ("small", "large"), "binary")
    assert {(one.slice, one.binning) for one in found} == {("", "width"), ("", "mass"), ("large", "mass")}


def test_for_two_classes_it_is_about_class_1_and_for_more_about_the_predicted_class():
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    binary, _ = reliability(scores, np.array([1.0, 1.0]), np.array([0, DAY]), np.zeros(2), (), "binary")[:2]
    assert (binary.probability_mean, binary.event_rate) == (pytest.approx(0.1), 1.0)
    (top, *_) = reliability(np.array([[0.5, 0.3, 0.2]]), np.array([1.0]), np.zeros(1, int), np.zeros(1), (), "multiclass")
    assert (top.probability_mean, top.event_rate) == (0.5, 0.0)


def test_regression_and_no_rows_have_none():
    assert reliability(np.zeros((3, 1)), np.zeros(3), np.zeros(3, int), np.zeros(3), (), "regression") == ()
    assert reliability(np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), np.zeros(0), (), "binary") == ()
    assert reliability_bins(np.zeros(0), np.zeros(0), Days(np.zeros(0, int))) == ()


@pytest.mark.parametrize(("wrong", "words"), [({"num_bins": 0}, "num_bins"), ({"binning": "depth"}, "binning")])
def test_bins_that_do_not_exist_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        reliability_bins(np.ones(2), np.ones(2), Days(np.zeros(2, int)), **wrong)


@pytest.mark.parametrize(("num_rows", "num_days"), [(300, 10), (3_000, 20)])
@pytest.mark.parametrize("sharpness", [1.0, 1.5])
def test_the_bias_of_few_rows_is_smaller_than_the_plain_errors(num_rows, num_days, sharpness):
    def world(generator, rows, days):
        return worlds.binary(generator, rows, days, sharpness=sharpness, day_spread=0.3)

    generator = np.random.default_rng(3)
    scores, label, _ = world(generator, 300_000, 10_000)
    truth = expected_calibration_error(scores, label)
    plain, corrected = [], []
    for _ in range(150):
        made = world(generator, num_rows, num_days)
        plain.append(expected_calibration_error(*made[:2]))
        corrected.append(calibration_error_interval(*confidence(made)).value)
    assert abs(np.mean(corrected) - truth) < 0.7 * abs(np.mean(plain) - truth)
    assert np.mean(plain) > truth


def test_an_honest_model_may_have_no_error_and_a_dishonest_one_must_have_some():
    generator = np.random.default_rng(0)
    honest = calibration_error_interval(*confidence(worlds.binary(generator, 2_000, 20, day_spread=0.0)))
    sharp = calibration_error_interval(*confidence(worlds.binary(generator, 2_000, 20, sharpness=2.5, day_spread=0.0)))
    assert honest.low == 0.0
    assert sharp.low > 0.05


def test_many_rows_leave_nothing_to_take_off():
    world = worlds.binary(np.random.default_rng(0), 100_000, 400, sharpness=2.0)
    plain = expected_calibration_error(*world[:2])
    assert calibration_error_interval(*confidence(world)).value == pytest.approx(plain, rel=0.01)
