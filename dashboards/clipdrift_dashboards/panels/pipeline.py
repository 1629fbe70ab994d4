"""What is the monitor blind to, and is it in time?"""

from typing import Any

from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links, within
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import Bucket, Offered, any_of, greatest, newest, per_hour, select

_MONITOR = "No monitor answers: nobody would notice harm now"
_SERVING = "Serving's metrics are not scraped, or nothing was served in this time range"
_OLDEST, _LATEST, _FEWEST = Offered("oldest"), Offered("latest"), Offered("fewest")
RANKINGS = {
    _OLDEST.variable: f"bottomk($top, {greatest(metrics.MONITOR_WATERMARK, 'model')} > 0)",
    _LATEST.variable: f"topk($top, {greatest(metrics.MODEL_LABEL_DELAY, 'model')})",
    _FEWEST.variable: f"bottomk($top, {newest(metrics.MODEL_LABEL_MATURITY, 'model')})",
}
"""As those of the fleet."""
_WINDOW = thresholds.FLOW_WINDOW
_SERVED = f"sum by (model) (increase({select(metrics.SERVING_ROWS)}[{_WINDOW}]))"
_SEEN = f"sum by (model) (increase({select(metrics.MODEL_PREDICTIONS)}[{_WINDOW}]))"
_DROPS = select(metrics.SERVING_UNRECORDED, reason=any_of("fault", "memory", "spool_full"))
_BLIND: tuple[tuple[str, str, str], ...] = (
    ("served, not seen", f"({_SERVED} > 0) unless on (model) ({_SEEN} > 0)", "ClipdriftMonitorBlind"),
    ("not judged any more", f"{newest(metrics.MONITOR_JUDGING_STOPPED, 'model')} > 0", "ClipdriftJudgingStopped"),
    (
        "labels are missing",
        f"{newest(metrics.MODEL_LABEL_MATURITY, 'model')} < {thresholds.LABEL_SHARE}",
        "ClipdriftLabelsMissing",
    ),
    ("answers not recorded", f"sum by (model) (increase({_DROPS}[{_WINDOW}])) > 0", "ClipdriftRecordingDrops"),
    ("deployment refused", f"{newest(metrics.SERVING_REFUSED, 'model')} > 0", "ClipdriftDeploymentRefused"),
)


def row(links: Links) -> style.Row:
    """Six figures about the monitor itself."""
    answers = f"count({select(metrics.MONITOR_LAG)})"
    known = newest(metrics.MODEL_GENERATION, "model")
    blind = " or ".join(f"({expr})" for _, expr, _ in _BLIND)
    alarm = style.steps((None, style.BLUE), (1, style.VERMILION))
    panels = (
        style.figure(
            "Monitors that answer",
            "Monitor processes whose metrics Prometheus has now. None: no model is watched, and no other alert about models "
            "can fire. A second one stands by and tells nothing until it takes over.",
            units.LocaleFormat, 0, _MONITOR,
        ).links([style.link("What to do", links.runbook("ClipdriftMonitorAbsent"))])
        .with_target(style.now(answers, "monitors")),
        style.figure(
            "Models with a blind spot",
            "Models of which something is not seen now; the table below says what. Blind is not healthy.",
            units.LocaleFormat, 0, _MONITOR,
        ).thresholds(alarm).with_target(style.now(f"count({blind}) or 0 * count({known})", "models")),
        style.figure(
            "Records behind, now",
            "Records on the bus that the monitor has not read. Every figure is as old as they are.",
            units.Short, 0, _MONITOR,
        ).thresholds(style.steps((None, style.BLUE), (thresholds.LAG_RECORDS, style.ORANGE)))
        .links([style.link("What to do", links.runbook("ClipdriftMonitorBehind"))])
        .with_target(style.now(f"max({select(metrics.MONITOR_LAG)})", "records")),
        style.figure(
            "Audit log",
            "Whether the hash chain of the record of decisions and deployments verifies. Broken: a row was changed or removed "
            "after it was written.",
            units.NoUnit, 0, _MONITOR,
        ).mappings([style.words({0: ("whole", style.BLUE), 1: ("broken", style.VERMILION)})])
        .links([style.link("What to do", links.runbook("ClipdriftAuditLogBroken"))])
        .with_target(style.now(f"max({select(metrics.MONITOR_AUDIT_BROKEN)})", "audit log")),
        style.figure(
            "Orders not carried out",
            "Orders (retrains, deployments, messages) that are decided and written, and not yet carried out. It should be 0 "
            "within seconds.",
            units.LocaleFormat, 0, _MONITOR,
        ).thresholds(style.steps((None, style.BLUE), (thresholds.OUTBOX_ORDERS, style.ORANGE)))
        .with_target(style.now(f"max({select(metrics.MONITOR_OUTBOX_PENDING)})", "orders")),
        style.figure(
            "Records that cannot be read",
            "Records in the time range that were parked on the poison topic, each with its reason.",
            units.LocaleFormat, 0, "No process that reads the bus is scraped",
        ).thresholds(style.steps((None, style.BLUE), (1, style.ORANGE)))
        .with_target(style.now(
            f"sum(increase({select(metrics.MONITOR_EVENTS, outcome='poison')}[$__range])) or 0 * {answers}", "records",
        )),
    )  # fmt: skip
    return style.Row("Is the monitor itself well?", (style.Line(4, tuple((panel, 4) for panel in panels)),))


def blind(links: Links) -> Any:
    """Exactly what is blind: a row for each model and reason."""
    named = " or ".join(f'label_replace({expr}, "why", "{why}", "", "")' for why, expr, _ in _BLIND)
    links_of = ", ".join(f"{why}: {links.runbook(alert)}" for why, _, alert in _BLIND)
    return style.table_of(
        "Exactly what is blind",
        "A row for each model and each thing that is not seen of it, by the same bounds as the alerts. The figure: rows in 15 "
        f"minutes that are served and not seen or not recorded, the share of labels, or 1. Runbooks: {links_of}.",
        "Nothing is blind, as far as can be seen; a monitor that does not answer is told above",
        (("model", "Model"), ("why", "What is not seen")),
        [style.Column(name="How much", expr=named, decimals=2)],
        order_by="How much",
        url=within("model", "${__data.fields.Model}"),
    )


def lag() -> Any:
    """How far it is behind."""
    return (
        style.with_bound(
            style.lines(
                "Records not read yet",
                "Records on the bus that the monitor has not read. From the dashed line on, for 15 minutes, somebody is told. "
                "It climbs without end: the monitor is too slow or stands still.",
                units.Short,
                0,
                _MONITOR,
            ),
            thresholds.LAG_RECORDS,
        )
        .min(0)
        .with_target(style.query(f"max({select(metrics.MONITOR_LAG)})", "not read yet"))
        .override_by_name(*style.series_style("not read yet", style.BLUE))
    )


def events() -> Any:
    """What became of what was read."""
    looks = {
        "applied": (style.BLUE, ()), "duplicate": (style.GREY, (3, 6)), "late": (style.ORANGE, (12, 6)),
        "expired": (style.PURPLE, (6, 3)), "poison": (style.VERMILION, (2, 3)),
    }  # fmt: skip
    panel = (
        style.lines(
            "Events per hour, by outcome",
            "What became of the events that the monitor read. Duplicates come after a restart and do no harm; late ones are "
            "counted and judged later; expired ones are of a time that is kept no more; poison cannot be read.",
            units.LocaleFormat,
            0,
            "No events in this time range, or no monitor answers",
        )
        .min(0)
        .with_target(style.query(per_hour(metrics.MONITOR_EVENTS, "outcome"), "{{outcome}}"))
    )
    for name, (color, dash) in looks.items():
        panel = panel.override_by_name(*style.series_style(name, color, dash))
    return panel


def commits() -> Any:
    """How long it takes to keep what was counted."""
    buckets = f"sum by (le) (rate({select(Bucket.of(metrics.MONITOR_COMMIT_SECONDS))}[$__rate_interval]))"
    return (
        style.with_bound(
            style.lines(
                "Time of one commit",
                "Time to write state and offset to the store: half of the commits take less than the lower line, 99 in 100 "
                "less than the upper one. From the dashed line on the store holds back everything behind it: look at its "
                "disk.",
                units.Seconds,
                3,
                "No commit in this time range, or no monitor answers",
            ),
            thresholds.COMMIT_SECONDS,
        )
        .min(0)
        .with_target(style.query(f"histogram_quantile(0.99, {buckets})", "99 in 100", "A"))
        .with_target(style.query(f"histogram_quantile(0.5, {buckets})", "half", "B"))
        .override_by_name(*style.series_style("99 in 100", style.ORANGE, (12, 6)))
        .override_by_name(*style.series_style("half", style.BLUE))
    )


def watermarks() -> Any:
    """Whose windows are oldest?"""
    newest_end = select(metrics.MONITOR_WATERMARK, model=_OLDEST)
    return _worst(
        "Judged up to: how long ago (the oldest)",
        "Time since the end of the newest closed window, of the models where it is longest ago. It should be a window and the "
        "label horizon, not more. It grows by a day a day: nobody asks this model, or its predictions do not come.",
        f"time() - max by (model) ({newest_end} > 0)",
        units.Seconds,
        0,
    )


def delays() -> Any:
    """Whose labels come latest?"""
    return _worst(
        "Time until a label comes (the longest)",
        "Mean time from prediction to label in the newest closed window, of the models where it is longest. Harm cannot be "
        "seen sooner than this.",
        newest(metrics.MODEL_LABEL_DELAY, "model", model=_LATEST),
        units.Seconds,
        1,
    )


def maturity() -> Any:
    """Where do labels not come?"""
    return (
        style.with_bound(
            style.lines(
                "Predictions with a label (the fewest)",
                "Labels over predictions in the newest closed window, of the models with the fewest. Below the dashed line the "
                "monitor says that labels are missing: what is missing is rarely a random part.",
                style.SHARE,
                0,
                _MONITOR,
            ),
            thresholds.LABEL_SHARE,
        )
        .thresholds(style.steps((None, style.VERMILION), (thresholds.LABEL_SHARE, "transparent")))
        .min(0)
        .max(1)
        .legend(style.ranking())
        .with_target(style.query(newest(metrics.MODEL_LABEL_MATURITY, "model", model=_FEWEST), "{{model}}"))
    )


def served_and_seen() -> Any:
    """What is lost between the two."""
    return (
        style.lines(
            "Rows served, predictions seen, per hour",
            "Rows that serving predicted, and predictions that reached the monitor, all models. The lower line lies below the "
            "upper one by what is sampled out, dropped or still on its way.",
            units.LocaleFormat,
            0,
            _SERVING,
        )
        .min(0)
        .with_target(style.query(per_hour(metrics.SERVING_ROWS), "served", "A"))
        .with_target(style.query(per_hour(metrics.MODEL_PREDICTIONS), "seen", "B"))
        .override_by_name(*style.series_style("served", style.GREY, (12, 6)))
        .override_by_name(*style.series_style("seen", style.BLUE))
    )


def unrecorded() -> Any:
    """Answered, and nobody will know."""
    return (
        style.lines(
            "Answers not recorded per hour, by reason",
            "Predictions and labels that were answered and not recorded. sampled and shadow are as configured; memory, "
            "spool_full and fault are losses: accuracy and drift are of the rest only.",
            units.LocaleFormat,
            1,
            "Nothing was left out in this time range, or serving's metrics are not scraped",
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(per_hour(metrics.SERVING_UNRECORDED, "reason"), "{{reason}}"))
    )


def waiting() -> Any:
    """How much stands between serving and the bus."""
    return (
        style.lines(
            "Waiting for the bus in serving",
            "Rows that wait in memory to be recorded, and bytes on disk that wait for the bus (right axis). Bytes that grow: "
            "the bus is away; nothing is lost until the spool is full.",
            units.Short,
            0,
            _SERVING,
        )
        .min(0)
        .with_target(style.query(f"sum({select(metrics.SERVING_RECORDER_QUEUE)})", "rows in memory", "A"))
        .with_target(style.query(f"sum({select(metrics.SERVING_SPOOL_BYTES)})", "bytes on disk", "B"))
        .override_by_name(*style.series_style("rows in memory", style.BLUE))
        .override_by_name(
            *style.series_style("bytes on disk", style.ORANGE, (12, 6), unit=units.BytesIEC, custom_axisPlacement="right")
        )
    )


def turned_away() -> Any:
    """What serving refused."""
    return (
        style.lines(
            "Requests refused per hour, by bound",
            "Connections and requests that the data listener refused because a bound was met, and worker processes that ended "
            "unasked. Users see the first as errors.",
            units.LocaleFormat,
            1,
            "Nothing was refused in this time range, or serving's metrics are not scraped",
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(per_hour(metrics.SERVING_TURNED_AWAY, "reason"), "{{reason}}", "A"))
        .with_target(style.query(per_hour(metrics.SERVING_WORKER_RESTARTS), "workers restarted", "B"))
    )


def labels_received() -> Any:
    """What became of labels at the door."""
    return (
        style.lines(
            "Labels received per hour, by outcome",
            "What became of labels that callers sent. accepted ones count; forged, expired and unknown_request ones were not "
            "for an answer of ours; bad_value ones cannot be read. A wave of refusals is a client that changed.",
            units.LocaleFormat,
            0,
            "No label was sent in this time range, or serving's metrics are not scraped",
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(per_hour(metrics.SERVING_LABELS, "outcome"), "{{outcome}}"))
    )


def poison() -> Any:
    """What nobody can read."""
    return (
        style.lines(
            "Records parked as unreadable, so far",
            "Records on the poison topic, by the topic they came from, over every process that reads the bus. A new kind of "
            "them after a release: two versions do not understand each other.",
            units.LocaleFormat,
            0,
            "Nothing is parked, or no process that reads the bus is scraped",
        )
        .min(0)
        .axis_soft_max(3)
        .legend(style.ranking())
        .with_target(style.query(f"sum by (topic) ({select(metrics.BUS_POISON)})", "{{topic}}"))
    )


def audit_rows() -> Any:
    """That it writes at all."""
    return (
        style.lines(
            "Rows of the audit log",
            "Rows of the hash-chained record of decisions and deployments. It only ever grows; a fall is a store that was set "
            "back.",
            units.LocaleFormat,
            0,
            _MONITOR,
        )
        .show_points(common.VisibilityMode.NEVER)
        .with_target(style.query(f"max({select(metrics.MONITOR_AUDIT_ROWS)})", "rows"))
        .override_by_name(*style.series_style("rows", style.BLUE))
    )


def _worst(title: str, description: str, expr: str, unit: str, decimals: int) -> Any:
    """The lines of the models that a ranking offers."""
    return (
        style.lines(title, description, unit, decimals, _MONITOR)
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(expr, "{{model}}"))
    )
