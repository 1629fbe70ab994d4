"""What has changed in what it is asked?"""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select

NUM_FEATURES = 6
"""Lines that can still be told apart."""


def row() -> style.Row:
    """Inputs; predictions and slice mix."""
    return style.Row(
        "What has changed in what it is asked?",
        (style.Line(style.LINE_HEIGHT + 1, ((_features(), 14), (_score_and_mix(), 10))),),
    )


def _features() -> Any:
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
                "No window with 100 rows closed in this time range",
            ),
            thresholds.DRIFT_SCORE,
        )
        .min(0)
        .legend(style.ranking())  # names in the order of the lines: Grafana's own colours are not for everybody's eyes
        .with_target(style.query(f"max by (feature) ({drift}) and on (feature) {top}", "{{feature}}"))
    )


def _score_and_mix() -> Any:
    return (
        style.with_bound(
            style.lines(
                "Predictions and slice mix",
                "Jensen-Shannon distance to the reference: of the model's own scores, and of how rows fall into slices. A "
                "moved mix alone changes accuracy without the model being worse in any slice.",
                units.NoUnit,
                3,
                "No window with 100 rows closed in this time range",
            ),
            thresholds.DRIFT_SCORE,
        )
        .min(0)
        .with_target(style.query(newest(metrics.MODEL_PREDICTION_DRIFT, "model", model=style.MODEL), "predictions", "A"))
        .with_target(style.query(newest(metrics.MODEL_MIX_DRIFT, "model", model=style.MODEL), "slice mix", "B"))
        .override_by_name(*style.series_style("predictions", style.BLUE))
        .override_by_name(*style.series_style("slice mix", style.ORANGE, (12, 6)))
    )
