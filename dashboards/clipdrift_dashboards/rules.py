"""Recording rules and alerts. Few alerts, each on a symptom that somebody can do something about; drift alone wakes nobody."""

from typing import Any, Literal

import msgspec

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.promql import any_of, newest, select

AlertSeverity = Literal["page", "ticket", "none"]
_WINDOW = thresholds.FLOW_WINDOW


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A recording rule: `level:metric:operation`."""

    name: str
    labels: tuple[str, ...]
    expr: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert. `model_labelled`: whether its series carry the label `model`, so that texts and links may name it."""

    name: str
    severity: AlertSeverity
    expr: str
    summary: str
    description: str
    wait: str = "0m"
    model_labelled: bool = True


PREDICTIONS = Record(
    name=f"model:predictions:increase{_WINDOW}",
    labels=("model",),
    expr=f"sum by (model) (increase({select(metrics.MODEL_PREDICTIONS)}[{_WINDOW}]))",
)
SERVED = Record(
    name=f"model:serving_rows:increase{_WINDOW}",
    labels=("model",),
    expr=f"sum by (model) (increase({select(metrics.SERVING_ROWS)}[{_WINDOW}]))",
)
_DROPPED = select(metrics.SERVING_UNRECORDED)
# A counter is born with its first drop, which increase() does not see: a series that is new counts whole.
UNRECORDED = Record(
    name=f"model_reason:unrecorded:increase{_WINDOW}",
    labels=("model", "reason"),
    expr=(f"sum by (model, reason) (({_DROPPED} unless {_DROPPED} offset {_WINDOW}) or increase({_DROPPED}[{_WINDOW}]))"),
)
ACCURACY_LOSS = Record(
    name="model_slice:accuracy_loss_ratio:difference",
    labels=("model", "slice"),
    expr=f"{newest(metrics.MODEL_VALIDATED_ACCURACY, 'model', 'slice')} - {newest(metrics.MODEL_ACCURACY, 'model', 'slice')}",
)
RECORDS = (PREDICTIONS, SERVED, UNRECORDED, ACCURACY_LOSS)

_LOSS_NOW = (
    "{{ with printf \"" + ACCURACY_LOSS.name + "{model='%s',slice=''}\" $labels.model | query }}"
    " In service, {{ . | first | value | humanizePercentage }} more of all predictions are wrong than at validation.{{ end }}"
)  # fmt: skip

ALERTS = (
    Alert(
        name="ClipdriftModelHarmed",
        severity="page",
        expr=f"{newest(metrics.MODEL_OPEN_SIGNALS, 'model', 'kind', kind=any_of('sudden_break', 'worse_than_validated'))} > 0",
        summary="{{ $labels.model }} does worse than it was validated to ({{ $labels.kind }})",
        description="The monitor has proven the harm within its false-alarm budget." + _LOSS_NOW
        + " The status page says why and what is being done.",
    ),
    Alert(
        name="ClipdriftDataBroken",
        severity="page",
        expr=f"{newest(metrics.MODEL_OPEN_SIGNALS, 'model', 'kind', kind=any_of('data_broken', 'training_fault'))} > 0",
        summary="What {{ $labels.model }} gets or learned is broken ({{ $labels.kind }})",
        description="An input is missing or stands still, or the training run was faulty. What is broken is mended, not "
        "learned: no retrain is ordered.",
    ),
    Alert(
        name="ClipdriftLabelsMissing",
        severity="ticket",
        expr=f"{newest(metrics.MODEL_OPEN_SIGNALS, 'model', kind='labels_missing')} > 0",
        summary="Labels of {{ $labels.model }} do not come",
        description="A closed window has labels for less than "
        f"{thresholds.LABEL_SHARE:.0%} of its predictions. Until they come, harm is not seen and live accuracy may be wrong.",
    ),
    Alert(
        name="ClipdriftMonitorBlind",
        severity="page",
        expr=f"{select(SERVED)} > 0 unless on (model) {select(PREDICTIONS)} > 0",
        wait=thresholds.BLIND_FOR,
        summary="{{ $labels.model }} serves, and the monitor sees nothing of it",
        description="Predictions are answered and none reaches the monitor: nobody would notice harm now.",
    ),
    Alert(
        name="ClipdriftMonitorAbsent",
        severity="page",
        expr=f"absent({select(metrics.MONITOR_LAG)})",
        wait=thresholds.ABSENT_FOR,
        summary="No monitor answers",
        description="Prometheus has no figures of any monitor: no model is watched, and no other alert about models can fire.",
        model_labelled=False,
    ),
    Alert(
        name="ClipdriftMonitorBehind",
        severity="ticket",
        expr=f"max({select(metrics.MONITOR_LAG)}) > {thresholds.LAG_RECORDS}",
        wait=thresholds.LAG_FOR,
        summary='The monitor is {{ $value | printf "%.0f" }} records behind',
        description="Every figure about models is old by so much, and harm is seen late.",
        model_labelled=False,
    ),
    Alert(
        name="ClipdriftJudgingStopped",
        severity="page",
        expr=f"{newest(metrics.MONITOR_JUDGING_STOPPED, 'model')} > 0",
        summary="{{ $labels.model }} is not judged any more",
        description="The monitor failed at its next window, by an error of its own; nobody would notice harm now. Its log and "
        "the audit log (`cannot judge`) hold the error. Restart the monitor, and report the error where that does not help.",
    ),
    Alert(
        name="ClipdriftRetrainStuck",
        severity="ticket",
        # "started" is 0 for an order that nobody has started: an age of decades, so that is found too.
        expr=f"time() - {newest(metrics.MODEL_RETRAIN_STARTED, 'model')} > {thresholds.RETRAIN_SECONDS}"
        f" and on (model) {newest(metrics.MODEL_RETRAIN_RUNNING, 'model')} == 1",
        wait=thresholds.RETRAIN_START_FOR,
        summary="A retrain of {{ $labels.model }} does not end, or was never started",
        description=f"It was started more than {thresholds.RETRAIN_SECONDS // 3600} hours ago, or ordered and not started. No "
        "other retrain is ordered while it runs.",
    ),
    Alert(
        name="ClipdriftAuditLogBroken",
        severity="page",
        expr=f"max({select(metrics.MONITOR_AUDIT_BROKEN)}) > 0",
        summary="The audit log's hash chain does not verify",
        description="A row of the record of decisions and deployments was changed or removed after it was written.",
        model_labelled=False,
    ),
    Alert(
        name="ClipdriftRecordingDrops",
        severity="ticket",
        expr=f"{select(UNRECORDED, reason=any_of('fault', 'memory', 'spool_full'))} > 0",
        summary="{{ $labels.model }} answers predictions that are not recorded ({{ $labels.reason }})",
        description=f'{{{{ $value | printf "%.0f" }}}} in the last {_WINDOW}. Drift and accuracy are of the rest only.',
    ),
    Alert(
        name="ClipdriftDeploymentRefused",
        severity="ticket",
        expr=f"max by (model) ({select(metrics.SERVING_REFUSED)}) > 0",
        wait="2m",
        summary="The newest deployment of {{ $labels.model }} cannot be served",
        description="Its file is missing, changed or not admitted. The version before it goes on serving.",
    ),
    Alert(
        name="ClipdriftWatchdog",
        severity="none",
        expr="vector(1)",
        summary="Alerts reach you",
        description="Always fires. Point it at a dead man's switch that tells you when it stops.",
        model_labelled=False,
    ),
)  # fmt: skip


def rules(links: Links) -> dict[str, Any]:
    """The content of the rules file."""
    records = [{"record": record.name, "expr": record.expr} for record in RECORDS]
    return {
        "groups": [
            {"name": "clipdrift-records", "rules": records},
            {"name": "clipdrift-alerts", "rules": [_alert(alert, links) for alert in ALERTS]},
        ]
    }


def _alert(alert: Alert, links: Links) -> dict[str, Any]:
    model = "{{ $labels.model }}" if alert.model_labelled else ""
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    if alert.wait != "0m":
        rule["for"] = alert.wait
    return rule | {
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": links.runbook(alert.name),
            "dashboard_url": links.board("model", model) if model else links.board("pipeline"),
        },
    }
