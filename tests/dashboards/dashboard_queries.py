"""The queries of a dashboard, and how Grafana fills their variables."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

GENERATED = Path(__file__).parents[2] / "dashboards" / "generated"
DASHBOARD = GENERATED / "model-overview.json"
RULES = GENERATED / "clipdrift-rules.yml"


class PanelQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One query of a panel or an annotation."""

    title: str
    ref: str
    expr: str
    is_instant: bool
    min_interval_seconds: int = 1
    is_annotation: bool = False


def dashboard() -> dict[str, Any]:
    """The committed model overview."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return board


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels but rows, those inside collapsed rows included."""
    found = []
    for panel in board["panels"]:
        found += [panel] if panel["type"] != "row" else panel.get("panels", [])
    return found


def queries_of(board: dict[str, Any]) -> Iterator[PanelQuery]:
    """Every query of panels and annotations."""
    for panel in panels_of(board):
        for target in panel["targets"]:
            yield PanelQuery(
                title=panel["title"],
                ref=target["refId"],
                expr=target["expr"],
                is_instant=target.get("instant", False),
                min_interval_seconds=seconds(panel.get("interval", "1s")),
            )
    for annotation in board["annotations"]["list"]:
        yield PanelQuery(
            title=annotation["name"], ref="Anno", expr=annotation["target"]["expr"], is_instant=False, is_annotation=True
        )


def variable_query(board: dict[str, Any], name: str) -> tuple[str, str]:
    """Metric and label of a `label_values` variable."""
    query = next(one["query"] for one in board["templating"]["list"] if one["name"] == name)
    match = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    assert match, query
    return match[1], match[2]


def seconds(duration: str) -> int:
    """Of a duration with one unit.

    >>> seconds("15m")
    900
    """
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[duration[-1]]


def filled(query: PanelQuery, model: str, range_seconds: int, step_seconds: int, scrape_seconds: int) -> str:
    """The query as Grafana sends it: $__rate_interval is the larger of interval + scrape interval and four scrape intervals."""
    interval = max(step_seconds, query.min_interval_seconds)
    values = {
        "$__rate_interval": f"{max(interval + scrape_seconds, 4 * scrape_seconds)}s",
        "$__interval": f"{interval}s",
        "$__range": f"{range_seconds}s",
        "$model": model,
    }
    expr = query.expr
    for name, value in values.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"{query.title}: a variable is left in {expr}"
    return expr
