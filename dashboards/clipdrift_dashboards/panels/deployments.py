"""Marks in all graphs: when another version came into service, and while an alarm was open."""

from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders

from clipdrift_contract import metrics
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import any_of, newest, select


def deployments() -> Any:
    """A mark at the first step at which the generation is another than a step before, with the version's name."""
    generation = newest(metrics.MODEL_GENERATION, "model", model=style.MODEL)
    before = f"max by (model) ({select(metrics.MODEL_GENERATION, model=style.MODEL)} offset $__interval)"
    info = newest(metrics.MODEL_INFO, "model", "version", model=style.MODEL)
    expr = f"{info} and on (model) ({generation} != {before})"
    return _annotation("Deployments", expr, style.BLUE, "In service", "version {{version}}").enable(True)


def alarms() -> Any:
    """A region for each alarm, while it was open. Off at first: it colours the whole graph."""
    open_then = select(metrics.MODEL_OPEN_SIGNALS, model=style.MODEL, severity=any_of("page", "ticket"))
    expr = f"max by (model, kind) ({open_then}) > 0"
    return _annotation("Open alarms", expr, style.VERMILION, "Alarm", "{{kind}}").enable(False)


def _annotation(name: str, expr: str, color: str, title: str, text: str) -> Any:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(style.SOURCE)
        .icon_color(color)
        .expr(expr)
        .target(style.query(expr, ref="Anno"))
        .title_format(title)
        .text_format(text)
    )
