"""A dashboard from its rows: every panel at its place, the variables, marks and links that all dashboards share."""

from collections.abc import Iterable
from typing import Any

import msgspec
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from clipdrift_contract import metrics
from clipdrift_dashboards.links import BoardName, Links, uid, within
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import select

WIDTH = 24
"""Columns of Grafana's grid."""
TAG = "clipdrift"
TITLES: dict[BoardName, str] = {
    "fleet": "Fleet overview",
    "model": "Model",
    "slices": "Slices and features",
    "training": "Training and clipping",
    "retraining": "Retraining and rollout",
    "pipeline": "Pipeline health",
}


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What a dashboard is about. `question` is what its reader wants to know; `rows` answer it from top to bottom."""

    name: BoardName
    question: str
    rows: tuple[style.Row, ...]
    variables: tuple[Any, ...] = ()
    """Beside the data source."""
    marks: tuple[Any, ...] = ()
    is_of_one_model: bool = True


def built(board: Board, links: Links) -> Any:
    """The dashboard, as grafana-foundation-sdk's model of it."""
    made = (
        builders.Dashboard(f"Clipdrift / {TITLES[board.name]}")
        .uid(uid(board.name))
        .description(f"{board.question} Generated: change the code, not this copy.")
        .tags([TAG])
        .readonly()
        .timezone("utc")
        .time("now-30d", "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in board.variables:
        made = made.with_variable(variable)
    for mark in board.marks:
        made = made.annotation(mark)
    if board.name != "fleet":
        made = made.link(_up())
    if board.is_of_one_model:
        made = made.link(style.link("Status page: decisions and their reasons", links.status_page(style.MODEL)))
    return _placed(made.link(_siblings()), board.rows).build()


def model_variable() -> Any:
    """One model of those that the monitor knows."""
    return (
        builders.QueryVariable("model")
        .label("Model")
        .datasource(style.SOURCE)
        .query(f"label_values({select(metrics.MODEL_GENERATION)}, model)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(False)
        .include_all(False)
    )


def worst_variable(name: str, query: str, label: str) -> Any:
    """The few values of `label` that come first in `query`, for panels that show no others; nobody has to choose."""
    return (
        builders.QueryVariable(name)
        .datasource(style.SOURCE)
        .query(f"query_result({query})")
        .regex(f'/{label}="([^"]+)"/')
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .current(models.VariableOption(text="All", value="$__all", selected=True))
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def count_variable(name: str, label: str, choices: tuple[int, ...]) -> Any:
    """How many to show; the first choice is the one at the start."""
    words = [str(choice) for choice in choices]
    return (
        builders.CustomVariable(name)
        .label(label)
        .values(",".join(words))
        .options([models.VariableOption(text=word, value=word, selected=word == words[0]) for word in words])
        .current(models.VariableOption(text=words[0], value=words[0], selected=True))
        .multi(False)
        .include_all(False)
    )


def _up() -> Any:
    """Back to all models: the same time, the same data source."""
    return builders.DashboardLink("All models").type(models.DashboardLinkType.LINK).url(within("fleet")).icon("bolt")


def _siblings() -> Any:
    return (
        builders.DashboardLink("Clipdrift")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .keep_time(True)
        .include_vars(True)
        .as_dropdown(True)
    )


def _placed(board: Any, rows: Iterable[style.Row]) -> Any:
    """Every panel at its place, with a number that stays the same from build to build (links and alerts name it)."""
    y, number = 0, 1
    for row in rows:
        head = builders.Row(row.title).id(number).grid_pos(models.GridPos(x=0, y=y, w=WIDTH, h=1))
        inside, y, number = _laid_out(row, y + 1, number + 1)
        if row.is_collapsed:
            for panel in inside:
                head = head.with_panel(panel)
            board, y = board.with_row(head), y - sum(line.height for line in row.lines)
        else:
            board = board.with_row(head)
            for panel in inside:
                board = board.with_panel(panel)
    return board


def _laid_out(row: style.Row, y: int, number: int) -> tuple[list[Any], int, int]:
    """The row's panels with place and number; where the next row begins, and its number."""
    found = []
    for line in row.lines:
        x = 0
        for what, width in line.panels:
            column = what if isinstance(what, tuple) else ((what, line.height),)
            above = 0
            for panel, height in column:
                found.append(panel.id(number).grid_pos(models.GridPos(x=x, y=y + above, w=width, h=height)))
                above, number = above + height, number + 1
            if above != line.height:
                raise ValueError(f"a column of {row.title!r} is {above} high where its line is {line.height}")
            x += width
        if x != WIDTH:
            raise ValueError(f"a line of {row.title!r} is {x} columns wide, not {WIDTH}")
        y += line.height
    return found, y, number
