"""Sets the figures about models for Prometheus, from the newest snapshot, whenever they are asked for."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from statistics import median
from typing import get_args

from prometheus_client import Gauge

from clipdrift_contract import metrics as names
from clipdrift_contract.alerts import ALERT_OF_ROOT, ALERT_SEVERITIES
from clipdrift_contract.events import FeedbackVerdict, RetrainOutcome, RunEnd
from clipdrift_contract.metrics import Metric, MetricSet
from clipdrift_monitor.api.reader import LiveFigures, Reader
from clipdrift_monitor.api.series_budget import SeriesBudget
from clipdrift_monitor.approvals.approval import ApprovalKind
from clipdrift_monitor.clipping.evidence import Standing, standing_of
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.snapshot import Snapshot
from clipdrift_monitor.incidents.response import hold_of
from clipdrift_monitor.rollout.accounting import WorthVerdict, false_retrain_ratio
from clipdrift_monitor.rollout.finding import Finding
from clipdrift_monitor.rollout.serving import ServingMemory, quantile_bucket, seconds_of
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.windows.view import View

_BETTER: dict[Standing, int] = {"better": 1, "not better": -1, "open": 0}
_GAUGES = tuple(
    metric
    for metric in names.METRICS
    if metric.name.startswith(("clipdrift_model_", "clipdrift_monitor_")) and metric.kind in ("gauge", "info")
)


class Exporter:
    """The one exporter of figures about models. Thread-safe.

    Args:
        reader: Of what the monitor knows.
        metrics: Of the process; what others count is exported with it.
        config: Says how many series there may be, and from where on an input has moved.
        others: Set figures of their own, whenever figures are asked for; must not block.
    """

    def __init__(
        self,
        reader: Reader,
        metrics: MetricSet,
        config: MonitorConfig,
        others: Sequence[Callable[[MetricSet], None]] = (),
    ) -> None:
        self._reader = reader
        self._metrics = metrics
        self._config = config
        self._others = others
        self._told: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._lock = threading.Lock()

    def exposition(self) -> bytes:
        """All figures in Prometheus's text format."""
        with self._lock:
            for metric in _GAUGES:
                gauge = self._metrics.gauge(metric)
                if metric.labels:
                    gauge.clear()  # what is no longer so must not go on being told
            snapshot = self._reader.snapshot
            self._monitor(snapshot)
            for set_figures in self._others:
                set_figures(self._metrics)
            budget = SeriesBudget(self._config.export, len(snapshot.models))
            for state in snapshot.models.values():
                self._model(state, snapshot, budget)
            left_out = self._gauge(names.MONITOR_PARTS_LEFT_OUT)
            left_out.labels("features").set(budget.num_features_left_out)
            left_out.labels("slices").set(budget.num_slices_left_out)
            return self._metrics.exposition()

    def _monitor(self, snapshot: Snapshot) -> None:
        self._gauge(names.MONITOR_LAG).set(snapshot.lag)
        self._gauge(names.MONITOR_OUTBOX_PENDING).set(snapshot.num_outbox)
        self._gauge(names.MONITOR_AUDIT_BROKEN).set(0 if snapshot.is_audit_intact else 1)

    def _model(self, state: ModelState, snapshot: Snapshot, budget: SeriesBudget) -> None:
        model, run, live = state.model, self._reader.run(state), self._reader.judged(state)
        self._count(names.MODEL_PREDICTIONS, (model,), state.num_predictions)
        self._count(names.MODEL_LABELS, (model,), state.num_labels)
        self._count_all(names.MODEL_SIGNALS, model, state.num_signals)
        self._count_all(names.MODEL_DECISIONS, model, state.num_decisions)
        self._count_all(names.MODEL_RETRAINS, model, state.num_retrains)
        self._approvals(state)
        self._accounts(state)
        self._rollout(state)
        outcome = self._reader.newest_outcome(state)
        if outcome is not None:
            self._arms(model, outcome)
        self._gauge(names.MODEL_GENERATION).labels(model).set(state.generation)
        self._gauge(names.MONITOR_JUDGING_STOPPED).labels(model).set(state.judging_fault is not None)
        self._gauge(names.MONITOR_WATERMARK).labels(model).set(state.watermark_ms / 1000)
        is_running = bool(state.history.running_key)
        self._gauge(names.MODEL_RETRAIN_RUNNING).labels(model).set(is_running)
        self._gauge(names.MODEL_RETRAIN_STARTED).labels(model).set(snapshot.running.get(model, 0.0) if is_running else 0.0)
        for test, level in state.levels.items():
            self._gauge(names.MODEL_HARM_EVIDENCE).labels(model, test).set(level)
        self._gauge(names.MODEL_REPAIR_WORTH).labels(model).set(state.repair_worth)
        self._false_alarms(model, snapshot)
        for signal in state.open_signals:
            self._gauge(names.MODEL_OPEN_SIGNALS).labels(model, signal.kind, signal.severity).inc()
        self._incidents(state)
        self._drift(state, budget)
        is_judged = live is not None and live.is_mature
        validated = _validated(run)
        shown = _shown(budget, validated, live.slices if live is not None and is_judged else {})
        if run is not None:
            self._version(state, run)
            for name in shown & set(validated):
                self._gauge(names.MODEL_VALIDATED_ACCURACY).labels(model, name).set(validated[name])
        if live is not None and is_judged:
            self._live(model, live, shown)
        elif run is not None:  # first labels are the quick ones: an alert must not compare them with validation
            self._gauge(names.MODEL_LABELS_IN_VIEW).labels(model, "").set(0)
        if state.last_view is not None:
            self._set(names.MODEL_LABEL_MATURITY, (model,), state.last_view.maturity)
            self._set(names.MODEL_LABEL_DELAY, (model,), state.last_view.label_delay_seconds)

    def _incidents(self, state: ModelState) -> None:
        self._count_all(names.MODEL_INCIDENTS, state.model, state.num_incidents)
        for one in state.incidents:
            if one.is_open:
                self._gauge(names.MODEL_OPEN_INCIDENTS).labels(state.model, one.severity, hold_of(one)).inc()
        if state.incidents:  # zeros, too: a series that is gone may be a monitor that starts again, a zero is an end
            told = Counter((one.root, one.told_severity) for one in state.incidents if one.is_open)
            for root, severity in product(ALERT_OF_ROOT, ALERT_SEVERITIES):
                self._gauge(names.MODEL_INCIDENT_ALERTS).labels(state.model, root, severity).set(told[root, severity])
        for verdict in get_args(FeedbackVerdict):
            self._gauge(names.MODEL_INCIDENT_VERDICTS).labels(state.model, verdict).set(state.num_feedback.get(verdict, 0))

    def _approvals(self, state: ModelState) -> None:
        waiting = state.waiting_approval
        for kind in get_args(ApprovalKind):
            is_asked = waiting is not None and waiting.approval.kind == kind
            self._gauge(names.MODEL_APPROVALS_WAITING).labels(state.model, kind).set(is_asked)
        self._count_all(names.MODEL_APPROVALS, state.model, state.num_approvals)
        self._count(names.MODEL_RUBBER_STAMPS, (state.model,), state.num_rubber_stamps)
        self._set(names.MODEL_APPROVAL_SECONDS, (state.model,), median(state.answer_seconds) if state.answer_seconds else None)

    def _accounts(self, state: ModelState) -> None:
        """What retrains cost and what they were worth."""
        model, kept = state.model, state.all_worths
        self._count(names.MODEL_RETRAIN_CPU, (model,), state.history.cpu_seconds)
        self._count(names.MODEL_RETRAIN_WALL, (model,), state.history.wall_seconds)
        for verdict in get_args(WorthVerdict):
            self._gauge(names.MODEL_RETRAIN_WORTH).labels(model, verdict).set(sum(one.verdict == verdict for one in kept))
        self._set(names.MODEL_FALSE_RETRAINS, (model,), false_retrain_ratio(kept))
        measured = next((one for one in reversed(kept) if one.gain is not None), None)
        if measured is not None:
            self._set(names.MODEL_RETRAIN_GAIN, (model,), measured.gain)
            self._set(names.MODEL_RETRAIN_GAIN_LOW, (model,), measured.gain_low)
            self._set(names.MODEL_RETRAIN_GAIN_HIGH, (model,), measured.gain_high)

    def _arms(self, model: str, outcome: RetrainOutcome) -> None:
        """What other clipping would have done, and what the probe foretold."""
        for one in outcome.arms:
            place = (model, one.arm.name)
            self._gauge(names.MODEL_ARM_CHOSEN).labels(*place).set(one.arm.name == outcome.winner)
            self._gauge(names.MODEL_ARM_REMOVED_MASS).labels(*place).set(one.removed_mass_ratio)
            for contrast in one.against_same:
                if contrast.metric == "brier" and not contrast.slice:
                    self._gauge(names.MODEL_ARM_DIFFERENCE).labels(*place).set(contrast.difference)
                    self._gauge(names.MODEL_ARM_DIFFERENCE_LOW).labels(*place).set(contrast.low)
                    self._gauge(names.MODEL_ARM_DIFFERENCE_HIGH).labels(*place).set(contrast.high)
                    standing = standing_of(contrast, self._config.policy.clipping_margin)
                    self._gauge(names.MODEL_ARM_BETTER).labels(*place).set(_BETTER[standing])
        probe = outcome.probe
        if probe is None:
            return
        for rows, slices in (("trained", probe.trained), ("recent", probe.recent)):
            for whole in (one for one in slices if not one.slice):
                self._gauge(names.MODEL_PROBE_NORM).labels(model, rows).set(whole.norm_p50)
                self._gauge(names.MODEL_PROBE_REMOVED_MASS).labels(model, rows).set(whole.removed_mass_ratio)
        self._set(names.MODEL_PROBE_NORM, (model, "retrain"), probe.seen_norm_p50)
        self._set(names.MODEL_PROBE_REMOVED_MASS, (model, "retrain"), probe.seen_removed_mass_ratio)

    def _rollout(self, state: ModelState) -> None:
        model, running, finding = state.model, state.rollout, state.finding or Finding()
        self._count_all(names.MODEL_ROLLOUTS, model, state.num_rollouts)
        self._gauge(names.MODEL_QUARANTINED).labels(model).set(len(state.quarantine))
        if running is None:
            return
        stage = running.stage
        self._gauge(names.MODEL_ROLLOUT_INFO).labels(model, running.candidate.version, stage.name).set(1)
        self._gauge(names.MODEL_ROLLOUT_WEIGHT).labels(model).set(stage.weight)
        self._gauge(names.MODEL_ROLLOUT_LABELS).labels(model).set(finding.num_labels)
        self._gauge(names.MODEL_ROLLOUT_PROGRESS).labels(model).set(finding.progress)
        self._gauge(names.MODEL_ROLLOUT_HARM).labels(model).set(finding.harm_level)
        for one in finding.shown:
            if one.watched in ("error", "loss"):
                place = (model, one.watched, one.slice)
                self._set(names.MODEL_ROLLOUT_DIFFERENCE, place, one.estimate)
                self._set(names.MODEL_ROLLOUT_DIFFERENCE_LOW, place, one.low)
                self._set(names.MODEL_ROLLOUT_DIFFERENCE_HIGH, place, one.high)
        seen = state.evidence.serving if state.evidence is not None else ServingMemory()
        for side, served in (("candidate", seen.candidate_total), ("champion", seen.champion_total)):
            if served.num_requests:
                self._gauge(names.MODEL_ROLLOUT_FAILED).labels(model, side).set(served.num_failed / served.num_requests)
            bucket = quantile_bucket(served.latency_histogram, 0.95)
            self._set(names.MODEL_ROLLOUT_LATENCY, (model, side), None if bucket is None else seconds_of(bucket))

    def _false_alarms(self, model: str, snapshot: Snapshot) -> None:
        """What was promised beside what the model's own days would bring, once that was rehearsed."""
        for one in snapshot.realised.get(model, ()):
            self._gauge(names.MODEL_FALSE_ALARMS_PROMISED).labels(model, one.severity).set(one.promised)
            self._gauge(names.MODEL_FALSE_ALARMS_REALISED).labels(model, one.severity).set(one.mean)
            self._gauge(names.MODEL_FALSE_ALARMS_LOW).labels(model, one.severity).set(one.low)
            self._gauge(names.MODEL_FALSE_ALARMS_HIGH).labels(model, one.severity).set(one.high)

    def _drift(self, state: ModelState, budget: SeriesBudget) -> None:
        scores = state.drift.features
        if not scores:
            return
        for feature in budget.features(scores):
            self._gauge(names.MODEL_DRIFT).labels(state.model, feature).set(scores[feature])
        moved = sum(score >= self._config.policy.drift.min_score for score in scores.values())
        self._gauge(names.MODEL_FEATURES_MOVED).labels(state.model).set(moved / len(scores))
        self._gauge(names.MODEL_PREDICTION_DRIFT).labels(state.model).set(state.drift.prediction)
        self._gauge(names.MODEL_MIX_DRIFT).labels(state.model).set(state.drift.mix)

    def _version(self, state: ModelState, run: RunEnd) -> None:
        clipping = state.diagnosis.clipping if state.diagnosis else "unknown"
        self._gauge(names.MODEL_INFO).labels(state.model, run.version, clipping).set(1)
        self._gauge(names.MODEL_REMOVED_MASS).labels(state.model).set(run.removed_mass_ratio)
        self._gauge(names.MODEL_CLIP_RATE).labels(state.model).set(run.clip_rate_ratio)

    def _live(self, model: str, live: LiveFigures, shown: frozenset[str]) -> None:
        for name, one in (("", live.overall), *live.slices.items()):
            if name in shown:
                self._accuracy(model, name, one)
        self._set(names.MODEL_NLL, (model,), live.overall.nll)
        self._set(names.MODEL_BRIER, (model,), live.overall.brier)
        self._set(names.MODEL_ECE, (model,), live.overall.ece)

    def _accuracy(self, model: str, name: str, figures: View) -> None:
        self._gauge(names.MODEL_LABELS_IN_VIEW).labels(model, name).set(figures.num_labels)
        self._set(names.MODEL_ACCURACY, (model, name), figures.accuracy)
        self._set(names.MODEL_ACCURACY_LOW, (model, name), figures.accuracy_low)
        self._set(names.MODEL_ACCURACY_HIGH, (model, name), figures.accuracy_high)

    def _gauge(self, metric: Metric) -> Gauge:
        return self._metrics.gauge(metric)

    def _set(self, metric: Metric, labels: Iterable[str], value: float | None) -> None:
        """Nothing is exported where there is nothing to say: a missing series is honest, a zero is not."""
        if value is not None:
            self._gauge(metric).labels(*labels).set(value)

    def _count_all(self, metric: Metric, model: str, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            self._count(metric, (model, *name.split("/")), count)

    def _count(self, metric: Metric, labels: tuple[str, ...], total: float) -> None:
        """Counters follow totals that the store keeps, so a restart is no reset."""
        before = self._told.get((metric, labels), 0.0)
        self._metrics.counter(metric).labels(*labels).inc(max(0.0, total - before))
        self._told[metric, labels] = max(total, before)


def _validated(run: RunEnd | None) -> dict[str, float]:
    """Validated accuracy by slice ("": of all rows); empty for a model that foretells values."""
    if run is None or (run.profile is not None and run.profile.task == "regression"):
        return {}
    return {one.slice: one.num_correct / one.num_rows for one in run.validation if one.num_rows}


def _shown(budget: SeriesBudget, validated: Mapping[str, float], live: Mapping[str, View]) -> frozenset[str]:
    """Slices whose figures are exported, and the whole."""
    losses = {
        name: validated[name] - one.accuracy for name, one in live.items() if name in validated and one.accuracy is not None
    }
    return budget.slices((set(validated) | set(live)) - {""}, losses) | {""}
