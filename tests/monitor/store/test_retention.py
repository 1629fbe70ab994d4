import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_contract.clock import MS_PER_DAY as DAY
from clipdrift_monitor.store.retention import Retention, event_ids_floor, records_floor, windows_floor

MOMENTS = st.integers(0, 10_000 * DAY)


def test_windows_go_by_age_and_never_what_judging_needs_nor_the_newest_ones():
    keep = Retention(window_days=100)
    assert windows_floor(keep, 500 * DAY, 450 * DAY, 480 * DAY, 0) == 400 * DAY
    assert windows_floor(keep, 500 * DAY, 450 * DAY, 390 * DAY, 0) == 390 * DAY
    assert windows_floor(keep, 500 * DAY, 0, 480 * DAY, 0) == 0, "there are fewer than a hundred windows"


def test_a_watermark_that_jumped_a_hundred_years_lets_nothing_go():
    keep = Retention(window_days=100)
    assert windows_floor(keep, 40_000 * DAY, 450 * DAY, 39_990 * DAY, 0) == 450 * DAY


@given(MOMENTS, MOMENTS, MOMENTS, MOMENTS)
def test_no_floor_ever_falls(watermark_ms, oldest_kept_ms, needed_from_ms, known_ms):
    assert windows_floor(Retention(), watermark_ms, oldest_kept_ms, needed_from_ms, known_ms) >= known_ms
    assert event_ids_floor(Retention(), watermark_ms, oldest_kept_ms, known_ms) >= known_ms


@given(MOMENTS, MOMENTS)
def test_records_stay_at_least_as_long_as_windows(watermark_ms, windows_floor_ms):
    assert 0 <= records_floor(Retention(), watermark_ms, windows_floor_ms) <= windows_floor_ms


def test_zero_days_keep_for_ever():
    for_ever = Retention(window_days=0, record_days=0, event_id_days=0, evidence_days=0)
    assert windows_floor(for_ever, 9_000 * DAY, 8_000 * DAY, 8_999 * DAY, 0) == 0
    assert event_ids_floor(for_ever, 9_000 * DAY, 9_000 * DAY, 0) == 0
    assert records_floor(for_ever, 9_000 * DAY, 8_000 * DAY) == 0


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"window_days": -1}, "window_days must be >= 0"),
        ({"window_days": 5}, "window_days must be 0 or at least 35, got 5"),
        ({"event_id_days": 1}, "event_id_days must be 0 or at least 7, got 1"),
        ({"record_days": 90}, "record_days must be 0 or at least window_days, got 90 with window_days 400"),
        ({"window_days": 0}, "record_days must be 0 or at least window_days, got 800 with window_days 0"),
    ],
)
def test_what_would_lose_too_much_is_refused(given_, words):
    with pytest.raises(ValueError, match=words):
        Retention(**given_)
