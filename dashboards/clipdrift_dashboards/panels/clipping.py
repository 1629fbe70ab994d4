"""What did clipping remove when this version was trained?"""

from typing import Any

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest


def row() -> style.Row:
    """Removed mass, which is the headline; clip rate, which is not."""
    mass = _ratio(
        metrics.MODEL_REMOVED_MASS,
        "Gradient mass removed",
        "Share of all gradient mass that clipping removed in the run of the version in service: sum of max(0, norm - bound) "
        "over the sum of norms. High: the bound sets the step length, as a learning rate would. Whether that harms is said by "
        "a shadow retrain only.",
        style.PURPLE,
    )
    rate = _ratio(
        metrics.MODEL_CLIP_RATE,
        "Steps clipped",
        "Share of optimizer steps whose norm was above the bound, in the same run. It can be 100 % in a run that lost "
        "nothing: read the removed mass first.",
        style.GREY,
    )
    return style.Row(
        "What did clipping remove when it was trained?", (style.Line(style.LINE_HEIGHT - 2, ((mass, 12), (rate, 12))),)
    )


def _ratio(metric: Metric, title: str, description: str, color: str) -> Any:
    name = title.lower()
    return (
        style.lines(title, description, style.SHARE, 1, "No training run known for the version in service")
        .min(0)
        .max(1)
        .with_target(style.query(newest(metric, "model", model=style.MODEL), name))
        .override_by_name(*style.series_style(name, color, custom_lineInterpolation="stepAfter", custom_fillOpacity=15))
    )
