"""The dashboards: what a reader needs, the same bounds as the alerts, and colours for everybody."""

from collections.abc import Iterator
from typing import Any

import pytest
from dashboard_queries import BOARDS, label_values, queries_of, variables_of

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.linting import FILLED, filled, panels_of
from clipdrift_dashboards.promql_names import LABELS_OF, names_in
from clipdrift_dashboards.rules import ALERTS
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.detectors.window_drift import DriftConfig

OF_ONE_MODEL = ("model", "slices", "training", "retraining")
PANELS = [(name, panel) for name, board in BOARDS.items() for panel in panels_of(board)]
OKABE_ITO = {"#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"}
GREY = "#8E8E8E"


def named(panel: tuple[str, dict[str, Any]]) -> str:
    return f"{panel[0]} {panel[1]['title']}"


def rows_of(name: str) -> list[str]:
    return [panel["title"] for panel in BOARDS[name]["panels"] if panel["type"] == "row"]


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


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_asks_one_question_and_its_rows_are_questions_too(name: str) -> None:
    question = BOARDS[name]["description"].partition("Generated")[0]
    assert question.strip().endswith("?")
    assert BOARDS[name]["uid"] == f"clipdrift-{name}"
    assert [row for row in rows_of(name) if row.endswith("?")]


def test_every_dashboard_about_one_model_begins_with_the_same_six_figures() -> None:
    strips = [[(panel["title"], panel["gridPos"]) for panel in BOARDS[name]["panels"][1:7]] for name in OF_ONE_MODEL]
    assert all(strip == strips[0] for strip in strips)
    assert [title.split()[0] for title, _ in strips[0]] == ["Accuracy", "Input", "Clipping", "Worst", "Version", "Labels"]


@pytest.mark.parametrize("name", BOARDS)
def test_no_dashboard_is_a_wall_of_graphs(name: str) -> None:
    at_once = [panel for panel in BOARDS[name]["panels"] if panel["type"] != "row" and panel["gridPos"]["y"] > 5]
    assert len(at_once) <= 12


def test_drift_harm_and_clipping_stand_on_one_time_axis_with_the_verdict_beside_them() -> None:
    places = {panel["title"].partition(":")[0]: panel["gridPos"] for _, panel in PANELS if _ == "model"}
    graphs = [places[title] for title in ("Drift", "Harm", "Clipping")]
    assert {(place["x"], place["w"]) for place in graphs} == {(0, 17)}
    assert [place["y"] for place in graphs] == [graphs[0]["y"] + 6 * index for index in range(3)]
    words = places["The verdict, in words"]
    assert (words["x"], words["y"], words["h"]) == (17, graphs[0]["y"], 18)
    assert {mark["name"] for mark in BOARDS["model"]["annotations"]["list"]} >= {"Deployments", "Retrains", "Incidents"}


@pytest.mark.parametrize("panel", PANELS, ids=named)
def test_colours_can_be_told_apart_by_the_colour_blind(panel: tuple[str, dict[str, Any]]) -> None:
    assert set(colors_in(panel[1])) - {"transparent"} <= OKABE_ITO | {GREY}


@pytest.mark.parametrize("panel", [one for one in PANELS if one[1]["type"] == "timeseries"], ids=named)
def test_lines_that_share_a_graph_differ_in_more_than_colour(panel: tuple[str, dict[str, Any]]) -> None:
    looks = []
    for override in panel[1]["fieldConfig"]["overrides"]:
        properties = {one["id"]: one["value"] for one in override["properties"]}
        if properties.get("custom.lineWidth") == 0 or panel[1]["fieldConfig"]["defaults"]["custom"].get("drawStyle") == "bars":
            continue  # a band or stacked bars: place tells them apart
        dash = tuple(properties.get("custom.lineStyle", {}).get("dash", ()))
        looks.append((dash, properties.get("custom.fillOpacity"), properties.get("custom.lineInterpolation")))
    assert len(looks) == len(set(looks))


@pytest.mark.parametrize("panel", [one for one in PANELS if "mappings" in str(one[1])], ids=named)
def test_where_a_state_has_a_colour_it_has_a_word(panel: tuple[str, dict[str, Any]]) -> None:
    def words(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if {"text", "color", "index"} <= set(value):
                yield value
            for inner in value.values():
                yield from words(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from words(inner)

    for word in words(panel[1]):
        assert len(word["text"]) > 1


@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_every_query_of_one_model_reads_the_chosen_one(name: str) -> None:
    for query in queries_of(name):
        num_of_models = sum("model" in LABELS_OF[one] for one in names_in(filled(query.expr, FILLED)))
        assert query.expr.count('model="$model"') >= num_of_models, query.title


@pytest.mark.parametrize("name", ["fleet", "pipeline"])
def test_with_hundreds_of_models_only_the_chosen_number_is_shown(name: str) -> None:
    rankings = {f'model=~"${one}"' for one, of_it in variables_of(BOARDS[name]).items() if "topk($top" in of_it["query"]
                or "bottomk($top" in of_it["query"]}  # fmt: skip
    assert len(rankings) == 3
    for query in queries_of(name):
        if "{model}" in str(query) or query.is_annotation or query.kind == "stat":
            continue
        is_of_each_model = "by (model)" in query.expr.partition(" and on")[0] and "sum by (severity)" not in query.expr
        counts = any(word in query.expr for word in ("count(", "sum(", "$worst"))
        if is_of_each_model and not counts and query.title != "Exactly what is blind":
            assert "topk($top" in query.expr or any(one in query.expr for one in rankings), query.title


@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_the_model_variable_offers_every_model_that_the_monitor_knows(name: str) -> None:
    assert label_values(variables_of(BOARDS[name])["model"]) == (metrics.MODEL_GENERATION.name, "model")


def bounds_of(name: str, title: str) -> list[float]:
    (panel,) = [panel for panel in panels_of(BOARDS[name]) if panel["title"] == title]
    return [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["value"]]


def test_bounds_in_graphs_are_the_bounds_of_alerts_and_of_the_monitor() -> None:
    rules = {alert.name: alert.expr for alert in ALERTS}
    assert bounds_of("model", "Harm: the evidence, by test") == [thresholds.HARM_EVIDENCE] == [1.0]
    assert bounds_of("slices", "Inputs that moved most (at most 6)") == [thresholds.DRIFT_SCORE] == [DriftConfig().min_score]
    assert bounds_of("model", "Predictions with a label") == [thresholds.LABEL_SHARE] == [MonitorConfig().min_label_share]
    assert bounds_of("pipeline", "Predictions with a label (the fewest)") == [thresholds.LABEL_SHARE]
    assert bounds_of("pipeline", "Records not read yet") == [thresholds.LAG_RECORDS]
    assert str(thresholds.LAG_RECORDS) in rules["ClipdriftMonitorBehind"]
    assert bounds_of("retraining", "Retrain that runs now") == [thresholds.RETRAIN_SECONDS]
    assert str(thresholds.RETRAIN_SECONDS) in rules["ClipdriftRetrainStuck"]


@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_deployments_retrains_incidents_and_data_changes_are_marked(name: str) -> None:
    marks = {one["name"]: one for one in BOARDS[name]["annotations"]["list"]}
    assert list(marks) == ["Deployments", "Retrains", "Incidents", "Data changes"]
    assert "{{version}}" in marks["Deployments"]["textFormat"]
    assert all(mark["target"]["expr"] == mark["expr"] and mark["enable"] for mark in marks.values())


@pytest.mark.parametrize("name", BOARDS)
def test_links_lead_back_and_keep_time_and_variables(name: str) -> None:
    links = BOARDS[name]["links"]
    (menu,) = [one for one in links if one["type"] == "dashboards"]
    assert menu["keepTime"]
    assert menu["includeVars"]
    assert menu["asDropdown"]
    up = [one for one in links if one.get("url", "").startswith("/d/clipdrift-fleet")]
    assert len(up) == (name != "fleet")
    assert all("${__url_time_range}" in one["url"] for one in up)


def test_links_lead_to_pages_that_exist() -> None:
    urls = [link["url"] for _, panel in PANELS for link in panel.get("links", [])]
    assert any(url.endswith("/models/$model") for url in urls)
    runbooks = {url.rpartition("/")[2].removesuffix(".md") for url in urls if "runbooks" in url}
    assert runbooks
    assert runbooks <= {alert.name for alert in ALERTS}
    assert {url.split("?")[0] for url in urls if url.startswith("/d/")} <= {f"/d/clipdrift-{name}" for name in BOARDS}


def test_a_click_on_a_model_of_the_fleet_leads_to_it_with_the_time_kept() -> None:
    (table,) = [panel for panel in panels_of(BOARDS["fleet"]) if panel["type"] == "table"]
    (link,) = [
        one["value"][0]
        for override in table["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "links"
    ]
    assert link["url"].startswith("/d/clipdrift-model?")
    assert "var-model=${__data.fields.Model}" in link["url"]
    assert "${__url_time_range}" in link["url"]
