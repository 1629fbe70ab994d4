"""What a PromQL expression names: metrics and labels, held against the closed list."""

from typing import Any

import promql_parser

from clipdrift_contract.metrics import METRICS
from clipdrift_dashboards.rules import OPTIONAL_RECORDS, RECORDS

_ADDED_BY = {"histogram": ("_bucket", "_sum", "_count")}
"""Series that a histogram is exported as."""
LABELS_OF: dict[str, set[str]] = {record.name: set(record.labels) for record in (*RECORDS, *OPTIONAL_RECORDS)}
"""The labels of every series that a query may name."""
COUNTERS = {metric.name for metric in METRICS if metric.kind == "counter"}
for _metric in METRICS:
    for _suffix in _ADDED_BY.get(_metric.kind, ("",)):
        LABELS_OF[_metric.name + _suffix] = set(_metric.labels) | ({"le"} if _suffix == "_bucket" else set())


def problems(expr: str) -> list[str]:
    """What `expr` names that does not exist; empty when all is well.

    Raises:
        ValueError: It is no PromQL.
    """
    found: list[str] = []
    _visit(promql_parser.parse(expr), found)
    return found


def names_in(expr: str) -> set[str]:
    """Metrics and records that `expr` reads."""
    return {node.name for node in _selectors(promql_parser.parse(expr))}


def unrated_counters(expr: str) -> set[str]:
    """Counters whose plain value `expr` shows: they fall to 0 when a process starts again."""
    return _unrated(promql_parser.parse(expr), is_inside=False)


def _unrated(node: Any, *, is_inside: bool) -> set[str]:
    if isinstance(node, promql_parser.VectorSelector):
        return {node.name} if node.name in COUNTERS and not is_inside else set()
    is_rate = isinstance(node, promql_parser.Call) and node.func.name in ("rate", "irate", "increase")
    return set().union(*(_unrated(child, is_inside=is_inside or is_rate) for child in _children(node)))


def _children(node: Any) -> list[Any]:
    found = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "param", "vector_selector")]
    return [child for child in found if child is not None] + list(getattr(node, "args", None) or [])


def _selectors(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    return [selector for child in _children(node) for selector in _selectors(child)]


def _made(node: Any) -> set[str]:
    """Labels that label_replace makes below `node`."""
    made = {node.args[1].val} if isinstance(node, promql_parser.Call) and node.func.name == "label_replace" else set()
    return made.union(*(_made(child) for child in _children(node)))


def _visit(node: Any, found: list[str]) -> None:
    if isinstance(node, promql_parser.VectorSelector):
        labels = LABELS_OF.get(node.name or "")
        if labels is None:
            found.append(f"metric {node.name}")
        else:
            found += [f"label {one.name} of {node.name}" for one in node.matchers.matchers if one.name not in labels]
    wanted: list[str] = []
    if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
        wanted = node.modifier.labels
    elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
        wanted = node.modifier.matching.labels
    known = _made(node).union(*(LABELS_OF.get(selector.name or "", set()) for selector in _selectors(node)))
    found += [f"grouping label {label}" for label in wanted if label not in known]
    for child in _children(node):
        _visit(child, found)
