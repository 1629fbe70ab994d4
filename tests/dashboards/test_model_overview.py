"""The dashboard's JSON: what Grafana needs, what a reader needs, and only queries that can be answered."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dashboard_queries import PanelQuery, dashboard, filled, panels_of, queries_of, variable_query
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from promql_names import LABELS_OF, names_in, problems

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import OVERVIEW_UID
from clipdrift_dashboards.rules import ALERTS
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.detectors.window_drift import DriftConfig

BOARD = dashboard()
PANELS = panels_of(BOARD)
QUERIES = list(queries_of(BOARD))
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OKABE_ITO = {"#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"}


def colors_in(value: Any) -> Iterator[str]:
    """Every colour named anywhere in a piece of JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("color", "fixedColor") and isinstance(inner, str):
                yield inner
            yield from colors_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from colors_in(inner)


def test_ids_are_there_and_unique() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    assert BOARD["uid"] == OVERVIEW_UID
    assert BOARD["editable"] is False


def test_grafana_s_own_types_can_read_every_field() -> None:
    register_default_plugins()
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(BOARD))) == BOARD


def test_no_panel_overlaps_another_or_leaves_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_line_of_panels_is_filled() -> None:
    widths: dict[int, int] = {}
    for panel in BOARD["panels"]:
        widths[panel["gridPos"]["y"]] = widths.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(widths.values()) == {24}


def test_the_verdict_comes_first_and_the_plumbing_last() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows[0] == "Is it healthy?"
    assert rows[-1] == "Does the monitor see all of it, and in time?"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_explains_itself(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert len(panel["description"]) > 60
    assert len(panel["title"]) <= 40
    assert defaults["unit"]
    assert "decimals" in defaults
    assert len(defaults["noValue"]) > 10, "says why there is nothing"
    assert panel["datasource"] == SOURCE
    assert all(target["datasource"] == SOURCE for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_colours_can_be_told_apart_by_the_colour_blind(panel: dict[str, Any]) -> None:
    used = set(colors_in(panel)) - {"transparent"}
    assert used <= OKABE_ITO | {"#8E8E8E"}


@pytest.mark.parametrize("panel", [one for one in PANELS if one["type"] == "timeseries"], ids=lambda panel: panel["title"])
def test_lines_that_share_a_graph_differ_in_more_than_colour(panel: dict[str, Any]) -> None:
    looks = []
    for override in panel["fieldConfig"]["overrides"]:
        properties = {one["id"]: one["value"] for one in override["properties"]}
        if properties.get("custom.lineWidth") == 0 or panel["fieldConfig"]["defaults"]["custom"].get("drawStyle") == "bars":
            continue  # a band or stacked bars: place tells them apart
        dash = tuple(properties.get("custom.lineStyle", {}).get("dash", ()))
        looks.append((dash, properties.get("custom.fillOpacity"), properties.get("custom.lineInterpolation")))
    assert len(looks) == len(set(looks))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.title} {query.ref}")
def test_every_query_parses_and_names_only_the_closed_list(query: PanelQuery) -> None:
    assert problems(filled(query, "m", 86_400, 60, 15)) == []


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.title} {query.ref}")
def test_every_query_reads_the_chosen_model_or_the_monitor(query: PanelQuery) -> None:
    names = names_in(filled(query, "m", 86_400, 60, 15))
    if any("model" in LABELS_OF[name] for name in names):
        assert query.expr.count('model="$model"') >= len(names)


def test_every_series_comes_from_the_monitor_so_one_scrape_fills_the_dashboard() -> None:
    names = {name for query in QUERIES for name in names_in(filled(query, "m", 86_400, 60, 15))}
    assert {name for name in names if not name.startswith(("clipdrift_model_", "clipdrift_monitor_"))} == set()


def test_the_model_variable_offers_every_model_that_the_monitor_knows() -> None:
    assert variable_query(BOARD, "model") == (metrics.MODEL_GENERATION.name, "model")
    assert [one["name"] for one in BOARD["templating"]["list"]] == ["datasource", "model"]


def test_bounds_in_graphs_are_the_bounds_of_alerts_and_of_the_monitor() -> None:
    drawn = {
        panel["title"]: [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["value"]]
        for panel in PANELS
        if "thresholds" in panel["fieldConfig"]["defaults"]
    }
    assert drawn["Evidence of harm, by test"] == [thresholds.HARM_EVIDENCE] == [1.0]
    assert drawn["Inputs that moved most (at most 6)"] == [thresholds.DRIFT_SCORE] == [DriftConfig().min_score]
    assert drawn["Predictions with a label"] == [thresholds.LABEL_SHARE] == [MonitorConfig().min_label_share]
    assert drawn["Records not read yet"] == [thresholds.LAG_RECORDS]
    assert str(thresholds.LAG_RECORDS) in next(alert.expr for alert in ALERTS if alert.name == "ClipdriftMonitorBehind")


def test_deployments_are_marked_with_their_version() -> None:
    marks = {one["name"]: one for one in BOARD["annotations"]["list"]}
    assert marks["Deployments"]["enable"] is True
    assert "{{version}}" in marks["Deployments"]["textFormat"]
    assert all(mark["target"]["expr"] == mark["expr"] for mark in marks.values())


def test_links_keep_the_model() -> None:
    urls = [link["url"] for one in (BOARD, *PANELS) for link in one.get("links", []) if link.get("url")]
    assert any(url.endswith("/models/$model") for url in urls)
    runbooks = [url for url in urls if "runbooks" in url]
    assert runbooks
    assert {url.rpartition("/")[2].removesuffix(".md") for url in runbooks} <= {alert.name for alert in ALERTS}
