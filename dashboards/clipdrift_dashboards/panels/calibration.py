"""Do its probabilities mean what they say?"""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest

_EMPTY = "No mature labels in this time range"


def scores() -> style.Line:
    """Three proper or nearly proper scores."""
    panels = (
        (
            _score(
                metrics.MODEL_NLL, "Log loss", "log loss in nats", units.NoUnit, 3,
                "Mean negative log-likelihood of the labels, in nats. Lower is better. It punishes sure and wrong predictions "
                "most.",
            ), 8,
        ),
        (
            _score(
                metrics.MODEL_BRIER, "Brier score", "Brier score", units.NoUnit, 3,
                "Mean squared distance of the probabilities from what happened. Lower is better. The harm tests are decided "
                "by it.",
            ), 8,
        ),
        (
            _score(
                metrics.MODEL_ECE, "Calibration error", "calibration error", style.SHARE, 1,
                "Expected calibration error: how far stated probabilities and observed shares lie apart. Rising here with "
                "steady accuracy means that recalibration would help more than a retrain.",
            ), 8,
        ),
    )  # fmt: skip
    return style.Line(style.LINE_HEIGHT - 1, panels)


def _score(metric: Metric, title: str, legend: str, unit: str, decimals: int, description: str) -> Any:
    return (
        style.lines(title, description, unit, decimals, _EMPTY)
        .with_target(style.query(newest(metric, "model", model=style.MODEL), legend))
        .override_by_name(*style.series_style(legend, style.BLUE))
    )
