import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import clustered_worlds as worlds

from clipdrift_trainer.evaluation.hidden import HiddenSlicePolicy, hidden_slices, slices_that_got_worse
from clipdrift_trainer.evaluation.intervals import score_intervals

DAY = 86_400_000
NAMES = tuple(f"s{index}" for index in range(12))


def mixed(generator, num_rows=3_000, num_days=12):
    """A world and slices that have nothing to do with its errors; rare ones are rare, and each day has a mix of its own."""
    world = worlds.binary(generator, num_rows, num_days, sharpness=1.2)
    share_DS = (1 / np.arange(1, 13) ** 1.2) * np.exp(generator.normal(size=(num_days, 12)))
    share_DS /= share_DS.sum(axis=1, keepdims=True)
    slice_N = (share_DS.cumsum(axis=1)[world[2] // DAY] < generator.random((num_rows, 1))).sum(axis=1).clip(0, 11)
    return world, slice_N


def spoilt(world, is_in_N):
    """The same world with a model that knows nothing of some rows."""
    scores, label, time_ms = world
    return np.where(is_in_N[:, None], 0.5, scores), label, time_ms


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_slices_without_harm_raise_an_alarm_in_at_most_one_run_of_twenty(margin):
    generator, alarms = np.random.default_rng(4), 0
    for _ in range(200):
        world, slice_N = mixed(generator)
        alarms += bool(hidden_slices(*world, slice_N, NAMES, "binary", policy=HiddenSlicePolicy(margin=margin)))
    assert alarms / 200 <= 0.05


def test_a_slice_that_the_model_knows_nothing_of_is_found_and_named():
    generator, found_in = np.random.default_rng(0), 0
    for _ in range(20):
        world, slice_N = mixed(generator, 6_000, 20)
        found = hidden_slices(*spoilt(world, slice_N == 5), slice_N, NAMES, "binary")
        found_in += [one.slice for one in found] == ["s5"]
    assert found_in >= 18


def test_words_say_how_much_worse_on_how_many_rows():
    world, slice_N = mixed(np.random.default_rng(0), 6_000, 20)
    (one,) = hidden_slices(*spoilt(world, slice_N == 3), slice_N, NAMES, "binary")
    assert one.value == pytest.approx(0.25)
    assert one.share_of_rows == pytest.approx((slice_N == 3).mean())
    assert one.difference_low < one.value - one.overall < one.difference_high
    share = f"{one.share_of_rows:.1%}".replace("%", " %")
    assert one.words.startswith(f"slice s3, {share} of the rows, is worse than the figure of all rows tells: Brier score 0.250")
    assert "accuracy" in one.words


def test_a_difference_below_the_margin_is_not_worth_a_warning():
    world, slice_N = mixed(np.random.default_rng(0), 20_000, 40)
    given = (*spoilt(world, slice_N == 3), slice_N, NAMES, "binary")
    assert hidden_slices(*given, policy=HiddenSlicePolicy(margin=0.0))
    assert not hidden_slices(*given, policy=HiddenSlicePolicy(margin=0.3))


def test_slices_of_few_rows_or_days_and_one_that_holds_all_rows_are_not_looked_at():
    world, _ = mixed(np.random.default_rng(0), 2_000, 12)
    is_few, is_one_day = np.arange(2_000) < 50, world[2] == 0
    for is_in_N in (is_few, is_one_day):
        assert not hidden_slices(*spoilt(world, is_in_N), is_in_N.astype(int), ("rest", "bad"), "binary")
    assert not hidden_slices(*world, np.zeros(2_000), ("all",), "binary")
    assert not hidden_slices(np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0), ("all",), "binary")


def test_regression_compares_squared_errors_in_units_of_the_labels_span():
    scores, label, time_ms = worlds.regression(np.random.default_rng(0), 4_000, 20)
    slice_N = np.arange(4_000) % 4 == 0
    found = hidden_slices(
        scores + 3 * slice_N[:, None], label, time_ms, slice_N, ("usual", "off"), "regression", label_span=10.0
    )
    assert [(one.slice, one.metric) for one in found] == [("off", "squared_error")]
    assert found[0].value == pytest.approx((((3 - label) / 10) ** 2)[slice_N].mean())


def figures(world, slice_N):
    return score_intervals(*world, slice_N, NAMES, "binary")


@pytest.mark.parametrize("metric", ["brier", "nll", "error"])
def test_a_slice_that_got_worse_than_the_model_in_service_is_named(metric):
    generator = np.random.default_rng(1)
    before, now = mixed(generator, 6_000, 20), mixed(generator, 6_000, 20)
    found = slices_that_got_worse(
        figures(spoilt(now[0], now[1] == 2), now[1]), figures(*before), policy=HiddenSlicePolicy(metric=metric)
    )
    assert [(one.slice, one.metric, one.against) for one in found] == [("s2", metric, "in_service")]
    assert "worse than the model in service was validated at" in found[0].words
    assert 0 < found[0].difference_low < found[0].value - found[0].overall < found[0].difference_high


def test_two_validations_of_one_model_raise_an_alarm_in_at_most_one_run_of_twenty():
    generator, alarms = np.random.default_rng(2), 0
    for _ in range(60):
        before, now = mixed(generator), mixed(generator)
        alarms += bool(slices_that_got_worse(figures(*now), figures(*before), policy=HiddenSlicePolicy(margin=0.0)))
    assert alarms / 60 <= 0.05


def test_what_is_not_known_of_the_model_in_service_is_not_judged():
    world, slice_N = mixed(np.random.default_rng(1))
    now = figures(spoilt(world, slice_N == 2), slice_N)
    assert slices_that_got_worse(now, ()) == ()
    other = [msgspec.structs.replace(one, slice=f"other {one.slice}") for one in figures(world, slice_N)]
    assert slices_that_got_worse(now, other) == ()


def test_for_regression_the_margin_is_a_share_of_what_it_was():
    generator = np.random.default_rng(0)
    slice_N = np.arange(4_000) % 2
    before, now = worlds.regression(generator, 4_000, 20), worlds.regression(generator, 4_000, 20)
    worse = (now[0] + 2 * slice_N[:, None], *now[1:])
    old, new = (score_intervals(*world, slice_N, ("a", "b"), "regression") for world in (before, worse))
    assert [(one.slice, one.metric) for one in slices_that_got_worse(new, old)] == [("b", "rmse")]
    assert slices_that_got_worse(new, old, policy=HiddenSlicePolicy(margin=3.0)) == ()


@pytest.mark.parametrize(
    ("wrong", "words"), [({"metric": "auc"}, "brier, nll or error"), ({"margin": -1}, "margin"), ({"min_days": 1}, "min_days")]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        HiddenSlicePolicy(**wrong)
