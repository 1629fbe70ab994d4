"""How a model's versions were trained and how they fared, one small record a version: what associations are sought in."""

from collections.abc import Sequence

import msgspec

from clipdrift_contract.events import ClipKind, GradProbe, RunEnd
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.windows.view import View

MAX_VERSIONS = 60  # with as many slices as that, some 150 kB a model
MAX_SLICES = 32


class SeenSlice(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One slice of one version; None where the run did not say."""

    removed_mass_ratio: float | None = None
    """Of the gradient mass that the slice's samples brought."""
    mass_share: float | None = None
    """Of the gradient mass of all slices."""
    validated_error: float | None = None
    num_train: int = 0
    num_labels: float = 0.0
    num_correct: float = 0.0


class SeenVersion(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A version that was or is in service. Sums are over its judged blocks, so they grow block by block."""

    version: str
    as_of_ms: int
    clip_kind: ClipKind
    max_norm: float | None
    removed_mass_ratio: float
    clip_rate_ratio: float
    learning_rate: float
    median_norm: float | None
    validated_brier: float | None
    batch_size: int | None = None
    """As the gradient probe says it: a run's own record does not."""
    probed_clip_ratio: float | None = None
    """Steps that would be clipped on recent rows, by the probe, minus those on the version's own rows."""
    probed_mass_ratio: float | None = None
    """The same of removed mass."""
    slices: dict[str, SeenSlice] = {}
    num_blocks: int = 0
    num_labels: int = 0
    brier_sum: float = 0.0
    feature_drift_sum: float = 0.0
    """Of the blocks' mean Jensen-Shannon distance over the features."""
    prediction_drift_sum: float = 0.0
    mix_drift_sum: float = 0.0

    @property
    def effective_learning_rate(self) -> float | None:
        """Learning rate times the factor that clipping leaves of the run's median norm: what a typical step really took."""
        if self.median_norm is None or self.max_norm is None or self.clip_kind == "off":
            return self.learning_rate if self.clip_kind == "off" else None
        return self.learning_rate * min(1.0, self.max_norm / self.median_norm) if self.median_norm > 0 else None


def first_seen(run: RunEnd) -> SeenVersion:
    """The record of a version that has just come into service."""
    overall = next((one for one in run.validation if not one.slice), None)
    return SeenVersion(
        version=run.version,
        as_of_ms=run.as_of_ms,
        clip_kind=run.clip.kind,
        max_norm=run.clip.max_norm,
        removed_mass_ratio=run.removed_mass_ratio,
        clip_rate_ratio=run.clip_rate_ratio,
        learning_rate=run.learning_rate,
        median_norm=run.norm_quantiles.p50 if run.norm_quantiles is not None else None,
        validated_brier=overall.brier_sum / overall.num_rows if overall is not None and overall.num_rows else None,
        slices=_slices(run),
    )


def with_block(
    seen: Sequence[SeenVersion], run: RunEnd, figures: View, drift: DriftReport, by_slice: dict[str, tuple[float, float]]
) -> list[SeenVersion]:
    """The records with one more judged block of the version in service.

    Args:
        seen: The records, the oldest first; a version that has none yet gets one.
        run: Of the version in service.
        figures: Of the block.
        drift: Of the block.
        by_slice: Labels and correct ones of each slice in the block.
    """
    known = list(seen)
    if not known or known[-1].version != run.version:
        known.append(first_seen(run))
    last = known[-1]
    slices = {}
    for name, one in last.slices.items():
        labels, correct = by_slice.get(name, (0.0, 0.0))
        slices[name] = msgspec.structs.replace(one, num_labels=one.num_labels + labels, num_correct=one.num_correct + correct)
    known[-1] = msgspec.structs.replace(
        last,
        slices=slices,
        num_blocks=last.num_blocks + 1,
        num_labels=last.num_labels + figures.num_labels,
        brier_sum=last.brier_sum + (figures.brier or 0.0) * figures.num_labels,
        feature_drift_sum=last.feature_drift_sum + sum(drift.features.values()) / max(1, len(drift.features)),
        prediction_drift_sum=last.prediction_drift_sum + drift.prediction,
        mix_drift_sum=last.mix_drift_sum + drift.mix,
    )
    return known[-MAX_VERSIONS:]


def with_probe(seen: Sequence[SeenVersion], probe: GradProbe) -> list[SeenVersion]:
    """The records with what a gradient probe of one of the versions found; unchanged where it is of none of them."""
    recent, trained = (next((one for one in side if not one.slice), None) for side in (probe.recent, probe.trained))
    if recent is None or trained is None:
        return list(seen)
    return [
        msgspec.structs.replace(
            one,
            batch_size=probe.batch_size,
            probed_clip_ratio=recent.would_clip_ratio - trained.would_clip_ratio,
            probed_mass_ratio=recent.removed_mass_ratio - trained.removed_mass_ratio,
        )
        if one.version == probe.version
        else one
        for one in seen
    ]


def _slices(run: RunEnd) -> dict[str, SeenSlice]:
    gradients = {one.slice: one for one in run.slice_gradients}
    total = sum(one.grad_mass_sum for one in gradients.values())
    found = {}
    for score in [one for one in run.validation if one.slice and one.num_rows][:MAX_SLICES]:
        mass = gradients.get(score.slice)
        is_known = mass is not None and mass.grad_mass_sum > 0
        found[score.slice] = SeenSlice(
            removed_mass_ratio=mass.grad_mass_removed_sum / mass.grad_mass_sum if mass is not None and is_known else None,
            mass_share=mass.grad_mass_sum / total if mass is not None and is_known else None,
            validated_error=1 - score.num_correct / score.num_rows,
            num_train=score.num_train,
        )
    return found
