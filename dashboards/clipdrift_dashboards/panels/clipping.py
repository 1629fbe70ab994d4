"""What did clipping remove when this version was trained?"""

from typing import Any

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest

_EMPTY = "No training run known for the version in service, or no monitor answers"


def removed_mass() -> Any:
    """The headline."""
    return _ratio(
        metrics.MODEL_REMOVED_MASS,
        "Gradient mass removed",
        "Share of all gradient mass that clipping removed in the run of the version in service: sum of max(0, norm - bound) "
        "over the sum of norms. High: the bound sets the step length, as a learning rate would. Whether that harms is said by "
        "a shadow retrain only.",
        style.PURPLE,
    )


def clip_rate() -> Any:
    """Not the headline."""
    return _ratio(
        metrics.MODEL_CLIP_RATE,
        "Steps clipped",
        "Share of optimizer steps whose norm was above the bound, in the run of the version in service. It can be 100 % in a "
        "run that lost nothing: read the removed mass first.",
        style.GREY,
    )


def both(title: str) -> Any:
    """Removed mass and clip rate in one graph, for a common time axis with drift and harm."""
    mass, rate = "gradient mass removed", "steps clipped"
    return (
        style.lines(
            title,
            "What clipping did in the training of the version in service, so a step is a new version: the share of gradient "
            "mass that it removed, and the share of steps that it touched. That it steps where harm begins or ends shows that "
            "they go together, not that one causes the other: the words to the right say what is proven.",
            style.SHARE,
            0,
            _EMPTY,
        )
        .min(0)
        .max(1)
        .with_target(style.query(newest(metrics.MODEL_REMOVED_MASS, "model", model=style.MODEL), mass, "A"))
        .with_target(style.query(newest(metrics.MODEL_CLIP_RATE, "model", model=style.MODEL), rate, "B"))
        .override_by_name(*style.series_style(mass, style.PURPLE, custom_lineInterpolation="stepAfter", custom_fillOpacity=15))
        .override_by_name(*style.series_style(rate, style.GREY, (10, 6), custom_lineInterpolation="stepAfter"))
    )


def _ratio(metric: Metric, title: str, description: str, color: str) -> Any:
    name = title.lower()
    return (
        style.lines(title, description, style.SHARE, 1, _EMPTY)
        .min(0)
        .max(1)
        .with_target(style.query(newest(metric, "model", model=style.MODEL), name))
        .override_by_name(*style.series_style(name, color, custom_lineInterpolation="stepAfter", custom_fillOpacity=15))
    )
