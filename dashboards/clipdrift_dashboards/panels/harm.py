"""Is the loss proven, and would a repair help?"""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest

_TESTS = {
    "sudden_break": ("sudden break", style.VERMILION, ()),
    "worse_than_validated": ("worse than validated", style.BLUE, (12, 6)),
    "repairable": ("repairable", style.GREEN, (3, 6)),
}


_EMPTY = "No block judged in this time range, or no monitor answers"


def evidence(links: Links, title: str) -> Any:
    """The three tests."""
    panel = style.with_bound(
        style.lines(
            title,
            "Evidence over its alarm bound (dashed line: an alarm); equal steps are equal factors. Sudden break: something "
            "broke at once. Worse than validated: day after day. Repairable: a simple repair is proven to do better; only "
            "this one leads to a retrain. After an alarm a test begins again.",
            units.NoUnit,
            2,
            _EMPTY,
        ),
        thresholds.HARM_EVIDENCE,
    )
    panel = (
        panel.min(0)
        .axis_soft_max(1.1 * thresholds.HARM_EVIDENCE)
        .links([style.link("What to do", links.runbook("ClipdriftModelHarmed"))])
        .with_target(style.query(newest(metrics.MODEL_HARM_EVIDENCE, "test", model=style.MODEL), "{{test}}"))
    )
    for name, (words, color, dash) in _TESTS.items():
        panel = panel.override_by_name(*style.series_style(name, color, dash, displayName=words))
    return panel


def worth() -> Any:
    """What the best challenger would have gained."""
    return (
        style.lines(
            "What a repair would gain",
            "Brier score per prediction that the best challenger (recalibrated, or the running base rate) would have gained. "
            "Above 0 a retrain has something to win; about 0 the days are harder, and no model would do better.",
            units.NoUnit,
            4,
            _EMPTY,
        )
        .with_target(style.query(newest(metrics.MODEL_REPAIR_WORTH, "model", model=style.MODEL), "Brier score gained"))
        .override_by_name(*style.series_style("Brier score gained", style.GREEN, custom_fillOpacity=15))
    )
