"""The drift of one closed window: every feature, the score, the slice mix, and what is broken rather than drifting."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import RunEnd
from clipdrift_contract.profile import BlockSpread, FeatureProfile, block_spread
from clipdrift_monitor.detectors.calibration import AccuracyEstimate, CalibrationDrift, calibration_drift, estimated_accuracy
from clipdrift_monitor.detectors.catalogue import detector_of
from clipdrift_monitor.detectors.detector import Bins, Detector, Floats
from clipdrift_monitor.detectors.freshness import Freshness
from clipdrift_monitor.detectors.joint import row_detector_names
from clipdrift_monitor.detectors.shares import Moved, moved_shares
from clipdrift_monitor.detectors.streams import ErrorDrift, stream_detector
from clipdrift_monitor.risk.e_values import discoveries, e_of_p
from clipdrift_monitor.windows.window import Layout

PREDICTION, MIX = "(prediction)", "(slice mix)"
_DISCOVERY_LEVEL = 0.01
_MIN_ROWS = 100
_MIN_PAST_WINDOWS = 5
_SHARE_COMPARED, _SHARE_MOVED, _SHARE_CALIBRATION = 0.6, 0.2, 0.2  # of the level of a look
MISSING_NOW = 0.9  # a feed that is gone, not one that is patchy
USUAL_BEFORE = 0.5


class DriftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.drift]`: what is called drift. It explains harm, and never pages or starts a retrain."""

    min_score: float = 0.1
    """Jensen-Shannon distance from which a proven difference is worth mentioning."""
    detectors: tuple[str, ...] = ("jensen_shannon",)
    """Detectors by name, each used where it can read the bins; one of your own is named `FILE.py:CLASS`. The first that reads
    all bins gives the distances that are shown and exported."""
    numeric: tuple[str, ...] = ()
    """Detectors of numeric features and sequences, in addition."""
    categorical: tuple[str, ...] = ()
    """Detectors of categorical features, in addition."""
    streams: tuple[str, ...] = ()
    """Detectors on the stream of errors: page_hinkley, adwin (extra `streams`). Notes, without a budget of false alarms."""
    rows: tuple[str, ...] = ("mmd",)
    """Detectors on recorded rows that `clipdrift drift` runs: mmd, and Evidently's by name, as evidently:wasserstein."""
    min_effect: dict[str, float] = {}
    """By detector: the score from which a proven difference is worth mentioning, where it is not the detector's own."""
    min_share: float = 0.02
    """Change of the share of missing values or new categories from which a proven one is worth mentioning."""
    min_calibration_change: float = 0.03
    """Mean change of event rates at the same score from which a proven one is worth mentioning."""
    min_accuracy_fall: float = 0.02
    """Accuracy below the validated one that scores alone must promise to be worth mentioning."""
    min_rows: int = _MIN_ROWS
    """A window of fewer rows is not compared."""

    def __post_init__(self) -> None:
        if not self.detectors:
            raise ValueError("policy.drift.detectors must name at least one, got none")
        effects = {
            "min_score": self.min_score,
            "min_share": self.min_share,
            "min_calibration_change": self.min_calibration_change,
            "min_accuracy_fall": self.min_accuracy_fall,
            **self.min_effect,
        }
        for name, effect in effects.items():
            if not effect >= 0:
                raise ValueError(f"policy.drift: the smallest effect of {name} must be >= 0, got {effect!r}")
        if self.min_rows < 1:
            raise ValueError(f"policy.drift.min_rows must be >= 1, got {self.min_rows!r}")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What one detector says of one feature, "(prediction)" or "(slice mix)"."""

    feature: str
    detector: str
    effect: float
    min_effect: float  # from which it is worth mentioning
    p_value: float
    is_drift: bool
    words: str = ""


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Scores by feature; `drifted` names those that are proven and large; `broken` says what is no drift."""

    start_ms: int = 0
    features: dict[str, float] = {}
    prediction: float = 0.0
    mix: float = 0.0
    drifted: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    num_rows: int = 0
    comparisons: tuple[Comparison, ...] = ()
    moved: tuple[Moved, ...] = ()  # shares of missing values and new categories that are proven to have changed
    calibration: CalibrationDrift | None = None
    freshness: Freshness = Freshness()
    errors: tuple[ErrorDrift, ...] = ()  # of detectors on the stream of errors
    estimate: AccuracyEstimate | None = None  # by scores alone
    suspected: tuple[str, ...] = ()  # faults of the pipeline that would explain what moved, and that harm nobody yet


def feature_of(words: str, names: Iterable[str]) -> str:
    """Which of these features words about a fault begin with; "" none, as those about labels.

    Example:
        >>> names = ("readings", "readings (last)")
        >>> feature_of("readings (last) is missing in 99% of rows", names), feature_of("the labels look turned round", names)
        ('readings (last)', '')
    """
    return max((name for name in names if words.startswith(f"{name} ")), key=len, default="")


def with_scores(
    report: DriftReport, layout: Layout, sums: Floats, run: RunEnd, config: DriftConfig, level: float = _DISCOVERY_LEVEL
) -> DriftReport:
    """The report with what scores say by themselves, and what labels say of scores.

    Args:
        report: Of the window.
        layout: Of the version.
        sums: The window's vector.
        run: Of the version: what was validated.
        config: See `DriftConfig`.
        level: As of `drift_of`.
    """
    return msgspec.structs.replace(
        report,
        calibration=calibration_drift(layout, sums, run, config.min_calibration_change, level * _SHARE_CALIBRATION),
        estimate=estimated_accuracy(layout, sums, run, config.min_accuracy_fall),
    )


class _Part(NamedTuple):
    name: str
    bins: Bins
    detectors: tuple[Detector, ...]


def drift_of(
    layout: Layout,
    sums: Floats,
    slice_counts: Floats,
    start_ms: int,
    config: DriftConfig,
    past: Sequence[Floats] = (),
    level: float = _DISCOVERY_LEVEL,
) -> DriftReport:
    """Compare one window (all slices together) with the reference profile.

    Rows of one window hang together, so p-values allow for how much windows differ: by the spread of days that the profile
    holds, or, where it holds none (one made before it did), of the windows before this one around their own mean.

    Args:
        layout: Of the version.
        sums: The window's vector.
        slice_counts: Predictions by slice, in the order of the profile's slice names.
        start_ms: When the window begins.
        config: See `DriftConfig`.
        past: Vectors of the windows before.
        level: Chance that anything at all is called drift of this window falsely, by e-BH, whatever hangs together.

    Raises:
        ConfigError: A detector that the config names cannot be loaded; `check_detectors` says so at the start.
    """
    num_rows = round(layout.value(sums, "num_predictions"))
    if num_rows < config.min_rows:
        return DriftReport(start_ms=start_ms, num_rows=num_rows)
    parts = tuple(_parts(layout, sums, slice_counts, config, np.array(past)))
    comparisons = _compared(parts, config, level * _SHARE_COMPARED)
    shown = {one.feature: one.effect for one in reversed(comparisons)}  # of its first detector
    drifted = dict.fromkeys(one.feature for one in comparisons if one.is_drift)
    pairs = [(feature, sums[layout.features[feature.spec.name]]) for feature in layout.profile.features]
    return DriftReport(
        start_ms=start_ms,
        # a feature that is not recorded has no score, which is not the same as 0
        features={name: shown[name] for name, part in layout.features.items() if sums[part].any()},
        prediction=shown[PREDICTION],
        mix=shown[MIX],
        drifted=tuple(drifted),
        broken=tuple(words for feature, counts_K in pairs for words in _broken(feature, counts_K)),
        num_rows=num_rows,
        comparisons=comparisons,
        moved=moved_shares(pairs, config.min_share, level * _SHARE_MOVED),
    )


def check_detectors(config: DriftConfig) -> None:
    """Load every detector that the config names, so that what is wrong is said at the start.

    Raises:
        ConfigError: One cannot be loaded or used, or an effect is set for one that is not used.
    """
    used = {detector_of(name).name for name in (*config.detectors, *config.numeric, *config.categorical)}
    row_detector_names(config.rows)
    for name in config.streams:
        stream_detector(name)
    unknown = sorted(set(config.min_effect) - used)
    if unknown:
        raise ConfigError(f"policy.drift.min_effect is set for {', '.join(unknown)}; in use are {', '.join(sorted(used))}")
    for kind in ("ordered", "unordered"):
        if not any(kind in detector_of(name).kinds for name in config.detectors):
            raise ConfigError(f"policy.drift.detectors must hold one that reads {kind} bins, got {', '.join(config.detectors)}")


def bins_of(feature: FeatureProfile, counts_K: Floats, past_WK: Floats | None = None) -> Bins:
    """A feature's bins in the reference and in a window; the last counts missing values."""
    return Bins(
        np.array([*feature.counts, feature.num_missing], float),
        counts_K,
        kind="unordered" if feature.spec.kind == "categorical" else "ordered",
        edges=feature.edges,
        has_missing=True,
        spread=_known_spread(feature.spread, past_WK),
    )


def _known_spread(of_reference: BlockSpread, past_WK: Floats | None) -> BlockSpread:
    if of_reference.num_blocks or past_WK is None or len(past_WK) < _MIN_PAST_WINDOWS:
        return of_reference
    return block_spread(past_WK)


def _parts(layout: Layout, sums: Floats, slice_counts: Floats, config: DriftConfig, past_WD: Floats) -> Iterator[_Part]:
    """What is compared. The mix of slices has no spread of its own past: sums over all slices do not hold it."""
    profile = layout.profile

    def past_of(part: slice) -> Floats | None:
        return past_WD[:, part] if len(past_WD) else None

    for feature in profile.features:
        more = config.categorical if feature.spec.kind == "categorical" else config.numeric
        part = layout.features[feature.spec.name]
        bins = bins_of(feature, sums[part], past_of(part))
        yield _Part(feature.spec.name, bins, _detectors((*config.detectors, *more), bins.kind))
    scores = Bins(
        np.asarray(profile.score_counts, float), sums[layout.score_reference], "ordered", profile.score_edges,
        spread=_known_spread(profile.score_spread, past_of(layout.score_reference)),
    )  # fmt: skip
    yield _Part(PREDICTION, scores, _detectors(config.detectors, "ordered"))
    mix = Bins(np.asarray(profile.slice_counts, float), slice_counts, spread=profile.slice_spread)
    yield _Part(MIX, mix, _detectors(config.detectors, "unordered"))


@lru_cache(maxsize=64)
def _detectors(names: tuple[str, ...], kind: str) -> tuple[Detector, ...]:
    """Those that read bins of this kind, each once; first those that read every kind, so that what is shown can be compared."""
    found = [one for name in dict.fromkeys(names) for one in [detector_of(name)] if kind in one.kinds]
    return tuple(sorted(found, key=lambda one: -len(one.kinds)))


def _compared(parts: tuple[_Part, ...], config: DriftConfig, level: float) -> tuple[Comparison, ...]:
    found = [(part, detector, detector.compare(part.bins)) for part in parts for detector in part.detectors]
    is_proven = discoveries([e_of_p(drift.p_value) for _, _, drift in found], level)
    comparisons = []
    for (part, detector, drift), proven in zip(found, is_proven, strict=True):
        smallest = min_effect_of(detector, config)
        is_drift = proven and drift.score >= smallest
        words = ""
        if is_drift:
            among = " among days that differ" if part.bins.spread.total > 0 else ""
            words = (
                f"{part.name} has moved: {detector.name} {drift.score:.2f}, worth mentioning from {smallest:g}; chance{among} "
                f"gives as much with probability {drift.p_value:.1g} on {drift.num_rows} rows."
            )
        comparisons.append(
            Comparison(
                feature=part.name,
                detector=detector.name,
                effect=drift.score,
                min_effect=smallest,
                p_value=drift.p_value,
                is_drift=is_drift,
                words=words,
            )
        )
    return tuple(comparisons)


def min_effect_of(detector: Detector, config: DriftConfig) -> float:
    """Score from which a proven difference is worth mentioning: the policy's, or the detector's own."""
    own = config.min_score if detector.name == "jensen_shannon" else detector.min_effect
    return config.min_effect.get(detector.name, own)


def _broken(feature: FeatureProfile, counts_K: Floats) -> list[str]:
    """What changes of the world do not do: a feature goes missing all at once, or its categories are all unknown.

    A value that does not vary within a window is no sign of it: every row of a day has one weekday and one month.
    """
    name, reference_K = feature.spec.name, np.array([*feature.counts, feature.num_missing], float)
    total, was = counts_K.sum(), reference_K / max(1.0, reference_K.sum())
    if not total:
        return []
    now = counts_K / total
    if now[-1] > MISSING_NOW and was[-1] < USUAL_BEFORE:
        return [f"{name} is missing in {now[-1]:.0%} of rows (reference {was[-1]:.0%})"]
    if feature.spec.kind == "categorical" and now[-2] > MISSING_NOW and was[-2] < USUAL_BEFORE:
        return [f"{name} has categories never seen in training in {now[-2]:.0%} of rows (reference {was[-2]:.0%})"]
    return []
