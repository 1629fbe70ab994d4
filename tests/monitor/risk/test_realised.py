import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from clipdrift_monitor.risk.realised import REPLAY_DAYS, Rehearsal, ordered_errors, poisson_upper, stretches

FIRE_ON_BAD = lambda: lambda day, _: ["page"] if day else []  # noqa: E731 (a test that has no memory)


def rehearsed(days, begin=FIRE_ON_BAD, num_replays=80, **how):
    rehearsal = Rehearsal(days, begin, **how)
    for _ in range(num_replays):
        rehearsal.replay()
    return rehearsal


# --- what is drawn ---


@given(st.integers(1, 60), st.integers(0, 120), st.floats(1.0, 50.0), st.integers(0, 2**32 - 1))
def test_days_are_drawn_from_the_history_and_each_is_followed_by_its_neighbour_or_a_new_stretch(n, k, mean, seed):
    drawn = stretches(n, k, mean, np.random.default_rng(seed))
    assert drawn.shape == (k,)
    assert ((drawn >= 0) & (drawn < n)).all()


def test_stretches_are_as_long_as_asked_for_and_every_day_is_as_likely():
    drawn = stretches(1000, 200_000, 7.0, np.random.default_rng(2))
    num_breaks = (np.diff(drawn) % 1000 != 1).sum()
    assert 200_000 / num_breaks == pytest.approx(7.0, rel=0.02)
    assert stats.chisquare(np.bincount(drawn % 10, minlength=10) / 7.0).pvalue > 1e-3  # neighbours come 7 at a time


def test_a_stretch_below_a_day_and_an_empty_history_are_refused():
    for wrong in ((0, 5, 7.0), (5, 5, 0.5), (5, 5, float("nan"))):
        with pytest.raises(ValueError, match="at least 1"):
            stretches(*wrong, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 10 days, got 9"):
        Rehearsal([0] * 9, FIRE_ON_BAD)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_the_upper_bound_of_a_count_is_garwoods(count):
    assert poisson_upper(count) == pytest.approx(stats.chi2.ppf(0.975, 2 * (count + 1)) / 2, rel=0.01)


@pytest.mark.parametrize("lag1", [0.0, 0.25])
def test_errors_whose_order_was_not_kept_hang_together_as_validated(lag1):
    errors = ordered_errors(60_000, 6_000, lag1, np.random.default_rng(3)).astype(float)
    assert errors.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 60_000 * (1 + lag1) / (1 - lag1)))
    assert np.corrcoef(errors[1:], errors[:-1])[0, 1] == pytest.approx(lag1, abs=0.02)


def test_a_day_without_labels_or_without_errors_has_none():
    assert len(ordered_errors(0, 0, 0.2, np.random.default_rng(0))) == 0
    assert not ordered_errors(50, 0, 0.9, np.random.default_rng(0)).any()
    assert ordered_errors(50, 50, 0.9, np.random.default_rng(0)).all()
    with pytest.raises(ValueError, match="cannot be 3 errors among 2 labels"):
        ordered_errors(2, 3, 0.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="lag1"):
        ordered_errors(2, 1, 1.0, np.random.default_rng(0))


# --- what is said ---


def test_the_realised_rate_is_that_of_the_days_for_tests_without_a_memory():
    days = [False] * 27 + [True]
    found = rehearsed(days, num_replays=160).realised("page", 1.0)
    assert found.mean == pytest.approx(REPLAY_DAYS / 28, rel=0.25)
    assert found.low <= REPLAY_DAYS / 28 <= found.high
    assert (found.num_days, found.num_replays, found.promised) == (28, 160, 1.0)


def test_the_interval_covers_the_rate_of_the_world_that_the_history_came_from():
    """Histories of 60 days from a world in which 5 % of days raise an alarm: 90 * .05 a replay; nominal 95 %."""
    random, num_covered, num_worlds = np.random.default_rng(4), 0, 60
    for _ in range(num_worlds):
        found = rehearsed((random.random(60) < 0.05).tolist(), mean_stretch=1.0).realised("page", 1.0)
        num_covered += found.low <= 4.5 <= found.high
    assert num_covered / num_worlds >= 0.85


def test_bad_days_in_a_row_stay_in_a_row():
    """A test that needs three bad days in a row finds them in the replays as often as weeks are kept whole."""

    def begin():
        run = [0]

        def step(day, _):
            run[0] = run[0] + 1 if day else 0
            return ["ticket"] if run[0] == 3 else []

        return step

    days = [False] * 25 + [True] * 3
    kept, torn = (rehearsed(days, begin, mean_stretch=mean).realised("ticket", 1.0).mean for mean in (14.0, 1.0))
    assert kept > 10 * torn


def test_tests_begin_anew_in_every_replay_and_are_told_which_day_of_it_it_is():
    seen = []

    def begin():
        numbers = []
        seen.append(numbers)
        return lambda _, at: numbers.append(at) or []

    rehearsed([0] * 10, begin, num_replays=3)
    assert seen == [list(range(REPLAY_DAYS))] * 3


def test_nothing_is_said_before_twenty_replays_are_through_and_silence_has_an_upper_bound():
    rehearsal = rehearsed([False] * 20, num_replays=19)
    assert rehearsal.realised("page", 1.0) is None
    rehearsal.replay()
    found = rehearsal.realised("page", 1.0)
    assert (found.mean, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(3.69 / 20, rel=0.01)


def test_the_same_seed_gives_the_same_replays():
    days = [False] * 20 + [True] * 2
    assert rehearsed(days, num_replays=24).realised("page", 1.0) == rehearsed(days, num_replays=24).realised("page", 1.0)
    assert rehearsed(days, seed=1, num_replays=24).realised("page", 1.0) != rehearsed(days, num_replays=24).realised(
        "page", 1.0
    )


def test_a_rehearsal_that_is_taken_up_again_goes_on_as_if_it_had_never_rested():
    def begun(counts=()):
        return Rehearsal([0.1] * 19 + [0.9], lambda: lambda day, _: ["page"] if day > 0.5 else [], counts=counts)

    whole, first = begun(), begun()
    for _ in range(12):
        whole.replay()
    for _ in range(7):
        first.replay()
    second = begun(first.counts)
    for _ in range(5):
        second.replay()
    assert second.counts == whole.counts
    assert sum(one.get("page", 0) for one in whole.counts) > 12
