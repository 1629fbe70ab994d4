"""What the figures recommend, in plain words: clipping does not matter here, keep it, use another policy, or nobody can tell.

Decides on held-out days alone. A change needs a proof, keeping does not; no clipping is never recommended; a bound is raised
only after a check of stability. That clipping does not matter takes two proofs: that no threshold does, and that none at all is
as good.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.optimizers import COMMON_FACTOR, is_adaptive
from clipdrift_trainer.ablation import wording
from clipdrift_trainer.ablation.grid import OFF, PRESENT, REASONABLE_FROM
from clipdrift_trainer.ablation.paired import CALIBRATION
from clipdrift_trainer.ablation.result import ArmFigures, Recommendation, SetFigures
from clipdrift_trainer.ablation.stability import Stability, StabilityPolicy
from clipdrift_trainer.evaluation.paired import Paired
from clipdrift_trainer.retraining.contrast import pick
from clipdrift_trainer.retraining.gate import GatePolicy, slice_verdict

_AS_GOOD = 0.1  # of the margin: an arm whose loss is within this of the best one's is as good
_LEAST_RANGE = 10.0  # largest over smallest threshold: what was tried in a narrower range says nothing about clipping
_LEAST_SEEDS = 2  # one has no spread, so what chance did cannot be told
_MOST_SEEDS = 100  # nobody trains more; then it is the days that are lacking


class AblationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a recommendation must show."""

    gate: GatePolicy = GatePolicy()
    """The loss that decides, and what a slice may lose."""
    relative_margin: float = 0.02
    """Differences within this share of the present policy's loss are taken to mean nothing."""
    calibration_margin: float = 0.01
    """A calibration error that is proven to rise by more than this stands in the way."""
    stability: StabilityPolicy = StabilityPolicy()
    """What a raised bound must stand."""

    def __post_init__(self) -> None:
        if not 0 < self.relative_margin < 1:
            raise ValueError(f"the margin is a share of the loss, above 0 and below 1, got {self.relative_margin!r}")


def absolute_margin(arms: Sequence[ArmFigures], policy: AblationPolicy) -> float:
    """The margin in units of the loss; that of the best arm where the present policy has no figures."""
    losses = [one.validation.loss for one in arms if one.validation is not None]
    present = arms[0].validation
    return policy.relative_margin * (present.loss if present is not None else min(losses, default=0.0))


def shortlist(arms: Sequence[ArmFigures], policy: AblationPolicy) -> tuple[str, ...]:
    """Arms that could be recommended if they are stable, the preferred one first; none where no change is called for.

    Of arms that are as good as the best (within a tenth of the margin) the one that clips most comes first: it still holds an
    outlier back.
    """
    if arms[0].status == "diverged":
        proven = [one for one in arms[1:] if one.status == "done" and one.arm.clip.kind != "off"]
    else:
        proven = [one for one in _worthwhile(arms, policy) if not _objections(one, policy)]
    if not proven:
        return ()
    best = min(_loss(one) for one in proven)
    slack = _AS_GOOD * absolute_margin(arms, policy)
    as_good = sorted((one for one in proven if _loss(one) <= best + slack), key=lambda one: -(one.removed_mass_ratio or 0.0))
    others = sorted((one for one in proven if _loss(one) > best + slack), key=_loss)
    return tuple(one.arm.name for one in (*as_good, *others))


def is_raised(one: ArmFigures, present: ArmFigures) -> bool:
    """Whether more of the gradient comes through than under the present policy."""
    return (one.removed_mass_ratio or 0.0) < (present.removed_mass_ratio or 0.0)


def recommend(
    arms: Sequence[ArmFigures], policy: AblationPolicy, stability: Mapping[str, Stability] | None = None
) -> Recommendation:
    """The recommendation.

    Args:
        arms: Figures of every arm, the present policy first.
        policy: What it must show.
        stability: What was found of the shortlisted arms that raise the bound.

    Raises:
        ValueError: The first arm is not the present policy.
    """
    if arms[0].arm.name != PRESENT:
        raise ValueError(f"the first arm must be {PRESENT!r}, got {arms[0].arm.name!r}")
    present, found = arms[0], stability or {}
    if present.status == "failed":
        return _stay(present, "cannot_tell", "Cannot tell: the present policy did not come to an end.", (present.reason,))
    by_name = {one.arm.name: one for one in arms}
    refused = []
    for name in shortlist(arms, policy):
        one = by_name[name]
        if is_raised(one, present) and not (name in found and found[name].is_stable):
            reasons = found[name].reasons if name in found else ("its stability was not checked",)
            refused.append(f"{name} lets more through, and {'; '.join(reasons)}.")
            continue
        return _use(one, arms, policy, found.get(name), refused)
    if present.status == "diverged":
        others = "what could take its place is not stable" if refused else "so does all that could take its place"
        words = f"Cannot tell: the present policy diverges, and {others}."
        return _stay(present, "cannot_tell", words, (present.reason, *refused, "Lower the learning rate and try again."))
    blocked = _blocked(arms, policy, refused)
    if _no_threshold_matters(arms, policy):
        return _any_threshold_does(arms, policy, blocked)
    if _takes_factors_out(present):
        return _leave_adaptive(arms, policy, blocked)
    return _keep_or_doubt(arms, policy, blocked)


def _loss(one: ArmFigures) -> float:
    return one.validation.loss if one.validation is not None else math.inf


def _level(arms: Sequence[ArmFigures]) -> float:
    """Of each interval, so that all comparisons with the present policy hold together with 95 % (Bonferroni)."""
    return 1.0 - 0.05 / max(1, sum(one.gain is not None for one in arms))


def _worthwhile(arms: Sequence[ArmFigures], policy: AblationPolicy) -> list[ArmFigures]:
    """Arms that call for a change: proven better, and not of a kind that is known to make no difference here."""
    settled = {one.arm.name for one in _thresholds(arms)} if _no_threshold_matters(arms, policy) else set()
    if _takes_factors_out(arms[0]):
        settled |= {one.arm.name for one in arms if one.arm.clip.kind in COMMON_FACTOR}
    return [one for one in arms[1:] if one.arm.name not in settled and _is_worthwhile(one, arms, policy)]


def _blocked(arms: Sequence[ArmFigures], policy: AblationPolicy, refused: Sequence[str]) -> tuple[str, ...]:
    """What is better as a whole and yet not chosen, with the reason."""
    objections = {one.arm.name: _objections(one, policy) for one in _worthwhile(arms, policy)}
    return (
        *(f"Better as a whole, but not chosen: {words}" for words in refused),
        *(f"{name} is better as a whole, but {'; '.join(found)}." for name, found in objections.items() if found),
    )


def _is_worthwhile(one: ArmFigures, arms: Sequence[ArmFigures], policy: AblationPolicy) -> bool:
    """Proven better, and perhaps by more than the margin."""
    gain = one.gain
    if gain is None or one.status != "done" or one.arm.clip.kind == "off" or gain.num_seeds < _LEAST_SEEDS:
        return False
    half = gain.half_width(_level(arms))
    return gain.difference + half < 0 and gain.difference - half < -absolute_margin(arms, policy)


def _objections(one: ArmFigures, policy: AblationPolicy) -> list[str]:
    """What an arm that is better as a whole makes worse."""
    if one.validation is None:
        return ["it has no figures"]
    against = one.validation.against_present
    metric = _metric(one.validation, policy)
    slices = [each for each in against if each.slice and each.metric == metric and slice_verdict(each, policy.gate) != "pass"]
    found = [f"slice {each.slice} loses {each.difference:+.4f} [{each.low:+.4f}, {each.high:+.4f}]" for each in slices]
    for other in ("nll", CALIBRATION):
        try:
            change = pick(against, other)
        except KeyError:  # regression has neither
            continue
        limit = policy.calibration_margin if other == CALIBRATION else 0.0
        if change.low > 0 and change.difference > limit:
            name = "calibration error" if other == CALIBRATION else "log loss"
            found.append(f"the {name} rises by {change.difference:.4f} [{change.low:+.4f}, {change.high:+.4f}]")
    return found


def _metric(figures: SetFigures, policy: AblationPolicy) -> str:
    return policy.gate.metric if figures.accuracy is not None else "brier"


def _thresholds(arms: Sequence[ArmFigures]) -> list[ArmFigures]:
    """Arms with a bound of the norm that somebody might set."""
    return [
        one
        for one in arms[1:]
        if one.arm.clip.kind == "per_sample"
        or (one.multiple_of_median is not None and one.multiple_of_median >= REASONABLE_FROM)
    ]


def _no_threshold_matters(arms: Sequence[ArmFigures], policy: AblationPolicy) -> bool:
    """Equivalence: over at least a factor of ten of thresholds, each one's whole interval lies within the margin.

    Every one must pass, so no correction for their number is needed (intersection-union test, Berger 1982).
    """
    tried, margin = _thresholds(arms), absolute_margin(arms, policy)
    bounds = [one.arm.clip.max_norm for one in tried if one.arm.clip.max_norm is not None]
    if arms[0].status != "done" or len(arms[0].seeds) < _LEAST_SEEDS or len(bounds) < 2:
        return False
    if max(bounds) < _LEAST_RANGE * min(bounds):
        return False
    return all(_is_within(one, margin) for one in tried)


def _is_within(one: ArmFigures, margin: float) -> bool:
    return one.status == "done" and one.gain is not None and abs(one.gain.difference) + one.gain.half_width() <= margin


def _takes_factors_out(present: ArmFigures) -> bool:
    """Adam and its kin divide by the gradient's own size, so one factor on all of it cancels out."""
    is_common = present.arm.clip.kind in COMMON_FACTOR
    return is_common and is_adaptive(present.optimizer) and not present.num_nonfinite and present.status == "done"


def _use(
    one: ArmFigures, arms: Sequence[ArmFigures], policy: AblationPolicy, stability: Stability | None, refused: Sequence[str]
) -> Recommendation:
    present = arms[0]
    slack = _AS_GOOD * absolute_margin(arms, policy)
    if present.status == "diverged":
        reasons = [f"The present policy, {describe_clip(present.arm.clip)}, diverges: {present.reason}."]
    else:
        number = sum(other.gain is not None for other in arms)
        reasons = [wording.gain(one, present, _level(arms), number, policy.gate.metric), wording.removed_mass(one, present)]
    reasons += [f"Not chosen: {words}" for words in refused]
    reasons.append(wording.as_good(_as_good(one, arms, slack), slack))
    if present.status == "done" and present.validation is not None and one.validation is not None:
        reasons.append(wording.harmless(present.validation, one.validation))
    if stability is not None:
        reasons.append(f"Stable: {'; '.join(stability.reasons)}.")
    return Recommendation(
        verdict="use",
        arm=one.arm.name,
        clip=one.arm.clip,
        headline=f"Use {describe_clip(one.arm.clip)} instead of {describe_clip(present.arm.clip)}.",
        reasons=tuple(filter(None, reasons)),
    )


def _as_good(one: ArmFigures, arms: Sequence[ArmFigures], slack: float) -> list[ArmFigures]:
    """Other arms within the slack of the best, where `one` is within it too."""
    done = [other for other in arms[1:] if other.status == "done"]
    best = min(_loss(other) for other in done)
    if _loss(one) > best + slack:
        return []
    return [other for other in done if other.arm.name != one.arm.name and _loss(other) <= best + slack]


def _any_threshold_does(arms: Sequence[ArmFigures], policy: AblationPolicy, blocked: Sequence[str]) -> Recommendation:
    """No threshold matters. Clipping as such matters all the same where leaving it out is not proven to be as good."""
    present, tried, margin = arms[0], _thresholds(arms), absolute_margin(arms, policy)
    reasons = [*blocked, wording.equivalence(present, tried, margin, policy.gate.metric)]
    if _takes_factors_out(present):
        reasons.append(wording.adaptive(present))
    reasons.append("A better model must come from elsewhere: data, learning rate, network.")
    unclipped = next((one for one in arms if one.arm.clip.kind == "off"), None)
    is_as_good = unclipped is not None and (unclipped is present or _is_within(unclipped, margin))
    if is_as_good and not blocked:
        return _stay(present, "does_not_matter", "Clipping does not matter here: leave it as it is.", reasons)
    words = f"{wording.any_of(tried)}{wording.without(unclipped, is_as_good=is_as_good)}"
    return _stay(present, "keep", f"Keep {describe_clip(present.arm.clip)}: {words}.", [*reasons, *_off_words(arms)])


def _leave_adaptive(arms: Sequence[ArmFigures], policy: AblationPolicy, blocked: Sequence[str]) -> Recommendation:
    present, margin, level = arms[0], absolute_margin(arms, policy), _level(arms)
    reasons = [wording.adaptive(present), *blocked]
    surprising = [
        one for one in _thresholds(arms) if one.gain is not None and one.gain.difference + one.gain.half_width(level) < -margin
    ]
    if len(present.seeds) < _LEAST_SEEDS:
        reasons.append("One seed does not show what is chance, so what differences there are say nothing.")
    elif surprising:
        best = min(surprising, key=_loss)
        reasons.append(
            f"Against that rule {best.arm.name} is proven better by more than the margin here; worth a look by a person."
        )
    else:
        reasons.append("No threshold is proven better by more than the margin.")
    return _stay(present, "keep", f"Keep {describe_clip(present.arm.clip)}.", reasons)


def _keep_or_doubt(arms: Sequence[ArmFigures], policy: AblationPolicy, blocked: Sequence[str]) -> Recommendation:
    present, margin, level = arms[0], absolute_margin(arms, policy), _level(arms)
    doubtful, is_open = [], False
    for one in arms[1:]:
        if one.gain is None or one.status != "done" or one.arm.clip.kind == "off" or _is_worthwhile(one, arms, policy):
            continue
        may_be_better = one.gain.difference - one.gain.half_width(level) < -margin
        if may_be_better and (one.gain.difference < 0 or not one.gain.is_known) and not _objections(one, policy):
            doubtful.append(one)
        else:
            is_open = is_open or may_be_better
    if not doubtful:
        words = "Nothing better stands every check" if blocked else wording.nothing_better(is_open=is_open)
        reasons = (*blocked, f"{words}; the present one stays.", *_off_words(arms))
        return _stay(present, "keep", f"Keep {describe_clip(present.arm.clip)}.", reasons)
    best = min(doubtful, key=lambda one: one.gain.difference if one.gain is not None else 0.0)
    assert best.gain is not None
    return _doubt(present, best.arm.name, best.gain, margin, level, blocked)


def _off_words(arms: Sequence[ArmFigures]) -> tuple[str, ...]:
    off = next((one for one in arms[1:] if one.arm.name == OFF), None)
    if off is None or off.gain is None or off.gain.difference + off.gain.half_width() >= 0:
        return ()
    return ("No clipping is better on these days, and is not recommended: it has no defence against the first bad batch.",)


def _doubt(present: ArmFigures, name: str, gain: Paired, margin: float, level: float, blocked: Sequence[str]) -> Recommendation:
    if not gain.is_known:
        words = "There is one held-out day, and one day proves nothing: train on more days."
        return _stay(present, "cannot_tell", "Cannot tell yet: more labelled days would.", (words, *blocked))
    half = gain.half_width(level)
    seeds = seeds_needed(gain, margin, level)
    seen = (
        f"{name} looks better by {-gain.difference:.4f}, but the truth may lie anywhere between "
        f"{gain.difference - half:+.4f} and {gain.difference + half:+.4f} ({wording.extent(gain)})."
    )
    if seeds is None:
        headline = "Cannot tell yet: more labelled days would."
        advice = (
            "The days differ more than the seeds do, so more seeds alone would not tell. Keep the present policy until then."
        )
    else:
        headline = f"Cannot tell yet: about {seeds} more seeds would."
        advice = f"Give --seeds {gain.num_seeds + seeds}; what is done is not done again. Keep the present policy until then."
    return msgspec.structs.replace(_stay(present, "cannot_tell", headline, (seen, advice, *blocked)), more_seeds=seeds)


def seeds_needed(gain: Paired, margin: float, level: float) -> int | None:
    """How many more seeds would narrow the interval enough: to leave out 0 where the difference is worth it, else to fit within
    the margin. None where the days' own variance is too large for that, or it takes more than a hundred.

    Example:
        >>> gain = Paired(difference=-0.01, day_variance=1e-6, seed_variance=64e-6, num_days=40, num_seeds=3, num_rows=9000)
        >>> seeds_needed(gain, margin=0.004, level=0.95)       # t(10.7) = 2.21; 2.21 (1e-6 + 192e-6 / 11) ** 0.5 < 0.01
        8
    """
    room = abs(gain.difference) if abs(gain.difference) > margin else margin - abs(gain.difference)
    if not gain.is_known or room <= 0:
        return None
    if gain.num_seeds < _LEAST_SEEDS:
        return _LEAST_SEEDS
    by_seed = gain.seed_variance * gain.num_seeds
    for number in range(gain.num_seeds + 1, gain.num_seeds + _MOST_SEEDS + 1):
        then = msgspec.structs.replace(gain, seed_variance=by_seed / number, num_seeds=number)
        if then.half_width(level) < room:
            return number - gain.num_seeds
    return None


def _stay(present: ArmFigures, verdict: str, headline: str, reasons: Sequence[str]) -> Recommendation:
    return Recommendation(
        verdict=verdict, arm=PRESENT, clip=present.arm.clip, headline=headline, reasons=tuple(filter(None, reasons)),  # type: ignore[arg-type]
    )  # fmt: skip
