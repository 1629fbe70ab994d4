"""Does the candidate fail more requests, or answer more slowly, than the model in service in the same period? Period by period.

Each period is one bet: the share y of the candidate's requests that failed (or were slow) against a share q that is still fine,
e = 1 + stake (y / q - 1), stakes up to 0.95. While the expected share is no higher than q, however requests hang together
within the period, e is at most 1 on average, and so is the product over periods (Waudby-Smith, Ramdas, arXiv 2010.09686). q
comes from the other side in the same period, so an outage that meets both is no evidence.

Failures: q = (champion's failures + 1) / (its requests + 2) + what is allowed. Latency: slow is an answer beyond
`latency_ratio` times the bucket that holds the champion's 95th percentile; q = 0.05 + 1 / (its answers + 2).
"""

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from clipdrift_monitor.rollout.compared import Served, ServedBlock
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig
from clipdrift_monitor.rollout.finding import Shown
from clipdrift_monitor.windows.window import Floats

_STAKES = np.array([0.1, 0.3, 0.6, 0.95])
_SLOW_SHARE = 0.05
_BUCKETS_PER_OCTAVE = 4
_LARGEST_LOG = 300.0


class ServingMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Bets by stake, as logarithms of the product so far, and what waits to be a period."""

    log_failures: tuple[float, ...] = (0.0,) * len(_STAKES)
    log_slow: tuple[float, ...] = (0.0,) * len(_STAKES)
    candidate: Served = Served()
    """Requests of periods that were too short to bet on yet."""
    champion: Served = Served()
    candidate_total: Served = Served()
    """Since the rollout began."""
    champion_total: Served = Served()


class WatchedServing(NamedTuple):
    """One of the two things that are watched without labels."""

    watched: Literal["failures", "latency"]
    log_evidence: float
    estimate: float
    num_requests: int

    def shown(self, harm_level: float) -> Shown:
        return Shown(
            watched=self.watched,
            estimate=self.estimate,
            num_labels=self.num_requests,
            harm_level=min(1.0, max(0.0, float(harm_level))),
        )


def watched_of_serving(memory: ServingMemory) -> tuple[WatchedServing, ...]:
    """The evidence so far that the candidate fails more requests, and that it is slow; estimates since the rollout began."""
    ours, theirs = memory.candidate_total, memory.champion_total
    more_failed = ours.num_failed / max(1, ours.num_requests) - theirs.num_failed / max(1, theirs.num_requests)
    ours_slowest = quantile_bucket(ours.latency_histogram, 1 - _SLOW_SHARE)
    theirs_slowest = quantile_bucket(theirs.latency_histogram, 1 - _SLOW_SHARE)
    ratio = 1.0
    if ours_slowest is not None and theirs_slowest is not None:
        ratio = 2.0 ** ((ours_slowest - theirs_slowest) / _BUCKETS_PER_OCTAVE)
    return (
        WatchedServing("failures", _log_mean(memory.log_failures), more_failed, ours.num_requests),
        WatchedServing("latency", _log_mean(memory.log_slow), ratio, sum(ours.latency_histogram.values())),
    )


def step_serving(memory: ServingMemory, block: ServedBlock, config: EvidenceConfig) -> ServingMemory:
    """One more period; it is joined with the next while either side has fewer requests than `min_served`.

    Example:
        >>> fine, down = Served(num_answered=1000), Served(num_failed=100)
        >>> block = ServedBlock(start_ms=0, end_ms=1, stage="canary 0.1", candidate=down, champion=fine)
        >>> failures, _ = watched_of_serving(step_serving(ServingMemory(), block, EvidenceConfig()))
        >>> round(math.exp(failures.log_evidence))
        45
    """
    candidate, champion = added(memory.candidate, block.candidate), added(memory.champion, block.champion)
    memory = msgspec.structs.replace(
        memory,
        candidate=candidate,
        champion=champion,
        candidate_total=added(memory.candidate_total, block.candidate),
        champion_total=added(memory.champion_total, block.champion),
    )
    if min(candidate.num_requests, champion.num_requests) < config.min_served:
        return memory
    fine = (champion.num_failed + 1) / (champion.num_requests + 2) + config.allowed_failures
    failures = _bets(candidate.num_failed / candidate.num_requests, fine)
    slow = _slow_bets(candidate, champion, config)
    return msgspec.structs.replace(
        memory,
        log_failures=_raised(memory.log_failures, failures),
        log_slow=_raised(memory.log_slow, slow),
        candidate=Served(),
        champion=Served(),
    )


def added(first: Served, second: Served) -> Served:
    """The requests of both."""
    buckets = first.latency_histogram.keys() | second.latency_histogram.keys()
    return Served(
        num_answered=first.num_answered + second.num_answered,
        num_failed=first.num_failed + second.num_failed,
        latency_histogram={
            one: first.latency_histogram.get(one, 0) + second.latency_histogram.get(one, 0) for one in sorted(buckets)
        },
    )


def quantile_bucket(histogram: dict[int, int], share: float) -> int | None:
    """The lowest bucket up to which at least `share` of all answers lie; None without answers.

    Example:
        >>> quantile_bucket({10: 94, 20: 1, 30: 5}, 0.95)
        20
    """
    total, below = sum(histogram.values()), 0
    for bucket in sorted(histogram):
        below += histogram[bucket]
        if total and below >= share * total:
            return bucket
    return None


def seconds_of(bucket: int) -> float:
    """The upper edge of a bucket.

    Example:
        >>> round(seconds_of(39), 6)  # 2**10 microseconds
        0.001024
    """
    return float(2.0 ** ((bucket + 1) / _BUCKETS_PER_OCTAVE)) / 1e6


def _slow_bets(candidate: Served, champion: Served, config: EvidenceConfig) -> Floats:
    bucket = quantile_bucket(champion.latency_histogram, 1 - _SLOW_SHARE)
    num_timed = sum(candidate.latency_histogram.values())
    if bucket is None or not num_timed:
        return np.ones(len(_STAKES))
    last_fine = bucket + math.ceil(_BUCKETS_PER_OCTAVE * math.log2(config.latency_ratio) - 1e-9)
    num_slow = sum(count for one, count in candidate.latency_histogram.items() if one > last_fine)
    return _bets(num_slow / num_timed, _SLOW_SHARE + 1 / (sum(champion.latency_histogram.values()) + 2))


def _bets(share: float, fine: float) -> Floats:
    found: Floats = 1.0 + _STAKES * (share / min(1.0, fine) - 1.0)
    return found


def _raised(logs: tuple[float, ...], factors: Floats) -> tuple[float, ...]:
    return tuple(np.minimum(np.asarray(logs) + np.log(factors), _LARGEST_LOG).tolist())


def _log_mean(logs: tuple[float, ...]) -> float:
    largest = max(logs)
    return largest + math.log(sum(math.exp(one - largest) for one in logs) / len(logs))
