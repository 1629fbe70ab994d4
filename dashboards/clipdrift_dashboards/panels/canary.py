"""How does a candidate on its way into service fare, and what were retrains worth?"""

from typing import Any

from grafana_foundation_sdk.models import common, units

from clipdrift_contract import metrics
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest

_NONE = "No rollout in this time range, or no monitor answers"
_UNMEASURED = "No retrain has been measured yet, or no monitor answers"


def share() -> Any:
    """How many of the requests it gets."""
    return (
        style.lines(
            "Requests that the candidate answers",
            "Share of the requests that go to the candidate of a rollout: 0 while it answers unseen, as a shadow. A step waits "
            "for mature labels, not for a clock. No line: no rollout.",
            style.SHARE,
            0,
            _NONE,
        )
        .min(0)
        .max(1)
        .fill_opacity(20)
        .with_target(style.query(newest(metrics.MODEL_ROLLOUT_WEIGHT, "model", model=style.MODEL), "candidate"))
        .override_by_name(*style.series_style("candidate", style.BLUE, custom_lineInterpolation="stepAfter"))
    )


def evidence() -> Any:
    """How far from a decision."""
    panel = style.lines(
        "Evidence in the rollout",
        "Evidence for a promotion and for a rollback, each over what it needs: at the dashed line it is enough, whenever one "
        "looks. Both low for long: labels are few, or both models are alike.",
        units.NoUnit,
        2,
        _NONE,
    ).min(0)
    return (
        style.with_bound(panel, 1)
        .with_target(style.query(newest(metrics.MODEL_ROLLOUT_PROGRESS, "model", model=style.MODEL), "for a promotion", "A"))
        .with_target(style.query(newest(metrics.MODEL_ROLLOUT_HARM, "model", model=style.MODEL), "for a rollback", "B"))
        .override_by_name(*style.series_style("for a promotion", style.GREEN))
        .override_by_name(*style.series_style("for a rollback", style.VERMILION, (12, 6)))
    )


def difference() -> Any:
    """The candidate's errors minus the champion's."""
    named = (
        (metrics.MODEL_ROLLOUT_DIFFERENCE_LOW, "lower end"),
        (metrics.MODEL_ROLLOUT_DIFFERENCE_HIGH, "95 % interval, upper end"),
        (metrics.MODEL_ROLLOUT_DIFFERENCE, "difference"),
    )  # fmt: skip
    panel = style.lines(
        "Errors of the candidate minus the champion's",
        "Difference of the error rates on the same period, all slices together, with an interval that holds at every look. "
        "Below 0 the candidate is better.",
        style.SHARE,
        1,
        _NONE,
    )
    for ref, (metric, name) in zip("ABC", named, strict=True):
        expr = newest(metric, "model", model=style.MODEL, watched="error", slice="")
        panel = panel.with_target(style.query(expr, name, ref))
    return style.with_edge(panel, "lower end", "95 % interval, upper end", style.SKY).override_by_name(
        *style.series_style("difference", style.BLUE)
    )


def worth() -> Any:
    """What retrains were worth."""
    return (
        style.figure(
            "Retrains, by what they were worth",
            "Of the last 50 retrains: whether the new version had less loss on live rows than the one it replaced would have "
            "had, by its interval. The replaced one answers as a shadow for some days to tell.",
            units.LocaleFormat,
            0,
            _UNMEASURED,
        )
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME)
        .with_target(style.now(newest(metrics.MODEL_RETRAIN_WORTH, "verdict", model=style.MODEL), "{{verdict}}"))
    )


def gain() -> Any:
    """What the newest retrain gained."""
    named = (
        (metrics.MODEL_RETRAIN_GAIN_LOW, "at least"), (metrics.MODEL_RETRAIN_GAIN, "gain"),
        (metrics.MODEL_RETRAIN_GAIN_HIGH, "at most"),
    )  # fmt: skip
    panel = style.figure(
        "What the newest retrain gained",
        "Loss a prediction that the replaced version would have had on top, on the same live rows, with its 95 % interval. "
        "Below 0 the retrain has made it worse.",
        units.NoUnit,
        4,
        _UNMEASURED,
    ).text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    for ref, (metric, name) in zip("ABC", named, strict=True):
        panel = panel.with_target(style.now(newest(metric, "model", model=style.MODEL), name, ref))
    return panel


def machine_time() -> Any:
    """What all of them took."""
    panel = style.figure(
        "Machine time of retrains, so far",
        "CPU time and duration of all finished retrains of this model, the shadow arms included, as the jobs told.",
        units.Seconds,
        1,
        "No retrain has ended yet, or no monitor answers",
    ).text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    for ref, metric, name in (("A", metrics.MODEL_RETRAIN_CPU, "CPU"), ("B", metrics.MODEL_RETRAIN_WALL, "duration")):
        panel = panel.with_target(style.now(newest(metric, "model", model=style.MODEL), name, ref))
    return panel


def kept_out() -> Any:
    """What was rolled back stays out."""
    return (
        style.figure(
            "Versions kept out",
            "Versions that were rolled back: their files are in quarantine, by digest, and no rollout begins with them again.",
            units.LocaleFormat,
            0,
            "The monitor does not know this model, or does not answer",
        )
        .thresholds(style.steps((None, style.BLUE), (1, style.ORANGE)))
        .with_target(style.now(newest(metrics.MODEL_QUARANTINED, "model", model=style.MODEL), "kept out"))
    )


def false_retrains() -> Any:
    """The share that was not worth it."""
    return style.figure(
        "False retrains",
        "Of the last 50 retrains with a measured worth, those that were not worth it. Many: raise what a retrain must promise "
        "(policy.cost).",
        style.SHARE,
        0,
        _UNMEASURED,
    ).with_target(style.now(newest(metrics.MODEL_FALSE_RETRAINS, "model", model=style.MODEL), "false"))
