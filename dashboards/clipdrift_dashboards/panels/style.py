"""What all panels have in common: colours, queries, and the pieces that Grafana's JSON is made of."""

from collections.abc import Sequence
from typing import Any

import msgspec
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Okabe and Ito's palette: told apart by people with any of the three colour blindnesses (Color Universal Design, 2008).
# Where a state has a colour it has words or a number too; where lines have colours they have different dashes too.
BLUE, ORANGE, VERMILION, GREEN, PURPLE, SKY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
GREY = "#8E8E8E"

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
MODEL = "$model"
SHARE = "percentunit"
LINE_HEIGHT = 8


class Row(msgspec.Struct, frozen=True):
    """A row of a dashboard: a heading, and lines of panels that fill 24 columns each."""

    title: str
    lines: tuple["Line", ...]


class Line(msgspec.Struct, frozen=True):
    """Panels side by side, each with its width."""

    height: int
    panels: tuple[tuple[Any, int], ...]


def query(expr: str, legend: str = "__auto", ref: str = "A") -> Any:
    """A query over the time range."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id(ref).range()


def now(expr: str, legend: str = "__auto", ref: str = "A") -> Any:
    """A query of the newest moment only."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id(ref).instant()


def table_now(expr: str, ref: str = "A") -> Any:
    """A query of the newest moment, as a table with a column for each label."""
    return now(expr, ref=ref).format(PromQueryFormat.TABLE)


def lines(title: str, description: str, unit: str, decimals: int, no_value: str) -> Any:
    """Lines over time."""
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull"])
        .show_legend(True)
    )
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .decimals(decimals)
        .no_value(no_value)
        .line_width(2)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.AUTO)
        .legend(legend)
        .tooltip(tooltip)
    )


def ranking() -> Any:
    """A legend beside the lines, the line that came highest first: lines are told apart by their order."""
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.RIGHT)
        .calcs(["max", "lastNotNull"])
        .sort_by("Max")
        .sort_desc(True)
        .show_legend(True)
    )


def figure(title: str, description: str, unit: str, decimals: int, no_value: str) -> Any:
    """One number, or one word, to be read at a glance."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .decimals(decimals)
        .no_value(no_value)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(steps((None, BLUE)))
    )


def steps(*parts: tuple[float | None, str]) -> Any:
    """Thresholds as (from, colour); the first begins at None."""
    found = [dashboard.Threshold(value=value, color=color) for value, color in parts]
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


def with_bound(panel: Any, value: float) -> Any:
    """Draw a dashed line at `value`: from there on it matters."""
    dashed = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(steps((None, "transparent"), (value, VERMILION))).thresholds_style(dashed)


def series_style(name: str, color: str, dash: Sequence[int] = (), **more: Any) -> tuple[str, list[Any]]:
    """Arguments of `override_by_name`: a fixed colour and dash for the series with this name; `more` are further properties,
    with `_` for the dot of `custom.`."""
    properties: dict[str, Any] = {"color": {"mode": "fixed", "fixedColor": color}}
    if dash:
        properties["custom.lineStyle"] = {"fill": "dash", "dash": list(dash)}
    properties.update({name.replace("custom_", "custom."): value for name, value in more.items()})
    return name, [dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]


def link(title: str, url: str) -> Any:
    """A link in a panel's or the dashboard's corner."""
    return dashboard_builders.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url).target_blank(True)
