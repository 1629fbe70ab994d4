"""The drift of one closed window: every feature, the score, the slice mix, and what is broken rather than drifting."""

import msgspec
import numpy as np

from clipdrift_monitor.detectors.binned import JensenShannon, discoveries
from clipdrift_monitor.detectors.detector import Drift
from clipdrift_monitor.windows.window import Floats, Layout

_DISCOVERY_LEVEL = 0.01
_MIN_ROWS = 100
_MISSING_NOW = 0.9  # a feed that is gone, not one that is patchy
_USUAL_BEFORE = 0.5


class DriftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.drift]`: what is called drift. It explains harm and never starts a retrain."""

    min_score: float = 0.1
    """Jensen-Shannon distance from which a proven difference is worth mentioning."""


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Scores by feature; `drifted` names those that are proven and large; `broken` says what no drift looks like."""

    start_ms: int = 0
    features: dict[str, float] = {}
    prediction: float = 0.0
    mix: float = 0.0
    drifted: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    num_rows: int = 0


def drift_of(layout: Layout, sums: Floats, slice_counts: Floats, start_ms: int, config: DriftConfig) -> DriftReport:
    """Compare one window (all slices together) with the reference profile.

    Args:
        layout: Of the version.
        sums: The window's vector.
        slice_counts: Predictions by slice, in the order of the profile's slice names.
        start_ms: When the window begins.
        config: See `DriftConfig`.
    """
    profile = layout.profile
    num_rows = round(layout.value(sums, "num_predictions"))
    if num_rows < _MIN_ROWS:
        return DriftReport(start_ms=start_ms, num_rows=num_rows)
    detector = JensenShannon()
    found: dict[str, Drift] = {}
    broken = []
    for feature in profile.features:
        counts = sums[layout.features[feature.spec.name]]
        reference = np.array([*feature.counts, feature.num_missing], float)
        found[feature.spec.name] = detector.compare(reference, counts)
        broken += _broken(feature.spec.name, reference, counts, is_categorical=feature.spec.kind == "categorical")
    found["(prediction)"] = detector.compare(np.asarray(profile.score_counts, float), sums[layout.score_reference])
    found["(slice mix)"] = detector.compare(np.asarray(profile.slice_counts, float), slice_counts)
    is_found = discoveries([one.p_value for one in found.values()], _DISCOVERY_LEVEL)
    drifted = [
        name for (name, one), proven in zip(found.items(), is_found, strict=True) if proven and one.score >= config.min_score
    ]
    return DriftReport(
        start_ms=start_ms,
        # a feature that is not recorded has no score, which is not the same as 0
        features={name: found[name].score for name, part in layout.features.items() if sums[part].any()},
        prediction=found["(prediction)"].score,
        mix=found["(slice mix)"].score,
        drifted=tuple(drifted),
        broken=tuple(broken),
        num_rows=num_rows,
    )


def _broken(name: str, reference: Floats, counts: Floats, *, is_categorical: bool) -> list[str]:
    """What changes of the world do not do: a feature goes missing all at once, or its categories are all unknown.

    A value that does not vary within a window is no sign of it: every row of a day has one weekday and one month.
    """
    total, was = counts.sum(), reference / max(1.0, reference.sum())
    if not total:
        return []
    now = counts / total
    if now[-1] > _MISSING_NOW and was[-1] < _USUAL_BEFORE:
        return [f"{name} is missing in {now[-1]:.0%} of rows (reference {was[-1]:.0%})"]
    if is_categorical and now[-2] > _MISSING_NOW and was[-2] < _USUAL_BEFORE:
        return [f"{name} has categories never seen in training in {now[-2]:.0%} of rows (reference {was[-2]:.0%})"]
    return []
