"""The linter: the committed dashboards have no finding, and each rule finds what it is for."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from dashboard_queries import BOARDS

from clipdrift_dashboards import linting
from clipdrift_dashboards.linting import findings

Board = dict[str, Any]


@pytest.mark.parametrize("name", BOARDS)
def test_nothing_is_wrong_with_a_committed_dashboard(name: str) -> None:
    assert [str(finding) for finding in findings(BOARDS[name])] == []


def first(board: Board, kind: str = "timeseries") -> Board:
    found: Board = next(panel for panel in board["panels"] if panel["type"] == kind)
    return found


def asks(expr: str) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        first(board)["targets"][0]["expr"] = expr

    return change


def without(*path: str) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        place = first(board)
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


def sets(key: str, value: Any, *, of_panel: bool = True) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        (first(board) if of_panel else board)[key] = value

    return change


def moves(**place: int) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        first(board)["gridPos"] |= place

    return change


def variable(name: str, **change_to: Any) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        next(one for one in board["templating"]["list"] if one["name"] == name).update(change_to)

    return change


FAULTS: tuple[tuple[str, Callable[[Board], None]], ...] = (
    ("schema", sets("titel", "x")),
    ("schema", sets("gridPosition", {}, of_panel=True)),
    ("uid", sets("uid", "", of_panel=False)),
    ("uneditable-dashboard", sets("editable", True, of_panel=False)),
    ("timezone", sets("timezone", "browser", of_panel=False)),
    ("tags", sets("tags", [], of_panel=False)),
    ("description", sets("description", "", of_panel=False)),
    ("crosshair", sets("graphTooltip", 0, of_panel=False)),
    ("links", sets("links", [], of_panel=False)),
    ("links", sets("links", [{"url": "/d/clipdrift-model", "title": "x"}])),
    ("template-datasource", variable("datasource", query="loki")),
    ("template-on-time-change-reload", variable("model", refresh=1)),
    ("known-metrics", variable("model", query="label_values(clipdrift_model_no_such_thing, model)")),
    ("panel-ids", sets("id", 999)),
    ("overlap", moves(y=0)),
    ("overlap", moves(x=20)),
    ("width", moves(w=3)),
    ("panel-title", sets("title", "x" * 60)),
    ("panel-description", sets("description", "Accuracy.")),
    ("panel-units", without("fieldConfig", "defaults", "unit")),
    ("panel-decimals", without("fieldConfig", "defaults", "decimals")),
    ("panel-no-value", without("fieldConfig", "defaults", "noValue")),
    ("panel-datasource", sets("datasource", {"type": "prometheus", "uid": "prom"})),
    ("panel-no-targets", sets("targets", [])),
    ("target-promql", asks("sum by (model)(clipdrift_model_generation")),
    ("target-promql", asks("rate(clipdrift_model_generation)")),
    ("target-promql", asks('clipdrift_model_generation{model="$nobody"}')),
    ("known-metrics", asks("clipdrift_model_acuracy_ratio")),
    ("known-metrics", asks('clipdrift_model_generation{run="7"}')),
    ("known-metrics", asks("sum by (run) (clipdrift_model_generation)")),
    ("target-rate-interval", asks("rate(clipdrift_model_labels_total[5m])")),
    ("target-counter-agg", asks("sum(clipdrift_model_labels_total)")),
    ("quantile", asks("histogram_quantile(0.9, rate(clipdrift_trainer_grad_norm_bucket[$__rate_interval]))")),
)


@pytest.mark.parametrize(("rule", "change"), FAULTS, ids=[f"{rule} {index}" for index, (rule, _) in enumerate(FAULTS)])
def test_a_fault_is_found_by_its_rule(rule: str, change: Callable[[Board], None]) -> None:
    board = copy.deepcopy(BOARDS["model"])
    change(board)
    assert rule in {finding.rule for finding in findings(board)}


def test_every_exclusion_has_a_reason_and_is_needed() -> None:
    titles = {panel["title"] for board in BOARDS.values() for panel in linting.panels_of(board)}
    titles |= {mark["name"] for board in BOARDS.values() for mark in board.get("annotations", {}).get("list", [])}
    for excluded in (linting.PLAIN_COUNTERS, linting.FIXED_WINDOWS):
        assert set(excluded) <= titles
        assert all(len(reason) > 10 for reason in excluded.values())
