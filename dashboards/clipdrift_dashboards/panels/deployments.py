"""Marks in all graphs: when another version came into service, and when an alarm was raised."""

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
    return _annotation("Deployments", expr, style.BLUE, "In service", "version {{version}}")


def alarms() -> Any:
    """A mark at each step in which an alarm was raised, or raised again.

    From the counter, so that an alarm that came and went between two scrapes has its mark too. A counter is born with its first
    event; what was not there within a day before counts as 0.
    """
    raised = select(metrics.MODEL_SIGNALS, model=style.MODEL, severity=any_of("page", "ticket"))
    so_far = f"sum by (model, kind) ({raised})"
    before = f"sum by (model, kind) (last_over_time({raised}[1d] offset $__interval))"
    return _annotation("Alarms", f"{so_far} > ({before} or 0 * {so_far})", style.VERMILION, "Alarm", "{{kind}}")


def _annotation(name: str, expr: str, color: str, title: str, text: str) -> Any:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(style.SOURCE)
        .icon_color(color)
        .enable(True)
        .expr(expr)
        .target(style.query(expr, ref="Anno"))
        .title_format(title)
        .text_format(text)
    )
