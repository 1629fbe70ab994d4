"""The gate: may the candidate take the place of the model in service? Pass, fail, or inconclusive; never pass for lack of
evidence."""

import math
from collections.abc import Sequence

import msgspec

from clipdrift_contract.events import Contrast, Verdict


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[gate]`: what a candidate must show on held-out days newer than anything the model in service was trained on."""

    metric: str = "brier"
    """The loss that decides: brier, nll or error."""
    min_rows: int = 500
    """Fewer rows than this are inconclusive."""
    min_blocks: int = 5
    """Fewer days than this are inconclusive."""
    slice_min_rows: int = 200
    """A slice with fewer rows is shown and does not decide."""
    slice_margin: float = 0.01
    """A slice may be worse by at most this much (its interval must not lie wholly above)."""


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
    overall = [one for one in against_champion if one.metric == policy.metric and one.slice == ""]
    if not overall:
        return GateVerdict(verdict="inconclusive", reasons=(f"no contrast of {policy.metric} with the model in service",))
    whole = overall[0]
    lack = _lack_of_evidence(whole, policy)
    if lack:
        return GateVerdict(verdict="inconclusive", reasons=(lack,))
    worse = [one for one in against_champion if _is_slice_worse(one, policy)]
    if worse:
        words = tuple(
            f"slice {one.slice}: {policy.metric} worse by {one.difference:.4f} [{one.low:.4f}, {one.high:.4f}] on {one.num_rows} rows"
            for one in worse
        )
        return GateVerdict(verdict="fail", reasons=words)
    interval = f"{whole.difference:+.4f} [{whole.low:+.4f}, {whole.high:+.4f}]"
    figures = f"{policy.metric} {interval} on {whole.num_rows} rows of {whole.num_blocks} days"
    if whole.high < 0:
        return GateVerdict(verdict="pass", reasons=(f"better than the model in service: {figures}",))
    if whole.low > 0:
        return GateVerdict(verdict="fail", reasons=(f"worse than the model in service: {figures}",))
    return GateVerdict(verdict="inconclusive", reasons=(f"no proven difference from the model in service: {figures}",))


def _lack_of_evidence(whole: Contrast, policy: GatePolicy) -> str:
    if not all(math.isfinite(x) for x in (whole.difference, whole.low, whole.high)):
        return f"the contrast of {policy.metric} is not a number"
    if whole.num_rows < policy.min_rows:
        return f"{whole.num_rows} labelled rows that neither model was trained on; the gate needs {policy.min_rows}"
    if whole.num_blocks < policy.min_blocks:
        return f"{whole.num_blocks} days that neither model was trained on; the gate needs {policy.min_blocks}"
    return ""


def _is_slice_worse(one: Contrast, policy: GatePolicy) -> bool:
    is_judged = one.slice != "" and one.metric == policy.metric and one.num_rows >= policy.slice_min_rows
    return is_judged and one.num_blocks >= policy.min_blocks and one.low > policy.slice_margin
