"""How much is asked, how fast and at what cost is it answered?"""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import Bucket, none_of, per_hour, select


def arrivals() -> Any:
    """What reached the monitor."""
    return (
        style.lines(
            "Predictions and labels per hour",
            "What reached the monitor, per hour. Labels run below predictions by what is not labelled, and behind them by "
            "their delay.",
            units.LocaleFormat,
            0,
            "No traffic in this time range, or no monitor answers",
        )
        .min(0)
        .with_target(style.query(per_hour(metrics.MODEL_PREDICTIONS, "model", model=style.MODEL), "predictions", "A"))
        .with_target(style.query(per_hour(metrics.MODEL_LABELS, "model", model=style.MODEL), "labels", "B"))
        .override_by_name(*style.series_style("predictions", style.BLUE))
        .override_by_name(*style.series_style("labels", style.ORANGE, (12, 6)))
    )


def latency() -> Any:
    """Half of the requests, and the slow ones."""
    buckets = select(Bucket.of(metrics.SERVING_LATENCY), model=style.MODEL)
    rate = f"sum by (le) (rate({buckets}[$__rate_interval]))"
    return (
        style.lines(
            "Time to answer a request",
            "Time inside the server: half of the requests are answered within the lower line, 99 in 100 within the upper one. "
            "It is read from buckets, so steps of a factor of about two are as fine as it gets. A dot is one request; a click "
            "leads to what it was answered.",
            units.Seconds,
            3,
            "Serving's metrics are not scraped, or nobody asked in this time range",
        )
        .min(0)
        .with_target(style.query_with_exemplars(f"histogram_quantile(0.99, {rate})", "99 in 100", "A"))
        .with_target(style.query(f"histogram_quantile(0.5, {rate})", "half", "B"))
        .override_by_name(*style.series_style("99 in 100", style.ORANGE, (12, 6)))
        .override_by_name(*style.series_style("half", style.BLUE))
    )


def failures() -> Any:
    """Answers that were none."""
    failed = (
        f"sum by (code) (rate({select(metrics.SERVING_REQUESTS, model=style.MODEL, code=none_of('ok'))}[$__rate_interval]))"
    )
    all_of_them = f"sum (rate({select(metrics.SERVING_REQUESTS, model=style.MODEL)}[$__rate_interval]))"
    return (
        style.lines(
            "Requests that failed, by HTTP status",
            "Share of requests that were not answered with a prediction. 4xx: what was asked does not fit the model; 5xx: the "
            "server could not. A change of 4xx often is a change in a client, and comes before drift.",
            style.SHARE,
            2,
            "Serving's metrics are not scraped, or nobody asked in this time range",
        )
        .min(0)
        .with_target(style.query(f"{failed} / on () group_left () {all_of_them} or on () 0 * {all_of_them}", "{{code}}"))
    )


def cost() -> Any:
    """CPU by version."""
    spent = f"sum by (version) (rate({select(metrics.SERVING_CPU_SECONDS, model=style.MODEL)}[$__rate_interval]))"
    rows = f"sum by (version) (rate({select(metrics.SERVING_ROWS, model=style.MODEL)}[$__rate_interval]))"
    return (
        style.lines(
            "CPU time for one prediction, by version",
            "CPU time of the runs of a version and of what is done with their answers, over the rows that it predicted. A new "
            "version that needs twice the time costs twice the machines.",
            units.Seconds,
            6,
            "Serving's metrics are not scraped, or nobody asked in this time range",
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(f"{spent} / {rows}", "{{version}}"))
    )


def versions() -> Any:
    """Who answers."""
    rows = per_hour(metrics.SERVING_ROWS, "version", "role", model=style.MODEL)
    return (
        style.lines(
            "Predictions per hour, by version and role",
            "Which version answers how much: the champion, a canary with its share of the traffic, a shadow that predicts and "
            "never answers. After a promotion or a rollback one line ends where another begins.",
            units.LocaleFormat,
            0,
            "Serving's metrics are not scraped, or nobody asked in this time range",
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(rows, "{{version}} ({{role}})"))
    )
