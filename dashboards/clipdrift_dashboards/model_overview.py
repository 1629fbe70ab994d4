"""The model overview: is this model healthy, is the harm proven, why, and what was done? From the verdict to its causes."""

from collections.abc import Iterable
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from clipdrift_contract import metrics
from clipdrift_dashboards.links import OVERVIEW_UID, Links
from clipdrift_dashboards.panels import (
    accuracy,
    calibration,
    clipping,
    deployments,
    drift,
    harm,
    labels,
    retrains,
    style,
    traffic,
    verdict,
)
from clipdrift_dashboards.promql import select

WIDTH = 24
"""Columns of Grafana's grid."""
TAG = "clipdrift"


def model_overview(links: Links) -> Any:
    """The dashboard, as grafana-foundation-sdk's model of it."""
    board = (
        builders.Dashboard("Clipdrift / Model overview")
        .uid(OVERVIEW_UID)
        .description(
            "Is this model healthy, is the harm proven, why, and what was done? Generated: change the code, not this copy."
        )
        .tags([TAG])
        .readonly()
        .timezone("utc")
        .time("now-30d", "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_model())
        .annotation(deployments.deployments())
        .annotation(deployments.alarms())
        .link(style.link("Status page: decisions and their reasons", links.status_page(style.MODEL)))
        .link(_siblings())
    )
    rows = (
        verdict.row(links),
        accuracy.row(),
        harm.row(links),
        calibration.row(),
        drift.row(),
        clipping.row(),
        retrains.row(links),
        labels.row(links),
        traffic.row(links),
    )
    return _placed(board, rows).build()


def _model() -> Any:
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
        place = models.GridPos(x=0, y=y, w=WIDTH, h=1)
        board = board.with_row(builders.Row(row.title).id(number).grid_pos(place))
        y, number = y + 1, number + 1
        for line in row.lines:
            x = 0
            for panel, width in line.panels:
                board = board.with_panel(panel.id(number).grid_pos(models.GridPos(x=x, y=y, w=width, h=line.height)))
                x, number = x + width, number + 1
            assert x == WIDTH, f"a line of {row.title!r} is {x} columns wide"
            y += line.height
    return board
