"""The forecast of labels until an alarm against simulated streams, and against the Markov chains that it is computed from."""

import math

import numpy as np
import pytest
from detector_worlds.detectors import BLOCKS_PER_FALSE_ALARM, block_for, reference_for
from detector_worlds.streams import BLOCK, CHANGE_AT, NULLS, RATE, World, streams_of

from clipdrift_monitor.risk.chain import ErrorRate, hypotheses, log_factors
from clipdrift_monitor.risk.detectability import chain_growth, labels_until_seen
from clipdrift_monitor.risk.reference import Reference
from clipdrift_monitor.risk.worse import start_worse, step_worse

NUM_STREAMS = 100
NOTHING = Reference(num_days=1, mean_loss_bound=1.0, day_error_bound=1.0, lag1=0.0)


def waits_and_forecasts(world, seed):
    """Labels from a rise of 5 points to the alarm, and the forecast, in each stream, with a validation of its own."""
    streams, waits, foretold = streams_of(world, NUM_STREAMS, seed), [], []
    for validated_N, harmed_N in zip(streams.validated_RN, streams.harmed_RN, strict=True):
        memory, wait = start_worse(reference_for(validated_N), BLOCKS_PER_FALSE_ALARM), math.inf
        for first in range(0, len(harmed_N), BLOCK):
            if first == CHANGE_AT:
                foretold.append(labels_until_seen(memory, 0.05, BLOCK).num_labels)
            done = step_worse(memory, block_for(harmed_N[first : first + BLOCK], first), 0.0)
            if done.is_alarm and first >= CHANGE_AT:
                wait = first + done.at_label - CHANGE_AT
                break
        waits.append(wait)
    return np.array(waits), np.array(foretold)


@pytest.mark.parametrize("world", NULLS[:3], ids=lambda world: world.name)
def test_about_seven_of_ten_harms_are_seen_within_the_forecast_and_it_is_not_idle(world):
    wait_R, foretold_R = waits_and_forecasts(world, seed=71)
    assert 0.55 <= (wait_R <= foretold_R).mean() <= 0.88
    assert np.median(foretold_R) < 2 * np.median(wait_R)


def test_growth_is_the_mean_log_ratio_of_a_long_simulated_chain():
    validated, rise = ErrorRate(rate=RATE, num_labels=5_000.0, lag1=0.3, num_blocks=10), 0.05
    random, rate, last = np.random.default_rng(3), RATE + rise, 0
    draw_N, error_N = random.random(200_000), np.empty(200_000, np.uint8)
    for i, draw in enumerate(draw_N.tolist()):
        error_N[i] = last = int(draw < rate + 0.3 * (last - rate))
    null_K, other_K = hypotheses(validated, 1.0)
    logs_NK = log_factors(error_N, null_K, other_K, 0.3)
    error_of_mean = 3 * logs_NK.std(axis=0) * math.sqrt(1.3 / 0.7 / len(error_N)) + 1e-5
    assert (np.abs(chain_growth(validated, 1.0, rise) - logs_NK.mean(axis=0)) < error_of_mean).all()


def test_a_larger_rise_and_a_looser_bound_are_seen_sooner():
    reference = reference_for(streams_of(World("independent"), 1, 5).validated_RN[0])
    strict, loose = (start_worse(reference, bound) for bound in (4_000.0, 40.0))
    by_rise = [labels_until_seen(strict, rise, BLOCK).num_labels for rise in (0.03, 0.05, 0.1, 0.3)]
    assert by_rise == sorted(by_rise, reverse=True)
    assert len(set(by_rise)) == len(by_rise)
    assert labels_until_seen(loose, 0.05, BLOCK).num_labels < labels_until_seen(strict, 0.05, BLOCK).num_labels


def test_what_validation_cannot_tell_from_chance_is_never_seen():
    short = reference_for(streams_of(World("independent"), 1, 5).validated_RN[0][: 3 * BLOCK])
    assert math.isinf(labels_until_seen(start_worse(short, 400.0), 0.001, BLOCK).num_labels)
    unknown = labels_until_seen(start_worse(NOTHING, 400.0), 0.3, BLOCK)
    assert math.isinf(unknown.num_labels)
    assert "would not be seen" in unknown.words


@pytest.mark.parametrize("wrong", [(0.0, 500.0), (-0.1, 500.0), (0.05, 0.0), (math.nan, 500.0)])
def test_no_rise_or_no_traffic_is_refused(wrong):
    with pytest.raises(ValueError, match="must be > 0, got"):
        labels_until_seen(start_worse(NOTHING, 400.0), *wrong)
