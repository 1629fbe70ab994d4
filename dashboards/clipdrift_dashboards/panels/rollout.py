"""How did versions come into service, and what did that cost?"""

from typing import Any

from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards import thresholds
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest, select, total

_MONITOR = "The monitor does not know this model, or does not answer"


def running(links: Links) -> Any:
    """For how long."""
    started = newest(metrics.MODEL_RETRAIN_STARTED, "model", model=style.MODEL)
    is_running = newest(metrics.MODEL_RETRAIN_RUNNING, "model", model=style.MODEL)
    # An order that nobody has started has 0 for its start: that is said as -1, in words.
    expr = (
        f"((time() - ({started} > 0)) and on (model) ({is_running} == 1)) or (0 * ({is_running} == 1) - 1) "
        f"or (0 * {is_running} - 2)"
    )
    return (
        style.figure(
            "Retrain that runs now",
            "Time since the running retrain was started. From four hours on somebody is told that it is stuck: no other "
            "retrain is ordered while it runs.",
            units.Seconds,
            0,
            _MONITOR,
        )
        .mappings([style.words({-1: ("ordered, not started", style.ORANGE), -2: ("none", style.BLUE)})])
        .thresholds(style.steps((None, style.GREEN), (thresholds.RETRAIN_SECONDS, style.VERMILION)))
        .links([style.link("When it is stuck", links.runbook("ClipdriftRetrainStuck"))])
        .with_target(style.now(expr, "running for"))
    )


def finished() -> Any:
    """Retrains in the range, by verdict."""
    return _in_range(
        "Retrains, by verdict",
        "Finished retrains in the time range. Only 'pass' comes into service.",
        f"{_gained(metrics.MODEL_RETRAINS, 'verdict')}",
        "{{verdict}}",
        "No retrain has ended yet, or no monitor answers",
    )


def useless() -> Any:
    """The share of retrains that changed nothing."""
    passed = _gained(metrics.MODEL_RETRAINS, "model", verdict="pass")
    all_of_them = _gained(metrics.MODEL_RETRAINS, "model")
    return (
        style.figure(
            "Retrains that changed nothing",
            "Retrains that ended with another verdict than 'pass', over all that ended in the time range: what was paid for in "
            "vain. More than half: raise what a retrain must promise (policy.cost).",
            style.SHARE,
            0,
            "No retrain ended in this time range, or no monitor answers",
        )
        .thresholds(style.steps((None, style.BLUE), (thresholds.WASTED_RETRAINS, style.ORANGE)))
        .with_target(style.now(f"1 - ({passed} or 0 * {all_of_them}) / ({all_of_them} > 0)", "in vain"))
    )


def time_spent() -> Any:
    """The cost of retraining, in hours."""
    spent = f"max by (model) (avg_over_time({select(metrics.MODEL_RETRAIN_RUNNING, model=style.MODEL)}[$__range])) * $__range_s"
    return style.figure(
        "Time spent retraining",
        "Time in the range during which a retrain was ordered or ran, from the order to the verdict. The machine time "
        "that jobs told is beside it.",
        units.Seconds,
        1,
        _MONITOR,
    ).with_target(style.now(spent, "retraining"))


def rollbacks() -> Any:
    """Versions that had to go back."""
    return (
        style.figure(
            "Rollbacks",
            "Versions that were taken out of service by a decision in the time range, since they broke soon after they came.",
            units.LocaleFormat,
            0,
            _MONITOR,
        )
        .thresholds(style.steps((None, style.BLUE), (1, style.VERMILION)))
        .with_target(
            style.now(
                f"{_gained(metrics.MODEL_DECISIONS, 'model', action='rollback')}"
                f" or 0 * {newest(metrics.MODEL_GENERATION, 'model', model=style.MODEL)}",
                "rollbacks",
            )
        )
    )


def precision() -> Any:
    """How often incidents were right, as people said."""
    right = newest(metrics.MODEL_INCIDENT_VERDICTS, "model", model=style.MODEL, verdict="true")
    wrong = newest(metrics.MODEL_INCIDENT_VERDICTS, "model", model=style.MODEL, verdict="false")
    return style.figure(
        "Incidents that were right",
        "Incidents that people called true, over those called true or false. It rests on what people said (`clipdrift "
        "incidents feedback`), and says nothing where nobody said anything.",
        style.SHARE,
        0,
        "Nobody has judged an incident of this model yet, or no monitor answers",
    ).with_target(style.now(f"{right} / ({right} + {wrong} > 0)", "right"))


def false_alarms() -> Any:
    """What was promised, beside what the model's own days would bring."""
    panel = style.lines(
        "False alarms in 90 days: promised, realised",
        "How many false pages and tickets in 90 days the budget allows this model (dashed), and how many its own healthy days "
        "would bring, with a 95 % interval, by replay of the live tests. Realised above promised: the budget does not hold.",
        units.NoUnit,
        2,
        "Not rehearsed yet (it needs healthy days), or no monitor answers",
    ).min(0)
    kinds = (("page", style.VERMILION), ("ticket", style.BLUE))
    for index, (severity, color) in enumerate(kinds):
        realised, promised = f"{severity}s, realised", f"{severity}s, promised"
        refs = "ABCDEFGH"[4 * index :]
        named = (
            (metrics.MODEL_FALSE_ALARMS_LOW, f"{severity}s, lower end"),
            (metrics.MODEL_FALSE_ALARMS_HIGH, f"{severity}s, 95 %"),
            (metrics.MODEL_FALSE_ALARMS_REALISED, realised), (metrics.MODEL_FALSE_ALARMS_PROMISED, promised),
        )  # fmt: skip
        for ref, (metric, name) in zip(refs, named, strict=False):
            panel = panel.with_target(style.query(newest(metric, "model", model=style.MODEL, severity=severity), name, ref))
        panel = style.with_edge(panel, f"{severity}s, lower end", f"{severity}s, 95 %", color)
        dash = () if severity == "page" else (3, 6)
        panel = panel.override_by_name(*style.series_style(realised, color, dash, custom_lineWidth=2))
        panel = panel.override_by_name(*style.series_style(promised, color, (12, 6 + 6 * index), custom_lineWidth=1))
    return panel


def correct_by_version() -> Any:
    """Champion and canary side by side."""
    correct = f"sum by (version) (rate({select(metrics.SERVING_CORRECT, model=style.MODEL)}[1d]))"
    rows = f"sum by (version) (rate({select(metrics.SERVING_ROWS, model=style.MODEL)}[1d]))"
    return (
        style.lines(
            "Right answers over all answers, by version",
            "Labels of a day that equal the prediction, over the rows of that day. Labels come late, so both lines lie below "
            "the accuracy, by the same share: compare the versions with each other, not with validation.",
            style.SHARE,
            1,
            "Serving's metrics are not scraped, or no labels came in this time range",
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(f"{correct} / {rows}", "{{version}}"))
    )


def swaps(links: Links) -> Any:
    """What serving did with deployments."""
    return (
        style.lines(
            "Hot swaps so far, by outcome",
            "Deployments that serving took up (done), could not take up (refused), or came too late for (stale), over all "
            "processes. A refused one leaves the version before it in service.",
            units.LocaleFormat,
            0,
            "Serving's metrics are not scraped, or nothing was deployed in this time range",
        )
        .min(0)
        .axis_soft_max(3)
        .links([style.link("When refused", links.runbook("ClipdriftDeploymentRefused"))])
        .with_target(style.query(total(metrics.SERVING_SWAPS, "outcome", model=style.MODEL), "{{outcome}}"))
        .override_by_name(*style.series_style("done", style.BLUE, custom_lineInterpolation="stepAfter"))
        .override_by_name(*style.series_style("refused", style.VERMILION, (12, 6), custom_lineInterpolation="stepAfter"))
        .override_by_name(*style.series_style("stale", style.GREY, (3, 6), custom_lineInterpolation="stepAfter"))
    )


def _gained(metric: Any, *by: str, **matchers: Any) -> str:
    """What a counter of rare events gained in the range. It is born with its first event, which increase() does not see."""
    counter = select(metric, model=style.MODEL, **matchers)
    so_far = f"sum by ({', '.join(by)}) ({counter})"
    before = f"sum by ({', '.join(by)}) (last_over_time({counter}[1d] offset $__range))"
    return f"clamp_min({so_far} - ({before} or 0 * {so_far}), 0)"


def _in_range(title: str, description: str, expr: str, legend: str, no_value: str) -> Any:
    return (
        style.figure(
            title, description + " Counted also where the first one is the first ever.", units.LocaleFormat, 0, no_value
        )
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .with_target(style.now(expr, legend))
    )
