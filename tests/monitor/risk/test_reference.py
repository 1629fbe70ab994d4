import msgspec
import numpy as np
import pytest
from scipy import stats
from worlds import Day, run_of

from clipdrift_contract.events import BlockScore, ErrorClustering
from clipdrift_monitor.risk.reference import lag1_within_days, reference_of
from clipdrift_monitor.risk.student import t_exceeded_once_in, t_quantile


def days(rates, num_rows=200):
    return tuple(
        BlockScore(start_ms=i, num_rows=num_rows, num_errors=round(rate * num_rows), nll_sum=0.0, brier_sum=num_rows * rate / 2)
        for i, rate in enumerate(rates)
    )


def run_with(*clusterings):
    run = run_of([Day(np.full(20, 0.4), np.zeros(20, int))] * 3)
    return msgspec.structs.replace(run, clustering=clusterings)


def clustering(rates, name="", hour=0.0, num_rows=200):
    return ErrorClustering(
        slice=name, lag1_autocorrelation=0.0, between_hour_variance=hour, between_day_variance=0.0, days=days(rates, num_rows)
    )


@pytest.mark.parametrize("share", [0.95, 0.975, 0.99])
@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 15, 30])
def test_t_quantiles_are_scipys(share, degrees):
    assert t_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), abs=6e-4)


@pytest.mark.parametrize("degrees", [31, 60, 1000])
def test_beyond_the_table_a_quantile_is_above_the_true_one(degrees):
    assert stats.t.ppf(0.99, degrees) < t_quantile(0.99, degrees) < stats.t.ppf(0.99, degrees) + 0.15


@pytest.mark.parametrize("wrong", [(0.95, 0), (0.9, 5)])
def test_a_quantile_without_a_table_is_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        t_quantile(*wrong)


def test_the_mean_loss_bound_is_scipys_one_sided_t_interval():
    rates = [0.1, 0.15, 0.2, 0.12, 0.3, 0.22]
    losses = np.array(rates) / 2
    expected = stats.t.ppf(0.95, 5, losses.mean(), stats.sem(losses))
    assert reference_of(run_with(clustering(rates))).mean_loss_bound == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("day_sd", [0.0, 0.04])
def test_the_bounds_that_production_is_compared_with_are_above_the_true_means_in_95_of_100(day_sd):
    """Error rate and log loss, by simulation: days that differ, or by chance alone; 10 days of 500 rows, true rate .1."""
    random, true_rate, covered = np.random.default_rng(9), 0.1, []
    for _ in range(1000):
        size = true_rate * (1 - true_rate) / day_sd**2 - 1 if day_sd else 0
        rate_D = random.beta(true_rate * size, (1 - true_rate) * size, 10) if day_sd else np.full(10, true_rate)
        validated = tuple(
            BlockScore(start_ms=i, num_rows=500, num_errors=errors, nll_sum=2.0 * errors, brier_sum=0.8 * errors)
            for i, errors in enumerate(random.binomial(500, rate_D).tolist())
        )
        bounds = reference_of(run_with(msgspec.structs.replace(clustering([0.1]), days=validated)))
        covered.append((true_rate <= bounds.mean_error_bound, 2 * true_rate <= bounds.mean_log_loss_bound))
    shares = np.mean(covered, axis=0)
    # a t bound of skewed means covers a little less than it says
    assert (shares > (0.92 if day_sd else 0.935)).all()
    assert (shares < 0.965).all()


def test_the_worst_day_bound_covers_one_further_day_in_99_of_100():
    """Coverage of the prediction bound by simulation, with a reference of 8 days."""
    random = np.random.default_rng(5)
    covered = []
    for _ in range(3000):
        rates = np.round(np.clip(random.normal(0.2, 0.04, 9), 0, 1) * 2000) / 2000
        bound = reference_of(run_with(clustering(rates[:8], num_rows=2000))).day_error_bound
        covered.append(rates[8] <= bound)
    assert np.mean(covered) == pytest.approx(0.99, abs=0.006)


def test_an_hour_that_spreads_more_than_days_sets_the_bound():
    rates = [0.2, 0.21, 0.19, 0.2]
    calm, wild = (reference_of(run_with(clustering(rates, hour=hour))).day_error_bound for hour in (0.0, 0.01))
    assert wild == pytest.approx(0.2 + stats.t.ppf(0.99, 3) * np.sqrt(0.01) * np.sqrt(1.25), abs=1e-3)
    assert calm < wild


@pytest.mark.parametrize("clusterings", [(), (clustering([0.2] * 9, name="only a slice"),), (clustering([0.2]),)])
def test_too_short_a_validation_is_said_to_know_nothing(clusterings):
    reference = reference_of(run_with(*clusterings))
    assert not reference.is_usable
    assert (reference.mean_loss_bound, reference.day_error_bound) == (1.0, 1.0)


def test_days_with_a_handful_of_rows_do_not_count():
    many = days([0.2, 0.3, 0.1, 0.2])
    few = BlockScore(start_ms=9, num_rows=3, num_errors=3, nll_sum=0.0, brier_sum=3.0)
    run = run_with(clustering([0.2, 0.3, 0.1, 0.2]))
    longer = run_with(msgspec.structs.replace(run.clustering[0], days=(*many, few)))
    assert reference_of(longer) == reference_of(run)


def test_lag_within_days_takes_out_what_whole_days_explain():
    """Errors that hang together by day alone have no lag within a day; a chain within the day keeps its own."""
    random = np.random.default_rng(6)
    for rho in (0.0, 0.4):
        rates = random.beta(8, 24, 400)
        errors = []
        for rate in rates:
            last = random.random() < rate
            for _ in range(250):
                last = random.random() < rate + rho * (last - rate)
                errors.append(last)
        error_N = np.array(errors, float)
        pooled = np.corrcoef(error_N[1:], error_N[:-1])[0, 1]
        counts = tuple(
            BlockScore(start_ms=i, num_rows=250, num_errors=int(one.sum()), nll_sum=0.0, brier_sum=0.0)
            for i, one in enumerate(error_N.reshape(400, 250))
        )
        found = ErrorClustering(
            slice="", lag1_autocorrelation=pooled, between_hour_variance=0.0, between_day_variance=rates.var(), days=counts
        )
        assert lag1_within_days(found, counts) == pytest.approx(rho, abs=0.02)
        assert pooled > rho + 0.01


def test_no_errors_at_all_have_no_lag():
    assert lag1_within_days(clustering([0.0] * 5), days([0.0] * 5)) == 0.0


@pytest.mark.parametrize("degrees", [2, 7, 27])
def test_what_a_t_variable_exceeds_once_in_so_many_times_is_scipys_quantile(degrees):
    for times in (2.0, 100.0, 540.0, 1e5):
        assert t_exceeded_once_in(times, degrees) == pytest.approx(stats.t.isf(1 / times, degrees), rel=1e-5, abs=1e-5)


def test_a_day_that_chance_brings_once_in_the_bound_is_no_break():
    rates = np.random.default_rng(5).normal(0.2, 0.03, 28)
    reference = reference_of(run_with(clustering(rates, num_rows=2000)))
    assert reference.worst_day(50.0) == reference.day_error_bound
    further = np.std(rates, ddof=1) * np.sqrt(1 + 1 / 28)
    expected = np.mean(rates) + stats.t.isf(1 / 5400, 27) * further
    assert reference.worst_day(5400.0) == pytest.approx(expected, abs=0.005)  # rates are whole errors over rows
    older = msgspec.structs.replace(reference, day_error_mean=-1.0, day_error_spread=0.0)
    assert older.worst_day(5400.0) == older.day_error_bound
