"""What is wrong with a dashboard's JSON: the rules of this project, and those of Grafana's dashboard-linter.

No server is needed: Grafana's own types read every field, PromQL is parsed and its types are checked, and every name is held
against the closed list of metrics.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from clipdrift_dashboards.board import WIDTH
from clipdrift_dashboards.promql_names import problems, unrated_counters

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
LONGEST_TITLE = 44
ON_TIME_RANGE_CHANGED = 2
FILLED = {
    "$__rate_interval": "5m", "$__interval": "1m", "$__range_s": "86400", "$__range": "1d",
    "$model": "m", "$top": "10", "$slice": "s",
    **{f"${name}": "m" for name in ("worst", "evident", "lost", "moved", "oldest", "latest", "fewest")},
}  # fmt: skip
"""What stands for Grafana's variables where an expression is only parsed; the longer names come first."""
EXCLUDED: Mapping[str, str] = {
    "template-job": "one exporter tells of a model, whatever job scrapes it; queries aggregate the job away",
    "template-instance": "a monitor may move to another address; queries aggregate the instance away",
}
"""Rules of Grafana's linter that do not hold here, with why."""
PLAIN_COUNTERS: Mapping[str, str] = {
    "Decisions": "rare events: a counter is born with its first, which increase() does not see; the difference does",
    "Retrains so far, by verdict": "the total is what is asked for; the monitor keeps it over restarts",
    "Retrains, by verdict": "rare events, by difference",
    "Retrains that changed nothing": "rare events, by difference",
    "Rollbacks": "rare events, by difference",
    "Machine time of retrains, so far": "the total is what is asked for; the monitor keeps it over restarts",
    "Hot swaps so far, by outcome": "the total since the processes started is what is asked for",
    "Steps with a fault, so far": "the total of the run is what is asked for",
    "Telemetry that waits, failed or is lost": "the total of the run is what is asked for",
    "Records parked as unreadable, so far": "the total is what is asked for",
    "Rows of the audit log": "the total is what is asked for: it must only grow",
    "Retrains": "a mark where a counter of rare events rises",
    "Incidents": "a mark where a counter of rare events rises",
    "Data changes": "a mark where a counter of rare events rises",
}
"""Panels and marks that show a counter itself, each with why."""
FIXED_WINDOWS: Mapping[str, str] = {
    "Models with a blind spot": "the window of the alerts",
    "Exactly what is blind": "the window of the alerts",
    "Records that cannot be read": "the whole time range",
    "Right answers over all answers, by version": "labels come late: a day smooths that",
}
"""Panels whose rates are over another window than Grafana's own, each with why."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """What a rule has to say against a place."""

    rule: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.what}"


def findings(board: dict[str, Any]) -> list[Finding]:
    """All that is wrong with a dashboard; empty when it is well."""
    found = [*_schema(board), *_whole(board), *_variables(board), *_ids(board), *_grid(board)]
    for panel in panels_of(board):
        found += [*_panel(panel), *_targets(panel)]
    for mark in board.get("annotations", {}).get("list", []):
        found += _expression(mark["name"], mark["target"]["expr"])
    return sorted(set(found))


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels but rows, those inside collapsed rows included."""
    found: list[dict[str, Any]] = []
    for panel in board["panels"]:
        found += [panel] if panel["type"] != "row" else panel.get("panels", [])
    return found


def filled(expr: str, values: Mapping[str, str]) -> str:
    """`expr` with its variables replaced, longer names first.

    >>> filled("rate(x[$__rate_interval]) * $__range_s", FILLED)
    'rate(x[5m]) * 86400'
    """
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(name, values[name])
    return expr


def _schema(board: dict[str, Any]) -> Iterator[Finding]:
    register_default_plugins()
    try:
        is_same = json.loads(JSONEncoder().encode(Dashboard.from_json(board))) == board
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield Finding("schema", board.get("title", "?"), f"Grafana's types cannot read it: {error}")
        return
    if not is_same:
        yield Finding("schema", board["title"], "a field is not one of Grafana's")


def _whole(board: dict[str, Any]) -> Iterator[Finding]:
    title = board["title"]
    wanted: tuple[tuple[str, bool, str], ...] = (
        ("uid", bool(board.get("uid")), "has no uid, so links to it break"),
        ("uneditable-dashboard", board.get("editable") is False, "can be edited in the browser, where changes are lost"),
        ("timezone", board.get("timezone") == "utc", "must be in UTC, as windows are"),
        ("tags", bool(board.get("tags")), "has no tag, so the menu of dashboards does not show it"),
        ("description", len(board.get("description", "")) > 20, "does not say which question it answers"),
        ("crosshair", board.get("graphTooltip") == 1, "graphs do not share their crosshair"),
        ("links", any(one.get("keepTime") for one in board.get("links", [])), "no link keeps the time range"),
    )
    yield from (Finding(rule, title, what) for rule, is_well, what in wanted if not is_well)


def _variables(board: dict[str, Any]) -> Iterator[Finding]:
    variables = board.get("templating", {}).get("list", [])
    if not variables or variables[0]["type"] != "datasource" or variables[0]["query"] != "prometheus":
        yield Finding("template-datasource", board["title"], "the first variable must choose a Prometheus")
    for one in variables:
        if one["type"] != "query":
            continue
        if one.get("refresh") != ON_TIME_RANGE_CHANGED:
            yield Finding("template-on-time-change-reload", one["name"], "must be asked again when the time range changes")
        inside = re.sub(r"^(label_values|query_result)\(", "", one["query"])[:-1]
        expr = inside.rpartition(", ")[0] if one["query"].startswith("label_values") else inside
        yield from _expression(f"variable {one['name']}", expr)


def _ids(board: dict[str, Any]) -> Iterator[Finding]:
    ids = [panel.get("id") for row in board["panels"] for panel in (row, *row.get("panels", []))]
    if ids != list(range(1, len(ids) + 1)):
        yield Finding("panel-ids", board["title"], f"must be 1, 2, 3, ..., got {ids}")


def _grid(board: dict[str, Any]) -> Iterator[Finding]:
    taken: dict[tuple[int, int], str] = {}
    for row in board["panels"]:
        for panel in (row, *row.get("panels", [])):
            place = panel["gridPos"]
            # The inside of a collapsed row stands where it will be when somebody opens it: a page of its own.
            layer = 1000 * row["id"] if panel is not row else 0
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    if x >= WIDTH or (x, y + layer) in taken:
                        other = taken.get((x, y + layer), "the edge")
                        yield Finding("overlap", panel["title"], f"lies over {other}")
                    taken[x, y + layer] = panel["title"]
    lines: dict[int, int] = {}
    for _, y in taken:
        lines[y] = lines.get(y, 0) + 1
    yield from (Finding("width", board["title"], f"line {y} is {n} columns wide") for y, n in lines.items() if n != WIDTH)


def _panel(panel: dict[str, Any]) -> Iterator[Finding]:
    title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
    wanted: tuple[tuple[str, bool, str], ...] = (
        ("panel-title", 0 < len(title) <= LONGEST_TITLE, f"the title must have 1 to {LONGEST_TITLE} letters"),
        ("panel-description", len(panel.get("description", "")) > 60, "the description must say what, how and what to do"),
        ("panel-units", bool(defaults.get("unit")), "has no unit"),
        ("panel-decimals", "decimals" in defaults, "does not say how many decimals"),
        ("panel-no-value", len(defaults.get("noValue", "")) > 10, "does not say why it may be empty"),
        ("panel-datasource", panel.get("datasource") == SOURCE, "does not use the chosen data source"),
        ("panel-no-targets", bool(panel.get("targets")), "asks nothing"),
    )
    yield from (Finding(rule, title, what) for rule, is_well, what in wanted if not is_well)
    for link in panel.get("links", []):
        if "/d/" in link["url"] and "${__url_time_range}" not in link["url"]:
            yield Finding("links", title, f"{link['url']} loses the time range")


def _targets(panel: dict[str, Any]) -> Iterator[Finding]:
    refs = [target["refId"] for target in panel.get("targets", [])]
    if len(refs) != len(set(refs)):
        yield Finding("target-refs", panel["title"], f"two queries have one name: {refs}")
    for target in panel.get("targets", []):
        if target.get("datasource") != SOURCE:
            yield Finding("target-datasource", panel["title"], f"{target['refId']} does not use the chosen data source")
        yield from _expression(panel["title"], target["expr"])


def _expression(where: str, expr: str) -> Iterator[Finding]:
    plain = filled(expr, FILLED)
    if "$" in plain:
        yield Finding("target-promql", where, f"an unknown variable in {expr}")
        return
    try:
        yield from (Finding("known-metrics", where, f"there is no {what}") for what in problems(plain))
    except ValueError as error:
        yield Finding("target-promql", where, f"{error} in {expr}")
        return
    for check in _CHECKS:
        yield from check(where, expr, plain)


def _rate_interval(where: str, expr: str, plain: str) -> Iterator[Finding]:
    del plain
    windows = set(re.findall(r"\b(?:rate|irate|increase)\([^\[\]]*\[([^\]]+)\]", expr)) - {"$__rate_interval"}
    if windows and where not in FIXED_WINDOWS:
        yield Finding("target-rate-interval", where, f"a rate over {', '.join(sorted(windows))} has holes at another step")


def _counters(where: str, expr: str, plain: str) -> Iterator[Finding]:
    del expr
    bare = unrated_counters(plain)
    if bare and where not in PLAIN_COUNTERS:
        yield Finding("target-counter-agg", where, f"{', '.join(sorted(bare))} without rate or increase")


def _quantiles(where: str, expr: str, plain: str) -> Iterator[Finding]:
    del plain
    if "histogram_quantile" in expr and not re.search(r"histogram_quantile\([\d.]+, sum by \(le", expr):
        yield Finding("quantile", where, "must sum by (le) before the quantile")


_CHECKS: tuple[Callable[[str, str, str], Iterator[Finding]], ...] = (_rate_interval, _counters, _quantiles)
