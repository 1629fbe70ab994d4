from collections import defaultdict

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_batches import DAY_MS, labels, predictions, profile, rows

from clipdrift_contract.profile import FeatureProfile, FeatureSpec
from clipdrift_monitor.windows.window import (
    NUM_SCORE_BINS,
    SCORE_EDGES,
    Layout,
    WindowKey,
    label_sums,
    losses_of,
    prediction_sums,
)

TASKS = [("binary", 2), ("multiclass", 4), ("regression", 0)]
every_task = pytest.mark.parametrize(("task", "num_classes"), TASKS)


def summed(layout, columns, parts):
    """Windows after the rows came in these parts, predictions and labels interleaved."""
    windows = defaultdict(layout.zeros)
    for part in parts:
        for key, sums in prediction_sums(layout, predictions(columns, part), DAY_MS):
            windows[key] += sums
        batch = labels(columns, part)
        for key, sums in label_sums(layout, batch, np.ones(len(batch.label), bool), DAY_MS):
            windows[key] += sums
    return windows


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 119), max_size=6), st.sampled_from(TASKS))
@settings(max_examples=30, deadline=None)
def test_sums_are_the_same_in_any_order_and_split(seed, cuts, task):
    kind, num_classes = task
    layout = Layout(profile(kind, num_classes))
    columns = rows(120, seed % 7, kind, num_classes)
    whole = summed(layout, columns, [np.arange(120)])
    shuffled = np.random.default_rng(seed).permutation(120)
    parted = summed(layout, columns, np.split(shuffled, sorted(set(cuts))))
    assert whole.keys() == parted.keys()
    for key, sums in whole.items():
        np.testing.assert_allclose(parted[key], sums, rtol=1e-12, atol=1e-12)
        for name in ("num_predictions", "num_labels", "num_correct"):  # counts are exact, so live accuracy is
            assert layout.value(parted[key], name) == layout.value(sums, name)


@every_task
def test_every_entry_equals_a_count_row_by_row(task, num_classes):
    layout = Layout(profile(task, num_classes))
    columns = rows(400, 3, task, num_classes)
    windows = summed(layout, columns, [np.arange(400)])
    expected = defaultdict(lambda: defaultdict(float))
    for i in range(400):
        key = WindowKey("v1", int(columns["slice"][i]), int(columns["time_ms"][i] // DAY_MS * DAY_MS))
        expected[key]["num_predictions"] += 1
        expected[key]["num_labels"] += 1
        expected[key]["num_correct"] += columns["predicted"][i] == columns["label"][i]
        expected[key]["delay_seconds_sum"] += 90.0
        value = columns["distance"][i]
        distance_bin = 3 if np.isnan(value) else int(value >= -0.5) + int(value >= 0.5)
        expected[key]["distance", distance_bin] += 1
        expected[key]["carrier", int(columns["slice"][i])] += 1
    assert windows.keys() == expected.keys()
    for key, counts in expected.items():
        for name in ("num_predictions", "num_labels", "num_correct", "delay_seconds_sum"):
            assert layout.value(windows[key], name) == counts[name]
        assert windows[key][layout.features["distance"]].tolist() == [counts["distance", k] for k in range(4)]
        assert windows[key][layout.features["carrier"]].tolist() == [counts["carrier", k] for k in range(3)] + [0]
        for name in ("predictions", "labels"):
            assert layout.counts(windows[key], name).sum() == counts["num_labels"]
        assert windows[key][layout.score_reference].sum() == counts["num_predictions"]


def test_only_the_chosen_labels_count():
    layout = Layout(profile())
    columns = rows(50, 1)
    chosen = np.arange(50) % 2 == 0
    windows = list(label_sums(layout, labels(columns), chosen, DAY_MS))
    assert sum(layout.value(sums, "num_labels") for _, sums in windows) == 25
    others = list(label_sums(layout, labels(columns), ~chosen, DAY_MS))
    whole = list(label_sums(layout, labels(columns), np.ones(50, bool), DAY_MS))
    np.testing.assert_allclose(sum(s for _, s in windows) + sum(s for _, s in others), sum(s for _, s in whole))


def test_no_rows_add_nothing():
    layout = Layout(profile())
    columns = rows(5, 1)
    assert list(label_sums(layout, labels(columns), np.zeros(5, bool), DAY_MS)) == []
    assert list(prediction_sums(layout, predictions(columns, slice(0, 0)), DAY_MS)) == []


def test_a_row_at_midnight_belongs_to_the_day_that_begins():
    layout = Layout(profile())
    columns = rows(2, 1)
    columns["time_ms"] = np.array([DAY_MS - 1, DAY_MS])
    keys = {key.start_ms for key, _ in prediction_sums(layout, predictions(columns), DAY_MS)}
    assert keys == {0, DAY_MS}


def test_losses_of_two_classes_are_those_of_the_event():
    columns = rows(200, 5)
    losses = losses_of(profile(), labels(columns), np.ones(200, bool))
    p, y = columns["scores"][:, 1], columns["label"]
    np.testing.assert_allclose(losses.brier, (p - y) ** 2)
    np.testing.assert_allclose(losses.nll, -np.log(np.where(y == 1, p, 1 - p)))
    np.testing.assert_allclose(losses.score, p)
    assert losses.hit.tolist() == y.tolist()


def test_losses_of_more_classes_are_those_of_all_and_the_score_is_the_confidence():
    columns = rows(200, 5, "multiclass", 4)
    losses = losses_of(profile("multiclass", 4), labels(columns), np.ones(200, bool))
    one_hot = np.eye(4)[columns["label"].astype(int)]
    np.testing.assert_allclose(losses.brier, ((columns["scores"] - one_hot) ** 2).sum(axis=1))
    np.testing.assert_allclose(losses.score, columns["scores"].max(axis=1))
    assert losses.hit.tolist() == (columns["scores"].argmax(axis=1) == columns["label"]).tolist()


def test_an_impossible_event_that_happens_costs_a_finite_loss():
    columns = rows(1, 0)
    columns["scores"], columns["predicted"], columns["label"] = np.array([[1.0, 0.0]]), np.array([0.0]), np.array([1.0])
    losses = losses_of(profile(), labels(columns), np.ones(1, bool))
    assert losses.nll[0] == pytest.approx(-np.log(1e-7))


def test_a_value_is_scored_within_the_range_that_labels_had():
    columns = rows(300, 2, "regression")
    columns["predicted"][0], columns["label"][0] = 1e9, -1e9
    losses = losses_of(profile("regression"), labels(columns), np.ones(300, bool))
    assert losses.brier.max() <= 1.0
    assert losses.brier[0] == 1.0
    assert losses.absolute_error[0] == 2e9
    for shares in (losses.score, losses.hit):
        assert shares.min() >= 0.0
        assert shares.max() <= 1.0
    inside = (np.abs(columns["label"] - 2) < 4) & (np.abs(columns["predicted"] - 2) < 4)
    np.testing.assert_allclose(losses.brier[inside], (losses.score - losses.hit)[inside] ** 2)


def test_score_bins_are_of_equal_width_in_log_odds_and_none_lies_across_one_half():
    widths = np.diff(np.log(SCORE_EDGES / (1 - SCORE_EDGES)))
    np.testing.assert_allclose(widths, widths[0])
    assert SCORE_EDGES[NUM_SCORE_BINS // 2 - 1] == 0.5


def test_what_is_derived_from_a_column_is_counted_beside_it():
    length = FeatureProfile(
        spec=FeatureSpec(name="carrier (length)", kind="numeric"), edges=(2.0, 3.0), counts=(0, 100, 0), summary="length",
        column="carrier",
    )  # fmt: skip
    layout, columns = Layout(msgspec.structs.replace(profile(), derived=(length,))), rows(60, 4)
    total = sum(sums for _, sums in prediction_sums(layout, predictions(columns), DAY_MS))

    assert total[layout.features["carrier (length)"]].tolist() == [0, 60, 0, 0]
    assert total[layout.features["carrier"]].sum() == 60
    assert [one.spec.name for one in layout.profile.features] == ["distance", "carrier", "carrier (length)"]
