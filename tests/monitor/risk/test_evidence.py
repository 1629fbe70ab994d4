import numpy as np
import pytest

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


def rare_wins(random):
    """Bets that nearly always win nothing: mean exactly 1."""
    return np.array([50.0, 50.0]) if random.random() < 0.01 else np.array([0.5 / 0.99, 0.5 / 0.99])


@pytest.mark.parametrize("draw_factors", [likelihood_ratios, rare_wins])
@pytest.mark.parametrize("bound", [10.0, 40.0])
def test_a_false_alarm_takes_at_least_bound_steps_on_average(draw_factors, bound):
    lengths = run_lengths(bound, draw_factors, 400, seed=1)
    assert lengths.mean() + 2 * lengths.std() / 20 >= bound


@pytest.mark.parametrize("num_rows", [1, 9])
def test_bets_that_neither_win_nor_lose_are_no_evidence_however_long_they_go_on(num_rows):
    evidence = Evidence(sums=[0.0, 0.0], bound=50.0)
    for _ in range(2_000):
        assert not evidence.add_all(np.ones((num_rows, 2)))
    assert 24.0 < evidence.level <= 25.0 + 1.0  # half the bound, and within a block up to a block's inflow more


@pytest.mark.parametrize("num_blocks", [5, 40])
def test_what_passing_time_takes_delays_an_alarm_by_a_known_factor(num_blocks):
    """S = sum of e^k kept^k over the blocks so far, in closed form."""
    bound, factor = 300.0, 1.1
    evidence = Evidence(sums=[0.0], bound=bound)
    for _ in range(num_blocks):
        evidence.add(np.array([factor]))
    grown = factor * bound / (bound + 2)
    assert evidence.level == pytest.approx(sum(grown**k for k in range(1, num_blocks + 1)))


def test_another_bound_keeps_what_was_gathered_as_a_share_of_the_bound():
    """A model joins and leaves again half-way: the same alarm on the same block as if it never had."""
    random = np.random.default_rng(5)
    kept, moved = (Evidence(sums=[0.0, 0.0], bound=100.0) for _ in range(2))
    for _ in range(6):
        factors = likelihood_ratios(random)
        kept.add(factors), moved.add(factors)
    moved.rebudget(300.0)
    assert moved.level / moved.bound == pytest.approx(kept.level / kept.bound)
    moved.rebudget(100.0)
    np.testing.assert_allclose(moved.sums, kept.sums)
    assert (moved.bound, moved.num_steps) == (100.0, 6)
    with pytest.raises(ValueError, match=r"must be > 0, got 0\.0"):
        moved.rebudget(0.0)


def test_evidence_whose_bound_changes_as_models_come_and_go_raises_no_more_alarms_than_what_flowed_in():
    """Mean alarms in 60 blocks against sum of 1 / bound over them, the bound changing with what was seen (known before)."""
    random, num_runs, num_alarms, allowed = np.random.default_rng(6), 3000, 0, 0.0
    for _ in range(num_runs):
        evidence = Evidence(sums=[0.0], bound=20.0)
        for _ in range(60):
            # the worst that may happen: the most flows in whenever there is evidence already
            evidence.rebudget(20.0 if evidence.level / evidence.bound > 0.2 else 60.0)
            allowed += 1 / evidence.bound
            if evidence.add(likelihood_ratios(random)[:1]):
                num_alarms += 1
                evidence.restart()
    assert 0 < num_alarms <= allowed


def test_the_sum_grows_by_one_a_step_on_average_when_nothing_is_wrong():
    random = np.random.default_rng(2)
    ends = []
    for _ in range(4000):
        evidence = Evidence(sums=[0.0, 0.0], bound=np.inf)  # no bound, so nothing is taken for passing time
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
def test_bets_that_never_win_are_worth_at_most_one_a_block_however_many_labels_it_has(num_rows):
    evidence = Evidence(sums=[0.0], bound=1e9)
    for _ in range(3):
        evidence.add_all(np.ones((num_rows, 1)))
    assert evidence.level == pytest.approx(3.0)


def test_a_bound_reached_within_a_block_is_an_alarm_though_the_block_ends_below_it():
    evidence = Evidence(sums=[0.0], bound=4.0)
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
