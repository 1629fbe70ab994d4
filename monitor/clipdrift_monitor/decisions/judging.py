"""Judges one closed block of the version in service: what the tests and the drift say, why, and what to do. Pure: values in,
values out; the model's state and the tests' memory are changed as they are told."""

import hashlib
import math
from collections.abc import Mapping

import msgspec
import numpy as np

from clipdrift_contract.events import Decision, Diagnosis, RetrainRequest, RunEnd, Severity, Signal, SignalKind
from clipdrift_monitor.clipping.evidence import evidence_of
from clipdrift_monitor.decisions.decide import Ruling, cause_key, decide
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.detectors.window_drift import DriftReport, drift_of
from clipdrift_monitor.diagnosis.rules import Facts
from clipdrift_monitor.diagnosis.split import split_loss
from clipdrift_monitor.diagnosis.verdict import diagnose
from clipdrift_monitor.risk.harm import TEST_NAMES, Block, HarmState, Statement, evidence_of_tests, step
from clipdrift_monitor.state import JudgedBlock, ModelState, OpenBlock, counted
from clipdrift_monitor.windows.view import View, view
from clipdrift_monitor.windows.window import Floats, Layout

BySlice = Mapping[int, Floats]  # a vector a slice
_SEVERITY: Mapping[SignalKind, Severity] = {
    "sudden_break": "page",
    "worse_than_validated": "ticket",
    "repairable": "ticket",
    "data_broken": "page",
    "labels_missing": "ticket",
    "feature_drift": "note",
    "prediction_drift": "note",
    "mix_drift": "note",
}
_MIN_PREDICTIONS = 100  # below, a share of labels says nothing
_MIN_SLICE_LABELS = 200
_SMALL_RETURN = 0.25  # a signal of a harm test closes when its evidence is back below this share of the bound


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged: the version in service, with what was validated."""

    run: RunEnd
    layout: Layout
    window_ms: int
    label_horizon_ms: int
    min_label_share: float
    policy: Policy


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a block. `signals` holds those that were opened, told again, or closed."""

    block: JudgedBlock
    signals: tuple[Signal, ...]
    decision: Decision
    request: RetrainRequest | None


def judge(
    subject: Subject, state: ModelState, harm: HarmState, start_ms: int, in_block: BySlice, in_view: BySlice
) -> Judgement:
    """Judge the block that starts at `start_ms`.

    Args:
        subject: Of what.
        state: Of the model; changed.
        harm: Memory of the harm tests; changed.
        start_ms: Start of the block.
        in_block: Sums of the block, by slice.
        in_view: Sums over the sliding view that ends with the block, by slice.
    """
    layout, end_ms = subject.layout, start_ms + subject.window_ms
    sums, view_sums = total(layout, in_block), total(layout, in_view)
    seen = view(layout, sums)
    opened = state.open_blocks.get(start_ms, OpenBlock())
    state.open_blocks = {start: block for start, block in state.open_blocks.items() if start > start_ms}
    state.judged_until_ms = max(state.judged_until_ms, end_ms)
    state.num_version_labels += seen.num_labels
    said = step(harm, block_of(layout, sums, start_ms, end_ms, opened.errors_in_order()), subject.policy.harm)
    statements: dict[str, Statement] = {one.test: one for one in said}
    slice_counts = np.array([_predictions(layout, in_block.get(i)) for i in range(len(layout.profile.slice_names))])
    drift = drift_of(layout, sums, slice_counts, start_ms, subject.policy.drift)
    alarms = tuple(one.test for one in said if one.is_alarm)
    signals = _signals(subject, state, statements, drift, seen, start_ms)
    state.open_signals = _still_open(state.open_signals, signals)
    num_steps = {test: evidence.num_steps for test, evidence in evidence_of_tests(harm).items()}
    state.levels = {**state.levels, **{one.test: evidence_ratio(one.level, one.bound, num_steps[one.test]) for one in said}}
    state.drift, state.last_view, state.last_block_start_ms = drift, seen, start_ms
    if "repairable" in statements:
        state.repair_worth = statements["repairable"].effect
    facts = _facts(subject, state, statements, drift, view(layout, view_sums), in_view)
    diagnosis = diagnose(facts)
    state.facts, state.diagnosis = facts, diagnosis
    ruling = decide(diagnosis, alarms, state.num_version_labels, end_ms, state.history, subject.policy)
    block = JudgedBlock(
        version=subject.run.version, start_ms=start_ms, end_ms=end_ms, view=seen, levels=dict(state.levels),
        statements=tuple(said), alarms=alarms, drift=drift,
    )  # fmt: skip
    decision = _decision(subject, state, ruling, diagnosis, block, signals)
    request = _order(subject, state, decision, end_ms + subject.label_horizon_ms) if ruling.action == "retrain" else None
    for signal in signals:
        if signal.is_open and signal.window_start_ms == start_ms:  # what is told again was counted when it was raised
            state.num_signals = counted(state.num_signals, f"{signal.kind}/{signal.severity}")
    state.num_decisions = counted(state.num_decisions, decision.action)
    return Judgement(block=block, signals=signals, decision=decision, request=request)


def evidence_ratio(level: float, bound: float, num_steps: int = 0) -> float:
    """Evidence on the scale on which 0 is what chance gives by now, 1 is an alarm, and equal steps are equal factors.

    A Shiryaev-Roberts sum grows to `num_steps` on average while nothing is wrong, so a healthy model stays near 0 for ever.

    Source: log(S / t) / log(bound / t) with t = num_steps, at most half the bound; never below 0.

    Example:
        >>> [round(evidence_ratio(*one), 3) for one in ((10.0, 1000.0), (100.0, 1000.0, 10), (20.0, 1000.0, 30))]
        [0.333, 0.5, 0.0]
    """
    by_chance = min(max(1.0, num_steps), bound / 2)
    return max(0.0, math.log(level / by_chance) / math.log(bound / by_chance)) if level > 0 and bound > 1 else 0.0


def total(layout: Layout, by_slice: BySlice) -> Floats:
    """All slices together."""
    return np.sum(list(by_slice.values()), axis=0) if by_slice else layout.zeros()


def block_of(layout: Layout, sums: Floats, start_ms: int, end_ms: int, errors: bytes) -> Block:
    """The sums of a window as the harm tests read them."""
    return Block(
        start_ms=start_ms,
        end_ms=end_ms,
        num_labels=layout.value(sums, "num_labels"),
        brier_sum=layout.value(sums, "brier_sum"),
        labels=layout.counts(sums, "labels").tolist(),
        hits=layout.counts(sums, "hits").tolist(),
        score_sum=layout.counts(sums, "score_sum").tolist(),
        errors=errors,
    )


def order_retrain(
    run: RunEnd, state: ModelState, policy: Policy, *, cause: str, decision_id: str, as_of_ms: int
) -> RetrainRequest:
    """An order for the version in service, with a key that the same cause at the same moment gives again."""
    assert state.in_service is not None
    return RetrainRequest(
        key=cause_key(state.model, state.in_service.digest, cause, as_of_ms, policy),
        model=state.model,
        cause=cause,
        decision_id=decision_id,
        requested_at_ms=as_of_ms,
        as_of_ms=as_of_ms,
        data_start_ms=run.data_start_ms,
        champion_version=state.in_service.version,
        champion_uri=state.in_service.uri,
        champion_digest=state.in_service.digest,
        champion_clip=run.clip,
        generation=state.generation,
        arms=run.candidates,
        seeds=policy.seeds,
    )


def note_order(state: ModelState, request: RetrainRequest) -> None:
    """Remember that a retrain was ordered."""
    state.history = msgspec.structs.replace(
        state.history,
        running_key=request.key,
        last_retrain_ms=request.requested_at_ms,
        retrain_times_ms=[*state.history.retrain_times_ms, request.requested_at_ms][-50:],
    )


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of a value: what a decision was based on."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def _predictions(layout: Layout, sums: Floats | None) -> float:
    return 0.0 if sums is None else layout.value(sums, "num_predictions")


# --- signals ---


def _signals(
    subject: Subject, state: ModelState, statements: Mapping[str, Statement], drift: DriftReport, seen: View, start_ms: int
) -> tuple[Signal, ...]:
    raised = [*_harm_signals(subject, statements, seen, start_ms), *_data_signals(subject, drift, seen, start_ms)]
    known = {signal.kind: signal for signal in state.open_signals}
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
        for signal in state.open_signals
        if signal.kind not in kinds and _is_over(signal, statements, seen)
    ]
    return (*told, *closed)


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
        top = max(of_features, key=lambda name: drift.features[name])
        how_many = "One input has" if len(of_features) == 1 else f"{len(of_features)} inputs have"
        words = f"{how_many} moved, most of all {top} (Jensen-Shannon {drift.features[top]:.2f})."
        found.append(_drift_signal(subject, "feature_drift", start_ms, seen, drift.features[top], words, top))
    for name, kind, score in (("(prediction)", "prediction_drift", drift.prediction), ("(slice mix)", "mix_drift", drift.mix)):
        if name in drift.drifted:
            what = "The predictions have" if kind == "prediction_drift" else "The mix of slices has"
            words = f"{what} moved (Jensen-Shannon {score:.2f})."
            found.append(_drift_signal(subject, kind, start_ms, seen, score, words, ""))  # type: ignore[arg-type]
    return found


def _drift_signal(
    subject: Subject, kind: SignalKind, start_ms: int, seen: View, score: float, words: str, feature: str
) -> Signal:
    return _signal(
        subject, kind, start_ms, seen.num_labels, words, detector="jensen_shannon", statistic=score,
        threshold=subject.policy.drift.min_score, effect=score, feature=feature,
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
        severity=_SEVERITY[kind],
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


def _still_open(before: list[Signal], told: tuple[Signal, ...]) -> list[Signal]:
    by_id = {signal.signal_id: signal for signal in (*before, *told)}
    return [signal for signal in by_id.values() if signal.is_open]


# --- diagnosis and decision ---


def _facts(
    subject: Subject, state: ModelState, statements: Mapping[str, Statement], drift: DriftReport, live: View, in_view: BySlice
) -> Facts:
    names, layout = subject.layout.profile.slice_names, subject.layout
    validated = {one.slice: (one.num_rows, one.num_correct) for one in subject.run.validation if one.slice}
    by_slice = {
        names[index] if index < len(names) else str(index): (
            round(layout.value(sums, "num_labels")), round(layout.value(sums, "num_correct"))
        )
        for index, sums in in_view.items()
    }  # fmt: skip
    if not validated and subject.run.validation:
        overall = subject.run.validation[0]
        validated = {"all": (overall.num_rows, overall.num_correct)}
    return Facts(
        clipping=evidence_of(subject.run, state.tried),
        split=split_loss(validated, by_slice),
        drift=drift,
        statements=statements,
        open_tests=tuple(signal.kind for signal in state.open_signals if signal.kind in TEST_NAMES),
        validated_ece=subject.run.validation[0].ece if subject.run.validation else 0.0,
        live_ece=live.ece,
        num_labels=live.num_labels,
        margin=subject.policy.clipping_margin,
        falls=falls_of(validated, by_slice),
    )


def falls_of(validated: Mapping[str, tuple[int, int]], live: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Validated minus live accuracy by slice, from (labels, hits), where both sides have at least 200 labels.

    Example:
        >>> falls_of({"a": (200, 180), "b": (200, 180)}, {"a": (400, 200), "b": (10, 0)})
        {'a': 0.4}
    """
    enough = [name for name in validated if min(validated[name][0], live.get(name, (0, 0))[0]) >= _MIN_SLICE_LABELS]
    return {name: validated[name][1] / validated[name][0] - live[name][1] / live[name][0] for name in enough}


def _decision(
    subject: Subject, state: ModelState, ruling: Ruling, diagnosis: Diagnosis, block: JudgedBlock, signals: tuple[Signal, ...]
) -> Decision:
    return Decision(
        decision_id=f"{state.model}-{subject.run.version}-{block.start_ms}",
        model=state.model,
        version=subject.run.version,
        at_ms=block.end_ms + subject.label_horizon_ms,
        action=ruling.action,
        reasons=ruling.reasons,
        policy_version=subject.policy.version,
        evidence_digest=digest_of(block),
        cause_key=diagnosis.cause,
        signal_ids=tuple(signal.signal_id for signal in signals if signal.is_open),
        diagnosis=diagnosis,
    )


def _order(subject: Subject, state: ModelState, decision: Decision, as_of_ms: int) -> RetrainRequest:
    assert decision.diagnosis is not None
    request = order_retrain(
        subject.run, state, subject.policy, cause=decision.diagnosis.cause, decision_id=decision.decision_id, as_of_ms=as_of_ms
    )
    note_order(state, request)
    return request
