"""Drift and clipping: whether what clipping did goes together with how a model's versions and slices fared.

An association is no cause: hard slices decay more and have larger gradients, clipped or not. So an association alone is called
"associated only", and only a shadow retrain can implicate clipping. Few versions, or figures that never varied, cannot tell.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.events import ClippingVerdict
from clipdrift_monitor.clipping.evidence import ClippingEvidence, verdict_of
from clipdrift_monitor.clipping.ranks import Compared, holm, lagged_test, slice_test
from clipdrift_monitor.clipping.seen import SeenSlice, SeenVersion
from clipdrift_monitor.windows.window import Floats

Answer = Literal["implicated_by_shadow_retrain", "associated_only", "not_implicated", "cannot_tell"]
LEVEL = 0.05
LAGS = (-1, 0, 1)
MIN_VERSIONS = 12
MIN_SLICES = 8
MIN_LABELS = 200
"""Of a version, or of a slice over all versions."""
_MAX_LINKS = 12
_YEAR_MS = 365.25 * 86_400_000
_SENSITIVE = 0.6  # a correlation of rank that would have been seen: below, silence says nothing
_VARIED = 2.0  # largest over smallest threshold
_VERDICTS: dict[Answer, ClippingVerdict] = {
    "implicated_by_shadow_retrain": "implicated", "associated_only": "associated", "not_implicated": "not_implicated",
    "cannot_tell": "unknown",
}  # fmt: skip
_FIGURE_WORDS = {
    "removed_mass": "removed gradient mass", "clip_rate": "clip rate", "threshold": "clipping threshold",
    "effective_learning_rate": "effective learning rate", "probed_clip_rate": "clip rate that the probe foretold",
    "probed_removed_mass": "removed mass that the probe foretold", "mass_share": "share of the gradient",
    "harm": "loss beyond validation", "feature_drift": "drift of the inputs", "prediction_drift": "drift of the predictions",
    "mix_drift": "drift of the slices' mix", "decay": "lost accuracy",
}  # fmt: skip


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One pair that was compared."""

    over: Literal["versions", "slices"]
    figure: str
    """Of clipping."""
    outcome: str
    """Drift or harm."""
    lag: int
    """Versions by which the outcome comes before the figure; below 0: after it."""
    correlation: float
    p_value: float
    """Holds for everything that was compared."""
    is_found: bool


class Association(msgspec.Struct, frozen=True, kw_only=True):
    """The answer, with what it rests on."""

    answer: Answer
    words: str
    would_tell: str = ""
    links: tuple[Link, ...] = ()
    """The strongest first."""
    num_versions: int = 0
    num_slices: int = 0
    held: tuple[str, ...] = ()
    """Figures whose part was taken out of both sides."""
    detectable: float | None = None
    """The rank correlation over versions that would have been found; None where versions were too few to be compared."""

    @property
    def verdict(self) -> ClippingVerdict:
        """The same in the words of a diagnosis."""
        return _VERDICTS[self.answer]


class _Family(NamedTuple):
    """What was compared at once, and what came of it."""

    over: Literal["versions", "slices"]
    figures: tuple[str, ...]
    outcomes: tuple[str, ...]
    lags: tuple[int, ...]
    tested: Compared


def associate(seen: Sequence[SeenVersion], evidence: ClippingEvidence, margin: float, *, level: float = LEVEL) -> Association:
    """What drift and harm have to do with clipping, over all versions and slices of a model.

    Args:
        seen: The model's versions, the oldest first.
        evidence: Of the version in service, with its last shadow retrain.
        margin: Brier score by which another policy must win to count.
        level: Chance of calling anything associated while nothing is.

    Returns:
        "not_implicated" also where an association is found, if the optimizer divides a common factor out again: then it cannot
        be clipping. "associated_only" where nothing but the association speaks for it.
    """
    usable = [one for one in seen if one.num_labels >= MIN_LABELS]
    over_versions, held = _over_versions(usable, level)
    over_slices = _over_slices(usable, level)
    num_slices = over_slices.tested.num_points if over_slices is not None else 0
    links = _links([one for one in (over_versions, over_slices) if one is not None], level)
    found = [link for link in links if link.is_found]
    detectable = None
    if over_versions is not None and np.isfinite(over_versions.tested.p_value).any():
        detectable = over_versions.tested.critical
    is_sensitive = detectable is not None and detectable <= _SENSITIVE and _has_varied(usable)
    answer = _answer(verdict_of(evidence, margin), evidence, bool(found), is_sensitive)
    return Association(
        answer=answer,
        words=_words(answer, evidence, found, len(usable), detectable),
        would_tell="" if answer != "cannot_tell" and answer != "associated_only" else _would_tell(usable, evidence, num_slices),
        links=tuple(links[:_MAX_LINKS]),
        num_versions=len(usable),
        num_slices=num_slices,
        held=held,
        detectable=detectable,
    )


def _answer(verdict: ClippingVerdict, evidence: ClippingEvidence, is_found: bool, is_sensitive: bool) -> Answer:
    if verdict == "implicated":
        return "implicated_by_shadow_retrain"
    if _cannot_be(evidence):
        return "not_implicated"
    if is_found:  # also where a twin that was clipped less decays alike
        return "associated_only"
    return "not_implicated" if verdict == "not_implicated" or is_sensitive else "cannot_tell"


def _cannot_be(evidence: ClippingEvidence) -> bool:
    """Clipping changed no step, or nothing but a factor that the optimizer divides out again."""
    return not evidence.has_fault and (evidence.is_idle or (evidence.is_adaptive and evidence.is_norm_clipped))


# --- what is compared ---


def _over_versions(seen: Sequence[SeenVersion], level: float) -> tuple[_Family | None, tuple[str, ...]]:
    if len(seen) < MIN_VERSIONS:
        return None, ()
    figures = {
        "removed_mass": _row([one.removed_mass_ratio for one in seen]),
        "clip_rate": _row([one.clip_rate_ratio for one in seen]),
        "threshold": _logs([one.max_norm for one in seen]),
        "effective_learning_rate": _logs([one.effective_learning_rate for one in seen]),
        "probed_clip_rate": _row([one.probed_clip_ratio for one in seen]),
        "probed_removed_mass": _row([one.probed_mass_ratio for one in seen]),
    }
    outcomes = {
        "harm": _row([
            None if one.validated_brier is None else one.brier_sum / one.num_labels - one.validated_brier for one in seen
        ]),
        "feature_drift": _row([one.feature_drift_sum / max(1, one.num_blocks) for one in seen]),
        "prediction_drift": _row([one.prediction_drift_sum / max(1, one.num_blocks) for one in seen]),
        "mix_drift": _row([one.mix_drift_sum / max(1, one.num_blocks) for one in seen]),
    }  # fmt: skip
    held = {
        "learning rate": _logs([one.learning_rate for one in seen]),
        "batch size": _logs([one.batch_size for one in seen]),
        "validated loss": _row([one.validated_brier for one in seen]),
    }
    phase_V = np.array([one.as_of_ms for one in seen]) / _YEAR_MS * 2 * math.pi
    if len(seen) >= 2 * MIN_VERSIONS:  # a year's course moves everything at once
        held |= {"time of year": np.sin(phase_V), "time of year (cos)": np.cos(phase_V)}
    held = {name: row for name, row in held.items() if _varies(row)}
    tested = lagged_test(_stacked(figures), _stacked(outcomes), _stacked(held, len(seen)), lags=LAGS, level=level)
    names = tuple(name for name in held if "(cos)" not in name)
    return _Family("versions", tuple(figures), tuple(outcomes), LAGS, tested), names


def _over_slices(seen: Sequence[SeenVersion], level: float) -> _Family | None:
    labels: dict[str, float] = {}
    for version in seen:
        for name, one in version.slices.items():
            labels[name] = labels.get(name, 0.0) + one.num_labels
    names = sorted(name for name, num in labels.items() if num >= MIN_LABELS)
    if len(names) < MIN_SLICES:
        return None
    found = [[version.slices.get(name) for name in names] for version in seen]

    def table(value: Callable[[SeenSlice], float | None]) -> Floats:
        rows = [[None if one is None else value(one) for one in row] for row in found]
        return np.array([[math.nan if one is None else one for one in row] for row in rows], float)

    figures = np.stack([table(lambda one: one.removed_mass_ratio), table(lambda one: one.mass_share)])
    decay = table(lambda one: _decay(one.num_labels, one.num_correct, one.validated_error))[None]
    held = np.stack([table(lambda one: one.validated_error), table(lambda one: float(one.num_train))])
    tested = slice_test(figures, decay, held, level=level)
    return _Family("slices", ("removed_mass", "mass_share"), ("decay",), (0,), tested)


def _decay(num_labels: float, num_correct: float, validated_error: float | None) -> float | None:
    return None if validated_error is None or num_labels <= 0 else 1 - num_correct / num_labels - validated_error


def _links(families: Sequence[_Family], level: float) -> list[Link]:
    """Every pair at its strongest lag, the strongest pair first; families share the level by Holm's rule."""
    smallest = [float(np.nanmin(one.tested.p_value)) if np.isfinite(one.tested.p_value).any() else 1.0 for one in families]
    links = []
    for family, before, after in zip(families, smallest, holm(smallest), strict=True):
        factor = after / before
        for f, figure in enumerate(family.figures):
            for o, outcome in enumerate(family.outcomes):
                p_L = family.tested.p_value[f, o]
                if not np.isfinite(p_L).any():
                    continue
                best = int(np.nanargmin(p_L))
                p_value = min(1.0, factor * float(p_L[best]))
                links.append(
                    Link(over=family.over, figure=figure, outcome=outcome, lag=family.lags[best],
                         correlation=float(family.tested.correlation[f, o, best]), p_value=p_value, is_found=p_value <= level)
                )  # fmt: skip
    return sorted(links, key=lambda link: (link.p_value, -abs(link.correlation)))


def _has_varied(seen: Sequence[SeenVersion]) -> bool:
    """Thresholds differed by more than seeds and luck: with one threshold for ever, removed mass tells of the norms alone."""
    bounds = [one.max_norm for one in seen if one.max_norm]
    return len(set(bounds)) >= 3 and max(bounds) >= _VARIED * min(bounds)


def _row(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if one is None else one for one in values], float)


def _logs(values: Sequence[float | None]) -> Floats:
    return np.array([math.log(one) if one else math.nan for one in values], float)


def _varies(row_V: Floats) -> bool:
    known = row_V[np.isfinite(row_V)]
    return len(known) == len(row_V) and bool(np.ptp(known) > 0)


def _stacked(rows: dict[str, Floats], num_versions: int = 0) -> Floats:
    return np.stack(list(rows.values())) if rows else np.zeros((0, num_versions))


# --- words ---


def _words(
    answer: Answer, evidence: ClippingEvidence, found: Sequence[Link], num_versions: int, detectable: float | None
) -> str:
    contrast = evidence.best_contrast
    link = f" {_link_words(found[0])}" if found else ""
    if answer == "implicated_by_shadow_retrain" and contrast is not None:
        return (
            f"Clipping is implicated: with {evidence.best_arm} instead, on the same data and seeds, the Brier score changes by "
            f"{contrast.difference:+.4f} [{contrast.low:+.4f}, {contrast.high:+.4f}].{link}"
        )
    if answer == "associated_only":
        twin = ""
        if contrast is not None:
            twin = f" The twin that was trained with {evidence.best_arm} fares no better, so it is not proven to be the cause."
        return f"Associated only.{link} What makes a slice or a time hard also makes its gradients large.{twin}"
    if answer == "not_implicated":
        return f"Clipping is not implicated: {_why_not(evidence, num_versions, detectable)}.{link}"
    return f"It cannot be told whether clipping has to do with it: {_what_lacks(num_versions, detectable)}."


def _why_not(evidence: ClippingEvidence, num_versions: int, detectable: float | None) -> str:
    if evidence.is_idle:
        return "it changed no step"
    if evidence.is_adaptive and evidence.is_norm_clipped and not evidence.has_fault:
        return "the optimizer divides a common factor on all gradients out again"
    if evidence.best_contrast is not None:
        return "trained on the same data and seeds with another threshold the model is no better"
    return (
        f"over {num_versions} versions and several thresholds nothing went together with it, and a rank correlation of "
        f"{detectable or 1.0:.2f} would have been found"
    )


def _what_lacks(num_versions: int, detectable: float | None) -> str:
    if num_versions < MIN_VERSIONS:
        return (
            f"{num_versions} version{'' if num_versions == 1 else 's'} with labels so far, at least {MIN_VERSIONS} are needed"
        )
    if detectable is None:
        return f"over {num_versions} versions the figures of clipping never changed"
    return (
        f"over {num_versions} versions nothing was found, but only a rank correlation of {detectable:.2f} or more would have "
        "been, or the threshold was always about the same"
    )


def _link_words(link: Link) -> str:
    when = ""
    if link.lag:
        first, then = ("the outcome", "the figure") if link.lag > 0 else ("the figure", "the outcome")
        when = f", {first} one version before {then}"
    figure, outcome = _FIGURE_WORDS[link.figure], _FIGURE_WORDS[link.outcome]
    return (
        f"Over {link.over}, {figure} and {outcome} go together (rank correlation {link.correlation:+.2f}{when}, "
        f"p {link.p_value:.3f} for all that was compared)."
    )


def _would_tell(seen: Sequence[SeenVersion], evidence: ClippingEvidence, num_slices: int) -> str:
    ways = []
    if evidence.best_contrast is None:
        ways.append("a shadow retrain with another threshold, on the same data and seeds (`clipdrift retrain MODEL --why ...`)")
    else:
        ways.append("a shadow retrain with more seeds or more held-out days")
    if len(seen) < MIN_VERSIONS:
        ways.append(f"{MIN_VERSIONS - len(seen)} more versions with at least {MIN_LABELS} labels each")
    elif not _has_varied(seen):
        ways.append("versions with other thresholds")
    if not num_slices:
        ways.append(f"gradient mass and {MIN_LABELS} labels each for at least {MIN_SLICES} slices")
    return f"What would tell: {'; '.join(ways)}."
