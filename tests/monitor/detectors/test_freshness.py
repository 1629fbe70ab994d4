import numpy as np
import pytest
from scipy import stats

from clipdrift_monitor.detectors.freshness import _as_few, freshness_of

HOUR = 3_600_000
DAY = 24 * HOUR


def week(rows=500, days=range(8)):
    return [(day * DAY, rows) for day in days]


@pytest.mark.parametrize(("num_rows", "mean"), [(0, 3.0), (20, 40.0), (90, 250.0)])
def test_as_few_rows_have_the_probability_of_a_poisson_count(num_rows, mean):
    assert _as_few(num_rows, mean) == pytest.approx(stats.poisson.cdf(num_rows, mean), rel=1e-6)


def test_days_that_stray_by_chance_or_by_the_week_are_as_usual():
    random = np.random.default_rng(1)
    rows = [int(random.poisson(500 if day % 7 < 5 else 150)) for day in range(60)]
    past = [(day * DAY, rows[day]) for day in range(60)]
    said = [freshness_of(day * DAY, rows[day], past[max(0, day - 14) : day], DAY).words for day in range(14, 60)]
    assert not any(said)


def test_few_rows_of_few_are_chance():
    assert freshness_of(8 * DAY, 1, week(rows=4), DAY).words == ""


def test_a_silence_longer_than_any_before_is_told_when_rows_come_again():
    found = freshness_of(11 * DAY, 500, week(), DAY)
    assert found.words == "No predictions for 72 hours before this window; the longest silence before was 0."
    weekdays = week(days=[0, 1, 2, 3, 4, 7, 8, 9, 10, 11])
    assert freshness_of(14 * DAY, 500, weekdays, DAY).words == ""


def test_too_little_is_known_of_the_first_days():
    assert freshness_of(6 * DAY, 1, week(days=range(6)), DAY).words == ""
