import msgspec
import pytest
from scipy import stats

from clipdrift_monitor.decisions.worth import PastRetrains, RetrainCost, Worth, past_retrains, weigh

WORTH = Worth(gain=0.02, gain_low=0.01, gain_high=0.03, rows_a_day=500.0)


def test_the_loss_of_waiting_is_worth_times_rows_times_days_times_value():
    found = weigh(WORTH, PastRetrains(), RetrainCost(value_per_point=3.0, otherwise_days=10.0))
    assert found.loss == pytest.approx(0.02 * 500 * 10 * 3)
    assert (found.loss_low, found.loss_high) == (pytest.approx(150.0), pytest.approx(450.0))


@pytest.mark.parametrize(("passed", "failed"), [(0, 0), (5, 0), (0, 7), (20, 10)])
def test_the_chance_is_that_of_the_beta_posterior(passed, failed):
    found = weigh(WORTH, PastRetrains(num_passed=passed, num_failed=failed), RetrainCost())
    posterior = stats.beta(2 + passed, 1 + failed)
    assert found.chance == pytest.approx(posterior.mean())
    low, high = posterior.interval(0.95)
    assert (found.chance_low, found.chance_high) == (pytest.approx(low, abs=0.002), pytest.approx(high, abs=0.002))


def test_cpu_time_is_that_of_past_retrains_once_there_are_some():
    cost = RetrainCost(per_retrain=2.0, per_cpu_hour=10.0, cpu_hours=0.5)
    assert weigh(WORTH, PastRetrains(), cost).cost == pytest.approx(7.0)
    assert weigh(WORTH, PastRetrains(num_timed=2, cpu_seconds=7200.0), cost).cost == pytest.approx(12.0)


def test_a_gain_below_nothing_loses_nothing_by_waiting():
    found = weigh(msgspec.structs.replace(WORTH, gain=-0.1), PastRetrains(), RetrainCost())
    assert (found.loss, found.pays) == (0.0, False)


def test_it_pays_exactly_where_chance_times_loss_is_above_the_cost():
    loss = weigh(WORTH, PastRetrains(), RetrainCost()).loss
    chance = 2 / 3
    assert weigh(WORTH, PastRetrains(), RetrainCost(per_retrain=chance * loss - 1e-6)).pays
    assert not weigh(WORTH, PastRetrains(), RetrainCost(per_retrain=chance * loss + 1e-6)).pays


def test_terms_leave_out_what_is_not_known():
    assert "loss_low" not in weigh(Worth(gain=0.1), PastRetrains(), RetrainCost()).terms
    assert set(weigh(WORTH, PastRetrains(), RetrainCost()).terms) == {
        "loss", "loss_low", "loss_high", "chance", "chance_low", "chance_high", "cost", "net"
    }  # fmt: skip


def test_what_ended_inconclusive_did_not_pass():
    assert past_retrains({"inconclusive": 3}) == PastRetrains(num_failed=3)
    assert past_retrains({}) == PastRetrains()


@pytest.mark.parametrize(
    ("name", "value"),
    [("per_retrain", -1.0), ("value_per_point", float("nan")), ("otherwise_days", float("inf")), ("prior_passed", 0.0)],
)
def test_a_cost_that_makes_no_sense_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        RetrainCost(**{name: value})
