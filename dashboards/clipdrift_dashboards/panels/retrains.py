"""What was decided, and what came of it?"""

from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select, total

_ACTIONS = {
    "none": style.GREY,
    "alert": style.ORANGE,
    "retrain": style.BLUE,
    "canary": style.SKY,
    "promote": style.GREEN,
    "rollback": style.VERMILION,
    "hold": style.PURPLE,
}
_VERDICTS = {"pass": (style.GREEN, ()), "fail": (style.VERMILION, (12, 6)), "inconclusive": (style.ORANGE, (3, 6))}


def decisions(links: Links) -> Any:
    """By action."""
    counter = select(metrics.MODEL_DECISIONS, model=style.MODEL)
    # A counter of rare events is born with its first event, which rate() and increase() do not see; a difference does.
    before = f"sum by (action) (last_over_time({counter}[$__interval] offset $__interval))"
    so_far = total(metrics.MODEL_DECISIONS, "action", model=style.MODEL)
    panel = (
        style.lines(
            "Decisions",
            "Decisions per day (or per step of the graph, where that is longer), also 'none': a day without any bar is a day "
            "that was not judged. The status page has the reasons of each.",
            units.LocaleFormat,
            0,
            "No decision in this time range, or no monitor answers",
        )
        .draw_style(common.GraphDrawStyle.BARS)
        .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .fill_opacity(80)
        .line_width(0)
        .min(0)
        .interval("1d")
        .links([style.link("Status page", links.status_page(style.MODEL))])
        .with_target(style.query(f"clamp_min({so_far} - ({before} or 0 * {so_far}), 0)", "{{action}}"))
    )
    for action, color in _ACTIONS.items():
        panel = panel.override_by_name(*style.series_style(action, color))
    return panel


def verdicts(links: Links) -> Any:
    """By verdict."""
    so_far = total(metrics.MODEL_RETRAINS, "verdict", model=style.MODEL)
    none = (
        f'label_replace(0 * {newest(metrics.MODEL_GENERATION, "model", model=style.MODEL)}, "verdict", "none so far", "", "")'
    )
    panel = (
        style.lines(
            "Retrains so far, by verdict",
            "Finished retrains since the monitor's store began. Only 'pass' changes what is in service. Several that are "
            "'inconclusive' one after another: read their reasons before the next one is paid for.",
            units.LocaleFormat,
            0,
            "The monitor does not know this model, or does not answer",
        )
        .min(0)
        .axis_soft_max(3)
        .links([style.link("When one is stuck", links.runbook("ClipdriftRetrainStuck"))])
        .with_target(style.query(f"{so_far} or on () {none}", "{{verdict}}", "A"))
        .with_target(style.query(newest(metrics.MODEL_RETRAIN_RUNNING, "model", model=style.MODEL), "running now", "B"))
        .override_by_name(
            *style.series_style(
                "running now", style.SKY, custom_lineInterpolation="stepAfter", custom_fillOpacity=40, custom_lineWidth=1
            )
        )
        .override_by_name(*style.series_style("none so far", style.GREY))
    )
    for verdict, (color, dash) in _VERDICTS.items():
        panel = panel.override_by_name(*style.series_style(verdict, color, dash, custom_lineInterpolation="stepAfter"))
    return panel
