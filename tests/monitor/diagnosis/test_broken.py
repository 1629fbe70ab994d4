import numpy as np
import pytest
from feature_days import NUM_ROWS, FeatureDays

from clipdrift_monitor.diagnosis.faults import MOVED, Found, explaining, is_loud


def calm(random):
    """A day like any other."""
    return {"price": random.lognormal(1.0, 0.5, NUM_ROWS), "load": random.normal(0.0, 1.0, NUM_ROWS)}


def weather(random):
    """One front a day passes over all rows, as air pressure does."""
    return {"price": random.normal(random.normal(1013, 8), 1.5, NUM_ROWS), "load": random.normal(0.0, 1.0, NUM_ROWS)}


def days_of(make, random, num_live=10):
    days = FeatureDays([make(random) for _ in range(20)])
    for _ in range(num_live):
        days.search(**make(random))
    return days


def faults(found):
    return [(one.subject, one.kind) for one in found if one.kind != MOVED]


@pytest.mark.parametrize(
    ("change", "kind", "is_certain"),
    [
        (lambda values: np.full(len(values), np.nan), "schema_change", True),
        (lambda values: np.where(np.arange(len(values)) % 10 < 6, np.nan, values), "schema_change", False),
        (lambda values: values * 100, "unit_change", False),
        (lambda values: np.full(len(values), 3.0), "constant_feature", True),
        (lambda values: values + 2.5, "shifted_feature", False),
    ],
    ids=["gone", "6 in 10 gone", "told in cents", "stuck", "off by 2.5"],
)
def test_a_feature_that_breaks_alone_is_named_with_its_fault_and_since_when(change, kind, is_certain):
    random = np.random.default_rng(3)
    days = days_of(calm, random)
    for number in range(3):
        day = calm(random)
        found = days.search(**{**day, "price": change(day["price"])})

        assert faults(found) == [("price", kind)]
        assert found[0].is_certain == is_certain
        assert found[0].since_ms == (days.day - 1 - number) * 86_400_000
    assert faults(days.search(**calm(random))) == []


def test_calm_days_and_weather_are_never_called_broken():
    for make in (calm, weather):
        for seed in range(8):
            random = np.random.default_rng(seed)
            days = FeatureDays([make(random) for _ in range(20)])
            for _ in range(40):
                assert faults(days.search(**make(random))) == []


def test_a_shift_that_other_features_make_as_well_is_the_worlds():
    random = np.random.default_rng(4)
    days = days_of(calm, random)
    day = calm(random)
    assert faults(days.search(price=day["price"] + 2.5, load=day["load"] + 1.5)) == []


def test_a_feed_that_stops_is_stale_and_a_weekly_timetable_is_not():
    random = np.random.default_rng(5)
    days = days_of(calm, random)
    last = calm(random)
    days.search(**last)
    stale = days.search(price=last["price"], load=calm(random)["load"])
    assert faults(stale) == [("price", "stale_feature")]
    assert "1 block before" in stale[0].words
    assert not stale[0].is_certain

    week = [calm(random)["price"] for _ in range(7)]
    days = FeatureDays([{"price": week[i % 7], "load": calm(random)["load"]} for i in range(28)])
    for number in range(60):
        found = days.search(price=week[number % 7], load=calm(random)["load"])
        assert faults(found) == []


def test_a_feed_that_stands_still_stays_stale_since_its_first_block_until_new_values_come():
    random = np.random.default_rng(11)
    days = days_of(calm, random)
    last = calm(random)
    days.search(**last)
    for number in range(9):
        num_rows = int(random.integers(350, 450))  # not as many requests every day, so never quite the same bins
        found = days.search(price=np.resize(last["price"], num_rows), load=random.normal(0.0, 1.0, num_rows))
        assert faults(found) == [("price", "stale_feature")]
        assert found[0].since_ms == (days.day - 1 - number) * 86_400_000
    assert faults(days.search(**calm(random))) == []


def test_a_feed_that_is_found_late_stands_still_since_the_block_after_the_one_it_repeats():
    random = np.random.default_rng(12)
    days = days_of(calm, random)
    last = calm(random)
    days.search(**last)
    days.search(price=np.resize(last["price"], 300), load=random.normal(0.0, 1.0, 300))  # too few to be sure
    found = days.search(price=last["price"], load=calm(random)["load"])
    assert faults(found) == [("price", "stale_feature")]
    assert found[0].since_ms == (days.day - 2) * 86_400_000


def test_a_timetable_that_is_nearly_alike_every_day_is_not_stale():
    """Hours of departure hardly differ from day to day; a week of them together is more alike than samples ever are."""
    hours = np.repeat(np.arange(6.0, 22.0), NUM_ROWS // 16)

    def timetable(random):
        moved_N = random.random(NUM_ROWS) < 0.5
        return {"price": np.where(moved_N, random.permutation(hours), hours), "load": random.normal(0.0, 1.0, NUM_ROWS)}

    for seed in range(5):
        random = np.random.default_rng(seed)
        days = days_of(timetable, random)
        for _ in range(20):
            assert faults(days.search(**timetable(random))) == []


def test_what_is_inferred_is_loud_only_once_it_may_explain_a_harm():
    shifted = Found(kind="shifted_feature", subject="price", words="price is off", confidence=0.99, since_ms=2_000)
    lost = Found(kind="schema_change", subject="load", words="load is gone", confidence=0.99, since_ms=2_000, is_certain=True)
    moved = Found(kind=MOVED, subject="load", words="load moved", confidence=0.99, since_ms=2_000)

    assert [is_loud(one, None) for one in (shifted, lost, moved)] == [False, True, False]
    assert [is_loud(one, 2_000) for one in (shifted, lost, moved)] == [True, True, False]
    assert [is_loud(one, 1_999) for one in (shifted, lost, moved)] == [False, True, False]
    assert explaining([shifted, lost, moved], None) == (shifted, lost, moved)
    assert explaining([shifted, lost, moved], 1_999) == (lost, moved)


def test_a_day_without_rain_is_not_called_stuck():
    random = np.random.default_rng(7)

    def rain(share_dry):
        dry_N = random.random(NUM_ROWS) < share_dry
        return {"price": np.where(dry_N, 0.0, random.gamma(1.0, 2.0, NUM_ROWS)), "load": random.normal(0.0, 1.0, NUM_ROWS)}

    days = FeatureDays([rain(share) for share in random.uniform(0.5, 1.0, 20)])
    found = days.search(**rain(1.0))
    for _ in range(15):
        found += days.search(**rain(random.uniform(0.4, 0.95)))
    found += days.search(**rain(1.0))
    assert [one for one in found if one.is_certain] == []
