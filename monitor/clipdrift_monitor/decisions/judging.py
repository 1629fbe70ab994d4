"""Judges one closed block of the version in service: what the tests and the drift say, why, and what to do. Pure: values in,
values out; the model's state and the tests' memory are changed as they are told."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from clipdrift_contract.events import Decision, Diagnosis, RetrainRequest, Signal
from clipdrift_monitor.clipping.association import associate
from clipdrift_monitor.clipping.evidence import evidence_of
from clipdrift_monitor.clipping.seen import with_block
from clipdrift_monitor.decisions.decide import Case, Deployed, Ruling, decide, noted, with_would
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.decisions.orders import note_order, order_retrain
from clipdrift_monitor.decisions.signals import signals_of, still_open
from clipdrift_monitor.decisions.subject import BySlice, Subject
from clipdrift_monitor.decisions.worth import Worth, rows_a_day
from clipdrift_monitor.detectors.freshness import freshness_of
from clipdrift_monitor.detectors.streams import error_drifts
from clipdrift_monitor.detectors.window_drift import drift_of, with_scores
from clipdrift_monitor.diagnosis.facts import gather
from clipdrift_monitor.diagnosis.faults import PastBlock, explaining
from clipdrift_monitor.diagnosis.search import MIN_PAST_BLOCKS, search, with_faults
from clipdrift_monitor.diagnosis.verdict import diagnose
from clipdrift_monitor.risk.harm import TEST_NAMES, Block, HarmState, Statement, evidence_of_tests, slice_of, step, step_slices
from clipdrift_monitor.state import JudgedBlock, ModelState, OpenBlock, counted
from clipdrift_monitor.windows.view import view
from clipdrift_monitor.windows.window import Floats, Layout

_CHART_BLOCKS = 60  # of the small chart of a model's accuracy
_ASSOCIATION_BLOCKS = 7  # it is sought anew at alarms and once in so many blocks
_RECENT_BLOCKS = 14  # that say how many predictions a day are, and how much a gain differs from day to day


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a block. `signals` holds those that were opened, told again, or closed; `request` is the retrain that the
    decision orders, or asks a person for."""

    block: JudgedBlock
    signals: tuple[Signal, ...]
    decision: Decision
    request: RetrainRequest | None


def judge(
    subject: Subject,
    state: ModelState,
    harm: HarmState,
    start_ms: int,
    in_block: BySlice,
    in_view: BySlice,
    past: Sequence[PastBlock] = (),
) -> Judgement:
    """Judge the block that starts at `start_ms`.

    Args:
        subject: Of what.
        state: Of the model; changed.
        harm: Memory of the harm tests; changed.
        start_ms: Start of the block.
        in_block: Sums of the block, by slice.
        in_view: Sums over the sliding view that ends with the block, by slice.
        past: The blocks before this one, of that view at least, oldest first, all slices together.
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
    said += step_slices(harm, _blocks_of_slices(layout, harm, opened, in_block, start_ms, end_ms), subject.policy.harm)
    slice_counts = np.array([_predictions(layout, in_block.get(i)) for i in range(len(layout.profile.slice_names))])
    drift = drift_of(
        layout, sums, slice_counts, start_ms, subject.policy.drift, [one.sums for one in past], subject.allotment.note_level
    )
    drift = with_scores(drift, layout, sums, subject.run, subject.policy.drift, subject.allotment.note_level)
    told, state.streams = error_drifts(
        subject.policy.drift.streams, state.streams, subject.run.version, np.frombuffer(opened.errors_in_order(), np.uint8)
    )
    came = [(one.start_ms, round(layout.value(one.sums, "num_predictions"))) for one in past]
    fresh = freshness_of(start_ms, seen.num_predictions, [one for one in came if one[1]], subject.window_ms)
    drift = msgspec.structs.replace(drift, errors=told, freshness=fresh)
    faults, state.faults = search(
        layout, sums, past, state.faults, subject.run.version, start_ms, subject.window_ms,
        has_mix_moved="(slice mix)" in drift.drifted, by_slice=in_block,
    )  # fmt: skip
    alarms = tuple(dict.fromkeys(one.test for one in said if one.is_alarm))
    harmed_since_ms = _harmed_since_ms(state, alarms, start_ms)
    drift = with_faults(drift, faults, harmed_since_ms)
    signals = signals_of(subject, state.open_signals, said, drift, seen, start_ms)
    state.open_signals = still_open(state.open_signals, signals)
    num_steps = {test: evidence.num_steps for test, evidence in evidence_of_tests(harm).items()}
    levels = {str(one.test): evidence_ratio(one.level, one.bound, num_steps[one.test]) for one in statements.values()}
    state.levels = {**state.levels, **levels}
    state.drift, state.last_view, state.last_block_start_ms = drift, seen, start_ms
    state.live = {"": view(layout, view_sums), **{layout.slice_name(index): view(layout, in_view[index]) for index in in_view}}
    state.recent_accuracy = [*state.recent_accuracy, *([] if seen.accuracy is None else [seen.accuracy])][-_CHART_BLOCKS:]
    if "repairable" in statements:
        state.repair_worth = statements["repairable"].effect
    state.seen_versions = with_block(state.seen_versions, subject.run, seen, drift, _labelled(layout, in_block))
    if state.association is None or alarms or state.seen_versions[-1].num_blocks % _ASSOCIATION_BLOCKS == 0:
        state.association = associate(
            state.seen_versions, evidence_of(subject.run, state.tried), subject.policy.clipping_margin
        )  # fmt: skip
    facts = gather(
        subject.run, layout, statements=statements, open_tests=_open_tests(state), drift=drift, live=state.live[""],
        in_view=in_view, tried=state.tried, margin=subject.policy.clipping_margin,
        faults=explaining(faults, harmed_since_ms), is_searched=len(past) >= MIN_PAST_BLOCKS, first_ms=state.faults.first_ms,
        exploration_slice=subject.policy.diagnosis.exploration_slice, association=state.association,
        blocks=[*(one.sums for one in past[1 - _RECENT_BLOCKS :]), sums],
    )  # fmt: skip
    diagnosis = diagnose(facts)
    state.facts, state.diagnosis = facts, diagnosis
    ruling = _rule(
        subject, state, diagnosis, alarms, end_ms, maturity=seen.maturity, worth=_worth(subject, statements, sums, past)
    )
    block = JudgedBlock(
        version=subject.run.version, start_ms=start_ms, end_ms=end_ms, view=seen, levels=dict(state.levels),
        statements=tuple(said), alarms=alarms, drift=drift,
    )  # fmt: skip
    decision = _decision(subject, state, ruling, diagnosis, block, signals)
    is_order = ruling.action in ("retrain", "ask")
    request = _order(subject, state, decision, end_ms + subject.label_horizon_ms) if is_order else None
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
        labels=tuple(layout.counts(sums, "labels").tolist()),
        hits=tuple(layout.counts(sums, "hits").tolist()),
        score_sum=tuple(layout.counts(sums, "score_sum").tolist()),
        errors=errors,
        num_errors=layout.value(sums, "num_labels") - layout.value(sums, "num_correct"),
        log_loss_sum=-1.0 if layout.profile.task == "regression" else layout.value(sums, "nll_sum"),
    )


def _blocks_of_slices(
    layout: Layout, harm: HarmState, opened: OpenBlock, in_block: BySlice, start_ms: int, end_ms: int
) -> dict[str, Block]:
    """The block by the names under which slices are tested; those that are tested together are added up."""
    groups: dict[str, list[int]] = {}
    for index in in_block:
        groups.setdefault(slice_of(harm, layout.slice_name(index)), []).append(index)
    return {
        name: block_of(
            layout, total(layout, {i: in_block[i] for i in indices}), start_ms, end_ms, opened.errors_in_order(indices)
        )
        for name, indices in groups.items()
        if name
    }


def _predictions(layout: Layout, sums: Floats | None) -> float:
    return 0.0 if sums is None else layout.value(sums, "num_predictions")


def _open_tests(state: ModelState) -> tuple[str, ...]:
    return tuple(signal.kind for signal in state.open_signals if signal.kind in TEST_NAMES)


def _harmed_since_ms(state: ModelState, alarms: tuple[str, ...], start_ms: int) -> int | None:
    """Start of the block in which the newest of the open harms was proven, so that what broke before it may explain it, though
    another harm was open already; None where nothing is harmed."""
    since = [signal.window_start_ms for signal in state.open_signals if signal.kind in TEST_NAMES]
    is_new = not set(alarms) <= set(_open_tests(state))
    return max([*since, *([start_ms] if is_new else [])], default=None)


def _labelled(layout: Layout, in_block: BySlice) -> dict[str, tuple[float, float]]:
    """Labels and correct ones by slice."""
    names = layout.profile.slice_names
    return {
        names[index]: (layout.value(sums, "num_labels"), layout.value(sums, "num_correct"))
        for index, sums in in_block.items()
        if index < len(names)
    }


def _worth(subject: Subject, statements: Mapping[str, Statement], sums: Floats, past: Sequence[PastBlock]) -> Worth | None:
    """Of a repair; None where the test for it says nothing yet."""
    said = statements.get("repairable")
    if said is None:
        return None
    recent = [subject.layout.value(one, "num_predictions") for one in (*(one.sums for one in past[1 - _RECENT_BLOCKS :]), sums)]
    return Worth(
        gain=said.effect, gain_low=said.effect_low, gain_high=said.effect_high,
        rows_a_day=rows_a_day(sum(recent), len(recent), subject.window_ms),
    )  # fmt: skip


def _rule(
    subject: Subject, state: ModelState, diagnosis: Diagnosis, alarms: tuple[str, ...], end_ms: int, *,
    maturity: float | None, worth: Worth | None,
) -> Ruling:  # fmt: skip
    """Rule on the block, and remember what the next rulings must know of it."""
    state.history = noted(state.history, alarms, _open_tests(state))
    before = state.served_before[-1] if state.served_before else None
    case = Case(
        diagnosis=diagnosis, alarms=alarms, num_labels=state.num_version_labels, at_ms=end_ms, maturity=maturity, worth=worth,
        past=subject.past,
        is_data_broken=bool(state.drift.broken),
        deployed=Deployed(
            num_blocks=len(state.history.recent),
            previous=before.version if before is not None and before.digest not in state.quarantine else "",
        ),
    )  # fmt: skip
    ruling = decide(case, state.history, subject.policy)
    state.history = with_would(state.history, ruling.would, end_ms)
    return ruling


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
        would=ruling.would,
        terms=ruling.terms,
    )


def _order(subject: Subject, state: ModelState, decision: Decision, as_of_ms: int) -> RetrainRequest:
    assert decision.diagnosis is not None
    request = order_retrain(
        subject.run, state, subject.policy, cause=decision.diagnosis.cause, decision_id=decision.decision_id, as_of_ms=as_of_ms
    )
    if decision.action == "retrain":
        note_order(state, request)
    return request
