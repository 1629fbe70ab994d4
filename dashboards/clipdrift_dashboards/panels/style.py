"""What all panels have in common: colours, queries, and the pieces that Grafana's JSON is made of."""

from collections.abc import Sequence
from typing import Any

import msgspec
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Okabe and Ito's palette: told apart by people with any of the three colour blindnesses (Color Universal Design, 2008).
# Where a state has a colour it has words or a number too; where lines have colours they have different dashes too.
BLUE, ORANGE, VERMILION, GREEN, PURPLE, SKY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
GREY = "#8E8E8E"

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
MODEL = "$model"
SHARE = "percentunit"
SIDEWAYS = "h"
"""Repeated panels stand side by side."""
LINE_HEIGHT = 8


class Row(msgspec.Struct, frozen=True):
    """A row of a dashboard: a heading, and lines of panels that fill 24 columns each. A collapsed one asks nothing until
    somebody opens it."""

    title: str
    lines: tuple["Line", ...]
    is_collapsed: bool = False


class Line(msgspec.Struct, frozen=True):
    """Panels side by side, each with its width; in place of a panel, a tuple of (panel, height) stands one above the other."""

    height: int
    panels: tuple[tuple[Any, int], ...]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column of a table: a figure for each row's key."""

    name: str
    expr: str
    unit: str = "none"
    decimals: int = 0
    words: dict[int, tuple[str, str]] = {}
    """Instead of a number: word and colour."""
    bounds: tuple[tuple[float | None, str], ...] = ()
    """Thresholds that colour the number, as (from, colour)."""


def query(expr: str, legend: str = "__auto", ref: str = "A") -> Any:
    """A query over the time range."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).ref_id(ref).range()


def query_with_exemplars(expr: str, legend: str, ref: str = "A") -> Any:
    """A query of a histogram over the time range, with a dot for each request that it names: a click leads to the request."""
    return query(expr, legend, ref).exemplar(True)


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


def table_of(
    title: str,
    description: str,
    no_value: str,
    keys: Sequence[tuple[str, str]],
    columns: Sequence[Column],
    *,
    order_by: str,
    url: str = "",
) -> Any:
    """A table of now.

    Args:
        keys: The labels that make a row, each with its heading.
        columns: What is told of each row; all have the labels `keys`.
        order_by: The column with the greatest first.
        url: Where a click on the first key leads.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("none")
        .decimals(0)
        .no_value(no_value)
        .cell_height(common.TableCellHeight.SM)
        .sort_by([common_builders.TableSortByFieldState().display_name(order_by).desc(True)])
    )
    refs = [chr(ord("A") + index) for index in range(len(columns))]
    for ref, column in zip(refs, columns, strict=True):
        panel = panel.with_target(table_now(column.expr, ref)).override_by_name(column.name, _cells(column))
    place = {label: index for index, (label, _) in enumerate(keys)}
    place |= {f"Value #{ref}": len(keys) + index for index, ref in enumerate(refs)}
    renamed = dict(keys) | {f"Value #{ref}": column.name for ref, column in zip(refs, columns, strict=True)}
    if len(columns) == 1:  # Grafana numbers the values only where there are several
        place, renamed = place | {"Value": len(keys)}, renamed | {"Value": columns[0].name}
    if url:
        click = [{"title": f"Open {keys[0][1].lower()}", "url": url, "targetBlank": False}]
        panel = panel.override_by_name(keys[0][1], [dashboard.DynamicConfigValue(id_val="links", value=click)])
    return panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={})).with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize", options={"excludeByName": {"Time": True}, "indexByName": place, "renameByName": renamed}
        )
    )


def _cells(column: Column) -> list[Any]:
    properties: dict[str, Any] = {"unit": column.unit, "decimals": column.decimals}
    if column.words:
        properties["mappings"] = [words_json(column.words)]
    if column.bounds:
        properties["thresholds"] = steps_json(*column.bounds)
    if column.words or column.bounds:
        properties["custom.cellOptions"] = {"type": "color-text"}
    return [dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]


def words(meaning: dict[int, tuple[str, str]]) -> Any:
    """Words, with colours, in place of numbers."""
    results = {
        str(value): dashboard.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(meaning.items())
    }
    return dashboard.ValueMap(options=results)


def words_json(meaning: dict[int, tuple[str, str]]) -> dict[str, Any]:
    """The same as an override needs it."""
    options = {
        str(value): {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(meaning.items())
    }
    return {"type": "value", "options": options}


def steps(*parts: tuple[float | None, str]) -> Any:
    """Thresholds as (from, colour); the first begins at None."""
    found = [dashboard.Threshold(value=value, color=color) for value, color in parts]
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


def steps_json(*parts: tuple[float | None, str]) -> dict[str, Any]:
    """The same as an override needs it."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in parts]}


def with_bound(panel: Any, value: float) -> Any:
    """Draw a dashed line at `value`: from there on it matters."""
    dashed = common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(steps((None, "transparent"), (value, VERMILION))).thresholds_style(dashed)


def with_band(panel: Any, low: str, high: str) -> Any:
    """Fill between the series `low` and `high`, and draw `live` and `validated` in it."""
    return (
        with_edge(panel, low, high, SKY)
        .override_by_name(*series_style("live", BLUE))
        .override_by_name(*series_style("validated", VERMILION, (10, 6), custom_lineInterpolation="stepAfter"))
    )


def with_edge(panel: Any, low: str, high: str, color: str) -> Any:
    """Fill between the series `low`, which the legend leaves out, and `high`."""
    hidden = {"legend": True, "tooltip": False, "viz": False}
    edge: dict[str, Any] = {"custom_lineWidth": 0, "custom_showPoints": "never"}
    return panel.override_by_name(*series_style(low, color, (), custom_hideFrom=hidden, **edge)).override_by_name(
        *series_style(high, color, (), custom_fillBelowTo=low, custom_fillOpacity=30, **edge)
    )


def logarithmic() -> Any:
    """An axis of powers of ten."""
    return common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)


def series_style(name: str, color: str, dash: Sequence[int] = (), **more: Any) -> tuple[str, list[Any]]:
    """Arguments of `override_by_name`: a fixed colour and dash for the series with this name; `more` are further properties,
    with `_` for the dot of `custom.`."""
    properties: dict[str, Any] = {"color": {"mode": "fixed", "fixedColor": color}}
    if dash:
        properties["custom.lineStyle"] = {"fill": "dash", "dash": list(dash)}
    properties.update({name.replace("custom_", "custom."): value for name, value in more.items()})
    return name, [dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]


def plain(**properties: Any) -> list[Any]:
    """The second argument of `override_by_name`; `color` is fixed, `mappings` are words."""
    if "color" in properties:
        properties["color"] = {"mode": "fixed", "fixedColor": properties["color"]}
    return [dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]


def inside(title: str, url: str) -> Any:
    """A link to another of our dashboards, in the same window."""
    return dashboard_builders.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url).target_blank(False)


def link(title: str, url: str) -> Any:
    """A link in a panel's or the dashboard's corner."""
    return dashboard_builders.DashboardLink(title).type(dashboard.DashboardLinkType.LINK).url(url).target_blank(True)
