"""Takes a scenario through the monitor: windows of each day, the judge, and the diagnosis of the last day."""

from typing import Any

import numpy as np
from diagnosis_scenarios import NEVER, Day, Scenario

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.columns import Column
from clipdrift_contract.events import (
    Arm,
    ArmResult,
    BlockScore,
    ClipSpec,
    ErrorClustering,
    Fault,
    FeatureColumn,
    LabelBatch,
    PredictionBatch,
    RetrainOutcome,
    RunEnd,
    ServedVersion,
    SliceScore,
)
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec, bin_index, block_spread
from clipdrift_monitor.decisions.judging import judge, total
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.decisions.subject import Subject
from clipdrift_monitor.diagnosis.faults import PastBlock, past_from_ms
from clipdrift_monitor.diagnosis.rules import DiagnosisConfig
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import start
from clipdrift_monitor.risk.reference import reference_of
from clipdrift_monitor.state import ModelState, OpenBlock
from clipdrift_monitor.windows.window import Layout, label_sums, prediction_sums
from clipdrift_trainer.evaluation.clustering import between_block_variance, lag1_autocorrelation
from clipdrift_trainer.evaluation.scores import expected_calibration_error
from clipdrift_trainer.retraining.contrast import contrast

_FIRST_DAY, _VIEW = 20, 14
_SCORE_EDGES = tuple(round(i / 20, 2) for i in range(1, 20))


def told_of(scenario: Scenario) -> tuple[str, tuple[str, ...], str]:
    """The cause that the last day's diagnosis names (a fault by its own name), what contributes, and its word on clipping."""
    run = run_of(scenario)
    layout = Layout(run.profile)
    policy = Policy(diagnosis=DiagnosisConfig(exploration_slice=scenario.explored))
    harm = start(reference_of(run), Allotment(budget=policy.budget, severities=policy.severity))
    served = ServedVersion(version=run.version, uri=run.artifact_uri, digest=run.artifact_digest)
    state = ModelState(model=run.model, generation=1, in_service=served, tried=_outcome(scenario))
    subject = Subject(
        run=run, layout=layout, window_ms=MS_PER_DAY, label_horizon_ms=MS_PER_DAY, min_label_share=0.5, policy=policy
    )
    windows: dict[int, dict[int, Any]] = {}  # by start and slice, with all labels that have come
    diagnosis = None
    for number in range(len(scenario.live)):
        start_ms = (_FIRST_DAY + number) * MS_PER_DAY
        _add_predictions(layout, windows, scenario.live[number], start_ms)
        for late in range(number + 1):
            day = scenario.live[number - late]
            _add_labels(layout, windows, day, start_ms - late * MS_PER_DAY, day.late_N == late)
        day = scenario.live[number]
        due_N = day.late_N == 0
        errors_N = (day.score_N > 0.5)[due_N] != (day.label_N == 1)[due_N]
        state.open_blocks = {start_ms: OpenBlock().with_labels(_times(day, start_ms)[due_N], errors_N, 20_000)}
        view_from_ms = start_ms - (_VIEW - 1) * MS_PER_DAY
        past_from = past_from_ms(state.faults, view_from_ms, _VIEW * MS_PER_DAY)
        past = [
            PastBlock(start_ms=one, sums=total(layout, windows[one])) for one in sorted(windows) if past_from <= one < start_ms
        ]
        in_view: dict[int, Any] = {}
        for one, by_slice in windows.items():
            for index, sums in by_slice.items() if one >= view_from_ms else ():
                in_view[index] = in_view.get(index, 0) + sums
        diagnosis = judge(subject, state, harm, start_ms, windows[start_ms], in_view, past).decision.diagnosis
    assert diagnosis is not None
    return diagnosis.fault or diagnosis.cause, diagnosis.contributing, diagnosis.clipping


def _times(day: Day, start_ms: int) -> Any:
    return start_ms + np.arange(len(day.label_N)) * (MS_PER_DAY // (len(day.label_N) + 1))


def _add(windows: dict[int, dict[int, Any]], found: Any) -> None:
    for key, sums in found:
        by_slice = windows.setdefault(key.start_ms, {})
        by_slice[key.slice_index] = by_slice.get(key.slice_index, 0) + sums


def _add_predictions(layout: Layout, windows: dict[int, dict[int, Any]], day: Day, start_ms: int) -> None:
    names = [feature.spec.name for feature in layout.profile.features]
    columns = [
        FeatureColumn(name=name, values=Column.of(day.rows.word_N.astype(object) if name == "kind" else day.rows.x_ND[:, i]))
        for i, name in enumerate(names)
        if name not in day.missing
    ]
    batch = PredictionBatch(**_common(day, start_ms, np.ones(len(day.label_N), bool)), features=tuple(columns))
    _add(windows, prediction_sums(layout, batch, MS_PER_DAY))


def _add_labels(layout: Layout, windows: dict[int, dict[int, Any]], day: Day, start_ms: int, chosen_N: Any) -> None:
    if not chosen_N.any():
        return
    times_N = _times(day, start_ms)[chosen_N] + 3_600_000
    batch = LabelBatch(
        **_common(day, start_ms, chosen_N), label=Column.of(day.label_N[chosen_N].astype("f8")),
        label_time_ms=Column.of(times_N.astype("i8")),
    )  # fmt: skip
    _add(windows, label_sums(layout, batch, np.ones(int(chosen_N.sum()), bool), MS_PER_DAY))


def _common(day: Day, start_ms: int, chosen_N: Any) -> dict[str, Any]:
    score_N = day.score_N[chosen_N]
    return {
        "model": "bench", "version": "v1", "epoch": "e",
        "sequence": Column.of(np.flatnonzero(chosen_N).astype("u8")),
        "event_time_ms": Column.of(_times(day, start_ms)[chosen_N].astype("i8")),
        "slice_index": Column.of(day.rows.slice_N[chosen_N].astype("i2")),
        "predicted": Column.of((score_N > 0.5).astype("f8")),
        "scores": Column.of(np.stack([1 - score_N, score_N], 1).astype("f4")),
    }  # fmt: skip


# --- what the training told ---


def run_of(scenario: Scenario) -> RunEnd:
    training = scenario.training
    num_steps, model = training.policy.num_steps, training.model
    clip = ClipSpec() if training.policy.max_norm is None else ClipSpec(kind="global_norm", max_norm=training.policy.max_norm)
    faults = (Fault(kind="double_clip", step=1, num_steps=num_steps, words="gradients were clipped twice"),)
    return RunEnd(
        run_id="r", model="bench", version="v1", started_at_ms=0, ended_at_ms=0, data_start_ms=0,
        data_end_ms=_FIRST_DAY * MS_PER_DAY, as_of_ms=_FIRST_DAY * MS_PER_DAY, data_digest="d", code_revision="c", seed=0,
        optimizer="Adam" if training.policy.optimizer == "adam" else "SGD", learning_rate=training.policy.learning_rate,
        clip=clip, num_steps=num_steps, num_checked=num_steps, removed_mass_ratio=model.removed_mass,
        clip_rate_ratio=model.clip_rate, faults=faults if training.is_faulty else (), validation=_validation(scenario),
        clustering=(_clustering(scenario),), profile=_profile(scenario), artifact_uri="file:///m.onnx",
        artifact_digest="sha256:m",
    )  # fmt: skip


def _validation(scenario: Scenario) -> tuple[SliceScore, ...]:
    score_N, label_N = (np.concatenate([getattr(day, name) for day in scenario.validated]) for name in ("score_N", "label_N"))
    slice_N = np.concatenate([day.rows.slice_N for day in scenario.validated])
    found = [_slice_score("", score_N, label_N, len(scenario.train.label_N))]
    for index, name in enumerate(scenario.table.slice_names):
        chosen_N = slice_N == index
        found.append(_slice_score(name, score_N[chosen_N], label_N[chosen_N], int((scenario.train.slice_N == index).sum())))
    return tuple(found)


def _slice_score(name: str, score_N: Any, label_N: Any, num_train: int) -> SliceScore:
    likely_N = np.clip(np.where(label_N == 1, score_N, 1 - score_N), 1e-7, 1)
    return SliceScore(
        slice=name, num_rows=len(label_N), num_correct=int(((score_N > 0.5) == (label_N == 1)).sum()),
        nll_sum=float(-np.log(likely_N).sum()), brier_sum=float(((score_N - label_N) ** 2).sum()),
        ece=expected_calibration_error(np.stack([1 - score_N, score_N], 1), label_N) if len(label_N) else 0.0,
        auc=_auc(score_N, label_N), num_train=num_train,
    )  # fmt: skip


def _auc(score_N: Any, label_N: Any) -> float | None:
    num_hits, num_misses = int(label_N.sum()), int((1 - label_N).sum())
    if not num_hits or not num_misses:
        return None
    rank_N = np.argsort(np.argsort(score_N)) + 1
    return float((rank_N[label_N == 1].sum() - num_hits * (num_hits + 1) / 2) / (num_hits * num_misses))


def _clustering(scenario: Scenario) -> ErrorClustering:
    errors = [(day.score_N > 0.5) != (day.label_N == 1) for day in scenario.validated]
    day_N = np.repeat(np.arange(len(errors)), [len(one) for one in errors])
    hour_N = np.concatenate([np.arange(len(one)) * 24 // len(one) for one in errors]) + 24 * day_N
    error_N = np.concatenate(errors)
    first_day = _FIRST_DAY - len(errors)
    days = tuple(
        BlockScore(
            start_ms=(first_day + i) * MS_PER_DAY, num_rows=len(one), num_errors=int(one.sum()), nll_sum=0.0,
            brier_sum=float(((scenario.validated[i].score_N - scenario.validated[i].label_N) ** 2).sum()),
        )
        for i, one in enumerate(errors)
    )  # fmt: skip
    return ErrorClustering(
        slice="", lag1_autocorrelation=lag1_autocorrelation(error_N.astype(float)),
        between_hour_variance=between_block_variance(error_N, hour_N),
        between_day_variance=between_block_variance(error_N, day_N),
        days=days,
    )  # fmt: skip


def _profile(scenario: Scenario) -> ReferenceProfile:
    score_N = np.concatenate([day.score_N for day in scenario.validated])
    slice_N = np.concatenate([day.rows.slice_N for day in scenario.validated])
    label_N = np.concatenate([day.label_N for day in scenario.validated])
    features = [_feature(scenario, i, name) for i, name in enumerate(scenario.table.names)]
    words = FeatureProfile(spec=FeatureSpec(name="kind", kind="categorical"), categories=scenario.table.words)
    features.append(_counted(words, [day.rows.word_N for day in scenario.validated]))
    names = scenario.table.slice_names
    return ReferenceProfile(
        task="binary", classes=("no", "yes"), features=tuple(features), slices=SliceSpec(feature="kind", categories=names),
        slice_counts=(*np.bincount(slice_N, minlength=len(names)).tolist(), 0), score_edges=_SCORE_EDGES,
        score_counts=tuple(np.bincount(np.searchsorted(_SCORE_EDGES, score_N, side="right"), minlength=20).tolist()),
        label_counts=tuple(np.bincount(label_N, minlength=2).tolist()), num_rows=len(score_N),
    )  # fmt: skip


def _feature(scenario: Scenario, column: int, name: str) -> FeatureProfile:
    days = [day.rows.x_ND[:, column] for day in scenario.validated]
    quantiles = np.quantile(np.concatenate(days), np.linspace(0, 1, 17)[1:-1], method="inverted_cdf")
    edges = tuple(np.unique(quantiles.astype(np.float32)).astype(float).tolist())
    return _counted(FeatureProfile(spec=FeatureSpec(name=name, kind="numeric", nullable=True), edges=edges), days)


def _counted(empty: FeatureProfile, days: list[Any]) -> FeatureProfile:
    counts_WK = np.array([np.bincount(bin_index(empty, day), minlength=empty.num_bins) for day in days])
    return FeatureProfile(
        spec=empty.spec,
        edges=empty.edges,
        categories=empty.categories,
        counts=tuple(counts_WK.sum(axis=0).tolist()),
        spread=block_spread(np.column_stack([counts_WK, np.zeros(len(days))])),
    )


def _outcome(scenario: Scenario) -> RetrainOutcome | None:
    """A shadow retrain, where twins were trained: the paired difference on the validated days, as the trainer tells it."""
    if not scenario.training.twin:
        return None
    difference_SN = np.array([np.concatenate(days) for days in scenario.training.twin])
    day_N = np.repeat(np.arange(len(scenario.validated)), [len(day.label_N) for day in scenario.validated])
    overall = contrast("", "brier", difference_SN, day_N * MS_PER_DAY)
    arms = [
        ArmResult(
            arm=Arm(name=name, clip=ClipSpec(kind="global_norm", max_norm=bound)), run_id=name, version="", artifact_uri="",
            artifact_digest="", removed_mass_ratio=0.0, validation=(), against_same=against,
        )
        for name, bound, against in (("same", scenario.training.policy.max_norm, ()), ("q90", 1.0, (overall,)))
    ]  # fmt: skip
    return RetrainOutcome(key="k", model="bench", finished_at_ms=0, verdict="pass", reasons=(), arms=tuple(arms))


assert NEVER > _FIRST_DAY
