"""Whether the gate's promises came true: what it promised of each candidate beside what came in production."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from clipdrift_contract.events import RetrainOutcome
from clipdrift_monitor.risk.student import t_exceeded_once_in
from clipdrift_monitor.rollout.accounting import RetrainWorth

_Z95 = 1.959964
_MIN_FOR_BIAS = 5
_LEVEL = 0.025
"""Of each of the two signs that the rule looks at: a gate that keeps its promises is accused at most once in twenty."""
_BY_CHANCE = 0.025  # of promises that are true, so many fall below their interval together with the measurement's

Kept = Literal["kept", "less", "more", "not known"]


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate: the gain that the gate promised, and the gain that came. Loss a prediction (Brier score; of more than two
    classes half of it); above 0 the candidate is better than the model that it replaced."""

    key: str
    version: str
    at_ms: int
    promised: float
    promised_low: float
    promised_high: float
    came: float | None = None
    came_low: float | None = None
    came_high: float | None = None
    is_paired: bool = True
    """Off: before and after its deployment are compared, and not both models on the same rows. Days differ, so it is shown and
    does not count."""

    @property
    def verdict(self) -> Kept:
        """Whether what came agrees with what was promised, within the noise of both.

        Example:
            >>> one = Promise(key="k", version="v", at_ms=0, promised=0.02, promised_low=0.01, promised_high=0.03)
            >>> one.verdict, msgspec.structs.replace(one, came=-0.01, came_low=-0.02, came_high=0.0).verdict
            ('not known', 'less')
        """
        if self.came is None or self.came_low is None or self.came_high is None:
            return "not known"
        error = math.hypot(self.promised_high - self.promised_low, self.came_high - self.came_low) / 2
        difference = self.came - self.promised
        return "kept" if abs(difference) <= error else "less" if difference < 0 else "more"


class GateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the promises of a gate came true."""

    num_known: int
    num_kept: int
    num_less: int
    num_more: int
    bias: float | None
    """Mean of what came minus what was promised."""
    bias_low: float | None
    bias_high: float | None
    """95 % interval over candidates; None below three."""
    is_broken: bool
    """Whether promises failed by the rule; see `gate_record`."""
    words: str


def promise_of(outcome: RetrainOutcome, at_ms: int, num_classes: int = 2) -> Promise | None:
    """What the gate promised of the candidate that won; None where it promised no gain in Brier score.

    Args:
        outcome: Of a retrain.
        at_ms: When the candidate went into service.
        num_classes: Of the task.
    """
    best = next((one for one in outcome.arms if one.arm.name == outcome.winner), None)
    found = next((one for one in best.against_champion if one.slice == "" and one.metric == "brier"), None) if best else None
    if found is None or not all(map(math.isfinite, (found.difference, found.low, found.high))):
        return None
    scale = 1.0 if num_classes <= 2 else 0.5
    return Promise(
        key=outcome.key, version=outcome.candidate_version, at_ms=at_ms, promised=-found.difference * scale,
        promised_low=-found.high * scale, promised_high=-found.low * scale,
    )  # fmt: skip


def with_worth(promise: Promise, worth: RetrainWorth) -> Promise:
    """The promise with what was measured: both models on the same rows of production."""
    return msgspec.structs.replace(promise, came=worth.gain, came_low=worth.gain_low, came_high=worth.gain_high, is_paired=True)


def with_before_and_after(promise: Promise, before: Sequence[float], after: Sequence[float]) -> Promise:
    """The promise with the mean Brier score of blocks before its deployment minus that of blocks after it, by Welch's interval.

    Fewer than three blocks on either side say nothing.
    """
    if len(before) < 3 or len(after) < 3:
        return promise
    means = [sum(side) / len(side) for side in (before, after)]
    errors = [
        sum((x - mean) ** 2 for x in side) / (len(side) - 1) / len(side)
        for side, mean in zip((before, after), means, strict=True)
    ]
    total = sum(errors)
    spread = sum(error**2 / (len(side) - 1) for error, side in zip(errors, (before, after), strict=True))
    freedom = total**2 / spread if spread else 1.0
    half = t_exceeded_once_in(40.0, max(1, math.floor(freedom))) * math.sqrt(total)
    came = means[0] - means[1]
    return msgspec.structs.replace(promise, came=came, came_low=came - half, came_high=came + half, is_paired=False)


def gate_record(promises: Sequence[Promise]) -> GateRecord:
    """How the promises of a gate came true. Of promises that are true, one in forty falls short by chance and one in forty
    comes out better.

    It is called broken where as many fall short as would by chance at most once in forty such histories, or where the mean
    over at least five candidates lies below what was promised by more than its 95 % interval. Only candidates that went into
    service are known, and the best arm was chosen on the figures that promise: a little less than promised is to be expected.

    Source: binomial tail with p = 0.025; Student's t over candidates.

    Example:
        >>> gate_record([]).words
        'No promise of the gate has been measured in production yet.'
    """
    known = [one for one in promises if one.is_paired and one.verdict != "not known"]
    num_less, num_more = (sum(one.verdict == word for one in known) for word in ("less", "more"))
    gaps = [one.came - one.promised for one in known if one.came is not None]
    bias = sum(gaps) / len(gaps) if gaps else None
    half = None
    if len(gaps) >= 3 and bias is not None:
        variance = sum((gap - bias) ** 2 for gap in gaps) / (len(gaps) - 1)
        half = t_exceeded_once_in(40.0, len(gaps) - 1) * math.sqrt(variance / len(gaps))
    is_short = bias is not None and half is not None and len(gaps) >= _MIN_FOR_BIAS and bias + half < 0
    is_broken = (num_less > 0 and at_least(num_less, len(known), _BY_CHANCE) <= _LEVEL) or is_short
    record = GateRecord(
        num_known=len(known), num_kept=len(known) - num_less - num_more, num_less=num_less, num_more=num_more, bias=bias,
        bias_low=bias - half if bias is not None and half is not None else None,
        bias_high=bias + half if bias is not None and half is not None else None, is_broken=is_broken, words="",
    )  # fmt: skip
    return msgspec.structs.replace(record, words=_words(record))


def at_least(k: int, n: int, p: float) -> float:
    """Chance of k or more successes in n trials.

    Example:
        >>> round(at_least(2, 5, 0.025), 5)
        0.00594
    """
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def _words(record: GateRecord) -> str:
    if not record.num_known:
        return "No promise of the gate has been measured in production yet."
    parts = [
        f"Promises that were measured: {record.num_known}. {record.num_kept} came true within the noise of both sides, "
        f"{record.num_less} fell short, {record.num_more} came out better."
    ]
    if record.bias is not None and record.bias_low is not None and record.bias_high is not None:
        side = "less" if record.bias < 0 else "more"
        parts.append(
            f"On average {abs(record.bias):.4f} {side} came than was promised (95 % {record.bias_low:+.4f} to "
            f"{record.bias_high:+.4f})."
        )
    if record.is_broken:
        parts.append(
            "That is more than chance: the gate's data are not those of production. Look at how its newest days are held out, "
            "and ask for a larger margin until it holds."
        )
    return " ".join(parts)
