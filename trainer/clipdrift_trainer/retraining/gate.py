"""The gate: may the candidate take the place of the model in service? Pass, fail, or inconclusive; never pass for lack of
evidence."""

import math
from collections.abc import Sequence

import msgspec

from clipdrift_contract.events import Contrast, Verdict


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[gate]`: what a candidate must show on held-out days newer than anything the model in service was trained on."""

    metric: str = "brier"
    """The loss that decides: brier, nll or error. Regression always goes by the squared error in units of the label's span."""
    min_rows: int = 500
    """Fewer rows than this are inconclusive."""
    min_blocks: int = 5
    """Fewer days than this are inconclusive."""
    slice_min_rows: int = 200
    """A slice with fewer rows is shown and does not decide."""
    slice_margin: float = 0.01
    """By how much a slice may be worse: beyond it with the whole interval is a fail, with its mean alone inconclusive."""

    def __post_init__(self) -> None:
        if self.metric not in ("brier", "nll", "error"):
            raise ValueError(f"gate.metric must be brier, nll or error, got {self.metric!r}")
        if self.min_blocks < 2:
            raise ValueError(f"gate.min_blocks must be >= 2 (one day has no spread), got {self.min_blocks!r}")
        if not self.slice_margin >= 0:
            raise ValueError(f"gate.slice_margin must be >= 0, got {self.slice_margin!r}")


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict with its reasons, in words."""

    verdict: Verdict
    reasons: tuple[str, ...]


def judge(against_champion: Sequence[Contrast], policy: GatePolicy) -> GateVerdict:
    """Judge candidate minus champion: pass only when the interval of the overall loss lies below zero and no slice is proven
    worse.

    Example:
        >>> better = Contrast(slice="", num_rows=9000, num_blocks=12, metric="brier", difference=-0.02, low=-0.03, high=-0.01)
        >>> judge([better], GatePolicy()).verdict
        'pass'
    """
    decisive = [one for one in against_champion if one.metric == policy.metric]
    overall = [one for one in decisive if one.slice == ""]
    lack = _lack_of_evidence(overall[0], policy) if overall else f"no contrast of {policy.metric} with the model in service"
    if lack:
        return GateVerdict(verdict="inconclusive", reasons=(lack,))
    return _judge_slices([one for one in decisive if one.slice], policy) or _judge_overall(overall[0])


def _judge_slices(slices: Sequence[Contrast], policy: GatePolicy) -> GateVerdict | None:
    """The verdict of the worst slice; None where none stands in the way."""
    verdicts = [(slice_verdict(one, policy), one) for one in slices]
    worse = [f"slice {one.slice} got worse: {_words(one)}" for verdict, one in verdicts if verdict == "fail"]
    if worse:
        return GateVerdict(verdict="fail", reasons=tuple(worse))
    doubtful = [
        f"slice {one.slice} seems to get worse, more labelled days will tell: {_words(one)}"
        for verdict, one in verdicts
        if verdict == "inconclusive"
    ]
    return GateVerdict(verdict="inconclusive", reasons=tuple(doubtful)) if doubtful else None


def _judge_overall(whole: Contrast) -> GateVerdict:
    if whole.high < 0:
        return GateVerdict(verdict="pass", reasons=(f"better than the model in service: {_words(whole)}",))
    if whole.low > 0:
        return GateVerdict(verdict="fail", reasons=(f"worse than the model in service: {_words(whole)}",))
    return GateVerdict(verdict="inconclusive", reasons=(f"no proven difference from the model in service: {_words(whole)}",))


def _lack_of_evidence(whole: Contrast, policy: GatePolicy) -> str:
    if not all(math.isfinite(x) for x in (whole.difference, whole.low, whole.high)):
        return f"the contrast of {policy.metric} is not a number"
    if whole.num_rows < policy.min_rows:
        return f"{whole.num_rows} labelled rows that neither model was trained on; the gate needs {policy.min_rows}"
    if whole.num_blocks < policy.min_blocks:
        return f"{whole.num_blocks} days that neither model was trained on; the gate needs {policy.min_blocks}"
    return ""


def slice_verdict(one: Contrast, policy: GatePolicy) -> Verdict:
    """Whether one slice stands in the way: "fail" where it is proven worse by more than the margin, "inconclusive" where it is
    proven worse and the margin lies within the interval, "pass" otherwise.

    A slice with too few rows or days to prove anything passes: it is shown, and the figures of all rows decide. Demanding a
    proof of harmlessness from each of many small slices would mean that no candidate ever passes.

    Example:
        >>> one = Contrast(slice="JFK", num_rows=900, num_blocks=9, metric="brier", difference=0.02, low=0.004, high=0.036)
        >>> slice_verdict(one, GatePolicy())
        'inconclusive'
    """
    has_evidence = one.num_rows >= policy.slice_min_rows and one.num_blocks >= policy.min_blocks
    if not has_evidence or not one.low > 0:
        return "pass"
    if one.low > policy.slice_margin:
        return "fail"
    return "inconclusive" if one.difference > policy.slice_margin else "pass"


def _words(one: Contrast) -> str:
    interval = f"[{one.low:+.4f}, {one.high:+.4f}]"
    return f"{one.metric} {one.difference:+.4f} {interval} on {one.num_rows:,} rows of {one.num_blocks} days"
