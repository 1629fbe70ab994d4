"""The queries of the dashboards, and how Grafana fills their variables."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from clipdrift_dashboards.board import TITLES
from clipdrift_dashboards.linting import panels_of
from clipdrift_dashboards.viewer.asking import Span, filled_expr

GENERATED = Path(__file__).parents[2] / "dashboards" / "generated"
RULES = GENERATED / "clipdrift-rules.yml"
BOARDS: dict[str, dict[str, Any]] = {name: json.loads((GENERATED / f"{name}.json").read_text()) for name in TITLES}
"""The committed dashboards."""


class PanelQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One query of a panel or an annotation."""

    board: str
    title: str
    kind: str
    ref: str
    expr: str
    is_instant: bool
    min_interval_seconds: int = 1
    is_annotation: bool = False


def queries_of(name: str, board: dict[str, Any] | None = None) -> Iterator[PanelQuery]:
    """Every query of panels and annotations."""
    board = board or BOARDS[name]
    for panel in panels_of(board):
        for target in panel["targets"]:
            yield PanelQuery(
                board=name,
                title=panel["title"],
                kind=panel["type"],
                ref=target["refId"],
                expr=target["expr"],
                is_instant=target.get("instant", False),
                min_interval_seconds=seconds(panel.get("interval", "1s")),
            )
    for mark in board.get("annotations", {}).get("list", []):
        yield PanelQuery(
            board=name, title=mark["name"], kind="mark", ref="Anno", expr=mark["target"]["expr"], is_instant=False,
            is_annotation=True,
        )  # fmt: skip


def variables_of(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Variables but the data source, by name."""
    return {one["name"]: one for one in board["templating"]["list"] if one["type"] != "datasource"}


def label_values(variable: dict[str, Any]) -> tuple[str, str]:
    """Metric and label of a `label_values` variable."""
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
    assert match, variable["query"]
    return match[1], match[2]


def seconds(duration: str) -> int:
    """Of a duration with one unit.

    >>> seconds("15m")
    900
    """
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def filled(query: PanelQuery, values: Mapping[str, str], span: Span, step_seconds: int) -> str:
    """The query as Grafana sends it; `values` are those of the dashboard's variables."""
    expr = filled_expr(query.expr, values, span, max(step_seconds, query.min_interval_seconds))
    assert "$" not in expr, f"{query.title}: a variable is left in {expr}"
    return expr
