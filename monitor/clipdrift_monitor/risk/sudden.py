"""Is something broken? Label by label against the worst day that validation allows."""

from typing import NamedTuple

import numpy as np

from clipdrift_monitor.risk.block import Block
from clipdrift_monitor.risk.chain import log_factors
from clipdrift_monitor.risk.evidence import Evidence
from clipdrift_monitor.risk.reference import Reference

_EXCESSES = (0.05, 0.1, 0.2, 0.3, 0.5)  # how far above the bound a break may put the error rate
NUM_ALTERNATIVES = len(_EXCESSES)
_HIGHEST = 0.97
_NO_ALARM = 0.9  # power of the bound: what a sum that raised no alarm is shown as, at most


class SuddenStep(NamedTuple):
    """What a block did."""

    is_alarm: bool
    level: float
    rate: float  # of errors in the block; labels that are still to come count as right


def step_sudden(evidence: Evidence, reference: Reference, block: Block) -> SuddenStep:
    """First-order Markov likelihood ratio, label by label: P(error | last) = p + rho (last - p) under both hypotheses.

    A block counts as one step of time however many labels it has, so the budget holds in blocks at any traffic. After an alarm
    the evidence begins again.

    Source: the ratio of Markov chains with equal lag-1 correlation; null p is the error rate that one block in `bound` exceeds.
    """
    error_N = np.frombuffer(block.errors, np.uint8)
    worst = reference.worst_day(evidence.bound)
    null = np.full(NUM_ALTERNATIVES, worst)
    share_come = block.num_labels / (block.num_labels + block.num_missing)
    rate = float(error_N.mean()) * share_come if len(error_N) else 0.0
    is_alarm = False
    # a block whose missing labels could bring it back below the bound says nothing yet
    if reference.is_usable and len(error_N) and (not block.num_missing or rate > worst):
        other = np.minimum(null + np.asarray(_EXCESSES), _HIGHEST)
        is_alarm = bool((evidence.add_logs(log_factors(error_N, null, other, reference.lag1)) >= evidence.bound).any())
    level, bound = evidence.level, evidence.bound
    # a bad evening within a day that validation allows is no break: fewer alarms than the sum alone would raise
    is_alarm = is_alarm and rate > worst
    if is_alarm:
        evidence.restart()
    return SuddenStep(is_alarm, max(level, bound) if is_alarm else min(level, bound**_NO_ALARM), rate)
