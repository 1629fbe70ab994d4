"""Thirty days of a monitor's metrics, made by driving a real `MetricSet`: one model drifts, is harmed, is retrained and
recovers; the other stays well. Every metric of models and of the monitor is set."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import generate_latest

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import MetricSet
from clipdrift_deploy.scrape_log import ScrapeLog
from clipdrift_monitor.detectors.window_drift import DriftConfig

NUM_DAYS = 30
DAY_MS = 86_400_000
START_MS = 1_362_096_000_000  # 2013-03-01
HARMED, WELL = "pump", "valve"
HARMED_FROM, REPAIRED_ON, DATA_CHANGED_ON = 12, 20, 7
SLICES = ("", "north", "south", "a b")
FEATURES = tuple(f"input {index}" for index in range(12))


def expositions() -> Iterator[tuple[str, int]]:
    """What GET /metrics of the monitor would have answered at the end of each day."""
    dice = random.Random(1)
    metrics = MetricSet()
    for day in range(NUM_DAYS):
        for model in (HARMED, WELL):
            loss = 0.006 * max(0, day - HARMED_FROM) if model == HARMED and day < REPAIRED_ON else 0.0
            _quality(metrics, model, day, loss, dice)
            _causes(metrics, model, day, loss, dice)
            _deeds(metrics, model, day, loss)
            _rolled_out(metrics, model, day, dice)
            _flow(metrics, model, day, dice)
            _served(metrics, model, day, dice)
            _trained(metrics, model, dice)
        _monitor(metrics, dice)
        yield generate_latest(metrics.registry).decode(), START_MS + (day + 1) * DAY_MS


def write(path: Path) -> None:
    """All of it as one OpenMetrics file."""
    log = ScrapeLog(path)
    for text, time_ms in expositions():
        log.add(text, time_ms)
    log.close()


def _quality(metrics: MetricSet, model: str, day: int, loss: float, dice: random.Random) -> None:
    for index, name in enumerate(SLICES):
        labels = round(12_000 / (index + 1) * min(1.0, (day + 1) / 14))
        accuracy = 0.86 - 0.01 * index - loss * (1 + 0.5 * index) + dice.gauss(0, 0.003)
        half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / labels) * 2
        metrics.gauge(names.MODEL_ACCURACY).labels(model, name).set(accuracy)
        metrics.gauge(names.MODEL_ACCURACY_LOW).labels(model, name).set(accuracy - half)
        metrics.gauge(names.MODEL_ACCURACY_HIGH).labels(model, name).set(accuracy + half)
        metrics.gauge(names.MODEL_VALIDATED_ACCURACY).labels(model, name).set(0.86 - 0.01 * index)
        metrics.gauge(names.MODEL_LABELS_IN_VIEW).labels(model, name).set(labels)
    metrics.gauge(names.MODEL_NLL).labels(model).set(0.35 + 3 * loss + dice.gauss(0, 0.004))
    metrics.gauge(names.MODEL_BRIER).labels(model).set(0.1 + loss + dice.gauss(0, 0.002))
    metrics.gauge(names.MODEL_ECE).labels(model).set(abs(0.01 + 1.2 * loss + dice.gauss(0, 0.002)))


def _causes(metrics: MetricSet, model: str, day: int, loss: float, dice: random.Random) -> None:
    evidence = {"sudden_break": 4 * loss, "worse_than_validated": 42 * loss, "repairable": 30 * loss}
    for test, level in evidence.items():
        metrics.gauge(names.MODEL_HARM_EVIDENCE).labels(model, test).set(max(0.0, level + abs(dice.gauss(0, 0.05))))
    for severity, promised in (("page", 0.5), ("ticket", 0.75)):
        metrics.gauge(names.MODEL_FALSE_ALARMS_PROMISED).labels(model, severity).set(promised)
        metrics.gauge(names.MODEL_FALSE_ALARMS_REALISED).labels(model, severity).set(0.1 * promised)
        metrics.gauge(names.MODEL_FALSE_ALARMS_LOW).labels(model, severity).set(0.0)
        metrics.gauge(names.MODEL_FALSE_ALARMS_HIGH).labels(model, severity).set(0.4 * promised)
    metrics.gauge(names.MODEL_REPAIR_WORTH).labels(model).set(0.8 * loss + dice.gauss(0, 0.0004))
    drift = {
        feature: 0.02 + (loss * index if index % 3 == 0 else 0.0) + abs(dice.gauss(0, 0.01))
        for index, feature in enumerate(FEATURES)
    }
    for feature, score in drift.items():
        metrics.gauge(names.MODEL_DRIFT).labels(model, feature).set(score)
    num_moved = sum(score >= DriftConfig().min_score for score in drift.values())
    metrics.gauge(names.MODEL_FEATURES_MOVED).labels(model).set(num_moved / max(1, len(drift)))
    metrics.gauge(names.MODEL_PREDICTION_DRIFT).labels(model).set(0.03 + 2 * loss + abs(dice.gauss(0, 0.005)))
    metrics.gauge(names.MODEL_MIX_DRIFT).labels(model).set(0.02 + abs(dice.gauss(0, 0.008)))
    is_first = day < REPAIRED_ON or model == WELL
    metrics.gauge(names.MODEL_REMOVED_MASS).labels(model).set(0.93 if is_first and model == HARMED else 0.04)
    metrics.gauge(names.MODEL_CLIP_RATE).labels(model).set(0.99 if is_first and model == HARMED else 0.11)


def _arms(metrics: MetricSet, model: str) -> None:
    """What the retrain tried, and what the probe foretold of it."""
    for arm, difference, mass in (("same", None, 0.93), ("half", 0.002, 0.97), ("q90", -0.021, 0.04)):
        metrics.gauge(names.MODEL_ARM_CHOSEN).labels(model, arm).set(arm == "q90")
        metrics.gauge(names.MODEL_ARM_REMOVED_MASS).labels(model, arm).set(mass)
        if difference is not None:
            metrics.gauge(names.MODEL_ARM_DIFFERENCE).labels(model, arm).set(difference)
            metrics.gauge(names.MODEL_ARM_DIFFERENCE_LOW).labels(model, arm).set(difference - 0.004)
            metrics.gauge(names.MODEL_ARM_DIFFERENCE_HIGH).labels(model, arm).set(difference + 0.004)
            metrics.gauge(names.MODEL_ARM_BETTER).labels(model, arm).set(1 if difference < 0 else 0)
    for rows, norm, mass in (("trained", 2.1, 0.61), ("recent", 3.4, 0.74), ("retrain", 3.2, 0.73)):
        metrics.gauge(names.MODEL_PROBE_NORM).labels(model, rows).set(norm)
        metrics.gauge(names.MODEL_PROBE_REMOVED_MASS).labels(model, rows).set(mass)


def _deeds(metrics: MetricSet, model: str, day: int, loss: float) -> None:
    is_repaired = model == HARMED and day >= REPAIRED_ON
    if model == HARMED:
        metrics.gauge(names.MODEL_INFO).clear()
        metrics.gauge(names.MODEL_OPEN_SIGNALS).clear()
        metrics.gauge(names.MODEL_OPEN_INCIDENTS).clear()
    metrics.gauge(names.MODEL_GENERATION).labels(model).set(2 if is_repaired else 1)
    clipping = "unknown" if not is_repaired else "implicated"
    version = "2013-03-20" if is_repaired else "2013-03-01"
    metrics.gauge(names.MODEL_INFO).labels(model, version, clipping).set(1)
    is_alarm = 42 * loss >= 1
    metrics.gauge(names.MODEL_INCIDENT_ALERTS).labels(model, "harm", "ticket").set(is_alarm)
    if is_alarm:
        metrics.gauge(names.MODEL_OPEN_SIGNALS).labels(model, "worse_than_validated", "ticket").set(1)
        metrics.counter(names.MODEL_SIGNALS).labels(model, "worse_than_validated", "ticket").inc()
        metrics.gauge(names.MODEL_OPEN_INCIDENTS).labels(model, "ticket", "open").set(1)
        metrics.counter(names.MODEL_INCIDENTS).labels(model, "harm", "ticket").inc()
    if model == HARMED and day == DATA_CHANGED_ON:
        metrics.counter(names.MODEL_SIGNALS).labels(model, "schema", "note").inc()
    is_retrain = model == HARMED and day == REPAIRED_ON - 1
    action = "retrain" if is_retrain else "alert" if is_alarm else "none"
    metrics.counter(names.MODEL_DECISIONS).labels(model, action).inc()
    for verdict, num_incidents in (("true", 2), ("false", 0), ("known", 1)):
        metrics.gauge(names.MODEL_INCIDENT_VERDICTS).labels(model, verdict).set(num_incidents)
    if model == HARMED and day == REPAIRED_ON:
        metrics.counter(names.MODEL_RETRAINS).labels(model, "pass").inc()
        _arms(metrics, model)
    metrics.gauge(names.MODEL_RETRAIN_RUNNING).labels(model).set(is_retrain)
    started = START_MS / 1000 + day * 86_400
    metrics.gauge(names.MONITOR_JUDGING_STOPPED).labels(model).set(0)
    metrics.gauge(names.MODEL_RETRAIN_STARTED).labels(model).set(started if is_retrain else 0)


def _rolled_out(metrics: MetricSet, model: str, day: int, dice: random.Random) -> None:
    """The repair is in a canary on the day before it is promoted, after a person agreed; then it is known what it was worth."""
    of_rollout = (
        names.MODEL_ROLLOUT_INFO, names.MODEL_ROLLOUT_WEIGHT, names.MODEL_ROLLOUT_LABELS, names.MODEL_ROLLOUT_PROGRESS,
        names.MODEL_ROLLOUT_HARM, names.MODEL_ROLLOUT_DIFFERENCE, names.MODEL_ROLLOUT_DIFFERENCE_LOW,
        names.MODEL_ROLLOUT_DIFFERENCE_HIGH, names.MODEL_ROLLOUT_FAILED, names.MODEL_ROLLOUT_LATENCY,
    )  # fmt: skip
    is_repaired = model == HARMED and day >= REPAIRED_ON
    metrics.gauge(names.MODEL_QUARANTINED).labels(model).set(0)
    metrics.gauge(names.MODEL_APPROVALS_WAITING).labels(model, "candidate").set(0)
    metrics.counter(names.MODEL_RUBBER_STAMPS).labels(model).inc(0)
    metrics.gauge(names.MODEL_FALSE_RETRAINS).labels(model).set(0.0)
    if model == HARMED:
        for metric in of_rollout:
            metrics.gauge(metric).clear()
    if model == HARMED and day == REPAIRED_ON - 1:
        metrics.gauge(names.MODEL_ROLLOUT_INFO).labels(model, "2013-03-20", "canary 0.5").set(1)
        metrics.gauge(names.MODEL_ROLLOUT_WEIGHT).labels(model).set(0.5)
        metrics.gauge(names.MODEL_ROLLOUT_LABELS).labels(model).set(420)
        metrics.gauge(names.MODEL_ROLLOUT_PROGRESS).labels(model).set(0.8)
        metrics.gauge(names.MODEL_ROLLOUT_HARM).labels(model).set(0.02)
        for name in SLICES:
            for watched, difference in (("error", -0.04), ("loss", -0.02)):
                metrics.gauge(names.MODEL_ROLLOUT_DIFFERENCE).labels(model, watched, name).set(difference)
                metrics.gauge(names.MODEL_ROLLOUT_DIFFERENCE_LOW).labels(model, watched, name).set(2 * difference)
                metrics.gauge(names.MODEL_ROLLOUT_DIFFERENCE_HIGH).labels(model, watched, name).set(0.001)
        for side in ("candidate", "champion"):
            metrics.gauge(names.MODEL_ROLLOUT_FAILED).labels(model, side).set(0.001)
            metrics.gauge(names.MODEL_ROLLOUT_LATENCY).labels(model, side).set(0.002 + abs(dice.gauss(0, 0.0001)))
        metrics.counter(names.MODEL_APPROVALS).labels(model, "candidate", "approved").inc()
        metrics.gauge(names.MODEL_APPROVAL_SECONDS).labels(model).set(1_800)
    if model == HARMED and day == REPAIRED_ON:
        metrics.counter(names.MODEL_ROLLOUTS).labels(model, "promoted").inc()
        metrics.counter(names.MODEL_RETRAIN_CPU).labels(model).inc(31)
        metrics.counter(names.MODEL_RETRAIN_WALL).labels(model).inc(20)
    if is_repaired:
        metrics.gauge(names.MODEL_RETRAIN_WORTH).labels(model, "worth it").set(1)
        metrics.gauge(names.MODEL_RETRAIN_GAIN).labels(model).set(0.02)
        metrics.gauge(names.MODEL_RETRAIN_GAIN_LOW).labels(model).set(0.01)
        metrics.gauge(names.MODEL_RETRAIN_GAIN_HIGH).labels(model).set(0.03)


def _flow(metrics: MetricSet, model: str, day: int, dice: random.Random) -> None:
    rows = round(900 + 80 * math.sin(day / 7 * 2 * math.pi) + dice.gauss(0, 20))
    metrics.counter(names.MODEL_PREDICTIONS).labels(model).inc(rows)
    metrics.counter(names.MODEL_LABELS).labels(model).inc(round(rows * 0.97))
    metrics.gauge(names.MODEL_LABEL_MATURITY).labels(model).set(
        0.4 if day == 5 or (day == NUM_DAYS - 1 and model == HARMED) else 0.97
    )
    metrics.gauge(names.MODEL_LABEL_DELAY).labels(model).set(9_000 + dice.gauss(0, 300))
    metrics.gauge(names.MONITOR_WATERMARK).labels(model).set(START_MS / 1000 + day * 86_400)


def _monitor(metrics: MetricSet, dice: random.Random) -> None:
    metrics.counter(names.MONITOR_EVENTS).labels("clipdrift.predictions", "applied").inc(40)
    metrics.gauge(names.MONITOR_LAG).set(dice.randrange(0, 60))
    for what in ("features", "slices"):
        metrics.gauge(names.MONITOR_PARTS_LEFT_OUT).labels(what).set(0)
    metrics.histogram(names.MONITOR_COMMIT_SECONDS).observe(0.004)
    metrics.counter(names.MONITOR_AUDIT_ROWS).inc(2)
    metrics.gauge(names.MONITOR_ALERTMANAGER_REACHED).labels("http://alertmanager:9093").set(START_MS / 1000)
    metrics.gauge(names.MONITOR_ALERTS_DIFFERING).labels("http://alertmanager:9093", "missing").set(0)
    metrics.counter(names.MONITOR_ALERTMANAGER_FAILURES).labels("http://alertmanager:9093").inc(0)
    metrics.gauge(names.MONITOR_AUDIT_BROKEN).set(0)
    metrics.gauge(names.MONITOR_OUTBOX_PENDING).set(0)
    metrics.counter(names.BUS_POISON).labels("clipdrift.predictions").inc(0.1)


def _served(metrics: MetricSet, model: str, day: int, dice: random.Random) -> None:
    version = "2013-03-20" if model == HARMED and day >= REPAIRED_ON else "2013-03-01"
    rows = 900 + dice.randrange(100)
    for code, num_requests in (("ok", rows), ("400", 3)):
        metrics.counter(names.SERVING_REQUESTS).labels(model, code).inc(num_requests)
    metrics.counter(names.SERVING_ROWS).labels(model, version, "champion").inc(rows)
    metrics.counter(names.SERVING_CPU_SECONDS).labels(model, version).inc(0.0004 * rows)
    metrics.counter(names.SERVING_CORRECT).labels(model, version).inc(round(0.85 * rows))
    metrics.counter(names.SERVING_LABELS).labels(model, "accepted").inc(rows)
    metrics.counter(names.SERVING_UNRECORDED).labels(model, "sampled").inc(5)
    metrics.counter(names.SERVING_SWAPS).labels(model, "done").inc(day in (0, REPAIRED_ON))
    for _ in range(20):
        metrics.histogram(names.SERVING_LATENCY).labels(model).observe(0.002 * math.exp(dice.gauss(0, 0.7)))
    metrics.gauge(names.SERVING_REFUSED).labels(model).set(0)
    metrics.gauge(names.SERVING_RECORDER_QUEUE).set(dice.randrange(40))
    metrics.gauge(names.SERVING_SPOOL_BYTES).set(dice.randrange(4096))
    metrics.counter(names.SERVING_TURNED_AWAY).labels("deadline").inc()
    metrics.counter(names.SERVING_WORKER_RESTARTS).inc(0)


def _trained(metrics: MetricSet, model: str, dice: random.Random) -> None:
    metrics.counter(names.TRAINER_STEPS).labels(model).inc(100)
    metrics.counter(names.TRAINER_CLIPPED_STEPS).labels(model).inc(12)
    for _ in range(100):
        norm = math.exp(dice.gauss(-1, 0.8))
        metrics.histogram(names.TRAINER_GRAD_NORM).labels(model).observe(norm)
        metrics.counter(names.TRAINER_GRAD_NORM_REMOVED).labels(model).inc(max(0.0, norm - 1))
    for metric, value in (
        (names.TRAINER_CLIP_BOUND, 1.0), (names.TRAINER_LEARNING_RATE, 1e-3), (names.TRAINER_EFFECTIVE_LEARNING_RATE, 9e-4),
        (names.TRAINER_LOSS, 0.4), (names.TRAINER_PROGRESS, 0.5), (names.TRAINER_WINDOWS_UNSENT, 0.0),
    ):  # fmt: skip
        metrics.gauge(metric).labels(model).set(value)
    for group in ("encoder", "head"):
        metrics.gauge(names.TRAINER_GROUP_NORM).labels(model, group).set(abs(dice.gauss(0.5, 0.1)))
    for name in SLICES[1:]:
        metrics.counter(names.TRAINER_SLICE_GRAD_MASS).labels(model, name).inc(10)
    for metric in (names.TRAINER_NONFINITE_STEPS, names.TRAINER_INEFFECTIVE_STEPS, names.TRAINER_SKIPPED_STEPS):
        metrics.counter(metric).labels(model).inc(0)
    metrics.counter(names.TRAINER_FAULTS).labels(model, "clipped_twice").inc(0)
    metrics.counter(names.TRAINER_SINK_FAILURES).labels(model, "bus").inc(0)
    metrics.counter(names.TRAINER_WINDOWS_LOST).labels(model, "bus").inc(0)
