from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import DAY_MS, HARMS, NULLS, block_of, days_of, run_of

from clipdrift_monitor.risk.block import join
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.chain import log_factors
from clipdrift_monitor.risk.harm import TEST_NAMES, HarmConfig, HarmState, start, step
from clipdrift_monitor.risk.reference import Reference, reference_of
from clipdrift_monitor.risk.repairable import CHALLENGERS, paired

CONFIG = HarmConfig()
NUM_ROWS = 250
harms = {world.name: world for world in HARMS}


def fresh_state(seed=0, world=NULLS[0]):
    return start(reference_of(run_of(days_of(world, 15, NUM_ROWS, 15, np.random.default_rng(seed)))), Allotment())


def alarms(world, num_days, since, seed):
    """(day, test) of every alarm in one stream, with a reference that was validated in the same world before the harm."""
    state, random = fresh_state(1000 + seed, world), np.random.default_rng(seed)
    found = []
    for number, day in enumerate(days_of(world, num_days, NUM_ROWS, since, random)):
        found += [(number, one.test) for one in step(state, block_of(day, number), CONFIG) if one.is_alarm]
    return found


def blocks(num_days, world=NULLS[0], num_rows=NUM_ROWS, seed=3):
    days = days_of(world, num_days, num_rows, num_days, np.random.default_rng(seed))
    return [block_of(day, number) for number, day in enumerate(days)]


# --- the factors ---


def test_markov_factors_are_the_ratio_of_two_chains_likelihoods():
    errors, null, rho = np.array([0, 1, 1, 0, 0, 0, 1], np.uint8), 0.3, 0.25
    other = np.array([0.35, 0.5])

    def likelihood(p):
        found = p if errors[0] else 1 - p
        for last, now in pairwise(errors):
            chance = p + rho * (int(last) - p)
            found *= chance if now else 1 - chance
        return found

    factors_NK = np.exp(log_factors(errors, np.full(2, null), other, rho))
    assert factors_NK.shape == (7, 2)
    np.testing.assert_allclose(factors_NK.prod(axis=0), [likelihood(p) / likelihood(null) for p in other])


@pytest.mark.parametrize("rho", [0.0, 0.4])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_markov_factors_win_nothing_on_average_up_to_the_bound(rho, rate):
    """E[factor | last] <= 1 for every error rate up to the null, with the same lag: exactly, for both values of the last."""
    null, other = 0.3, np.array([0.35, 0.6])
    for last in (0, 1):
        chance = rate + rho * (last - rate)
        given_miss, given_error = (
            np.exp(log_factors(np.array([last, x], np.uint8), np.full(2, null), other, rho)[1]) for x in (0, 1)
        )
        assert ((1 - chance) * given_miss + chance * given_error <= 1 + 1e-12).all()


# --- the pair ---


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_paired_equals_the_rows_one_by_one_and_never_exceeds_its_bound(seed):
    random = np.random.default_rng(seed)
    score_B, rival_B = random.uniform(0, 1, 6), random.uniform(0, 1, 6)
    bin_N = random.integers(0, 6, 50)
    y_N = random.integers(0, 2, 50)
    model_N, other_N = (score_B[bin_N] - y_N) ** 2, (rival_B[bin_N] - y_N) ** 2
    labels_B, hits_B = np.bincount(bin_N, minlength=6).astype(float), np.bincount(bin_N, y_N, 6)
    gain, scale = paired(labels_B, hits_B, score_B, rival_B)
    assert gain == pytest.approx((model_N - other_N).mean())
    assert scale == pytest.approx(2 * np.abs(score_B - rival_B)[bin_N].mean())
    assert abs(gain) <= scale + 1e-12


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_pairs_bound_also_holds_for_values_scaled_into_0_to_1(seed):
    random = np.random.default_rng(seed)
    score_B, rival_B, bin_N = random.uniform(0, 1, 4), random.uniform(0, 1, 4), random.integers(0, 4, 30)
    y_N = random.uniform(0, 1, 30)
    gain, scale = paired(np.bincount(bin_N, minlength=4).astype(float), np.bincount(bin_N, y_N, 4), score_B, rival_B)
    assert gain == pytest.approx(((score_B[bin_N] - y_N) ** 2 - (rival_B[bin_N] - y_N) ** 2).mean())
    assert abs(gain) <= scale + 1e-12


def test_bins_cost_little_of_the_gain_of_single_rows():
    """The gain by bins against the gain row by row, for a twin with other log-odds."""
    (day,) = days_of(harms["event_more_common"], 1, 5000, 0, np.random.default_rng(1))
    block = block_of(day, 0)
    labels_B, hits_B, sums_B = (np.array(one) for one in (block.labels, block.hits, block.score_sum))
    score_B = np.divide(sums_B, labels_B, out=np.full(len(labels_B), 0.5), where=labels_B > 0)

    def twin(p):
        return 1 / (1 + np.exp(-(np.log(p / (1 - p)) + 1.0)))

    gain, _ = paired(labels_B, hits_B, score_B, twin(score_B))
    by_rows = ((day.p_N - day.y_N) ** 2 - (twin(day.p_N) - day.y_N) ** 2).mean()
    assert gain == pytest.approx(by_rows, rel=0.01)


# --- step ---


def test_a_block_too_small_is_joined_with_the_next():
    small, large = blocks(2, num_rows=30)
    state = fresh_state()
    assert step(state, small, CONFIG) == []
    assert state.history == []
    assert [one.test for one in step(state, large, CONFIG)] == list(TEST_NAMES)
    (kept,) = state.history
    assert kept == msgspec.structs.replace(join(small, large), errors=b"")
    assert (kept.start_ms, kept.end_ms, kept.num_labels) == (0, 2 * DAY_MS, 60)


def test_joined_blocks_equal_one_block_of_all_their_rows():
    first, second = blocks(2)
    joined = join(first, second)
    assert joined.errors == first.errors + second.errors
    for name in ("labels", "hits", "score_sum"):
        np.testing.assert_allclose(getattr(joined, name), np.add(getattr(first, name), getattr(second, name)))
    assert joined.brier_sum == first.brier_sum + second.brier_sum


def test_a_block_twice_is_ignored():
    once, twice = fresh_state(), fresh_state()
    for block in blocks(6):
        step(once, block, CONFIG)
        step(twice, block, CONFIG)
        assert step(twice, block, CONFIG) == []
    assert once == twice


def test_a_state_that_was_saved_and_read_goes_on_as_if_it_never_had_been():
    kept, saved = fresh_state(), fresh_state()
    for block in blocks(12, harms["classes_swapped"]):
        saved = msgspec.msgpack.decode(msgspec.msgpack.encode(saved), type=HarmState)
        assert step(kept, block, CONFIG) == step(saved, block, CONFIG)
    assert kept == saved


def test_a_challenger_is_fitted_before_the_block_that_it_is_scored_on():
    """The block's own labels may change what is said of it, and never what the rival foretold for it."""
    past, (today,) = blocks(5), blocks(6)[5:]
    gains = []
    for hits in (today.hits, (np.array(today.labels) - np.array(today.hits)).tolist()):
        state = fresh_state()
        for block in past:
            step(state, block, CONFIG)
        step(state, msgspec.structs.replace(today, hits=hits), CONFIG)
        gains.append(state.gains[-1])
    # gain = sum (s - q)(n (s + q) - 2 h) / n: linear in h with the rival q fixed, so both gains add up to a function of q alone
    state = fresh_state()
    for block in past:
        step(state, block, CONFIG)
    halfway = msgspec.structs.replace(today, hits=(np.array(today.labels) / 2).tolist())
    step(state, halfway, CONFIG)
    assert sum(gains) / 2 == pytest.approx(state.gains[-1], abs=1e-12)


def test_only_so_many_past_blocks_are_kept():
    state = fresh_state()
    config = HarmConfig(history_blocks=4)
    for block in blocks(9):
        step(state, block, config)
    assert [block.start_ms // DAY_MS for block in state.history] == [5, 6, 7, 8]
    assert len(state.gains) == 4


def test_without_a_usable_reference_the_absolute_tests_rest_and_the_paired_one_works():
    nothing = Reference(num_days=1, mean_loss_bound=1.0, day_error_bound=1.0, lag1=0.0)
    state, found = start(nothing, Allotment()), set()
    for number, day in enumerate(days_of(harms["classes_swapped"], 40, NUM_ROWS, 0, np.random.default_rng(1))):
        found |= {one.test for one in step(state, block_of(day, number), CONFIG) if one.is_alarm}
    assert found == {"repairable"}


def test_a_test_that_raised_an_alarm_begins_again():
    state = fresh_state()
    for number, day in enumerate(days_of(harms["classes_swapped"], 2, NUM_ROWS, 0, np.random.default_rng(2))):
        said = {one.test: one for one in step(state, block_of(day, number), CONFIG)}
        assert said["sudden_break"].is_alarm
        assert said["sudden_break"].level >= said["sudden_break"].bound
        assert state.sudden.level == 0.0


def test_a_bad_evening_within_a_day_that_validation_allows_is_no_break():
    """The evening alone is beyond the bound and its sum too; the whole day is not."""
    reference = Reference(num_days=15, mean_loss_bound=0.2, day_error_bound=0.3, lag1=0.0)
    (block,) = blocks(1, num_rows=400)
    evening = np.arange(400) >= 330
    state = start(reference, Allotment())
    said = step(state, msgspec.structs.replace(block, errors=evening.astype(np.uint8).tobytes()), CONFIG)[0]
    assert state.sudden.level > state.sudden.bound
    assert not said.is_alarm
    assert said.level < said.bound
    worse = np.arange(400) >= 270
    assert step(start(reference, Allotment()), msgspec.structs.replace(block, errors=worse.astype(np.uint8).tobytes()), CONFIG)[
        0
    ].is_alarm


def test_evidence_of_challengers_is_weighted_as_the_budget_says():
    weights = fresh_state().repairable.weights
    assert sum(weights) == pytest.approx(1.0)
    assert sum(weights[: len(weights) // 2]) == pytest.approx(CHALLENGERS["recalibrated"])


# --- what they are for; the figures of longer runs are those of bench/harm.py ---


@pytest.mark.parametrize("world", NULLS, ids=lambda world: world.name)
def test_a_healthy_model_is_accused_no_more_often_than_the_budget_allows(world):
    num_streams, num_days = 6, 120
    found = [alarm for seed in range(num_streams) for alarm in alarms(world, num_days, num_days, seed)]
    allowed = num_streams * num_days * (1 / 90 + 1 / 60)
    assert len(found) <= allowed
    assert not [day for day, test in found if test == "repairable"]


def test_a_deployment_that_swaps_classes_is_a_sudden_break_on_its_first_day():
    for seed in range(5):
        found = alarms(harms["classes_swapped"], 12, 10, seed)
        assert (10, "sudden_break") in found
        assert min(day for day, _ in found) == 10


def test_a_slow_decay_is_found_repairable():
    for seed in range(3):
        found = [day for day, test in alarms(harms["slow_decay"], 100, 10, seed) if test == "repairable"]
        assert found
        assert found[0] >= 20  # not before there is harm


@pytest.mark.parametrize("name", ["event_more_common", "too_sure"])
def test_a_miscalibration_is_found_repairable_where_accuracy_alone_says_little(name):
    for seed in range(3):
        tests = [test for _, test in alarms(harms[name], 130, 10, seed)]
        assert "repairable" in tests
        assert "sudden_break" not in tests


def test_harder_days_are_worse_than_validated_and_not_repairable():
    for seed in range(3):
        tests = {test for _, test in alarms(harms["harder_days"], 110, 10, seed)}
        assert "worse_than_validated" in tests
        assert "repairable" not in tests


def test_the_size_of_a_repair_is_what_it_would_bring():
    """The stated gain against the gain of knowing the truth: what the best possible repair of this harm would bring."""
    world, state = harms["event_more_common"], fresh_state()
    days = days_of(world, 40, NUM_ROWS, 0, np.random.default_rng(8))
    for number, day in enumerate(days):
        said = {one.test: one for one in step(state, block_of(day, number), CONFIG)}
    odds = [np.log(day.p_N / (1 - day.p_N)) + 1.0 for day in days[-28:]]
    perfect = np.mean(
        [((d.p_N - d.y_N) ** 2 - (1 / (1 + np.exp(-x)) - d.y_N) ** 2).mean() for d, x in zip(days[-28:], odds, strict=True)]
    )
    assert said["repairable"].effect_low < perfect < said["repairable"].effect_high
    assert said["repairable"].effect == pytest.approx(perfect, rel=0.25)


def test_the_size_of_a_repair_of_a_healthy_model_is_not_flattered():
    """Mean over streams of the stated gain: at most 0, as an honest model cannot be repaired."""
    gains = []
    for seed in range(8):
        state = fresh_state(seed)
        for block in blocks(20, seed=100 + seed):
            said = {one.test: one for one in step(state, block, CONFIG)}
        gains.append(said["repairable"].effect)
    assert np.mean(gains) <= 2 * np.std(gains) / np.sqrt(len(gains))
