"""Replicas, hours and days, and views of any span are sums of the same rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_batches import DAY_MS, labels, predictions, profile, rows

from clipdrift_monitor.windows.span import in_span, merged
from clipdrift_monitor.windows.window import Layout, WindowKey, label_sums, prediction_sums

HOUR_MS = 3_600_000
LAYOUT = Layout(profile())
COLUMNS = rows(400, 11)


def windows_of(part, width_ms):
    """What one replica adds up of the rows that came to it."""
    batch = labels(COLUMNS, part)
    return [
        *prediction_sums(LAYOUT, predictions(COLUMNS, part), width_ms),
        *label_sums(LAYOUT, batch, np.ones(len(batch.label), bool), width_ms),
    ]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, sums in expected.items():
        np.testing.assert_allclose(found[key], sums, rtol=1e-12, atol=1e-12)
        assert (found[key][:3] == sums[:3]).all()  # counts are exact


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 4), min_size=400, max_size=400), st.permutations(range(5)))
@settings(max_examples=20, deadline=None)
def test_any_partition_of_rows_over_replicas_in_any_order_gives_the_same_windows(seed, replica_of, order):
    shuffled = np.random.default_rng(seed).permutation(400)
    replicas = [shuffled[np.array(replica_of) == number] for number in order]
    assert_same(merged(*(windows_of(part, DAY_MS) for part in replicas)), merged(windows_of(np.arange(400), DAY_MS)))


def test_hours_merge_into_days_and_days_into_weeks():
    hours = merged(windows_of(np.arange(400), HOUR_MS))
    for width_ms in (DAY_MS, 7 * DAY_MS):
        assert_same(merged(hours.items(), width_ms=width_ms), merged(windows_of(np.arange(400), width_ms)))


@given(st.integers(0, 72), st.integers(0, 72))
@settings(max_examples=20, deadline=None)
def test_a_view_of_any_span_holds_the_rows_of_that_span_by_slice(first, last):
    start_ms, end_ms = sorted((first * HOUR_MS, last * HOUR_MS))
    found = in_span(merged(windows_of(np.arange(400), HOUR_MS)).items(), "v1", start_ms, end_ms)
    is_in_N = (COLUMNS["time_ms"] >= start_ms) & (COLUMNS["time_ms"] < end_ms)
    by_slice = {index: int((is_in_N & (COLUMNS["slice"] == index)).sum()) for index in range(3)}
    assert {index: round(LAYOUT.value(sums, "num_labels")) for index, sums in found.items()} == {
        index: number for index, number in by_slice.items() if number
    }
    assert in_span(merged(windows_of(np.arange(400), HOUR_MS)).items(), "v0", start_ms, end_ms) == {}


def test_windows_of_other_profiles_are_not_added_up():
    key = WindowKey("v", 0, 0)
    with pytest.raises(ValueError, match="other profiles"):
        merged([(key, np.zeros(3))], [(key, np.zeros(4))])
    with pytest.raises(ValueError, match="width_ms must be >= 1"):
        merged([], width_ms=0)
