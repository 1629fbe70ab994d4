"""What a measured figure means for a candidate: held against a bound, a figure with its interval passes, fails, or leaves it
open."""

import math
from typing import Literal

from clipdrift_contract.events import CheckVerdict, GateCheck
from clipdrift_trainer.evaluation.blocks import UNKNOWN, Interval

Role = Literal["decisive", "shown", "off"]
"""A check decides, is on trial (its figures are shown and change no verdict), or is not made."""
Proof = Literal["harm", "harmlessness"]
"""What stops a candidate: proven harm, or the lack of a proof that there is none (a test of non-inferiority)."""


def against_bound(found: Interval, bound: float, *, neutral: float, proof: Proof = "harm") -> CheckVerdict:
    """Whether a figure that should be low stays within `bound`.

    "fail" where the whole 95 % interval lies beyond the bound; "inconclusive" where a value or an end is not a number, or the
    interval is unknown. Between, it depends on what must be proven. Harm: "pass", unless the figure is surely worse than
    `neutral` and its value beyond the bound. Harmlessness: "pass" where the whole interval is within the bound.

    Args:
        found: The figure, higher is worse.
        bound: The most that is allowed.
        neutral: What the figure is where the candidate is as good as the model in service: 0 for a difference, 1 for a ratio;
            -inf where any value beyond the bound is a doubt, proven or not.
        proof: What must be proven.

    Source: non-inferiority by the end of a two-sided 95 % interval: CPMP/EWP/482/99 (2000), section V.

    Example:
        >>> [against_bound(Interval(v, v - .01, v + .01), 0.02, neutral=0.0) for v in (0.005, 0.015, 0.025, 0.04)]
        ['pass', 'pass', 'inconclusive', 'fail']
        >>> [against_bound(Interval(v, v - .01, v + .01), 0.02, neutral=0.0, proof="harmlessness") for v in (0.005, 0.015)]
        ['pass', 'inconclusive']
    """
    if not is_known(found) or not math.isfinite(bound):
        return "inconclusive"
    if found.low > bound:
        return "fail"
    if proof == "harmlessness":
        return "pass" if found.high <= bound else "inconclusive"
    return "inconclusive" if found.low > neutral and found.value > bound else "pass"


def is_known(found: Interval) -> bool:
    """Whether the figure and both ends say something: finite, in order, and no end that stands for "anything is possible"."""
    return all(math.isfinite(x) and abs(x) < UNKNOWN for x in found) and found.low <= found.value <= found.high


def checked(
    name: str, outcome: CheckVerdict, words: str, found: Interval | None, bound: float | None, unit: str, role: Role,
    *, slice_name: str = "", num_rows: int = 0, num_blocks: int = 0,
) -> GateCheck:  # fmt: skip
    """The check as an event holds it; a figure of which nothing is known is left out."""
    value, low, high = found if found is not None and is_known(found) else (None, None, None)
    return GateCheck(
        name=name, outcome=outcome, words=words, slice=slice_name, value=value, low=low, high=high, bound=bound, unit=unit,
        num_rows=num_rows, num_blocks=num_blocks, is_decisive=role == "decisive",
    )  # fmt: skip


def interval_words(found: Interval, digits: int = 4, sign: str = "+") -> str:
    """The figure with its interval.

    Example:
        >>> interval_words(Interval(0.1, -0.05, 0.25), 2)
        '+0.10 [-0.05, +0.25]'
    """
    return f"{found.value:{sign}.{digits}f} [{found.low:{sign}.{digits}f}, {found.high:{sign}.{digits}f}]"


def require_shares(owner: str, **given: float) -> None:
    """Raises ValueError for the first setting that is no number from 0 to 1."""
    for name, value in given.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{owner}.{name} must be in 0..1, got {value!r}")


def require_at_least(owner: str, least: float, **given: float) -> None:
    """Raises ValueError for the first setting that is below `least`, NaN or infinite."""
    for name, value in given.items():
        if not (value >= least and math.isfinite(value)):
            raise ValueError(f"{owner}.{name} must be a number >= {least:g}, got {value!r}")
