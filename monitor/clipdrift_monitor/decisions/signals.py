"""Signals about the version in service: raised, told again while they are open, and closed."""

from collections.abc import Collection, Mapping

import msgspec

from clipdrift_contract.events import Signal, SignalKind
from clipdrift_monitor.decisions.subject import Subject
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.risk.harm import TEST_NAMES, Statement
from clipdrift_monitor.windows.view import View

_MIN_PREDICTIONS = 100  # below, a share of labels says nothing
_SMALL_RETURN = 0.25  # a signal of a harm test closes when its evidence is back below this share of the bound


def signals_of(
    subject: Subject,
    open_signals: Collection[Signal],
    statements: Mapping[str, Statement],
    drift: DriftReport,
    seen: View,
    start_ms: int,
) -> tuple[Signal, ...]:
    """What is raised, told again or closed by the block that starts at `start_ms`.

    Args:
        subject: What is judged.
        open_signals: Those that were open before the block.
        statements: What the harm tests say of the block, by test.
        drift: Of the block.
        seen: Figures of the block.
        start_ms: Start of the block.
    """
    raised = [*_harm_signals(subject, statements, seen, start_ms), *_data_signals(subject, drift, seen, start_ms)]
    known = {signal.kind: signal for signal in open_signals}
    told = []
    for signal in raised:
        before = known.get(signal.kind)
        # an open signal is told again under its own id: one incident, not one alarm a day
        if before is not None:
            told.append(msgspec.structs.replace(signal, signal_id=before.signal_id, window_start_ms=before.window_start_ms))
        else:
            told.append(signal)
    kinds = {signal.kind for signal in raised}
    closed = [
        msgspec.structs.replace(signal, is_open=False)
        for signal in open_signals
        if signal.kind not in kinds and _is_over(signal, statements, seen)
    ]
    return (*told, *closed)


def still_open(before: Collection[Signal], told: Collection[Signal]) -> list[Signal]:
    """Those of `before` and `told` that are open when both are said."""
    by_id = {signal.signal_id: signal for signal in (*before, *told)}
    return [signal for signal in by_id.values() if signal.is_open]


def _is_over(signal: Signal, statements: Mapping[str, Statement], seen: View) -> bool:
    """A harm test's signal stays open until its evidence has gone; data and drift signals end with the first good block."""
    if signal.kind not in TEST_NAMES:
        return bool(seen.num_predictions)
    statement = statements.get(signal.kind)
    return statement is not None and statement.level < _SMALL_RETURN * statement.bound and statement.effect <= 0


def _harm_signals(subject: Subject, statements: Mapping[str, Statement], seen: View, start_ms: int) -> list[Signal]:
    return [
        _signal(
            subject, one.test, start_ms, seen.num_labels, _harm_words(one), detector=one.test, statistic=one.level,
            threshold=one.bound, effect=one.effect, effect_low=one.effect_low, effect_high=one.effect_high,
        )
        for one in statements.values()
        if one.is_alarm
    ]  # fmt: skip


def _harm_words(one: Statement) -> str:
    if one.test == "repairable":
        return f"A simple repair would gain {one.effect:.4f} Brier score a prediction ({one.detail})."
    if one.test == "sudden_break":
        return f"More errors in a row than the worst day that validation allows ({one.detail})."
    return f"Worse than validated, day after day ({one.detail})."


def _data_signals(subject: Subject, drift: DriftReport, seen: View, start_ms: int) -> list[Signal]:
    found = []
    if drift.broken:
        words = f"The data look broken: {'; '.join(drift.broken)}."
        found.append(_signal(subject, "data_broken", start_ms, seen.num_labels, words, feature=drift.broken[0].split()[0]))
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
    return found


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
) -> Signal:
    run = subject.run
    return Signal(
        signal_id=f"{run.model}-{run.version}-{kind}-{start_ms}",
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
        effect=effect,
        effect_low=effect_low,
        effect_high=effect_high,
        num_labels=num_labels,
        summary=words,
    )
