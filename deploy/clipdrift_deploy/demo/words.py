"""What the figures say, in sentences for somebody who has never trained a model. Pure text."""

from collections.abc import Iterable, Sequence

from clipdrift_deploy.demo.figures import METRICS, Figures, LifeMonth
from clipdrift_deploy.demo.result import ModelResult, Result

_CLIPPING = {
    "implicated": "the clipping threshold was holding it back: in the retrain another threshold did better on the same data",
    "associated": "the clipping threshold goes together with the trouble, but no retrain has shown that it is the cause",
    "not_implicated": "the clipping threshold has nothing to do with it: no retrain did better with another one",
    "unknown": "whether the clipping threshold matters could not be told",
}


def summary(result: Result) -> list[str]:
    """What was done, what went wrong, what the loop did, how its repairs came into service, what clipping had to do with it,
    what stayed quiet."""
    answered = sum(month.n for model in result.models.values() for month in model.months)
    checked = result.num_labels - sum(model.control.num_labels for model in result.models.values())
    return [
        f"Two models learnt from the flights of January and February whether a plane will be late, and then answered "
        f"{answered:,} times for {_period(result)}; {checked:,} of the answers could be checked once the planes had landed.",
        "Left alone, " + _joined(_decay(name, model) for name, model in result.models.items()) + ".",
        "The loop noticed it without being asked: "
        + _joined(_repair(name, model) for name, model in result.models.items())
        + ".",
        _rollouts(result),
        "Was it the clipping? "
        + " ".join(f"For {name}, {_CLIPPING[model.diagnosis]}." for name, model in result.models.items()),
        _quiet(result),
    ]


def _period(result: Result) -> str:
    months = next(iter(result.models.values())).months
    return f"{_month_name(months[0].month)} to {_month_name(months[-1].month)}"


def _decay(name: str, model: ModelResult) -> str:
    worst = max(model.months, key=lambda month: month.stale.nll - month.oracle.nll)
    return (
        f"{name} became surer than it had reason to be (in {_month_name(worst.month)} its log loss was {worst.stale.nll:.2f} "
        f"where {worst.oracle.nll:.2f} was possible)"
    )


def _repair(name: str, model: ModelResult) -> str:
    promoted = sum(one.promoted for one in model.retrains)
    share = model.recovered_share
    recovered = " and ".join(
        f"{value:.0%} of the lost {what}"
        for what, value in (("ranking (AUC)", share.auc), ("log loss", share.nll))
        if value is not None
    )
    times = "once" if promoted == 1 else f"{promoted} times"
    return f"it replaced {name} {times} and won back {recovered or 'nothing'} that a perfect monthly retrain would have saved"


def _rollouts(result: Result) -> str:
    rollouts = [one for model in result.models.values() for one in model.rollouts]
    if not rollouts:
        return "No repair was put before real requests."
    num_promoted = sum(one.end == "promoted" for one in rollouts)
    known = [one.worth for one in rollouts if one.worth in ("worth it", "not worth it")]
    worth = f"{known.count('worth it')} of {len(known)} were worth it" if known else "nothing could be told"
    return (
        "No repair was trusted at once: each answered unseen first, then a tenth and half of the requests, and "
        f"{num_promoted} of {len(rollouts)} proved good enough to take them all. Measured beside what they replaced, {worth}."
    )


def _quiet(result: Result) -> str:
    alarms = sum(model.control.num_alarms for model in result.models.values())
    retrains = sum(model.control.num_retrains for model in result.models.values())
    labels = sum(model.control.num_labels for model in result.models.values())
    if not alarms and not retrains:
        return (
            f"On a control of resampled days in which nothing changed ({labels:,} predictions) it stayed silent, as it should."
        )
    cries = f"{alarms} alarms and {retrains} retrains"
    return f"On a control of resampled days in which nothing changed ({labels:,} predictions) it raised {cries}: too many."


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def table_rows(model: ModelResult) -> list[list[str]]:
    """Month, flights, then accuracy, AUC, log loss and calibration error of the stale, the live and the oracle's life."""
    return [
        [
            month.month,
            f"{month.n:,}",
            *(_cell(life, metric) for metric in METRICS for life in (month.stale, month.live, month.oracle)),
        ]
        for month in model.months
    ]


def _cell(life: Figures, metric: str) -> str:
    value = getattr(life, metric)
    return "-" if value is None else f"{value:.3f}"


def _month_name(month: str) -> str:
    """
    Example:
        >>> _month_name("2013-03")
        'March'
    """
    names = (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    )
    return names[int(month[-2:]) - 1]


def total(months: Sequence[LifeMonth]) -> dict[str, Figures]:
    """Means over all months, by life: weighted by rows, AUC plainly."""
    num_rows = sum(month.n for month in months)
    found = {}
    for life in ("stale", "live", "oracle"):
        figures = [getattr(month, life) for month in months]
        weighted = {
            metric: sum(getattr(one, metric) * month.n for one, month in zip(figures, months, strict=True)) / num_rows
            for metric in ("accuracy", "nll", "ece")
        }
        ranked = [one.auc for one in figures if one.auc is not None]
        found[life] = Figures(auc=sum(ranked) / len(ranked) if ranked else None, **weighted)
    return found
