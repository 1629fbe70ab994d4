"""The monitor's test and river's detectors behind one function: at which label comes the first alarm?

A peer has one number that makes it stricter. It has read the same validated labels before production begins, so that it knows
as much as the monitor's test; alarms that it raises there do not count.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
from river import drift
from worlds import DAY_MS, Day, run_of

from clipdrift_monitor.risk.block import Block
from clipdrift_monitor.risk.reference import Reference, reference_of
from clipdrift_monitor.risk.worse import start_worse, step_worse
from clipdrift_trainer.evaluation.clustering import cluster_errors
from detector_worlds.streams import BLOCK, Errors

BLOCKS_PER_FALSE_ALARM = 400.0  # so 10,000 labels, 20 blocks, may bring a false alarm with probability 0.05
_SAYS = 0.1  # probability of class 1 that the model says of every row: an error is a label of 1
FindAlarm = Callable[[Errors, Errors], int]  # validated labels, production -> index of the label at the first alarm, -1: none
_RUN = run_of([Day(np.full(20, _SAYS), np.zeros(20, int))] * 3)


class Peer(NamedTuple):
    """A detector of river with the one number that decides how strict it is."""

    name: str
    make: Callable[[float], Any]  # strictness -> detector
    default: float
    loosest: float
    strictest: float


PEERS = (
    Peer("ADWIN", lambda s: drift.ADWIN(delta=10.0**-s), -float(np.log10(0.002)), 0.1, 20.0),
    Peer("Page-Hinkley", lambda s: drift.PageHinkley(threshold=10.0**s, mode="up"), float(np.log10(50.0)), 0.7, 3.2),
    Peer("HDDM_A", lambda s: drift.binary.HDDMA(drift_confidence=10.0**-s), 3.0, 0.3, 40.0),
    Peer("HDDM_W", lambda s: drift.binary.HDDMW(drift_confidence=10.0**-s), 3.0, 0.3, 40.0),
    Peer("DDM", lambda s: drift.binary.DDM(drift_threshold=s), 3.0, 2.0, 40.0),
)


def reference_for(validated_N: Errors) -> Reference:
    """What the monitor knows of a model with these validation errors, 500 a day, through the trainer's own summary."""
    number = np.arange(len(validated_N))
    time_ms = number // BLOCK * DAY_MS + number % BLOCK * (DAY_MS // BLOCK)
    scores_NK = np.tile([1 - _SAYS, _SAYS], (len(validated_N), 1))
    clustering = cluster_errors(scores_NK, validated_N.astype(float), time_ms, np.zeros(len(number), int), ())
    return reference_of(msgspec.structs.replace(_RUN, clustering=clustering))


def block_for(error_N: Errors, start_ms: int) -> Block:
    """A day of production labels."""
    num_labels, num_errors = float(len(error_N)), float(error_N.sum())
    num_right = num_labels - num_errors
    return Block(
        start_ms=start_ms, end_ms=start_ms + DAY_MS, num_labels=num_labels, num_errors=num_errors, labels=(), hits=(),
        score_sum=(), errors=error_N.tobytes(), brier_sum=num_right * _SAYS**2 + num_errors * (1 - _SAYS) ** 2,
        log_loss_sum=-num_right * np.log(1 - _SAYS) - num_errors * np.log(_SAYS),
    )  # fmt: skip


def monitor_alarm(validated_N: Errors, error_N: Errors) -> int:
    """The monitor's `worse_than_validated`, as the monitor runs it."""
    memory = start_worse(reference_for(validated_N), BLOCKS_PER_FALSE_ALARM)
    for first in range(0, len(error_N), BLOCK):
        done = step_worse(memory, block_for(error_N[first : first + BLOCK], first), 0.0)
        if done.is_alarm:
            return first + done.at_label - 1
    return -1


def peer_alarm(peer: Peer, strictness: float) -> FindAlarm:
    """A peer with its number set."""

    def find(validated_N: Errors, error_N: Errors) -> int:
        detector = peer.make(strictness)
        for value in validated_N.astype(bool).tolist():
            detector.update(value)
        for index, value in enumerate(error_N.astype(bool).tolist()):
            detector.update(value)
            if detector.drift_detected:
                return index
        return -1

    return find


def updates_per_second(error_N: Errors) -> dict[str, float]:
    """Labels of one stream that each takes in a second, the best of three turns, interleaved."""
    reference = reference_for(error_N[:5_000])
    blocks = [block_for(error_N[first : first + BLOCK], first) for first in range(0, len(error_N), BLOCK)]
    values = error_N.astype(bool).tolist()
    found: dict[str, float] = {}
    for _ in range(3):
        began = time.perf_counter()
        memory = start_worse(reference, 1e12)
        for block in blocks:
            step_worse(memory, block, 0.0)
        rates = {"monitor": len(error_N) / (time.perf_counter() - began)}
        for peer in PEERS:
            detector = peer.make(peer.strictest)
            began = time.perf_counter()
            for value in values:
                detector.update(value)
            rates[peer.name] = len(values) / (time.perf_counter() - began)
        found = {name: max(rate, found.get(name, 0.0)) for name, rate in rates.items()}
    return found
