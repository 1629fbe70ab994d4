"""The queries of the dashboards, and how Grafana fills their variables."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from clipdrift_dashboards import linting
from clipdrift_dashboards.board import TITLES
from clipdrift_dashboards.linting import panels_of

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


def query_result(variable: dict[str, Any]) -> tuple[str, str]:
    """Expression, and the regular expression that picks values from it, of a `query_result` variable."""
    match = re.fullmatch(r"query_result\((.*)\)", variable["query"])
    assert match, variable["query"]
    return match[1], variable["regex"].strip("/")


def seconds(duration: str) -> int:
    """Of a duration with one unit.

    >>> seconds("15m")
    900
    """
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def filled(query: PanelQuery, variables: Mapping[str, str], range_seconds: int, step_seconds: int, scrape_seconds: int) -> str:
    """The query as Grafana sends it: $__rate_interval is the larger of interval + scrape interval and four scrape intervals."""
    interval = max(step_seconds, query.min_interval_seconds)
    values = {
        "$__rate_interval": f"{max(interval + scrape_seconds, 4 * scrape_seconds)}s",
        "$__interval": f"{interval}s",
        "$__range": f"{range_seconds}s",
        "$__range_s": str(range_seconds),
        **{f"${name}": value for name, value in variables.items()},
    }
    expr = linting.filled(query.expr, values)
    assert "$" not in expr, f"{query.title}: a variable is left in {expr}"
    return expr
