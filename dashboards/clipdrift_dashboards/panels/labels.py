"""How much is known, and how late?"""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest


def maturity(links: Links) -> Any:
    """Which share is labelled."""
    return (
        style.with_bound(
            style.lines(
                "Predictions with a label",
                "Labels over predictions in the newest closed window. Below the dashed line the monitor says that labels are "
                "missing; what is missing rarely is a random part, so live accuracy may be wrong then.",
                style.SHARE,
                0,
                "No window closed in this time range, or no monitor answers",
            ),
            thresholds.LABEL_SHARE,
        )
        # Below the line is the bad side here, so the colours of the bound are turned round.
        .thresholds(style.steps((None, style.VERMILION), (thresholds.LABEL_SHARE, "transparent")))
        .min(0)
        .max(1)
        .links([style.link("What to do", links.runbook("ClipdriftLabelsMissing"))])
        .with_target(style.query(newest(metrics.MODEL_LABEL_MATURITY, "model", model=style.MODEL), "with a label"))
        .override_by_name(*style.series_style("with a label", style.BLUE))
    )


def delay() -> Any:
    """How late labels come."""
    return (
        style.lines(
            "Time until a label comes",
            "Mean time from prediction to label in the newest closed window. A window is judged a label horizon after its "
            "end: labels that come later than that still count as accuracy, and are late for the harm tests.",
            units.Seconds,
            1,
            "No labels in this time range, or no monitor answers",
        )
        .min(0)
        .with_target(style.query(newest(metrics.MODEL_LABEL_DELAY, "model", model=style.MODEL), "mean delay"))
        .override_by_name(*style.series_style("mean delay", style.BLUE))
    )
