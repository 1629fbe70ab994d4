"""After about how many labels would a harm be seen? Said of all rows and of slices, so that silence is not read as health.

Axes: K alternatives.
"""

import math
from typing import NamedTuple

import numpy as np

from clipdrift_monitor.risk.chain import ErrorRate, hypotheses, log_ratios
from clipdrift_monitor.risk.reference import Reference
from clipdrift_monitor.risk.worse import CHAIN_SHARE, LARGEST_STAKE, LOSS_SHARES, STAKES, WorseMemory, losses_with_bound
from clipdrift_monitor.windows.window import Floats


class Detectability(NamedTuple):
    """What it takes to see a rise of the error rate."""

    rise: float
    num_labels: float  # infinite: the bound of validation lies above it, so it is never seen

    @property
    def words(self) -> str:
        """A sentence for the page.

        Example:
            >>> Detectability(0.05, 640.0).words
            '5 points more errors would be seen within about 640 labels.'
            >>> Detectability(0.02, math.inf).words
            '2 points more errors would not be seen: validation is too short to tell them from chance.'
        """
        points = f"{100 * self.rise:g} points more errors would"
        if not math.isfinite(self.num_labels):
            return f"{points} not be seen: validation is too short to tell them from chance."
        return f"{points} be seen within about {two_digits(self.num_labels)} labels."


def two_digits(value: float) -> str:
    """A number as precisely as a forecast is worth.

    Example:
        >>> two_digits(1234.5), two_digits(7.0), two_digits(0.0647)
        ('1,200', '7', '0.065')
    """
    if abs(value) < 1:
        return f"{value:.2g}"
    return f"{round(value, -max(0, len(f'{value:.0f}') - 2)):,.0f}"


def labels_until_seen(memory: WorseMemory, rise: float, labels_per_block: float) -> Detectability:
    """Labels that `worse_than_validated` needs for a lasting rise of the error rate.

    A first-order forecast: the sum of the alternative that grows fastest, by g a label, is e^(g N) / g times its inflow; the
    alarm comes when that is at the bound. Chance makes it sooner or later: with a rise from .10 to .15, 68 to 78 % of 200
    simulated streams alarmed within it (lag-1 correlation 0, .1, .3; bounds of 400 and 2,000 blocks), half of them within
    .64 to .79 of it. tests/monitor/risk/test_detectability.py simulates it.

    Args:
        memory: Of the test, with its bound.
        rise: Error rate above the validated one, > 0.
        labels_per_block: Of production, > 0.

    Raises:
        ValueError: A rise or a traffic that is not above 0.

    Source: renewal approximation of the Shiryaev-Roberts delay, N = log(bound g / inflow) / g (Pollak 1987), without overshoot.
    """
    if not rise > 0 or not labels_per_block > 0:
        raise ValueError(f"rise and labels_per_block must be > 0, got {rise!r} and {labels_per_block!r}")
    reference = memory.reference
    if not reference.is_usable or reference.error_rate is None:
        return Detectability(rise, math.inf)
    waits = [_by_bets(memory, reference, rise, labels_per_block)]
    if memory.chain is not None and memory.spread is not None:
        growth_K = chain_growth(reference.error_rate, memory.spread.proven, rise)
        share = CHAIN_SHARE / len(growth_K) / labels_per_block
        waits += [_wait(growth, memory.worse.bound / share) for growth in growth_K.tolist()]
    return Detectability(rise, min(waits))


def chain_growth(validated: ErrorRate, proven: float, rise: float) -> Floats:
    """Growth of the log evidence a label [K] when the error rate has risen; below 0 where the bound is not reached."""
    null_K, other_K = hypotheses(validated, proven)
    rate, rho = min(0.97, validated.rate + rise), validated.lag1
    growth_K = np.zeros(len(null_K))
    for last, weight in ((0, 1 - rate), (1, rate)):
        chance = rate + rho * (last - rate)
        growth_K += weight * (np.array([1 - chance, chance]) @ log_ratios(null_K, other_K, rho, last))
    found: Floats = growth_K / proven
    return found


def _by_bets(memory: WorseMemory, reference: Reference, rise: float, labels_per_block: float) -> float:
    """Bets on the error rate of blocks: the other losses are not known beforehand."""
    names = losses_with_bound(reference)
    if "error" not in names or reference.error_rate is None:
        return math.inf
    null, rate = reference.mean_error_bound, min(0.97, reference.error_rate.rate + rise)
    share = LOSS_SHARES["error"] / sum(LOSS_SHARES[name] for name in names) / len(STAKES)
    share *= 1.0 if memory.chain is None else 1 - CHAIN_SHARE
    growths = [math.log1p(stake * LARGEST_STAKE * (rate / null - 1)) for stake in STAKES if rate > null]
    return min((_wait(growth, memory.worse.bound / share) for growth in growths), default=math.inf) * labels_per_block


def _wait(growth: float, bound: float) -> float:
    """Steps until e^(g N) / g is at the bound."""
    return max(1.0, math.log(max(math.e, bound * growth)) / growth) if growth > 0 else math.inf
