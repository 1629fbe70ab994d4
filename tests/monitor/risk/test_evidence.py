import numpy as np
import pytest

from clipdrift_monitor.risk.budget import Budget
from clipdrift_monitor.risk.evidence import Evidence


def run_lengths(bound, draw_factors, num_runs, seed):
    """Steps until the alarm in each of `num_runs` runs."""
    random = np.random.default_rng(seed)
    lengths = []
    for _ in range(num_runs):
        evidence = Evidence(sums=[0.0, 0.0], bound=bound)
        while not evidence.add(draw_factors(random)):
            pass
        lengths.append(evidence.num_steps)
    return np.array(lengths)


def likelihood_ratios(random):
    """Of a coin that is fair, against two that are not: mean exactly 1."""
    is_head = random.random() < 0.5
    return np.array([1.4, 0.7]) if is_head else np.array([0.6, 1.3])


def steady(random):
    """Bets that never win: S_t = t e, the shortest run length that the bound allows."""
    return np.array([1.0, 1.0])


@pytest.mark.parametrize("draw_factors", [likelihood_ratios, steady])
@pytest.mark.parametrize("bound", [10.0, 40.0])
def test_a_false_alarm_takes_at_least_bound_steps_on_average(draw_factors, bound):
    lengths = run_lengths(bound, draw_factors, 400, seed=1)
    assert lengths.mean() + 2 * lengths.std() / 20 >= bound
    assert draw_factors is not steady or set(lengths) == {bound}


def test_the_sum_grows_by_one_a_step_on_average_when_nothing_is_wrong():
    random = np.random.default_rng(2)
    ends = []
    for _ in range(4000):
        evidence = Evidence(sums=[0.0, 0.0], bound=np.inf)
        for _ in range(8):
            evidence.add(likelihood_ratios(random))
        ends.append(evidence.level)
    assert np.mean(ends) == pytest.approx(8.0, abs=4 * np.std(ends) / np.sqrt(4000))


def test_a_block_of_many_steps_counts_as_one_step_of_time():
    random = np.random.default_rng(3)
    ends = []
    for _ in range(2000):
        evidence = Evidence(sums=[0.0, 0.0], bound=np.inf)
        for num_rows in (3, 40, 1):
            evidence.add_all(np.array([likelihood_ratios(random) ** 0.2 * 0.99 for _ in range(num_rows)]))
        ends.append(evidence.level)
        assert evidence.num_steps == 3
    assert np.mean(ends) < 3.0


@pytest.mark.parametrize("num_rows", [1, 7, 300])
def test_bets_that_never_win_are_worth_one_a_block_however_many_labels_it_has(num_rows):
    evidence = Evidence(sums=[0.0], bound=2.5)
    reached = [evidence.add_all(np.ones((num_rows, 1))) for _ in range(3)]
    assert reached == [False, False, True]
    assert evidence.level == pytest.approx(3.0)


def test_a_bound_reached_within_a_block_is_an_alarm_though_the_block_ends_below_it():
    evidence = Evidence(sums=[0.0], bound=5.0)
    assert evidence.add_all(np.array([[4.0], [4.0], [0.01]]))
    assert evidence.level < 1


def test_a_block_equals_its_steps_one_by_one():
    random = np.random.default_rng(4)
    factors_NK = random.uniform(0.5, 1.6, (50, 3))
    evidence = Evidence(sums=[0.1, 0.2, 0.3], bound=np.inf, weights=[0.5, 0.3, 0.2])
    evidence.add_all(factors_NK)
    sums = np.array([0.1, 0.2, 0.3])
    for factors_K in factors_NK:
        sums = (sums + 1 / 50) * factors_K
    np.testing.assert_allclose(evidence.sums, sums)
    assert evidence.level == pytest.approx(sums @ [0.5, 0.3, 0.2])


def test_an_empty_block_changes_no_sum():
    evidence = Evidence(sums=[1.0, 2.0], bound=10.0)
    assert not evidence.add_all(np.ones((0, 2)))
    assert evidence.sums == [1.0, 2.0]


def test_evidence_stays_finite_when_nobody_restarts_it():
    evidence = Evidence(sums=[0.0], bound=1e9)
    for _ in range(3000):
        evidence.add(np.array([1e3]))
    assert np.isfinite(evidence.level)
    evidence.restart()
    assert (evidence.level, evidence.num_steps) == (0.0, 0)


def test_shares_of_the_budget_add_up_to_the_promise():
    budget = Budget()
    bounds = [budget.bound(share) for share in (budget.share_repairable, budget.share_worse, budget.share_sudden)]
    assert sum(1 / bound for bound in bounds) == pytest.approx(1 / budget.blocks_per_false_alarm)


@pytest.mark.parametrize(
    "wrong", [{"share_sudden": 0.0}, {"share_worse": 0.3}, {"share_repairable": -0.1}, {"blocks_per_false_alarm": 5.0}]
)
def test_a_budget_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be"):
        Budget(**wrong)
