"""All models: which of them needs somebody, why, and what is being done?"""

from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links, within
from clipdrift_dashboards.panels import strip, style, verdict
from clipdrift_dashboards.promql import Matcher, Offered, any_of, greatest, newest, per_hour, select

TOP = "$top"
_KNOWN = newest(metrics.MODEL_GENERATION, "model")
_MONITOR = "No monitor answers: nobody would notice harm now"
_HARM = any_of("sudden_break", "worse_than_validated")
_MATTER = any_of("page", "ticket")
_EVIDENT, _LOST, _MOVED = Offered("evident"), Offered("lost"), Offered("moved")


def _loss(**matchers: Matcher) -> str:
    validated, live = (
        newest(metric, "model", **matchers, slice="") for metric in (metrics.MODEL_VALIDATED_ACCURACY, metrics.MODEL_ACCURACY)
    )
    return f"{validated} - {live}"


EVIDENCE = newest(metrics.MODEL_HARM_EVIDENCE, "model", test=_HARM)
NEED = f"10 * ({strip.worst_severity()}) + (clamp_max({EVIDENCE}, 9) or 0 * {_KNOWN})"
"""Orders models: by the severity of their worst open incident, then by the evidence of harm."""
RANKINGS = {
    _EVIDENT.variable: f"topk({TOP}, {greatest(metrics.MODEL_HARM_EVIDENCE, 'model', test=_HARM)})",
    _LOST.variable: f"topk({TOP}, {_loss()})",
    _MOVED.variable: f"topk({TOP}, {greatest(metrics.MODEL_PREDICTION_DRIFT, 'model')})",
}
"""The models that a graph shows, by the variable that offers them: chosen once, for the whole time range, so that lines do not
come and go and the graph computes no others."""


def row(links: Links) -> style.Row:
    """How many are well, and how many are not."""
    known = select(metrics.MODEL_GENERATION)
    models = f"count(count by (model) ({known}))"
    pages, tickets = (
        f"count(max by (model) ({select(metrics.MODEL_OPEN_INCIDENTS, severity=severity)}) > 0) or 0 * {models}"
        for severity in ("page", "ticket")
    )
    waiting = f"sum({newest(metrics.MODEL_OPEN_INCIDENTS, 'model', 'severity', severity=_MATTER, hold='open')}) or 0 * {models}"
    held_by = any_of("acknowledged", "silenced")
    held = f"sum({newest(metrics.MODEL_OPEN_INCIDENTS, 'model', 'severity', 'hold', severity=_MATTER, hold=held_by)})"
    running = f"sum({newest(metrics.MODEL_RETRAIN_RUNNING, 'model')})"
    maturity = newest(metrics.MODEL_LABEL_MATURITY, "model")
    unseen = f"count({maturity} < {thresholds.LABEL_SHARE}) or 0 * {models}"
    alarm = style.steps((None, style.BLUE), (1, style.VERMILION))
    is_some = ((None, style.BLUE), (1, style.ORANGE))
    ticket = style.steps(*is_some)
    panels = (
        _count("Models watched", "Models that the monitor knows a deployment of.", models, None),
        _count("Models that page", "Models with an open incident of severity page: users are harmed or nothing can be seen.",
               pages, alarm),
        _count("Models with a ticket", "Models with an open incident that can wait until morning.", tickets, ticket),
        _count("Incidents: nobody / somebody", "Open pages and tickets to which nobody has said anything, and those that "
               "somebody acknowledged or silenced (`clipdrift incidents list`).", waiting, alarm),
        _count("Retrains that run", "Retrains that are ordered or running.", running, None),
        _count("Models without labels", "Models whose newest closed window has labels for less than half of its predictions: "
               "harm is not seen there.", unseen, ticket),
    )  # fmt: skip
    panels[3].with_target(style.now(f"{held} or 0 * {models}", "somebody", "B")).text_mode(
        common.BigValueTextMode.VALUE_AND_NAME
    ).override_by_name("somebody", style.plain(thresholds=style.steps_json(*is_some)))
    panels[1].links([style.link("What to do", links.runbook("ClipdriftModelHarmed"))])
    panels[5].links([style.link("What to do", links.runbook("ClipdriftLabelsMissing"))])
    panels[4].links([style.inside("Retraining", within("retraining"))])
    return style.Row("Is any model harming its users?", (style.Line(4, tuple((panel, 4) for panel in panels)),))


def _count(title: str, what: str, expr: str, steps: Any) -> Any:
    panel = style.figure(
        title, f"{what} Counted over all models, now, whatever the time range.", units.LocaleFormat, 0, _MONITOR
    ).with_target(style.now(expr, "nobody"))
    return panel if steps is None else panel.thresholds(steps)


def table() -> Any:
    """The models that need somebody most, with why and what is being done."""
    top = f"topk({TOP}, {NEED})"

    def of_top(expr: str) -> str:
        return f"({expr}) and on (model) {top}"

    columns = [
        style.Column(name="Need", expr=top, decimals=1),
        style.Column(name="Incident", expr=of_top(strip.worst_severity()), words=strip.SEVERITIES),
        style.Column(name="Harmed?", expr=of_top(verdict.proof("sudden_break", "worse_than_validated")), words=verdict.PROOF),
        style.Column(
            name="Accuracy", expr=of_top(newest(metrics.MODEL_ACCURACY, "model", slice="")), unit=style.SHARE, decimals=1
        ),
        style.Column(name="Lost", expr=of_top(_loss()), unit=style.SHARE, decimals=1),
        style.Column(name="Labels", expr=of_top(newest(metrics.MODEL_LABELS_IN_VIEW, "model", slice="")), unit=units.Short),
        style.Column(
            name="Input drift",
            expr=of_top(newest(metrics.MODEL_DRIFT, "model")),
            decimals=2,
            bounds=((None, style.BLUE), (thresholds.DRIFT_SCORE, style.ORANGE)),
        ),
        style.Column(name="Clipping the cause?", expr=of_top(verdict.clipping()), words=verdict.CLIPPING),
        style.Column(name="What is being done", expr=of_top(verdict.deed()), words=verdict.DEEDS),
    ]
    return style.table_of(
        "Models, those that need somebody first",
        "As many as chosen at the top. Need: ten times the severity of the worst open incident (page 3, ticket 2, note 1) "
        "plus the evidence of harm (1: an alarm). Click a model for why.",
        _MONITOR,
        (("model", "Model"),),
        columns,
        order_by="Need",
        url=within("model", "${__data.fields.Model}"),
    )


def incidents() -> Any:
    """Is it getting worse?"""
    open_now = newest(metrics.MODEL_OPEN_INCIDENTS, "model", "severity", "hold", severity=_MATTER)
    return (
        style.lines(
            "Open incidents, all models",
            "Open incidents over time by severity, whoever sees to them. Many at once: look for a cause that models share, "
            "such as a source of data, before you look at each.",
            units.LocaleFormat,
            0,
            "No page and no ticket was open in this time range, or no monitor answered",
        )
        .min(0)
        .axis_soft_max(3)
        .fill_opacity(40)
        .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .with_target(style.query(f"sum by (severity) ({open_now})", "{{severity}}", "A"))
        .with_target(style.query(f"0 * count({_KNOWN})", "none", "B"))
        .override_by_name(*style.series_style("page", style.VERMILION, custom_lineInterpolation="stepAfter"))
        .override_by_name(*style.series_style("ticket", style.ORANGE, (12, 6), custom_lineInterpolation="stepAfter"))
        .override_by_name(*style.series_style("none", style.GREY, custom_fillOpacity=0, custom_lineWidth=1))
    )


def evidence() -> Any:
    """Who is on the way to an alarm?"""
    return (
        style.with_bound(
            _worst(
                "Evidence of harm (the highest)",
                "Evidence over its alarm bound, of the models that came highest in the time range; the dashed line is an "
                "alarm. A line that climbs day after day tells of harm before it is proven.",
                newest(metrics.MODEL_HARM_EVIDENCE, "model", model=_EVIDENT, test=_HARM),
                units.NoUnit,
                2,
            ),
            thresholds.HARM_EVIDENCE,
        )
        .min(0)
        .axis_soft_max(1.1)
    )


def loss() -> Any:
    """Who lost most?"""
    return _worst(
        "Accuracy lost (the most)",
        "Validated minus live accuracy, of the models that have lost most at the end of the time range. It is no proof: days "
        "differ, and few labels make it jump.",
        _loss(model=_LOST),
        style.SHARE,
        1,
    )


def drift() -> Any:
    """Whose answers moved?"""
    return style.with_bound(
        _worst(
            "Drift of predictions (the most)",
            "Jensen-Shannon distance of the model's own scores to the reference, of the models that moved most in the time "
            "range. All models at once: something before all of them changed.",
            newest(metrics.MODEL_PREDICTION_DRIFT, "model", model=_MOVED),
            units.NoUnit,
            3,
        ),
        thresholds.DRIFT_SCORE,
    ).min(0)


def retrains() -> Any:
    """What is being done?"""
    return (
        style.lines(
            "Retrains that run, all models",
            "Retrains that are ordered or running at the same time. Many at once compete for machines; none while models page "
            "means that people have to act.",
            units.LocaleFormat,
            0,
            _MONITOR,
        )
        .min(0)
        .axis_soft_max(3)
        .with_target(style.query(f"sum({newest(metrics.MODEL_RETRAIN_RUNNING, 'model')})", "running"))
        .override_by_name(
            *style.series_style("running", style.BLUE, custom_lineInterpolation="stepAfter", custom_fillOpacity=20)
        )
    )


def traffic() -> Any:
    """How much is asked?"""
    return (
        style.lines(
            "Predictions and labels per hour, all models",
            "What reached the monitor. A fall of both: fewer people ask, or the way to the monitor is blocked (Pipeline "
            "health). A fall of labels alone: harm will be seen late.",
            units.Short,
            0,
            "No traffic in this time range, or no monitor answers",
        )
        .min(0)
        .with_target(style.query(per_hour(metrics.MODEL_PREDICTIONS), "predictions", "A"))
        .with_target(style.query(per_hour(metrics.MODEL_LABELS), "labels", "B"))
        .override_by_name(*style.series_style("predictions", style.BLUE))
        .override_by_name(*style.series_style("labels", style.ORANGE, (12, 6)))
    )


def one() -> Any:
    """The course of one model; repeated for those that need somebody most."""
    panel = style.lines(
        "$worst",
        "Live accuracy with its 95 % interval, and what was validated, of a model that needs somebody. Shown are the six "
        "models that stand first in the table.",
        style.SHARE,
        1,
        "No mature labels of this model in this time range",
    )
    parts = (
        (metrics.MODEL_ACCURACY_LOW, "lower end"), (metrics.MODEL_ACCURACY_HIGH, "95 % interval"),
        (metrics.MODEL_ACCURACY, "live"), (metrics.MODEL_VALIDATED_ACCURACY, "validated"),
    )  # fmt: skip
    for ref, (metric, name) in zip("ABCD", parts, strict=True):
        panel = panel.with_target(style.query(newest(metric, "model", model=Offered("worst"), slice=""), name, ref))
    panel = style.with_band(panel, "lower end", "95 % interval")
    return (
        panel.repeat("worst")
        .repeat_direction(style.SIDEWAYS)
        .max_per_row(3)
        .links([style.inside("Why", within("model", "$worst"))])
    )


def _worst(title: str, description: str, expr: str, unit: str, decimals: int) -> Any:
    """The lines of the models that a ranking offers."""
    return (
        style.lines(title, description, unit, decimals, "Nothing to show in this time range, or no monitor answers")
        .legend(style.ranking())
        .with_target(style.query(expr, "{{model}}"))
    )
