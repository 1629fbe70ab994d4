"""Recording rules and alerts. Few alerts, each on a symptom that somebody can do something about; drift alone wakes nobody."""

from typing import Any, Literal

import msgspec

from clipdrift_contract import metrics
from clipdrift_contract.alerts import ALERT_SEVERITIES, roots_of
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.burn import Burn, reachable
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.promql import Matcher, any_of, newest, select

AlertSeverity = Literal["page", "ticket", "none", "{{ $labels.severity }}"]
OF_INCIDENT: AlertSeverity = "{{ $labels.severity }}"
"""As the monitor tells the incident, by `[policy.severity]`: page or ticket."""
_WINDOW = thresholds.FLOW_WINDOW
_LAST = thresholds.EVENT_WINDOW


class Objectives(msgspec.Struct, frozen=True, kw_only=True):
    """What a service promises over 30 days; alerts on it are made from the budgets, and refused where they can never fire."""

    failed_requests: float = thresholds.FAILED_REQUESTS
    """Share of requests that may fail by the server's fault."""
    wrong_answers: float | None = None
    """Share of labelled answers that may be wrong; None: no such promise. The monitor's own tests need none."""


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


def _happened(metric: Metric, **matchers: Matcher) -> str:
    """How often something happened of late, by model; of models that were known before, so that no old story is news."""
    # A counter is born with its first event, which increase() does not see: a series that is new counts whole.
    found = select(metric, **matchers)
    newly = f"(({found} unless {found} offset {_LAST}) or increase({found}[{_LAST}]))"
    return f"max by (model) ({newly}) and on (model) {select(metrics.MODEL_GENERATION)} offset {_LAST}"


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
ROLLBACKS = Record(
    name=f"model:rollbacks:increase{_LAST}",
    labels=("model",),
    expr=_happened(metrics.MODEL_DECISIONS, action="rollback"),
)
FAILED_RETRAINS = Record(
    name=f"model:failed_retrains:increase{_LAST}",
    labels=("model",),
    expr=_happened(metrics.MODEL_RETRAINS, verdict=any_of("fail", "inconclusive")),
)
_FAULTS = any_of("500", "502", "503", "504")
_WINDOWS, _LONG_WINDOWS = ("5m", "30m", "1h", "6h", "3d"), ("1h", "6h", "3d")


def _rate(metric: Metric, window: str, **matchers: Matcher) -> str:
    return f"sum by (model) (rate({select(metric, **matchers)}[{window}]))"


def _increase(metric: Metric, window: str, **matchers: Matcher) -> str:
    return f"sum by (model) (increase({select(metric, **matchers)}[{window}]))"


FAILED = {
    window: Record(
        name=f"model:failed_requests:ratio_rate{window}", labels=("model",),
        expr=f"{_rate(metrics.SERVING_REQUESTS, window, code=_FAULTS)} / {_rate(metrics.SERVING_REQUESTS, window)}",
    )
    for window in _WINDOWS
}  # fmt: skip
REQUESTS = {
    window: Record(name=f"model:requests:increase{window}", labels=("model",), expr=_increase(metrics.SERVING_REQUESTS, window))
    for window in _LONG_WINDOWS
}
WRONG = {
    window: Record(
        name=f"model:wrong_answers:ratio_rate{window}", labels=("model",),
        expr=f"1 - {_rate(metrics.SERVING_CORRECT, window)} / {_rate(metrics.SERVING_LABELS, window, outcome='accepted')}",
    )
    for window in _WINDOWS
}  # fmt: skip
LABELS = {
    window: Record(
        name=f"model:labels:increase{window}", labels=("model",),
        expr=_increase(metrics.SERVING_LABELS, window, outcome="accepted"),
    )
    for window in _LONG_WINDOWS
}  # fmt: skip
RECORDS = (
    PREDICTIONS, SERVED, UNRECORDED, ACCURACY_LOSS, ROLLBACKS, FAILED_RETRAINS, *FAILED.values(), *REQUESTS.values(),
)  # fmt: skip
OPTIONAL_RECORDS = (*WRONG.values(), *LABELS.values())
"""Only with `Objectives.wrong_answers`."""


def _incident(alert: str) -> str:
    """Open incidents that the alert tells of. One series, also when the monitor has moved or starts again.

    The labels are those that the monitor itself posts, so that Alertmanager takes both for one alert.
    """
    found = select(metrics.MODEL_INCIDENT_ALERTS, root=any_of(*roots_of(alert)), severity=any_of(*ALERT_SEVERITIES))
    return f"max by (model, severity) (last_over_time({found}[{thresholds.INCIDENT_BRIDGE}])) > 0"


def _burns(burn: Burn, ratios: dict[str, Record], counts: dict[str, Record], least: int) -> str:
    """Both windows burn, and the long one holds enough to say so."""
    bound = f"{burn.bound:.6g}"
    return (
        f"({ratios[burn.long].name} > {bound} and on (model) {ratios[burn.short].name} > {bound}"
        f" and on (model) {counts[burn.long].name} >= {least})"
    )


def _failing(objectives: Objectives) -> tuple[Alert, ...]:
    budget, least = objectives.failed_requests, thresholds.MIN_REQUESTS
    fast = [reachable(budget, 0.02, "1h", "5m"), reachable(budget, 0.05, "6h", "30m")]
    slow = reachable(budget, 0.2, "3d", "6h")
    return (
        Alert(
            name="ClipdriftRequestsFail", severity="page",
            expr=" or ".join(_burns(one, FAILED, REQUESTS, least) for one in fast),
            summary="{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} fail",
            description=f"By the server's own fault, and so fast that 30 days' budget of {budget:.2%} is gone in days.",
        ),
        Alert(
            name="ClipdriftRequestsFailSlowly", severity="ticket", expr=_burns(slow, FAILED, REQUESTS, least),
            summary="{{ $value | humanizePercentage }} of the requests to {{ $labels.model }} fail, for days",
            description=f"By the server's own fault: more than the budget of 30 days, {budget:.2%}, allows, if this goes on.",
        ),
    )  # fmt: skip


def _wrong(objectives: Objectives) -> tuple[Alert, ...]:
    if objectives.wrong_answers is None:
        return ()
    budget = objectives.wrong_answers
    burns = [reachable(budget, 0.05, "6h", "30m"), reachable(budget, 0.2, "3d", "6h")]
    return (
        Alert(
            name="ClipdriftAnswersWrong", severity="ticket",
            expr=" or ".join(_burns(one, WRONG, LABELS, thresholds.MIN_LABELS) for one in burns),
            summary="{{ $value | humanizePercentage }} of the answers of {{ $labels.model }} are wrong",
            description=f"Of those whose labels came of late: faster than your budget of {budget:.1%} allows. Whether the "
            "model got worse, the monitor's tests say.",
        ),
    )  # fmt: skip


_LOSS_NOW = (
    "{{ with printf \"" + ACCURACY_LOSS.name + "{model='%s',slice=''}\" $labels.model | query }}"
    " In service, {{ . | first | value | humanizePercentage }} more of all predictions are wrong than at validation.{{ end }}"
)  # fmt: skip

_ALWAYS = (
    Alert(
        name="ClipdriftModelHarmed",
        severity=OF_INCIDENT,
        expr=_incident("ClipdriftModelHarmed"),
        summary="{{ $labels.model }} does worse than it was validated to",
        description="The monitor has proven the harm within its false-alarm budget." + _LOSS_NOW
        + " The status page says why and what is being done.",
    ),
    Alert(
        name="ClipdriftDataBroken",
        severity=OF_INCIDENT,
        expr=_incident("ClipdriftDataBroken"),
        summary="What {{ $labels.model }} gets or learned is broken",
        description="An input is missing or stands still, or the training run was faulty. What is broken is mended, not "
        "learned: no retrain is ordered.",
    ),
    Alert(
        name="ClipdriftLabelsMissing",
        severity=OF_INCIDENT,
        expr=_incident("ClipdriftLabelsMissing"),
        summary="Labels of {{ $labels.model }} do not come as they should",
        description="A closed window has labels for less than "
        f"{thresholds.LABEL_SHARE:.0%} of its predictions, or they look wrong. Until that is mended, harm is not seen and live "
        "accuracy may be wrong.",
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
        name="ClipdriftRetrainFailed",
        severity="ticket",
        expr=f"{select(FAILED_RETRAINS)} > 0",
        summary="A retrain of {{ $labels.model }} ended without a better model",
        description="The gate refused its candidate, or its run was lost as often as it was begun. What it was ordered for "
        "goes on.",
    ),
    Alert(
        name="ClipdriftRolledBack",
        severity="ticket",
        expr=f"{select(ROLLBACKS)} > 0",
        summary="{{ $labels.model }} was rolled back",
        description="A version was taken out of service, by itself or by a person, and stays out. The one before it serves.",
    ),
    Alert(
        name="ClipdriftApprovalWaiting",
        severity="ticket",
        expr=f"{newest(metrics.MODEL_APPROVALS_WAITING, 'model', 'kind')} > 0",
        wait=thresholds.APPROVAL_FOR,
        summary="A {{ $labels.kind }} of {{ $labels.model }} waits for a person",
        description=f"For more than {thresholds.APPROVAL_FOR}. Nothing goes on until somebody answers, and the question "
        "lapses.",
    ),
    Alert(
        name="ClipdriftAlertmanagerUnreached",
        severity="ticket",
        expr=f"time() - {newest(metrics.MONITOR_ALERTMANAGER_REACHED, 'alertmanager')} > {thresholds.ALERTMANAGER_SECONDS}",
        wait=thresholds.ALERTMANAGER_FOR,
        summary="The monitor does not reach Alertmanager {{ $labels.alertmanager }}",
        description="Incidents reach people by Prometheus alone, and what people acknowledge is not silenced.",
        model_labelled=False,
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


def alerts_of(objectives: Objectives) -> tuple[Alert, ...]:
    """
    Raises:
        ConfigError: An alert on a budget could never fire, or would fire within it.
    """
    return (*_ALWAYS, *_failing(objectives), *_wrong(objectives))


ALERTS = alerts_of(Objectives())


def rules(links: Links, objectives: Objectives | None = None) -> dict[str, Any]:
    """The content of the rules file.

    Raises:
        ConfigError: An alert on a budget could never fire, or would fire within it.
    """
    wanted = objectives or Objectives()
    records = (*RECORDS, *(OPTIONAL_RECORDS if wanted.wrong_answers is not None else ()))
    return {
        "groups": [
            {"name": "clipdrift-records", "rules": [{"record": record.name, "expr": record.expr} for record in records]},
            {"name": "clipdrift-alerts", "rules": [_alert(alert, links) for alert in alerts_of(wanted)]},
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
