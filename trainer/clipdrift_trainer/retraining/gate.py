"""The gate: may the candidate take the place of the model in service? Pass, fail, or inconclusive; never pass for lack of
evidence."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from clipdrift_contract.events import CheckVerdict, Contrast, GateCheck, Verdict
from clipdrift_trainer.evaluation.blocks import Interval
from clipdrift_trainer.retraining.bounds import Proof, Role, against_bound, checked, require_at_least
from clipdrift_trainer.retraining.checks.calibration import CalibrationPolicy
from clipdrift_trainer.retraining.checks.data import DataPolicy
from clipdrift_trainer.retraining.checks.hop_skip_jump import HopSkipJumpPolicy
from clipdrift_trainer.retraining.checks.latency import LatencyPolicy
from clipdrift_trainer.retraining.checks.membership import MembershipPolicy
from clipdrift_trainer.retraining.checks.robustness import RobustnessPolicy
from clipdrift_trainer.retraining.checks.size import SizePolicy

LOSS, SLICE, TIME_ORDER = "loss", "slice", "time_order"


class TimeOrderPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The winner's policy in time order: trained on the older days alone, against the model in service on the newest."""

    role: Role = "decisive"
    """Decides, is on trial (shown), or is not told (off). Without enough rows, or an arm that was trained on older days (see
    `always`), it never decides."""
    margin: float = 0.01
    """By how much the loss may be higher."""
    always: bool = False
    """Where there is one arm alone, train it on the older days too, for this check: one more training."""

    def __post_init__(self) -> None:
        require_at_least("time_order", 0.0, margin=self.margin)


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`[gate]`: what a candidate must show on held-out days newer than anything the model in service was trained on."""

    metric: str = "brier"
    """The loss that decides: brier, nll or error. Regression always goes by the squared error in units of the label's span."""
    min_rows: int = 500
    """Fewer rows than this are inconclusive."""
    min_blocks: int = 5
    """Fewer days than this are inconclusive."""
    loss_margin: float = 0.0
    """The whole interval of candidate minus model in service must lie below this: 0 asks for a proven gain, more lets pass what
    is proven to be no worse than by so much."""
    slice_min_rows: int = 200
    """A slice with fewer rows is shown and does not decide."""
    slice_margin: float = 0.01
    """By how much a slice may be worse: beyond it with the whole interval is a fail, with its mean alone inconclusive."""
    slice_margins: dict[str, float] = {}
    """Margins of slices that need one of their own, by name."""
    slice_role: Role = "decisive"
    """Slices decide, are on trial (shown), or are not judged (off)."""
    proof: Proof = "harm"
    """What stops a candidate at a slice or another comparison: proven harm, or (harmlessness) the lack of a proof that it stays
    within the margin. The second asks for many labels in every slice."""
    when_unreachable: Literal["inconclusive", "ignore"] = "inconclusive"
    """What a decisive check that could not be carried out does to the verdict."""
    budget_seconds: float = 20.0
    """Time for all checks beside the loss; one that it is too late for counts as not carried out."""
    time_order: TimeOrderPolicy = TimeOrderPolicy()
    """The same policy, trained on older days alone, on the newest."""
    calibration: CalibrationPolicy = CalibrationPolicy()
    """Whether probabilities keep their word."""
    latency: LatencyPolicy = LatencyPolicy()
    """How fast the file answers."""
    size: SizePolicy = SizePolicy()
    """How large the file is."""
    robustness: RobustnessPolicy = RobustnessPolicy()
    """Small changes of numbers, by FGSM and PGD."""
    hop_skip_jump: HopSkipJumpPolicy = HopSkipJumpPolicy()
    """Small changes of numbers, by an attack on the file."""
    membership: MembershipPolicy = MembershipPolicy()
    """Whether the loss gives training rows away."""
    data: DataPolicy = DataPolicy()
    """What the data checks said."""

    def __post_init__(self) -> None:
        if self.metric not in ("brier", "nll", "error"):
            raise ValueError(f"gate.metric must be brier, nll or error, got {self.metric!r}")
        if self.min_blocks < 2:
            raise ValueError(f"gate.min_blocks must be >= 2 (one day has no spread), got {self.min_blocks!r}")
        require_at_least("gate", 0.0, slice_margin=self.slice_margin, loss_margin=self.loss_margin)
        require_at_least("gate", 0.0, budget_seconds=self.budget_seconds)
        require_at_least("gate.slice_margins", 0.0, **self.slice_margins)

    def margin_of(self, slice_name: str) -> float:
        return self.slice_margins.get(slice_name, self.slice_margin)


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict with its reasons, in words."""

    verdict: Verdict
    reasons: tuple[str, ...]


def verdict_of(checks: Sequence[GateCheck], policy: GatePolicy) -> GateVerdict:
    """The verdict that the checks amount to, by the decisive ones alone.

    "fail" where one fails; else "inconclusive" where one is inconclusive, could not be carried out (unless the policy ignores
    that), or where no decisive check of the loss passed: what nobody measured cannot pass. Reasons are those of the verdict;
    behind them, what checks on trial would have stopped.

    Example:
        >>> def one(name: str, outcome: str, is_decisive: bool = True) -> GateCheck:
        ...     return GateCheck(name=name, outcome=outcome, words=f"{name} is {outcome}", is_decisive=is_decisive)
        >>> verdict_of([one("loss", "pass"), one("size", "fail"), one("latency", "inconclusive")], GatePolicy())
        GateVerdict(verdict='fail', reasons=('size is fail',))
        >>> verdict_of([one("loss", "pass"), one("robustness", "fail", is_decisive=False)], GatePolicy()).reasons
        ('loss is pass', 'on trial, changes nothing: robustness is fail')
        >>> verdict_of([one("size", "pass")], GatePolicy()).reasons
        ('the loss was not judged',)
    """
    decisive = [one for one in checks if one.is_decisive]
    open_outcomes = ("inconclusive",) if policy.when_unreachable == "ignore" else ("inconclusive", "unreachable")
    failed = [one.words for one in decisive if one.outcome == "fail"]
    left_open = [one.words for one in decisive if one.outcome in open_outcomes]
    passed = [one.words for one in decisive if one.outcome == "pass" and one.name == LOSS]
    on_trial = [f"on trial, changes nothing: {one.words}" for one in checks if not one.is_decisive and one.outcome == "fail"]
    verdict, reasons = _first_of(failed, left_open, passed)
    return GateVerdict(verdict=verdict, reasons=(*reasons, *on_trial))


def _first_of(failed: list[str], left_open: list[str], passed: list[str]) -> tuple[Verdict, list[str]]:
    if failed:
        return "fail", failed
    if left_open or not passed:
        return "inconclusive", left_open or ["the loss was not judged"]
    return "pass", passed


def judge(against_champion: Sequence[Contrast], policy: GatePolicy) -> GateVerdict:
    """The verdict by the loss and its slices alone: pass only when the interval of the overall loss lies below zero and no
    slice is proven worse.

    Example:
        >>> better = Contrast(slice="", num_rows=9000, num_blocks=12, metric="brier", difference=-0.02, low=-0.03, high=-0.01)
        >>> judge([better], GatePolicy()).verdict
        'pass'
    """
    return verdict_of(loss_checks(against_champion, policy), policy)


def loss_checks(against_champion: Sequence[Contrast], policy: GatePolicy) -> tuple[GateCheck, ...]:
    """The check of the overall loss, then one of each slice, of candidate minus model in service."""
    decisive = [one for one in against_champion if one.metric == policy.metric]
    whole = next((one for one in decisive if one.slice == ""), None)
    slices = [one for one in decisive if one.slice] if policy.slice_role != "off" else []
    return (_overall_check(whole, policy), *(_slice_check(one, policy) for one in slices))


def _overall_check(whole: Contrast | None, policy: GatePolicy) -> GateCheck:
    if whole is None:
        words = f"no contrast of {policy.metric} with the model in service"
        return checked(LOSS, "inconclusive", words, None, policy.loss_margin, policy.metric, "decisive")
    lack = _lack_of_evidence(whole, policy)
    outcome = "inconclusive" if lack else _overall_outcome(whole, policy.loss_margin)
    said = {
        "pass": "better than the model in service" if whole.high < 0 else "proven to be as good as the model in service",
        "fail": "worse than the model in service",
        "inconclusive": "no proven difference from the model in service",
    }
    words = lack or f"{said[outcome]}: {_words(whole)}"
    return _of_contrast(LOSS, outcome, words, whole, policy.loss_margin, "decisive")


def _overall_outcome(whole: Contrast, margin: float) -> Verdict:
    if whole.high < margin:
        return "pass"
    return "fail" if whole.low > margin else "inconclusive"


def _lack_of_evidence(whole: Contrast, policy: GatePolicy) -> str:
    if not all(math.isfinite(x) for x in (whole.difference, whole.low, whole.high)):
        return f"the contrast of {policy.metric} is not a number"
    if whole.num_rows < policy.min_rows:
        return f"{whole.num_rows} labelled rows that neither model was trained on; the gate needs {policy.min_rows}"
    if whole.num_blocks < policy.min_blocks:
        return f"{whole.num_blocks} days that neither model was trained on; the gate needs {policy.min_blocks}"
    return ""


def _slice_check(one: Contrast, policy: GatePolicy) -> GateCheck:
    if not _has_evidence(one, policy):
        words = f"slice {one.slice} has too few rows to decide: {one.num_rows:,} of {one.num_blocks} days"
        return _of_contrast(SLICE, "inconclusive", words, one, policy.margin_of(one.slice), "shown")
    outcome = _slice_outcome(one, policy)
    said = {
        "pass": f"slice {one.slice} is not harmed",
        "fail": f"slice {one.slice} got worse",
        "inconclusive": f"slice {one.slice} seems to get worse, more labelled days will tell",
        "unreachable": "",
    }
    return _of_contrast(SLICE, outcome, f"{said[outcome]}: {_words(one)}", one, policy.margin_of(one.slice), policy.slice_role)


def slice_verdict(one: Contrast, policy: GatePolicy) -> Verdict:
    """Whether one slice stands in the way: "fail" where it is proven worse by more than the margin, "inconclusive" where it is
    proven worse and the margin lies within the interval (or, with `proof = "harmlessness"`, where that interval is not within
    the margin), "pass" otherwise.

    A slice with too few rows or days to prove anything passes: it is shown, and the figures of all rows decide. Demanding a
    proof of harmlessness from each of many small slices would mean that no candidate ever passes.

    Example:
        >>> one = Contrast(slice="JFK", num_rows=900, num_blocks=9, metric="brier", difference=0.02, low=0.004, high=0.036)
        >>> slice_verdict(one, GatePolicy())
        'inconclusive'
    """
    outcome = _slice_outcome(one, policy) if _has_evidence(one, policy) else "pass"
    assert outcome != "unreachable"
    return outcome


def _has_evidence(one: Contrast, policy: GatePolicy) -> bool:
    return one.num_rows >= policy.slice_min_rows and one.num_blocks >= policy.min_blocks


def _slice_outcome(one: Contrast, policy: GatePolicy) -> CheckVerdict:
    return against_bound(
        Interval(one.difference, one.low, one.high), policy.margin_of(one.slice), neutral=0.0, proof=policy.proof
    )


def time_order_check(of_shadow: Sequence[Contrast], policy: GatePolicy) -> tuple[GateCheck, ...]:
    """The check of the winner's shadow, which was trained on older days alone, minus the model in service, on the newest days.

    The candidate itself is judged on days between those that it was trained on, so it may know of a day what its neighbours
    have in common with it. Its shadow knows nothing that came later. It is the same policy on fewer rows, so it must only not
    be proven worse.

    Args:
        of_shadow: Contrasts on days newer than all that either was trained on; empty where there is no shadow.
        policy: See `TimeOrderPolicy`.
    """
    own, margin = policy.time_order, policy.time_order.margin
    if own.role == "off":
        return ()
    whole = next((one for one in of_shadow if one.metric == policy.metric and one.slice == ""), None)
    if whole is None:
        words = "one arm alone has no shadow that was trained on older days"
        return (checked(TIME_ORDER, "inconclusive", words, None, margin, policy.metric, "shown"),)
    if lack := _lack_of_evidence(whole, policy):
        return (_of_contrast(TIME_ORDER, "inconclusive", f"in time order {lack}", whole, margin, "shown"),)
    outcome = against_bound(Interval(whole.difference, whole.low, whole.high), margin, neutral=0.0)
    words = f"trained on older days alone, on the newest days, beside the model in service: {_words(whole)}, {margin:g} allowed"
    return (_of_contrast(TIME_ORDER, outcome, words, whole, margin, own.role),)


def _of_contrast(name: str, outcome: CheckVerdict, words: str, one: Contrast, bound: float, role: Role) -> GateCheck:
    return checked(
        name, outcome, words, Interval(one.difference, one.low, one.high), bound, one.metric, role,
        slice_name=one.slice, num_rows=one.num_rows, num_blocks=one.num_blocks,
    )  # fmt: skip


def _words(one: Contrast) -> str:
    interval = f"[{one.low:+.4f}, {one.high:+.4f}]"
    return f"{one.metric} {one.difference:+.4f} {interval} on {one.num_rows:,} rows of {one.num_blocks} days"
