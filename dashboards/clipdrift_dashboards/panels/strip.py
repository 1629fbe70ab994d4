"""Is the model healthy? Six figures, in the same order at the top of every dashboard about one model."""

from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links, within
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select

SEVERITIES = {
    0: ("none", style.BLUE),
    1: ("note", style.GREY),
    2: ("ticket", style.ORANGE),
    3: ("page", style.VERMILION),
}


def row(links: Links) -> style.Row:
    """The first row."""
    panels = (
        (_accuracy(), 6), (_drift(), 3), (_clipping(), 4), (_incidents(links), 4), (_version(), 4), (_delay(links), 3),
    )  # fmt: skip
    return style.Row("Is it healthy?", (style.Line(4, panels),))


def worst_severity(**matchers: str) -> str:
    """0 to 3 (`SEVERITIES`) for each model: the severity of its worst open incident, whoever sees to it."""
    known = newest(metrics.MODEL_GENERATION, "model", **matchers)
    found = [
        f"{rank} * (max by (model) ({select(metrics.MODEL_OPEN_INCIDENTS, severity=severity, **matchers)}) > bool 0)"
        for rank, severity in ((3, "page"), (2, "ticket"), (1, "note"))
    ]
    return " or ".join([f"({one} > 0)" for one in found] + [f"0 * {known}"])


def _accuracy() -> Any:
    panel = (
        style.figure(
            "Accuracy now, its interval, its n",
            "Share of mature labels that equal the prediction, over the monitor's sliding view, with the 95 % interval, the "
            "accuracy at validation of the version in service, and the number of labels. Below validated is no proof of harm: "
            "the words further down say what is proven.",
            style.SHARE,
            1,
            "No mature labels yet, or no monitor answers",
        )
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .override_by_name("labels", style.plain(unit=units.Short, decimals=0, color=style.GREY))
    )
    figures = (
        (metrics.MODEL_ACCURACY, "live"), (metrics.MODEL_ACCURACY_LOW, "from"), (metrics.MODEL_ACCURACY_HIGH, "to"),
        (metrics.MODEL_VALIDATED_ACCURACY, "validated"), (metrics.MODEL_LABELS_IN_VIEW, "labels"),
    )  # fmt: skip
    for ref, (metric, name) in zip("ABCDE", figures, strict=True):
        panel = panel.with_target(style.now(newest(metric, "model", model=style.MODEL, slice=""), name, ref))
        if name not in ("live", "labels"):
            panel = panel.override_by_name(*style.series_style(name, style.GREY))
    return panel


def _drift() -> Any:
    return (
        style.figure(
            "Input drift",
            "The largest Jensen-Shannon distance of an input to the reference profile of the version in service, newest closed "
            f"window; it matters from {thresholds.DRIFT_SCORE:g} on. Drift explains harm and is none by itself.",
            units.NoUnit,
            2,
            "No window with 100 rows yet, or no monitor answers",
        )
        .thresholds(style.steps((None, style.BLUE), (thresholds.DRIFT_SCORE, style.ORANGE)))
        .links([style.inside("Which input", within("slices", style.MODEL))])
        .with_target(style.now(newest(metrics.MODEL_DRIFT, "model", model=style.MODEL), "largest"))
    )


def _clipping() -> Any:
    return (
        style.figure(
            "Clipping removed, in training",
            "Share of all gradient mass that clipping removed when the version in service was trained, and the share of steps "
            "that it touched. Much is no fault: it sets the step length. Whether it harms is said in words further down.",
            style.SHARE,
            0,
            "No training run known, or no monitor answers",
        )
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .links([style.inside("The training", within("training", style.MODEL))])
        .with_target(style.now(newest(metrics.MODEL_REMOVED_MASS, "model", model=style.MODEL), "of the mass", "A"))
        .with_target(style.now(newest(metrics.MODEL_CLIP_RATE, "model", model=style.MODEL), "of the steps", "B"))
        .override_by_name(*style.series_style("of the steps", style.GREY))
    )


def _incidents(links: Links) -> Any:
    return (
        style.figure(
            "Worst open incident",
            "The severity of the worst incident that is open: page wakes somebody, ticket can wait until morning, note "
            "explains. One incident stands for one cause, however many signals it has. The status page has it in words.",
            units.NoUnit,
            0,
            "The monitor does not know this model, or does not answer",
        )
        .mappings([style.words(SEVERITIES)])
        .links(
            [
                style.link("Status page", links.status_page(style.MODEL)),
                style.link("What to do", links.runbook("ClipdriftModelHarmed")),
            ]
        )
        .with_target(style.now(worst_severity(model=style.MODEL), "incident"))
    )


def _version() -> Any:
    """The value of a label of the model's info series."""
    info = newest(metrics.MODEL_INFO, "version", model=style.MODEL)
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("/^version$/")
    return (
        style.figure(
            "Version in service",
            "The version that should be in service by the newest deployment. Its first moment is a mark in all graphs.",
            units.NoUnit,
            0,
            "Nothing deployed yet, or no monitor answers",
        )
        .text_mode(common.BigValueTextMode.VALUE)
        .reduce_options(reduce)
        .links([style.inside("How it came into service", within("retraining", style.MODEL))])
        .with_target(style.table_now(info))
    )


def _delay(links: Links) -> Any:
    return (
        style.figure(
            "Labels come after",
            "Mean time from prediction to label in the newest closed window: nothing about accuracy can be known sooner.",
            units.Seconds,
            1,
            "No labels yet, or no monitor answers",
        )
        .links([style.link("When labels are missing", links.runbook("ClipdriftLabelsMissing"))])
        .with_target(style.now(newest(metrics.MODEL_LABEL_DELAY, "model", model=style.MODEL), "delay"))
    )
