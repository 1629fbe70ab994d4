import numpy as np
import pytest
import scipy.stats

from clipdrift_trainer.evaluation.blocks import UNKNOWN, Days, loss_interval, mean_interval, rate_interval, student_t

DAY = 86_400_000


@pytest.mark.parametrize("tail", [0.5, 0.1, 0.05, 0.01, 0.001])
def test_quantiles_of_students_t_equal_scipys(tail):
    for degrees in (1, 1.7, 2, 3, 4, 5, 5.5, *range(6, 31), 45, 100, 300, 1_000):
        assert student_t(degrees, tail) == pytest.approx(scipy.stats.t.ppf(1 - tail / 2, degrees), rel=2e-5), degrees


@pytest.mark.parametrize(("degrees", "tail"), [(0, 0.05), (3, 0.0), (3, 1.0), (3, float("nan"))])
def test_a_quantile_that_does_not_exist_is_refused(degrees, tail):
    with pytest.raises(ValueError, match=r"degrees of freedom must be >= 1"):
        student_t(degrees, tail)


def test_days_of_equal_size_give_the_t_interval_of_their_means():
    value_DR = np.random.default_rng(0).normal(0.4, 1.0, (12, 50))
    found = mean_interval(value_DR.ravel(), Days(np.repeat(np.arange(12) * DAY, 50)))
    low, high = scipy.stats.t.interval(0.95, 11, loc=value_DR.mean(), scale=scipy.stats.sem(value_DR.mean(axis=1)))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def test_one_day_says_nothing_about_others():
    one_day = Days(np.zeros(100, np.int64))
    assert mean_interval(np.ones(100), one_day) == (1.0, -UNKNOWN, UNKNOWN)
    assert rate_interval(np.ones(100), one_day) == (1.0, 0.0, 1.0)


def test_losses_that_are_all_zero_leave_room_for_chance():
    few, many = (loss_interval(np.zeros(num), Days(np.arange(num) * DAY), ceiling=2.0) for num in (6, 2_000))
    assert (few.value, few.low) == (many.value, many.low) == (0.0, 0.0)
    assert few.high == 2 * rate_interval(np.zeros(6), Days(np.arange(6) * DAY)).high > 0.5
    assert 0 < many.high < 0.01
    assert loss_interval(np.zeros(6), Days(np.arange(6) * DAY)).high == UNKNOWN  # nobody knows how large a loss can be


@pytest.mark.parametrize("value", [2e9, -2e9, 1e300])
def test_an_end_that_says_nothing_lies_beyond_the_figure_and_is_finite(value):
    found = mean_interval(np.full(9, value), Days(np.zeros(9, np.int64)))
    assert found.low < value < found.high
    assert np.isfinite([found.low, found.high]).all()


def test_no_rows_have_no_mean_and_no_rate():
    nothing = Days(np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="no rows"):
        mean_interval(np.zeros(0), nothing)
    with pytest.raises(ValueError, match="no rows"):
        rate_interval(np.zeros(0), nothing)


@pytest.mark.parametrize(("num_events", "low", "high"), [(0, 0.0, 0.04), (200, 0.96, 1.0)])
def test_a_rate_of_none_or_all_keeps_room_for_chance(num_events, low, high):
    found = rate_interval(np.arange(200) < num_events, Days(np.arange(200) // 10 * DAY))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.021), pytest.approx(high, abs=0.021))
    assert found.high - found.low > 0.01


def test_a_rate_of_independent_rows_has_wilsons_interval():
    is_event = np.random.default_rng(3).random(4_000) < 0.3
    found = rate_interval(is_event, Days(np.arange(4_000) * DAY))  # a row a day
    wilson = scipy.stats.binomtest(int(is_event.sum()), 4_000).proportion_ci(0.95, "wilson")
    assert (found.low, found.high) == (pytest.approx(wilson.low, abs=1e-4), pytest.approx(wilson.high, abs=1e-4))


def test_the_order_of_the_rows_does_not_matter():
    generator = np.random.default_rng(1)
    value_N, time_N = generator.normal(size=300), generator.integers(0, 9, 300) * DAY
    order = generator.permutation(300)
    assert mean_interval(value_N, Days(time_N)) == pytest.approx(mean_interval(value_N[order], Days(time_N[order])))
