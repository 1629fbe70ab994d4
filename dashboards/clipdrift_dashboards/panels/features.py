"""What moved? All inputs, now and before."""

from typing import Any

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select

NUM_FEATURES = 20
_BOUNDS = ((None, style.BLUE), (thresholds.DRIFT_SCORE, style.ORANGE))


def table() -> Any:
    """The inputs that moved most, now, a week ago, and at most in the range."""
    drift = select(metrics.MODEL_DRIFT, model=style.MODEL)
    now = newest(metrics.MODEL_DRIFT, "feature", model=style.MODEL)
    top = f"topk({NUM_FEATURES}, {now})"
    columns = [
        style.Column(name="Now", expr=top, decimals=3, bounds=_BOUNDS),
        style.Column(name="A week ago", expr=f"max by (feature) ({drift} offset 7d) and on (feature) {top}", decimals=3),
        style.Column(
            name="At most",
            expr=f"max by (feature) (max_over_time({drift}[$__range])) and on (feature) {top}",
            decimals=3,
            bounds=_BOUNDS,
        ),
    ]
    return style.table_of(
        f"Inputs that moved most (at most {NUM_FEATURES})",
        "Jensen-Shannon distance of each input to the reference profile: in the newest closed window, a week before, and at "
        "most in the time range. From 0.1 on a proven difference is mentioned. One input far above the others: look at its "
        "source first.",
        "No window with 100 rows closed yet, or no monitor answers",
        (("feature", "Input"),),
        columns,
        order_by="Now",
    )


def share_moved() -> Any:
    """How widespread drift is."""
    return (
        style.lines(
            "Share of inputs that moved",
            "Inputs whose distance is 0.1 or more, over all inputs that are watched. One of many: a fault of that input is "
            "likelier than a change of the world. Most of them at once: the world, or the pipeline before all of them.",
            style.SHARE,
            0,
            "No window with 100 rows closed in this time range, or no monitor answers",
        )
        .min(0)
        .max(1)
        .with_target(style.query(newest(metrics.MODEL_FEATURES_MOVED, "model", model=style.MODEL), "inputs that moved"))
        .override_by_name(*style.series_style("inputs that moved", style.ORANGE, custom_fillOpacity=15))
    )
