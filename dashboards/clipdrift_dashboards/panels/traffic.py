"""Does the monitor see all of it, and in time?"""

from typing import Any

from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select


def row(links: Links) -> style.Row:
    """Arrivals; how far the monitor is behind; up to when it has judged."""
    return style.Row(
        "Does the monitor see all of it, and in time?",
        (style.Line(style.LINE_HEIGHT - 1, ((_arrivals(), 12), (_lag(links), 7), (_watermark(), 5))),),
    )


def _arrivals() -> Any:
    return (
        style.lines(
            "Predictions and labels per hour",
            "What reached the monitor, per hour. Labels run below predictions by what is not labelled, and behind them by "
            "their delay.",
            units.LocaleFormat,
            0,
            "No traffic in this time range",
        )
        .min(0)
        .with_target(style.query(_per_hour(metrics.MODEL_PREDICTIONS), "predictions", "A"))
        .with_target(style.query(_per_hour(metrics.MODEL_LABELS), "labels", "B"))
        .override_by_name(*style.series_style("predictions", style.BLUE))
        .override_by_name(*style.series_style("labels", style.ORANGE, (12, 6)))
    )


def _per_hour(metric: Metric) -> str:
    return f"3600 * sum by (model) (rate({select(metric, model=style.MODEL)}[$__rate_interval]))"


def _lag(links: Links) -> Any:
    return (
        style.with_bound(
            style.lines(
                "Records not read yet",
                "Records on the bus that the monitor has not read, of all models. From the dashed line on, for long, somebody "
                "is told. While it is high, every figure above is old.",
                units.LocaleFormat,
                0,
                "The monitor does not answer",
            ),
            thresholds.LAG_RECORDS,
        )
        .min(0)
        .links([style.link("What to do", links.runbook("ClipdriftMonitorBehind"))])
        .with_target(style.query(f"max({select(metrics.MONITOR_LAG)})", "not read yet"))
        .override_by_name(*style.series_style("not read yet", style.BLUE))
    )


def _watermark() -> Any:
    return (
        style.figure(
            "Judged up to",
            "Event time up to which windows are closed. It should stay behind the traffic by a window and the label horizon, "
            "not more.",
            units.DatetimeISO,
            0,
            "No window closed yet",
        )
        .text_mode(common.BigValueTextMode.VALUE)
        .with_target(style.now(f"1000 * {newest(metrics.MONITOR_WATERMARK, 'model', model=style.MODEL)}", "judged up to"))
    )
