"""Is the model healthy? Six figures that answer it without scrolling."""

from typing import Any, get_args

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.models import common, dashboard, units

from clipdrift_contract import metrics
from clipdrift_contract.events import SignalKind
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import any_of, newest, select

_WORDS = {
    "implicated": ("clipping did it", style.VERMILION),
    "associated": ("clipping may be part", style.ORANGE),
    "not_implicated": ("not clipping", style.BLUE),
    "unknown": ("not known yet", style.GREY),
}


def row(links: Links) -> style.Row:
    """The first row."""
    panels = ((_accuracy(), 5), (_labels(), 3), (_evidence(links), 4), (_alarms(links), 4), (_version(), 4), (_clipping(), 4))
    return style.Row("Is it healthy?", (style.Line(5, panels),))


def _accuracy() -> Any:
    return (
        style.figure(
            "Accuracy now",
            "Share of mature labels that equal the prediction, over the monitor's sliding view, beside the accuracy at "
            "validation of the version in service. Read it with the number of labels to the right; the interval is in the "
            "graph below.",
            style.SHARE,
            1,
            "No mature labels yet",
        )
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .with_target(style.query(newest(metrics.MODEL_ACCURACY, "model", model=style.MODEL, slice=""), "live", "A"))
        .with_target(
            style.query(newest(metrics.MODEL_VALIDATED_ACCURACY, "model", model=style.MODEL, slice=""), "validated", "B")
        )
        .override_by_name(*style.series_style("validated", style.GREY))
    )


def _labels() -> Any:
    return style.figure(
        "Labels in view",
        "Mature labels in the sliding view: the n behind every live figure. Few labels make wide intervals; none make no "
        "figure.",
        units.LocaleFormat,
        0,
        "No labels yet",
    ).with_target(style.query(newest(metrics.MODEL_LABELS_IN_VIEW, "model", model=style.MODEL, slice=""), "labels"))


def _evidence(links: Links) -> Any:
    return (
        style.figure(
            "Harm evidence (alarm at 1)",
            "The strongest of the three harm tests, as evidence over its alarm bound on a logarithmic scale: 0 none, 0.5 half "
            "of the way in factors, 1 an alarm. It answers whether the loss is proven, which accuracy alone does not.",
            units.NoUnit,
            2,
            "No block judged yet",
        )
        .graph_mode(common.BigValueGraphMode.AREA)
        .min(0)
        .thresholds(
            style.steps(
                (None, style.BLUE),
                (thresholds.HARM_EVIDENCE_NEAR, style.ORANGE),
                (thresholds.HARM_EVIDENCE, style.VERMILION),
            )
        )
        .links([style.link("What to do", links.runbook("ClipdriftModelHarmed"))])
        .with_target(style.query(newest(metrics.MODEL_HARM_EVIDENCE, "model", model=style.MODEL), "evidence"))
    )


def _alarms(links: Links) -> Any:
    none = f'label_replace(0 * {newest(metrics.MODEL_GENERATION, "model", model=style.MODEL)}, "kind", "none", "", "")'
    open_now = select(metrics.MODEL_OPEN_SIGNALS, model=style.MODEL, severity=any_of("page", "ticket"))
    panel = (
        style.figure(
            "Open alarms",
            "Kinds of signals that are open and that somebody should know of (severity page or ticket). Notes, such as drift "
            "alone, are not counted. The status page has each with its evidence in words.",
            units.NoUnit,
            0,
            "The monitor does not know this model",
        )
        .text_mode(common.BigValueTextMode.NAME)
        .thresholds(style.steps((None, style.BLUE), (1, style.VERMILION)))
        .links([style.link("Status page", links.status_page(style.MODEL))])
        .with_target(style.now(f"max by (model, kind) ({open_now}) or on (model) {none}", "{{kind}}"))
    )
    for kind in get_args(SignalKind):
        panel = panel.override_by_name(kind, [dashboard.DynamicConfigValue(id_val="displayName", value=kind.replace("_", " "))])
    return panel


def _version() -> Any:
    return _word(
        "Version in service",
        "The version that should be in service by the newest deployment. Its first moment is a mark in all graphs.",
        "version",
        "Nothing deployed yet",
    )


def _clipping() -> Any:
    results = {
        word: dashboard.ValueMappingResult(text=text, color=color, index=index)
        for index, (word, (text, color)) in enumerate(_WORDS.items())
    }
    return _word(
        "Is clipping the cause?",
        "What clipping has to do with the harm. 'Clipping did it' is said only when a shadow retrain with another bound was "
        "proven better; 'not known yet' when nothing was tried. The status page says what would tell.",
        "clipping",
        "Nothing deployed yet",
    ).mappings([dashboard.ValueMap(options=results)])


def _word(title: str, description: str, label: str, no_value: str) -> Any:
    """The value of a label of the model's info series."""
    info = newest(metrics.MODEL_INFO, "version", "clipping", model=style.MODEL)
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(f"/^{label}$/")
    return (
        style.figure(title, description, units.NoUnit, 0, no_value)
        .text_mode(common.BigValueTextMode.VALUE)
        .reduce_options(reduce)
        .with_target(style.table_now(info))
    )
