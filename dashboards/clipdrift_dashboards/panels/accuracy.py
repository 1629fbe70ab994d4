"""Does it do what was validated? Accuracy with its interval, and its n."""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest


def _overall(metric: Metric) -> str:
    return newest(metric, "model", model=style.MODEL, slice="")


def over_time() -> Any:
    """Live with its interval, and validated."""
    panel = (
        style.lines(
            "Accuracy, live and validated",
            "Live accuracy over the sliding view with its 95 % interval, and the accuracy at validation of the version in "
            "service. Live below validated is no proof of harm yet: days differ. The proof is in the evidence of harm.",
            style.SHARE,
            1,
            "No mature labels in this time range, or no monitor answers",
        )
        .with_target(style.query(_overall(metrics.MODEL_ACCURACY_LOW), "lower end", "A"))
        .with_target(style.query(_overall(metrics.MODEL_ACCURACY_HIGH), "95 % interval, upper end", "B"))
        .with_target(style.query(_overall(metrics.MODEL_ACCURACY), "live", "C"))
        .with_target(style.query(_overall(metrics.MODEL_VALIDATED_ACCURACY), "validated", "D"))
    )
    return style.with_band(panel, "lower end", "95 % interval, upper end")


def labels() -> Any:
    """The n behind live accuracy."""
    return (
        style.lines(
            "Labels behind it",
            "Mature labels in the sliding view. When a new version comes into service its own labels begin to count anew.",
            units.LocaleFormat,
            0,
            "No labels in this time range, or no monitor answers",
        )
        .min(0)
        .fill_opacity(20)
        .with_target(style.query(_overall(metrics.MODEL_LABELS_IN_VIEW), "labels in view"))
        .override_by_name(*style.series_style("labels in view", style.BLUE))
    )
