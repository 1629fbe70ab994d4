"""Failed requests and slow answers: a bet a period, against what the other side does in the same period."""

import math

import numpy as np
import pytest

from clipdrift_monitor.rollout.compared import Served, ServedBlock
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig
from clipdrift_monitor.rollout.serving import ServingMemory, step_serving, watched_of_serving

CONFIG = EvidenceConfig()
LEVEL = 0.1


def served(num_requests, num_failed=0, buckets=()):
    bucket, count = np.unique(np.asarray(buckets, dtype=int), return_counts=True)
    histogram = dict(zip(bucket.tolist(), count.tolist(), strict=True))
    return Served(num_answered=num_requests - num_failed, num_failed=num_failed, latency_histogram=histogram)


def block(candidate, champion):
    return ServedBlock(start_ms=0, end_ms=1, stage="canary 0.1", candidate=candidate, champion=champion)


def evidence(memory):
    return {one.watched: one.log_evidence for one in watched_of_serving(memory)}


def share_that_ever(num_streams, num_periods, candidate_and_champion):
    """Streams in which the evidence of failures, of latency, ever reaches what the level asks for."""
    found = {"failures": 0, "latency": 0}
    for seed in range(num_streams):
        random, memory, highest = np.random.default_rng(seed), ServingMemory(), dict.fromkeys(found, 0.0)
        for _ in range(num_periods):
            memory = step_serving(memory, block(*candidate_and_champion(random)), CONFIG)
            highest = {name: max(highest[name], value) for name, value in evidence(memory).items()}
        found = {name: found[name] + (highest[name] >= math.log(1 / LEVEL)) for name in found}
    return {name: number / num_streams for name, number in found.items()}


def in_the_same_outage(random):
    """Both sides alike: one period in five is an outage, and all answers of a period are slow together."""
    failed_share = 0.3 if random.random() < 0.2 else 0.002
    slow = random.normal(0, 6)
    sides = [(random.binomial(n, failed_share), random.normal(40 + slow, 4, n)) for n in (200, 1_800)]
    return tuple(served(len(times), failed, times[failed:]) for failed, times in sides)


def test_where_both_sides_fail_and_are_slow_alike_nothing_is_ever_found_beyond_the_level():
    found = share_that_ever(150, 60, in_the_same_outage)
    assert max(found.values()) <= LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / 150)


def test_an_outage_that_only_the_candidate_has_is_found_in_a_few_periods():
    memory, looks = ServingMemory(), []
    for _ in range(3):
        memory = step_serving(memory, block(served(500, 100), served(5_000, 5)), CONFIG)
        looks.append(evidence(memory)["failures"])
    assert looks[0] < looks[1] < looks[2]
    assert looks[2] > math.log(1 / 0.001)


def test_answers_that_take_four_times_as_long_are_found_and_half_as_long_again_are_allowed():
    random = np.random.default_rng(0)

    def after(shift):
        memory = ServingMemory()
        for _ in range(6):
            ours, theirs = random.normal(40 + shift, 4, 500), random.normal(40, 4, 5_000)
            memory = step_serving(memory, block(served(500, 0, ours), served(5_000, 0, theirs)), CONFIG)
        return memory

    slow, fine = after(8), after(2)  # four buckets an octave
    assert evidence(slow)["latency"] > math.log(1 / 0.001)
    assert evidence(fine)["latency"] <= 0
    assert watched_of_serving(slow)[1].estimate == pytest.approx(4.0, rel=0.2)


@pytest.mark.parametrize(
    ("candidate", "champion"), [(served(5_000, 5_000), served(0)), (served(0), served(5_000)), (served(0), served(0))]
)
def test_one_sided_or_no_traffic_is_no_evidence(candidate, champion):
    memory = ServingMemory()
    for _ in range(50):
        memory = step_serving(memory, block(candidate, champion), CONFIG)
    assert evidence(memory) == {"failures": pytest.approx(0.0), "latency": pytest.approx(0.0)}


def test_short_periods_are_joined_until_there_is_enough_of_both():
    memory = step_serving(ServingMemory(), block(served(60, 60), served(90)), CONFIG)
    assert evidence(memory)["failures"] == pytest.approx(0.0)
    memory = step_serving(memory, block(served(60, 60), served(90)), CONFIG)
    whole = step_serving(ServingMemory(), block(served(120, 120), served(180)), CONFIG)
    assert evidence(memory) == evidence(whole)
    assert evidence(whole)["failures"] > 3


def test_a_shadow_that_reports_no_latency_is_not_slow():
    memory = ServingMemory()
    for _ in range(20):
        memory = step_serving(memory, block(served(500), served(500, 0, [40] * 500)), CONFIG)
    assert evidence(memory)["latency"] == pytest.approx(0.0)
