"""The closed list of metrics. Code takes a `Metric`, never a string; dashboards and alert rules may query nothing else.

Prometheus conventions: `clipdrift_<component>_<what>_<unit>`, base units, ratios in 0..1, counters end in `_total`, no ids as
labels. docs/reference/metrics.md is generated from this file.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

MetricKind = Literal["counter", "gauge", "histogram", "info"]

LATENCY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
NORM_BUCKETS = (0.001, 0.004, 0.016, 0.0625, 0.25, 1.0, 4.0, 16.0, 64.0, 256.0)


class Metric(msgspec.Struct, frozen=True):
    """One metric: its name as Prometheus shows it, its kind, what it means, its labels."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# --- trainer: scraped while a run lasts -------------------------------------------------------------------------------------
TRAINER_STEPS = Metric("clipdrift_trainer_optimizer_steps_total", "counter", "Optimizer steps taken.", ("model",))
TRAINER_CLIPPED_STEPS = Metric(
    "clipdrift_trainer_clipped_steps_total", "counter", "Steps whose norm was above the bound.", ("model",)
)
TRAINER_NONFINITE_STEPS = Metric(
    "clipdrift_trainer_nonfinite_steps_total", "counter", "Steps with a NaN or infinite norm.", ("model",)
)
TRAINER_INEFFECTIVE_STEPS = Metric(
    "clipdrift_trainer_ineffective_steps_total",
    "counter",
    "Steps where the optimizer did not consume what clipping promised.",
    ("model",),
)
TRAINER_GRAD_NORM = Metric(
    "clipdrift_trainer_grad_norm", "histogram", "Global gradient norm before clipping.", ("model",), NORM_BUCKETS
)
TRAINER_GRAD_NORM_REMOVED = Metric(
    "clipdrift_trainer_grad_norm_removed_total",
    "counter",
    "Sum of max(0, norm - bound): the mass clipping removed.",
    ("model",),
)
TRAINER_CLIP_BOUND = Metric(
    "clipdrift_trainer_clip_bound", "gauge", "Bound in force at the last step (+Inf: none).", ("model",)
)
TRAINER_SKIPPED_STEPS = Metric(
    "clipdrift_trainer_skipped_steps_total", "counter", "Steps that the loss scaler of mixed precision skipped.", ("model",)
)
TRAINER_FAULTS = Metric(
    "clipdrift_trainer_faults_total", "counter", "Steps with a fault in how gradients are made or clipped.", ("model", "kind")
)
TRAINER_LEARNING_RATE = Metric(
    "clipdrift_trainer_learning_rate", "gauge", "Mean learning rate of the last window of steps.", ("model",)
)
TRAINER_EFFECTIVE_LEARNING_RATE = Metric(
    "clipdrift_trainer_effective_learning_rate",
    "gauge",
    "Mean of learning rate times clipping coefficient in the last window of steps.",
    ("model",),
)
TRAINER_GROUP_NORM = Metric(
    "clipdrift_trainer_group_grad_norm",
    "gauge",
    "Mean norm before clipping of a group of layers in the last window of steps (12 groups at most).",
    ("model", "group"),
)
TRAINER_SLICE_GRAD_MASS = Metric(
    "clipdrift_trainer_slice_grad_mass_total",
    "counter",
    "Sum of the samples' head-layer gradient norms, by slice: ranks slices, is no magnitude.",
    ("model", "slice"),
)
TRAINER_SINK_FAILURES = Metric(
    "clipdrift_trainer_sink_failures_total", "counter", "Attempts to send telemetry that failed.", ("model", "sink")
)
TRAINER_WINDOWS_LOST = Metric(
    "clipdrift_trainer_windows_lost_total",
    "counter",
    "Telemetry windows that a sink will never get: no room was left for them, or the sink refuses them.",
    ("model", "sink"),
)
TRAINER_LOSS = Metric("clipdrift_trainer_loss", "gauge", "Mean training loss of the last window of steps.", ("model",))
TRAINER_PROGRESS = Metric("clipdrift_trainer_progress_ratio", "gauge", "Share of the planned steps that are done.", ("model",))
TRAINER_WINDOWS_UNSENT = Metric(
    "clipdrift_trainer_windows_unsent", "gauge", "Telemetry windows waiting for the bus.", ("model",)
)

# --- serving: data plane and recording --------------------------------------------------------------------------------------
SERVING_REQUESTS = Metric(
    "clipdrift_serving_requests_total",
    "counter",
    "Inference requests by outcome (ok or the HTTP status).",
    ("model", "code"),
)
SERVING_ROWS = Metric("clipdrift_serving_rows_total", "counter", "Rows predicted.", ("model", "version", "role"))
SERVING_LATENCY = Metric(
    "clipdrift_serving_request_duration_seconds",
    "histogram",
    "Time inside the server for one inference request.",
    ("model",),
    LATENCY_BUCKETS,
)
SERVING_LABELS = Metric(
    "clipdrift_serving_labels_total",
    "counter",
    "Labels received by outcome: accepted, repeated, forged, expired, unknown_model, bad_value, unknown_request, "
    "ambiguous_request.",
    ("model", "outcome"),
)
SERVING_CORRECT = Metric(
    "clipdrift_serving_labels_correct_total",
    "counter",
    "Accepted labels that equal the predicted class.",
    ("model", "version"),
)
SERVING_UNRECORDED = Metric(
    "clipdrift_serving_unrecorded_total",
    "counter",
    "Predictions or labels answered but not recorded, by reason: memory, spool_full, fault, sampled, shadow.",
    ("model", "reason"),
)
SERVING_RECORDER_QUEUE = Metric("clipdrift_serving_recorder_queue_rows", "gauge", "Rows waiting to be recorded.")
SERVING_SPOOL_BYTES = Metric("clipdrift_serving_spool_bytes", "gauge", "Bytes on disk waiting for the bus.")
SERVING_GENERATION = Metric("clipdrift_serving_generation", "gauge", "Generation of the deployment in service.", ("model",))
SERVING_SWAPS = Metric(
    "clipdrift_serving_swaps_total", "counter", "Hot swaps by outcome: done, refused, stale.", ("model", "outcome")
)
SERVING_REFUSED = Metric(
    "clipdrift_serving_deployment_refused",
    "gauge",
    "1 while the newest deployment that was announced cannot be served (its file is missing, changed or not admitted).",
    ("model",),
)
SERVING_MODEL_INFO = Metric(
    "clipdrift_serving_model_info", "info", "Version in service: value 1.", ("model", "version", "role")
)
# what a prediction costs: 1000 * rate(clipdrift_serving_cpu_seconds_total[1h]) / rate of the rows is CPU seconds per 1,000
SERVING_CPU_SECONDS = Metric(
    "clipdrift_serving_cpu_seconds_total",
    "counter",
    "CPU time of the runs of a version and of what is done with their answers.",
    ("model", "version"),
)
SERVING_QUEUE_SECONDS = Metric(
    "clipdrift_serving_queue_seconds_total",
    "counter",
    "Time that requests waited from their last byte to the start of their run.",
    ("model", "version"),
)
SERVING_COMPUTE_SECONDS = Metric(
    "clipdrift_serving_compute_seconds_total",
    "counter",
    "Time inside the model on the wall clock, once a run however many requests it answers.",
    ("model", "version"),
)
SERVING_RUNS = Metric(
    "clipdrift_serving_runs_total", "counter", "Runs of the model: one may answer several requests.", ("model", "version")
)
SERVING_REQUEST_BYTES = Metric(
    "clipdrift_serving_request_bytes_total", "counter", "Bytes of the requests that were answered.", ("model", "version")
)
SERVING_IN_FLIGHT = Metric(
    "clipdrift_serving_in_flight_requests", "gauge", "Requests on the data listener that wait for their answer."
)
SERVING_CONNECTIONS = Metric("clipdrift_serving_connections", "gauge", "Open connections of the data listener.")
SERVING_TURNED_AWAY = Metric(
    "clipdrift_serving_refused_total",
    "counter",
    "Connections and requests refused by the data listener, by the bound that was met: connections, in_flight, memory, "
    "deadline.",
    ("reason",),
)
SERVING_LOGGED = Metric(
    "clipdrift_serving_logged_total",
    "counter",
    "What became of messages that another server logged: paired, repeated, misfit (halves that do not belong together), "
    "age and room (given up: the other half did not come in time, or too many waited).",
    ("outcome",),
)
SERVING_REQUEST_IDS = Metric(
    "clipdrift_serving_request_ids", "gauge", "Requests whose labels may still come by the caller's own id."
)
SERVING_REQUEST_IDS_LOST = Metric(
    "clipdrift_serving_request_ids_lost_total",
    "counter",
    "Requests let go before a label came by their id: expired (too old), evicted (too many), dropped (could not be written).",
    ("reason",),
)
SERVING_WORKER_RESTARTS = Metric(
    "clipdrift_serving_worker_restarts_total", "counter", "Worker processes that ended unasked and were started again."
)

# --- monitor: the one exporter of figures about models ----------------------------------------------------------------------
MODEL_ACCURACY = Metric(
    "clipdrift_model_live_accuracy_ratio",
    "gauge",
    'Share of mature labels that equal the prediction, over the sliding view, by slice ("": all).',
    ("model", "slice"),
)
MODEL_ACCURACY_LOW = Metric(
    "clipdrift_model_live_accuracy_low_ratio",
    "gauge",
    "Lower end of the 95 % interval of live accuracy.",
    ("model", "slice"),
)
MODEL_ACCURACY_HIGH = Metric(
    "clipdrift_model_live_accuracy_high_ratio",
    "gauge",
    "Upper end of the 95 % interval of live accuracy.",
    ("model", "slice"),
)
MODEL_VALIDATED_ACCURACY = Metric(
    "clipdrift_model_validated_accuracy_ratio",
    "gauge",
    "Accuracy at validation of the version in service, by slice.",
    ("model", "slice"),
)
MODEL_NLL = Metric(
    "clipdrift_model_live_nll_nats",
    "gauge",
    "Mean negative log-likelihood of mature labels over the sliding view.",
    ("model",),
)
MODEL_BRIER = Metric(
    "clipdrift_model_live_brier_score", "gauge", "Mean Brier score of mature labels over the sliding view.", ("model",)
)
MODEL_ECE = Metric(
    "clipdrift_model_live_ece_ratio",
    "gauge",
    "Expected calibration error of mature labels over the sliding view.",
    ("model",),
)
MODEL_LABELS_IN_VIEW = Metric(
    "clipdrift_model_labels_in_view",
    "gauge",
    "Mature labels in the sliding view: the n behind every live figure.",
    ("model", "slice"),
)
MODEL_PREDICTIONS = Metric("clipdrift_model_predictions_total", "counter", "Predictions that reached the monitor.", ("model",))
MODEL_LABELS = Metric(
    "clipdrift_model_labels_total", "counter", "Labels that reached the monitor and were counted.", ("model",)
)
MODEL_LABEL_MATURITY = Metric(
    "clipdrift_model_label_maturity_ratio", "gauge", "Labels over predictions in the newest closed window.", ("model",)
)
MODEL_LABEL_DELAY = Metric(
    "clipdrift_model_label_delay_seconds",
    "gauge",
    "Mean time from prediction to label in the newest closed window.",
    ("model",),
)
MODEL_DRIFT = Metric(
    "clipdrift_model_feature_drift_score",
    "gauge",
    "Jensen-Shannon distance of a feature's bins to the reference, newest closed window; of those that moved most.",
    ("model", "feature"),
)
MODEL_FEATURES_MOVED = Metric(
    "clipdrift_model_features_moved_ratio",
    "gauge",
    "Share of all features whose distance is policy.drift.min_score or more.",
    ("model",),
)
MODEL_PREDICTION_DRIFT = Metric(
    "clipdrift_model_prediction_drift_score",
    "gauge",
    "Jensen-Shannon distance of the score's bins to the reference.",
    ("model",),
)
MODEL_MIX_DRIFT = Metric(
    "clipdrift_model_mix_drift_score", "gauge", "Jensen-Shannon distance of the slice mix to the reference.", ("model",)
)
MODEL_ARM_DIFFERENCE = Metric(
    "clipdrift_model_arm_difference_brier_score",
    "gauge",
    "Validation Brier score of an arm (a clipping policy) of the newest retrain minus that of the arm that keeps the clipping, "
    "paired on the same rows: below 0 the arm is better.",
    ("model", "arm"),
)
MODEL_ARM_DIFFERENCE_LOW = Metric(
    "clipdrift_model_arm_difference_low_brier_score", "gauge", "Lower end of its 95 % interval.", ("model", "arm")
)
MODEL_ARM_DIFFERENCE_HIGH = Metric(
    "clipdrift_model_arm_difference_high_brier_score", "gauge", "Upper end of its 95 % interval.", ("model", "arm")
)
MODEL_ARM_BETTER = Metric(
    "clipdrift_model_arm_better",
    "gauge",
    "Whether an arm of the newest retrain is better than the arm that keeps the clipping, by more than chance and by "
    "policy.clipping_margin at least: 1 it is, -1 it is not, 0 is open.",
    ("model", "arm"),
)
MODEL_ARM_REMOVED_MASS = Metric(
    "clipdrift_model_arm_removed_mass_ratio",
    "gauge",
    "Share of gradient mass that clipping removed in the training of an arm of the newest retrain.",
    ("model", "arm"),
)
MODEL_ARM_CHOSEN = Metric(
    "clipdrift_model_arm_chosen", "gauge", "Whether the newest retrain chose this arm: 1 or 0.", ("model", "arm")
)
MODEL_PROBE_NORM = Metric(
    "clipdrift_model_probe_grad_norm",
    "gauge",
    "Median gradient norm of batches, by rows: trained (of the version in service), recent (labelled since), retrain (as the "
    "first steps of the newest retrain showed them).",
    ("model", "rows"),
)
MODEL_PROBE_REMOVED_MASS = Metric(
    "clipdrift_model_probe_removed_mass_ratio",
    "gauge",
    "Share of gradient mass that the bound of the version in service would remove, by rows: trained, recent, retrain.",
    ("model", "rows"),
)
MODEL_HARM_EVIDENCE = Metric(
    "clipdrift_model_harm_evidence_ratio",
    "gauge",
    "Evidence for each harm test: 0 is what chance gives by now, 1 is an alarm, equal steps are equal factors.",
    ("model", "test"),
)
MODEL_FALSE_ALARMS_PROMISED = Metric(
    "clipdrift_model_promised_false_alarms",
    "gauge",
    "False alarms of the harm tests in 90 days that the budget allows this model, by severity.",
    ("model", "severity"),
)
MODEL_FALSE_ALARMS_REALISED = Metric(
    "clipdrift_model_realised_false_alarms",
    "gauge",
    "False alarms in 90 days that the model's own healthy days would bring: the live tests replayed on them, mean.",
    ("model", "severity"),
)
MODEL_FALSE_ALARMS_LOW = Metric(
    "clipdrift_model_realised_false_alarms_low",
    "gauge",
    "Lower end of the 95 % interval of that mean.",
    ("model", "severity"),
)
MODEL_FALSE_ALARMS_HIGH = Metric(
    "clipdrift_model_realised_false_alarms_high",
    "gauge",
    "Upper end of the 95 % interval of that mean.",
    ("model", "severity"),
)
MODEL_REPAIR_WORTH = Metric(
    "clipdrift_model_repair_worth_brier",
    "gauge",
    "Brier score that the best challenger would have gained per prediction.",
    ("model",),
)
MODEL_REMOVED_MASS = Metric(
    "clipdrift_model_removed_mass_ratio",
    "gauge",
    "Share of gradient mass that clipping removed in the run of the version in service.",
    ("model",),
)
MODEL_CLIP_RATE = Metric(
    "clipdrift_model_clip_rate_ratio",
    "gauge",
    "Share of steps clipped in the run of the version in service.",
    ("model",),
)
MODEL_GENERATION = Metric("clipdrift_model_generation", "gauge", "Generation of the newest deployment.", ("model",))
MODEL_INFO = Metric(
    "clipdrift_model_info",
    "info",
    "Version that should be in service and what clipping has to do with its harm: value 1.",
    ("model", "version", "clipping"),
)
MODEL_OPEN_SIGNALS = Metric("clipdrift_model_open_signals", "gauge", "Open signals by kind.", ("model", "kind", "severity"))
MODEL_SIGNALS = Metric("clipdrift_model_signals_total", "counter", "Signals raised.", ("model", "kind", "severity"))
MODEL_OPEN_INCIDENTS = Metric(
    "clipdrift_model_open_incidents",
    "gauge",
    "Open incidents by severity, and by what people said to them: open (nothing), acknowledged, silenced.",
    ("model", "severity", "hold"),
)
MODEL_INCIDENTS = Metric(
    "clipdrift_model_incidents_total",
    "counter",
    "Incidents that opened, by root (data, labels, training, harm, drift) and the severity they opened with.",
    ("model", "root", "severity"),
)
MODEL_INCIDENT_ALERTS = Metric(
    "clipdrift_model_incident_alerts",
    "gauge",
    "Open incidents as alerts tell of them, by root and by the severity that was told; 0 once they are over.",
    ("model", "root", "severity"),
)
MODEL_INCIDENT_VERDICTS = Metric(
    "clipdrift_model_incident_verdicts",
    "gauge",
    "Incidents by the newest verdict that people gave: true, false, known. True over true and false is the precision so far.",
    ("model", "verdict"),
)
MODEL_DECISIONS = Metric("clipdrift_model_decisions_total", "counter", 'Decisions by action, also "none".', ("model", "action"))
MODEL_RETRAINS = Metric("clipdrift_model_retrains_total", "counter", "Finished retrains by verdict.", ("model", "verdict"))
MODEL_RETRAIN_RUNNING = Metric(
    "clipdrift_model_retrain_running", "gauge", "1 while a retrain is requested or running.", ("model",)
)
MODEL_RETRAIN_STARTED = Metric(
    "clipdrift_model_retrain_started_timestamp_seconds",
    "gauge",
    "Wall time at which the running retrain was started (0: none).",
    ("model",),
)
MODEL_RETRAIN_CPU = Metric("clipdrift_model_retrain_cpu_seconds_total", "counter", "CPU time of finished retrains.", ("model",))
MODEL_RETRAIN_WALL = Metric(
    "clipdrift_model_retrain_wall_seconds_total", "counter", "Time that finished retrains took, from start to end.", ("model",)
)
MODEL_RETRAIN_WORTH = Metric(
    "clipdrift_model_retrains_by_worth",
    "gauge",
    "Of the last 50 retrains, by what they were worth: worth it, not worth it, measuring, unknown.",
    ("model", "verdict"),
)
MODEL_FALSE_RETRAINS = Metric(
    "clipdrift_model_false_retrain_ratio",
    "gauge",
    "Of the last 50 retrains, those that were not worth it over those with a verdict.",
    ("model",),
)
MODEL_RETRAIN_GAIN = Metric(
    "clipdrift_model_retrain_gain_loss",
    "gauge",
    "Loss a prediction (half the Brier score of several classes, that of two) that the version replaced last would have had "
    "on top, on the same live rows.",
    ("model",),
)
MODEL_RETRAIN_GAIN_LOW = Metric(
    "clipdrift_model_retrain_gain_low_loss", "gauge", "Lower end of the 95 % interval of that gain.", ("model",)
)
MODEL_RETRAIN_GAIN_HIGH = Metric(
    "clipdrift_model_retrain_gain_high_loss", "gauge", "Upper end of the 95 % interval of that gain.", ("model",)
)
MODEL_ROLLOUT_WEIGHT = Metric(
    "clipdrift_model_rollout_weight_ratio",
    "gauge",
    "Share of the requests that a candidate on its way into service answers (shadow: 0); no series where there is none.",
    ("model",),
)
MODEL_ROLLOUT_INFO = Metric(
    "clipdrift_model_rollout_info",
    "info",
    "The candidate on its way into service, and the stage of its rollout: value 1.",
    ("model", "version", "stage"),
)
MODEL_ROLLOUT_LABELS = Metric(
    "clipdrift_model_rollout_labels", "gauge", "Mature labels of the candidate's own rows, all stages.", ("model",)
)
MODEL_ROLLOUT_PROGRESS = Metric(
    "clipdrift_model_rollout_progress_ratio", "gauge", "Evidence towards what a promotion needs; 1 is enough.", ("model",)
)
MODEL_ROLLOUT_HARM = Metric(
    "clipdrift_model_rollout_harm_ratio", "gauge", "Evidence of harm towards what a rollback needs; 1 is enough.", ("model",)
)
MODEL_ROLLOUT_DIFFERENCE = Metric(
    "clipdrift_model_rollout_difference_ratio",
    "gauge",
    "The candidate's figure minus the champion's, of the same period: error or loss, by slice; above 0 it is worse.",
    ("model", "watched", "slice"),
)
MODEL_ROLLOUT_DIFFERENCE_LOW = Metric(
    "clipdrift_model_rollout_difference_low_ratio",
    "gauge",
    "Lower end of the 95 % interval of that difference; it holds at every look.",
    ("model", "watched", "slice"),
)
MODEL_ROLLOUT_DIFFERENCE_HIGH = Metric(
    "clipdrift_model_rollout_difference_high_ratio",
    "gauge",
    "Upper end of the 95 % interval of that difference; it holds at every look.",
    ("model", "watched", "slice"),
)
MODEL_ROLLOUT_FAILED = Metric(
    "clipdrift_model_rollout_failed_ratio",
    "gauge",
    "Share of the requests that failed since the rollout began, by side: candidate, champion.",
    ("model", "side"),
)
MODEL_ROLLOUT_LATENCY = Metric(
    "clipdrift_model_rollout_latency_seconds",
    "gauge",
    "What 19 of 20 answers took at most since the canary began, by side: candidate, champion.",
    ("model", "side"),
)
MODEL_ROLLOUTS = Metric(
    "clipdrift_model_rollouts_total",
    "counter",
    "Rollouts that are over, by end: promoted, rolled back, held, withdrawn (by a person), replaced.",
    ("model", "end"),
)
MODEL_QUARANTINED = Metric(
    "clipdrift_model_quarantined_versions", "gauge", "Versions that were rolled back and stay out.", ("model",)
)
MODEL_APPROVALS_WAITING = Metric(
    "clipdrift_model_approvals_waiting", "gauge", "Questions that wait for a person: promotion, retrain.", ("model", "kind")
)
MODEL_APPROVALS = Metric(
    "clipdrift_model_approvals_total",
    "counter",
    "Questions to people that are over, by kind and end: approved, rejected, void, expired. Rejected over both answers "
    "is the override rate.",
    ("model", "kind", "state"),
)
MODEL_APPROVAL_SECONDS = Metric(
    "clipdrift_model_approval_seconds",
    "gauge",
    "Median time from opening the evidence to the answer, of the last 50 answers.",
    ("model",),
)
MODEL_RUBBER_STAMPS = Metric(
    "clipdrift_model_rubber_stamps_total",
    "counter",
    "Approvals that came sooner after opening the evidence than policy.approval.rubber_stamp_seconds.",
    ("model",),
)
MONITOR_EVENTS = Metric(
    "clipdrift_monitor_events_total",
    "counter",
    "Events by topic and outcome: applied, duplicate, late, expired (of a time that is kept no more), poison.",
    ("topic", "outcome"),
)
MONITOR_JUDGING_STOPPED = Metric(
    "clipdrift_monitor_judging_stopped",
    "gauge",
    "1 while a model is not judged, for an error of the monitor's own at its next window.",
    ("model",),
)
MONITOR_PARTS_LEFT_OUT = Metric(
    "clipdrift_monitor_parts_left_out",
    "gauge",
    "Inputs (features) and slices whose figures are not exported: series are for those that moved or lost most.",
    ("what",),
)
MONITOR_LAG = Metric("clipdrift_monitor_lag_records", "gauge", "Records on the bus that the monitor has not read.")
MONITOR_WATERMARK = Metric(
    "clipdrift_monitor_watermark_timestamp_seconds", "gauge", "Event time up to which windows are closed.", ("model",)
)
MONITOR_COMMIT_SECONDS = Metric(
    "clipdrift_monitor_commit_duration_seconds",
    "histogram",
    "Time of one commit of state and offset.",
    (),
    LATENCY_BUCKETS,
)
MONITOR_AUDIT_ROWS = Metric("clipdrift_monitor_audit_rows_total", "counter", "Rows of the hash-chained audit log.")
MONITOR_AUDIT_BROKEN = Metric("clipdrift_monitor_audit_broken", "gauge", "1 when the audit log's hash chain does not verify.")
MONITOR_OUTBOX_PENDING = Metric("clipdrift_monitor_outbox_pending", "gauge", "Orders written and not yet carried out.")
MONITOR_ALERTMANAGER_REACHED = Metric(
    "clipdrift_monitor_alertmanager_reached_timestamp_seconds",
    "gauge",
    "Wall time at which the monitor last had an answer of each Alertmanager that it tells of incidents (0: never).",
    ("alertmanager",),
)
MONITOR_ALERTS_DIFFERING = Metric(
    "clipdrift_monitor_alerts_differing",
    "gauge",
    "Alerts about incidents on which an Alertmanager and the monitor differ: missing (the monitor alone knows it), unknown "
    "(Alertmanager alone).",
    ("alertmanager", "side"),
)
MONITOR_ALERTMANAGER_FAILURES = Metric(
    "clipdrift_monitor_alertmanager_failures_total",
    "counter",
    "Calls to an Alertmanager that failed; each is made again.",
    ("alertmanager",),
)

# --- bus --------------------------------------------------------------------------------------------------------------------
BUS_POISON = Metric(
    "clipdrift_bus_poison_total",
    "counter",
    "Records parked on the poison topic, by the topic they came from.",
    ("topic",),
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


OPENMETRICS = "application/openmetrics-text; version=1.0.0"
"""What a scraper accepts that wants exemplars."""


class _WithoutCreated(Collector):
    """The client library adds a series with its own start time to every counter, under a name that is in no list."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Family]:
        for collector in self._collectors:
            for family in collector.collect():
                family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
                yield family


def encoded(collectors: Sequence[Collector], accept: str) -> tuple[bytes, str]:
    """Body and content type of an answer to a scraper: OpenMetrics, with exemplars, for one that accepts it (Prometheus does),
    else the text format.

    Args:
        collectors: No two may tell of one metric.
        accept: The scraper's header.

    Example:
        >>> metrics = MetricSet()
        >>> metrics.counter(SERVING_SWAPS).labels("m", "done").inc(exemplar={"trace_id": "4bf92f"})
        >>> body, kind = encoded([metrics.registry], OPENMETRICS)
        >>> kind.partition(";")[0], b'# {trace_id="4bf92f"} 1.0' in body
        ('application/openmetrics-text', True)
    """
    encode, kind = choose_encoder(accept)
    return encode(_WithoutCreated(collectors)), kind


class MetricSet:
    """The Prometheus objects of one process, made from `Metric`s on first use and registered in its own registry.

    Example:
        >>> metrics = MetricSet()
        >>> metrics.counter(SERVING_ROWS).labels("m", "1", "champion").inc(32)
        >>> next(iter(metrics.registry.collect())).samples[0].value
        32.0
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[Metric, Counter | Gauge | Histogram] = {}

    def counter(self, metric: Metric) -> Counter:
        made = self._get(metric)
        assert isinstance(made, Counter), f"{metric.name} is a {metric.kind}"
        return made

    def gauge(self, metric: Metric) -> Gauge:
        """Also for kind "info": a gauge whose series with value 1 carries the labels."""
        made = self._get(metric)
        assert isinstance(made, Gauge), f"{metric.name} is a {metric.kind}"
        return made

    def histogram(self, metric: Metric) -> Histogram:
        made = self._get(metric)
        assert isinstance(made, Histogram), f"{metric.name} is a {metric.kind}"
        return made

    def exposition(self) -> bytes:
        """All series in Prometheus's text format."""
        return generate_latest(_WithoutCreated([self.registry]))

    def _get(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric not in self._made:
            self._made[metric] = self._make(metric)
        return self._made[metric]

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        if metric.kind == "histogram":
            return Histogram(metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets)
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
