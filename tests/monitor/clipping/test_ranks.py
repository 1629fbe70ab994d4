"""False findings on series that have nothing to do with each other, and findings where something was planted."""

import numpy as np
import pytest
from scipy import stats

from clipdrift_monitor.clipping.ranks import holm, lagged_test, slice_test

LEVEL = 0.05
NOTHING = np.zeros((0, 40))


def _autoregressive(generator, num, weight):
    noise = generator.normal(size=num)
    for i in range(1, num):
        noise[i] += weight * noise[i - 1]
    return noise


WORLDS = {
    "trend": lambda g, n: 0.3 * np.arange(n) + g.normal(size=n),
    "random walk": lambda g, n: np.cumsum(g.normal(size=n)),
    "walk with a trend": lambda g, n: np.cumsum(0.3 + g.normal(size=n)),
    "growth that speeds up": lambda g, n: np.exp(0.05 * np.arange(n)) + 0.1 * g.normal(size=n),
    "clustered": lambda g, n: _autoregressive(g, n, 0.9),
    "a step": lambda g, n: 3.0 * (np.arange(n) > g.integers(n)) + g.normal(size=n),
}


def worlds(name, num_seeds, num=40):
    for seed in range(num_seeds):
        generator = np.random.default_rng((7, seed))
        rows = [WORLDS[name](generator, num) for _ in range(5)]
        yield np.stack(rows[:3]), np.stack(rows[3:])


def share_found(cases, **options):
    found = [lagged_test(*case, NOTHING, lags=(-1, 0, 1), level=LEVEL, num_permutations=199, **options) for case in cases]
    return np.mean([np.nanmin(one.p_value) <= LEVEL for one in found])


@pytest.mark.parametrize("name", WORLDS)
def test_independent_series_are_found_associated_no_more_often_than_the_level_allows(name):
    num_seeds = 100
    most = stats.binom.ppf(0.999, num_seeds, LEVEL) / num_seeds
    assert share_found(worlds(name, num_seeds)) <= most


@pytest.mark.parametrize("name", ["trend", "random walk", "walk with a trend", "growth that speeds up"])
def test_a_plain_rank_correlation_calls_the_same_series_associated_nearly_always(name):
    def is_found(figures, outcomes):
        pairs = [stats.spearmanr(figure, outcome).pvalue for figure in figures for outcome in outcomes]
        return min(pairs) * len(pairs) <= LEVEL  # corrected for the number of pairs

    assert np.mean([is_found(*case) for case in worlds(name, 50)]) > 0.6


@pytest.mark.parametrize("lag", [-1, 0, 1])
def test_a_planted_link_is_found_at_its_lag_through_trends_in_both(lag):
    num_found = 0
    for seed in range(30):
        generator = np.random.default_rng((8, seed))
        cause = np.cumsum(generator.normal(size=42)) + generator.normal(size=42)
        figure = cause[1:41]
        outcome = cause[1 + lag : 41 + lag] + 0.3 * generator.normal(size=40) + 0.2 * np.arange(40)
        found = lagged_test(figure[None], outcome[None], NOTHING, lags=(-1, 0, 1), level=LEVEL, num_permutations=199)
        num_found += found.p_value[0, 0, lag + 1] <= LEVEL and np.nanargmax(np.abs(found.correlation)) == lag + 1
    assert num_found >= 28


def test_what_a_held_series_explains_is_not_found():
    num_found = num_found_without = 0
    for seed in range(60):
        generator = np.random.default_rng((9, seed))
        held = np.cumsum(generator.normal(size=40))
        figure, outcome = (held + 0.3 * generator.normal(size=40) for _ in range(2))
        for rows in (held[None], NOTHING):
            found = lagged_test(figure[None], outcome[None], rows, lags=(0,), level=LEVEL, num_permutations=199)
            if len(rows):
                num_found += found.p_value[0, 0, 0] <= LEVEL
            else:
                num_found_without += found.p_value[0, 0, 0] <= LEVEL
    assert num_found <= stats.binom.ppf(0.999, 60, LEVEL)
    assert num_found_without >= 55


def panel(seed, *, num_slices=10, is_hard=False, strength=0.0):
    """Figures, outcomes and difficulty of slices over 6 versions; figures follow the difficulty, outcomes only if told to."""
    g = np.random.default_rng((10, seed))
    hard_S = g.normal(size=num_slices)
    own_S = g.normal(size=num_slices)
    held = (hard_S + 0.1 * g.normal(size=(6, num_slices)))[None]
    figures = (own_S + is_hard * hard_S + 0.3 * g.normal(size=(6, num_slices)))[None]
    outcomes = (is_hard * hard_S + strength * own_S + 0.5 * g.normal(size=num_slices) + 0.3 * g.normal(size=(6, num_slices)))[
        None
    ]
    return figures, outcomes, held


def share_of_panels(num_seeds, is_held=True, **how):
    found = []
    for seed in range(num_seeds):
        figures, outcomes, held = panel(seed, **how)
        found.append(slice_test(figures, outcomes, held if is_held else held[:0], level=LEVEL, num_permutations=199))
    return np.mean([one.p_value[0, 0, 0] <= LEVEL for one in found])


def test_a_slice_counts_once_however_many_versions_had_it():
    assert share_of_panels(100) <= stats.binom.ppf(0.999, 100, LEVEL) / 100


def test_hard_slices_that_are_clipped_more_and_decay_more_are_no_finding_while_difficulty_is_held():
    assert share_of_panels(100, is_hard=True) <= stats.binom.ppf(0.999, 100, LEVEL) / 100
    assert share_of_panels(50, is_held=False, is_hard=True, num_slices=20) > 0.5


def test_slices_that_decay_by_what_clipping_took_are_found():
    assert share_of_panels(40, is_hard=True, strength=2.0) > 0.75


def test_two_alike_are_found_and_the_lag_0_correlation_is_that_of_the_ranks_of_the_changes():
    walk = np.cumsum(np.random.default_rng(1).normal(size=40))
    found = lagged_test(walk[None], -(walk[None] ** 3), NOTHING, lags=(0,), level=LEVEL)
    assert found.correlation[0, 0, 0] < -0.7
    assert found.p_value[0, 0, 0] < 0.01  # the rotation by nothing is drawn now and then


def test_what_is_constant_too_short_or_mostly_missing_is_not_judged():
    walk = np.cumsum(np.random.default_rng(1).normal(size=40))
    holes = np.where(np.arange(40) % 2, walk, np.nan)
    for figure in (np.ones(40), np.full(40, np.nan), holes):
        found = lagged_test(figure[None], walk[None], NOTHING, lags=(0, 1), level=LEVEL)
        assert np.isnan(found.p_value).all()
        assert found.critical == 1.0
    assert np.isnan(lagged_test(walk[None, :7], walk[None, :7], NOTHING, lags=(0,), level=LEVEL).p_value).all()
    assert lagged_test(walk[None][:0], walk[None], NOTHING, lags=(0,), level=LEVEL).p_value.shape == (0, 1, 1)
    assert np.isnan(slice_test(np.ones((1, 3, 4)), np.ones((1, 3, 4)), np.zeros((0, 3, 4)), level=LEVEL).p_value).all()


def test_a_few_missing_values_do_not_hide_a_link():
    walk = np.cumsum(np.random.default_rng(3).normal(size=40))
    other = np.where(np.arange(40) % 9 == 4, np.nan, walk)
    assert lagged_test(other[None], walk[None], NOTHING, lags=(0,), level=LEVEL).p_value[0, 0, 0] <= LEVEL


def test_holm_is_that_of_the_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
