"""What is proven, and what is being done, in words."""

from typing import Any

from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import any_of, newest, select

CLIPPING = {
    0: ("not known yet", style.GREY),
    1: ("no", style.BLUE),
    2: ("perhaps: they go together", style.ORANGE),
    3: ("yes, proven by retraining", style.VERMILION),
}
_CLIPPING_RANK = {"unknown": 0, "not_implicated": 1, "associated": 2, "implicated": 3}
PROOF = {
    0: ("no", style.BLUE),
    1: ("suspected, not proven", style.ORANGE),
    2: ("yes, proven", style.VERMILION),
}
_REPAIR = {0: ("no sign of it", style.GREY), 1: ("perhaps", style.SKY), 2: ("yes, proven", style.GREEN)}
_MOVED = {0: ("no", style.BLUE), 1: ("yes", style.ORANGE)}
DEEDS = {
    0: ("nothing is to be done", style.BLUE),
    1: ("nobody sees to it yet", style.VERMILION),
    2: ("acknowledged or silenced", style.ORANGE),
    3: ("a retrain runs", style.GREEN),
}


def proof(*tests: str, **matchers: str) -> str:
    """0 to 2 (`PROOF`) for each model: how far harm is proven by `tests`."""
    raised = f"2 * (max by (model) ({select(metrics.MODEL_OPEN_SIGNALS, kind=any_of(*tests), **matchers)}) > bool 0)"
    evidence = newest(metrics.MODEL_HARM_EVIDENCE, "model", test=any_of(*tests), **matchers)
    return f"({raised} > 0) or ({evidence} >= bool {thresholds.HARM_EVIDENCE_NEAR})"


def clipping(**matchers: str) -> str:
    """0 to 3 (`CLIPPING`) for each model."""
    parts = [
        f"(0 * {newest(metrics.MODEL_INFO, 'model', clipping=word, **matchers)} + {rank})"
        for word, rank in _CLIPPING_RANK.items()
    ]
    return " or ".join(parts)


def deed(**matchers: str) -> str:
    """0 to 3 (`DEEDS`) for each model: what is being done about its tickets and pages."""
    running = f"(3 * {newest(metrics.MODEL_RETRAIN_RUNNING, 'model', **matchers)} > 0)"
    matter = any_of("page", "ticket")
    waiting = newest(metrics.MODEL_OPEN_INCIDENTS, "model", severity=matter, hold="open", **matchers)
    held = newest(metrics.MODEL_OPEN_INCIDENTS, "model", severity=matter, hold=any_of("acknowledged", "silenced"), **matchers)
    none = f"0 * {newest(metrics.MODEL_GENERATION, 'model', **matchers)}"
    return f"{running} or (0 * {waiting} + 1) or (0 * {held} + 2) or {none}"


def in_words(links: Links) -> Any:
    """Five questions, five answers."""
    drift = newest(metrics.MODEL_DRIFT, "model", model=style.MODEL)
    answers: tuple[tuple[str, str, dict[int, tuple[str, str]]], ...] = (
        ("Are its users harmed?", proof("sudden_break", "worse_than_validated", model=style.MODEL), PROOF),
        ("Have its inputs moved?", f"{drift} >= bool {thresholds.DRIFT_SCORE}", _MOVED),
        ("Is clipping the cause?", clipping(model=style.MODEL), CLIPPING),
        ("Would a retrain help?", proof("repairable", model=style.MODEL), _REPAIR),
        ("What is being done?", deed(model=style.MODEL), DEEDS),
    )
    panel = (
        style.figure(
            "The verdict, in words",
            "What the monitor has proven by now. Harm: by its sequential tests, within the false-alarm budget. Clipping is "
            "called the cause only where a shadow retrain with another bound was proven better; going together is not enough. "
            "The status page has the whole diagnosis, and what would settle what is not known.",
            units.NoUnit,
            0,
            "The monitor does not know this model, or does not answer",
        )
        .orientation(common.VizOrientation.HORIZONTAL)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .links([style.link("The whole diagnosis", links.status_page(style.MODEL))])
    )
    for ref, (question, expr, meaning) in zip("ABCDE", answers, strict=True):
        panel = panel.with_target(style.now(expr, question, ref)).override_by_name(
            question, style.plain(mappings=[style.words_json(meaning)])
        )
    return panel
