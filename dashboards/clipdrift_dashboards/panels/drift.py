"""What has changed in what it is asked?"""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select

NUM_FEATURES = 6
"""Lines that can still be told apart."""
_EMPTY = "No window with 100 rows closed in this time range, or no monitor answers"


def features() -> Any:
    """The inputs that moved most."""
    drift = select(metrics.MODEL_DRIFT, model=style.MODEL)
    # Chosen once for the whole range, so that lines do not come and go.
    top = f"topk({NUM_FEATURES}, max by (feature) (max_over_time({drift}[$__range] @ end())))"
    return (
        style.with_bound(
            style.lines(
                f"Inputs that moved most (at most {NUM_FEATURES})",
                "Jensen-Shannon distance of an input's distribution to the reference profile, newest closed window. Drift "
                "explains harm and is none by itself: no retrain follows from this graph. From the dashed line on a proven "
                "difference is mentioned.",
                units.NoUnit,
                3,
                _EMPTY,
            ),
            thresholds.DRIFT_SCORE,
        )
        .min(0)
        .legend(style.ranking())  # names in the order of the lines: Grafana's own colours are not for everybody's eyes
        .with_target(style.query(f"max by (feature) ({drift}) and on (feature) {top}", "{{feature}}"))
    )


def score_and_mix() -> Any:
    """What the model answers, and whom."""
    return (
        style.with_bound(
            style.lines(
                "Predictions and slice mix",
                "Jensen-Shannon distance to the reference: of the model's own scores, and of how rows fall into slices. A "
                "moved mix alone changes accuracy without the model being worse in any slice.",
                units.NoUnit,
                3,
                _EMPTY,
            ),
            thresholds.DRIFT_SCORE,
        )
        .min(0)
        .with_target(style.query(newest(metrics.MODEL_PREDICTION_DRIFT, "model", model=style.MODEL), "predictions", "A"))
        .with_target(style.query(newest(metrics.MODEL_MIX_DRIFT, "model", model=style.MODEL), "slice mix", "B"))
        .override_by_name(*style.series_style("predictions", style.BLUE))
        .override_by_name(*style.series_style("slice mix", style.ORANGE, (12, 6)))
    )


def in_short(title: str) -> Any:
    """Inputs, answers and slice mix as three lines, for a common time axis with harm and clipping."""
    parts = (
        (metrics.MODEL_DRIFT, "the input that moved most", style.GREEN, (3, 6)),
        (metrics.MODEL_PREDICTION_DRIFT, "predictions", style.BLUE, ()),
        (metrics.MODEL_MIX_DRIFT, "slice mix", style.ORANGE, (12, 6)),
    )
    panel = style.with_bound(
        style.lines(
            title,
            "Jensen-Shannon distance to the reference profile of the version in service: of the input that moved most, of the "
            "model's own scores, and of how rows fall into slices. From the dashed line on a proven difference is mentioned. "
            "Drift without harm in the graph below calls for nothing.",
            units.NoUnit,
            2,
            _EMPTY,
        ),
        thresholds.DRIFT_SCORE,
    ).min(0)
    for ref, (metric, name, color, dash) in zip("ABC", parts, strict=True):
        panel = panel.with_target(style.query(newest(metric, "model", model=style.MODEL), name, ref))
        panel = panel.override_by_name(*style.series_style(name, color, dash))
    return panel
