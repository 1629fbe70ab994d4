"""Signals about the version in service: raised, told again while they are open, and closed."""

from collections.abc import Collection

import msgspec

from clipdrift_contract.events import Signal, SignalKind
from clipdrift_monitor.decisions.subject import Subject
from clipdrift_monitor.detectors.window_drift import DriftReport, feature_of
from clipdrift_monitor.risk.harm import TEST_NAMES, Statement
from clipdrift_monitor.windows.view import View

_MAX_TOLD = 5  # shares in one sentence
_MIN_PREDICTIONS = 100  # below, a share of labels says nothing
_SMALL_RETURN = 0.25  # a signal of a harm test closes when its evidence is back below this share of the bound


def signals_of(
    subject: Subject,
    open_signals: Collection[Signal],
    statements: Collection[Statement],
    drift: DriftReport,
    seen: View,
    start_ms: int,
) -> tuple[Signal, ...]:
    """What is raised, told again or closed by the block that starts at `start_ms`.

    Args:
        subject: What is judged.
        open_signals: Those that were open before the block.
        statements: What the harm tests say of the block, of all rows and of slices.
        drift: Of the block.
        seen: Figures of the block.
        start_ms: Start of the block.
    """
    raised = [*_harm_signals(subject, statements, seen, start_ms), *_data_signals(subject, drift, seen, start_ms)]
    known = {(signal.kind, signal.slice): signal for signal in open_signals}
    told = []
    for signal in raised:
        before = known.get((signal.kind, signal.slice))
        # an open signal is told again under its own id: one incident, not one alarm a day
        if before is not None:
            told.append(msgspec.structs.replace(signal, signal_id=before.signal_id, window_start_ms=before.window_start_ms))
        else:
            told.append(signal)
    kinds = {(signal.kind, signal.slice) for signal in raised}
    closed = [
        msgspec.structs.replace(signal, is_open=False)
        for signal in open_signals
        if (signal.kind, signal.slice) not in kinds and _is_over(signal, statements, seen)
    ]
    return (*told, *closed)


def still_open(before: Collection[Signal], told: Collection[Signal]) -> list[Signal]:
    """Those of `before` and `told` that are open when both are said."""
    by_id = {signal.signal_id: signal for signal in (*before, *told)}
    return [signal for signal in by_id.values() if signal.is_open]


def _is_over(signal: Signal, statements: Collection[Statement], seen: View) -> bool:
    """A harm test's signal stays open until its evidence has gone; data and drift signals end with the first good block."""
    if signal.kind not in TEST_NAMES:
        return bool(seen.num_predictions)
    statement = next((one for one in statements if (one.test, one.slice) == (signal.kind, signal.slice)), None)
    return statement is not None and statement.level < _SMALL_RETURN * statement.bound and statement.effect <= 0


def _harm_signals(subject: Subject, statements: Collection[Statement], seen: View, start_ms: int) -> list[Signal]:
    return [
        _signal(
            subject, one.test, start_ms, seen.num_labels, _harm_words(one), detector=one.test, statistic=one.level,
            threshold=one.bound, effect=one.effect, effect_low=one.effect_low, effect_high=one.effect_high,
            of_slice=one.slice,
        )
        for one in statements
        if one.is_alarm
    ]  # fmt: skip


def _harm_words(one: Statement) -> str:
    where = f"In slice {one.slice}: " if one.slice else ""
    if one.test == "repairable":
        words = f"a simple repair would gain {one.effect:.4f} Brier score a prediction ({one.detail})."
    elif one.test == "sudden_break":
        words = f"more errors in a row than the worst day that validation allows ({one.detail})."
    else:
        words = f"worse than validated, day after day ({one.detail})."
    return where + words if where else words[0].upper() + words[1:]


def _data_signals(subject: Subject, drift: DriftReport, seen: View, start_ms: int) -> list[Signal]:
    found = []
    if drift.broken:
        words = f"The data look broken: {'; '.join(drift.broken)}."
        found.append(
            _signal(subject, "data_broken", start_ms, seen.num_labels, words, feature=_feature(subject, drift.broken[0]))
        )
    if seen.num_predictions >= _MIN_PREDICTIONS and (seen.maturity or 0.0) < subject.min_label_share:
        words = f"Only {seen.maturity or 0.0:.0%} of {seen.num_predictions} predictions have a label when they should."
        found.append(
            _signal(subject, "labels_missing", start_ms, seen.num_labels, words, statistic=seen.maturity or 0.0,
                    threshold=subject.min_label_share)
        )  # fmt: skip
    of_features = [name for name in drift.drifted if not name.startswith("(")]
    if of_features:
        top = max(of_features, key=lambda name: drift.features.get(name, 0.0))
        how_many = "One input has" if len(of_features) == 1 else f"{len(of_features)} inputs have"
        found.append(
            _drift_signal(subject, "feature_drift", start_ms, seen, f"{how_many} moved, most of all {top}", drift, top)
        )
    moved: tuple[tuple[str, SignalKind, str], ...] = (
        ("(prediction)", "prediction_drift", "The predictions have moved"),
        ("(slice mix)", "mix_drift", "The mix of slices has moved"),
    )
    for name, kind, words in moved:
        if name in drift.drifted:
            found.append(_drift_signal(subject, kind, start_ms, seen, words, drift, name))
    return [*found, *_score_signals(subject, drift, seen, start_ms)]


def _score_signals(subject: Subject, drift: DriftReport, seen: View, start_ms: int) -> list[Signal]:
    """Hints that scores give: notes, which explain."""
    found, calibration, estimate = [], drift.calibration, drift.estimate
    if drift.suspected or drift.moved:
        found.append(_schema_signal(subject, drift, seen, start_ms))
    if calibration is not None and calibration.is_drift:
        found.append(
            _signal(subject, "calibration_drift", start_ms, calibration.num_labels, calibration.words,
                    statistic=calibration.effect, threshold=subject.policy.drift.min_calibration_change,
                    effect=calibration.effect)
        )  # fmt: skip
    if drift.freshness.words:
        found.append(
            _signal(subject, "freshness", start_ms, seen.num_labels, drift.freshness.words,
                    statistic=float(drift.freshness.num_rows), threshold=float(drift.freshness.fewest_before))
        )  # fmt: skip
    rises = [one for one in drift.errors if one.is_drift]
    if rises:
        words = " ".join(one.words for one in rises)
        found.append(
            _signal(subject, "error_drift", start_ms, seen.num_labels, words, detector=rises[0].detector,
                    statistic=rises[0].rate, threshold=rises[0].rate_before or 0.0,
                    effect=rises[0].rate - (rises[0].rate_before or 0.0))
        )  # fmt: skip
    if estimate is not None and estimate.is_lower:
        found.append(
            _signal(subject, "estimated_accuracy", start_ms, seen.num_labels, estimate.words, statistic=estimate.estimate,
                    threshold=estimate.validated - subject.policy.drift.min_accuracy_fall, effect=estimate.estimate,
                    effect_low=estimate.low, effect_high=estimate.high)
        )  # fmt: skip
    return found


def _schema_signal(subject: Subject, drift: DriftReport, seen: View, start_ms: int) -> Signal:
    """Of what may be broken and harms nobody, and of shares of missing and new values that have changed."""
    words = [f"Suspected, and nothing is harmed by it: {'; '.join(drift.suspected[:_MAX_TOLD])}."] if drift.suspected else []
    words += [one.words for one in drift.moved[:_MAX_TOLD]]
    if not drift.moved:
        feature = _feature(subject, drift.suspected[0])
        return _signal(subject, "schema", start_ms, seen.num_labels, " ".join(words), feature=feature)
    top = max(drift.moved, key=lambda one: abs(one.share - one.reference_share))
    return _signal(
        subject, "schema", start_ms, seen.num_labels, " ".join(words), detector=top.what, statistic=top.share,
        threshold=top.reference_share + subject.policy.drift.min_share, feature=top.feature,
        effect=top.share - top.reference_share,
    )  # fmt: skip


def _feature(subject: Subject, words: str) -> str:
    return feature_of(words, subject.layout.features)


def _drift_signal(
    subject: Subject, kind: SignalKind, start_ms: int, seen: View, words: str, drift: DriftReport, name: str
) -> Signal:
    """Of the detector that is surest of `name`, feature or "(prediction)" or "(slice mix)"."""
    one = min((one for one in drift.comparisons if one.feature == name and one.is_drift), key=lambda one: one.p_value)
    return _signal(
        subject, kind, start_ms, seen.num_labels, f"{words} ({one.detector} {one.effect:.2f}, by chance {one.p_value:.1g}).",
        detector=one.detector, statistic=one.effect, threshold=one.min_effect, effect=one.effect,
        feature="" if name.startswith("(") else name,
    )  # fmt: skip


def _signal(
    subject: Subject,
    kind: SignalKind,
    start_ms: int,
    num_labels: int,
    words: str,
    *,
    detector: str = "",
    statistic: float = 1.0,
    threshold: float = 1.0,
    effect: float = 0.0,
    effect_low: float | None = None,
    effect_high: float | None = None,
    feature: str = "",
    of_slice: str = "",
) -> Signal:
    run = subject.run
    return Signal(
        signal_id=f"{run.model}-{run.version}-{kind}{f'-{of_slice}' if of_slice else ''}-{start_ms}",
        model=run.model,
        version=run.version,
        kind=kind,
        severity=subject.policy.severity.of(kind),
        detector=detector or kind,
        window_start_ms=start_ms,
        window_end_ms=start_ms + subject.window_ms,
        statistic=statistic,
        threshold=threshold,
        feature=feature,
        slice=of_slice,
        effect=effect,
        effect_low=effect_low,
        effect_high=effect_high,
        num_labels=num_labels,
        summary=words,
    )
