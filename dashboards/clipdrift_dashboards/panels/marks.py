"""Marks in all graphs: another version came into service, a retrain ended, an incident opened, data changed."""

from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import Matcher, any_of, newest, select


def of_one_model() -> tuple[Any, ...]:
    """All four."""
    return deployments(), retrains(), incidents(), data_changes()


def deployments(*, of_all: bool = False) -> Any:
    """A mark at the first step at which the generation is another than a step before, with the version's name."""
    chosen = _chosen(of_all)
    generation = newest(metrics.MODEL_GENERATION, "model", **chosen)
    before = f"max by (model) ({select(metrics.MODEL_GENERATION, **chosen)} offset $__interval)"
    info = newest(metrics.MODEL_INFO, "model", "version", **chosen)
    expr = f"{info} and on (model) ({generation} != {before})"
    return _annotation("Deployments", expr, style.BLUE, "In service", "{{model}}: version {{version}}", is_shown=not of_all)


def retrains(*, of_all: bool = False) -> Any:
    """A mark when a retrain has ended."""
    expr = _risen(metrics.MODEL_RETRAINS, "verdict", **_chosen(of_all))
    return _annotation("Retrains", expr, style.GREEN, "Retrain ended", "{{model}}: {{verdict}}", is_shown=not of_all)


def incidents(*, of_all: bool = False) -> Any:
    """A mark when an incident opened that somebody should know of."""
    expr = _risen(metrics.MODEL_INCIDENTS, "root", severity=any_of("page", "ticket"), **_chosen(of_all))
    return _annotation("Incidents", expr, style.VERMILION, "Incident", "{{model}}: {{root}}")


def data_changes() -> Any:
    """A mark when the monitor noticed that what comes in is another: its form, how often it comes, or that it is broken."""
    kinds = any_of("schema", "freshness", "data_broken", "mix_drift")
    expr = _risen(metrics.MODEL_SIGNALS, "kind", kind=kinds, model=style.MODEL)
    return _annotation("Data changes", expr, style.PURPLE, "Data changed", "{{model}}: {{kind}}")


def _chosen(of_all: bool) -> dict[str, Matcher]:
    return {} if of_all else {"model": style.MODEL}


def _risen(counter: Metric, label: str, **matchers: Matcher) -> str:
    """Where a counter of rare events rose: what came and went between two scrapes has its mark too.

    A counter is born with its first event; what was not there within a day before counts as 0.
    """
    chosen = select(counter, **matchers)
    so_far = f"sum by (model, {label}) ({chosen})"
    before = f"sum by (model, {label}) (last_over_time({chosen}[1d] offset $__interval))"
    return f"{so_far} > ({before} or 0 * {so_far})"


def _annotation(name: str, expr: str, color: str, title: str, text: str, *, is_shown: bool = True) -> Any:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(style.SOURCE)
        .icon_color(color)
        .enable(is_shown)
        .expr(expr)
        .target(style.query(expr, ref="Anno"))
        .title_format(title)
        .text_format(text)
    )
