"""The report's pictures, as SVG text that fits light and dark pages: lines and letters take the page's own colour."""

import itertools
from collections.abc import Mapping, Sequence

import msgspec
from matplotlib.figure import Figure

from clipdrift_contract.events import GradWindow
from clipdrift_deploy.demo.figures import METRICS
from clipdrift_deploy.demo.result import ModelResult, RetrainSummary
from clipdrift_deploy.svg import INK, drawn_in_style, plain_ticks, to_svg

LIFE_COLOURS = {"stale": "#8a8f98", "always": "#d98a1f", "oracle": "#2f9e6e", "live": "#2f6fde"}
LIFE_NAMES = {"stale": "never retrained", "always": "retrained every month", "oracle": "oracle", "live": "the loop"}
_STYLES = {"stale": "-", "always": ":", "oracle": "--", "live": "-"}
METRIC_NAMES = {
    "accuracy": "accuracy (higher is better)",
    "auc": "AUC (higher is better)",
    "nll": "log loss (lower is better)",
    "ece": "calibration error (lower is better)",
}
RUN_COLOURS = ("#8a8f98", "#2f6fde", "#2f9e6e", "#d98a1f", "#a05bd0", "#c94f4f")


def lives_by_month(model: ModelResult, swaps: Sequence[float]) -> str:
    """Accuracy, AUC, log loss and calibration by month for the four lives; dotted lines where a new version took over.

    Args:
        model: The figures.
        swaps: When versions went into service, in months from the first (1.5 is the middle of the second).
    """
    with drawn_in_style():
        figure = Figure(figsize=(11.0, 5.6), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True)
        names = [_short(month.month) for month in model.months]
        for metric, axis in zip(METRICS, axes.flat, strict=True):
            for life, series in _series(model, metric).items():
                width = 2.6 if life == "live" else 1.8
                axis.plot(
                    range(len(names)), series, _STYLES[life], color=LIFE_COLOURS[life], lw=width, label=LIFE_NAMES[life],
                    marker="o" if life == "live" else None, ms=4,
                )  # fmt: skip
            for swap in swaps:
                axis.axvline(swap - 0.5, color=LIFE_COLOURS["live"], lw=1, ls=(0, (1, 2)))
            axis.set_title(METRIC_NAMES[metric])
            axis.set_xticks(range(len(names)), names)
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4)
        return to_svg(figure)


def _series(model: ModelResult, metric: str) -> dict[str, list[float]]:
    series = {life: [getattr(getattr(month, life), metric) for month in model.months] for life in ("stale", "oracle", "live")}
    by_rote = [getattr(month.always, metric) for month in model.always.months]
    return {"stale": series["stale"], "always": by_rote, "oracle": series["oracle"], "live": series["live"]}


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A version answered unseen beside the one in service, from `start` to `end`, in months from the first."""

    version: str
    start: float
    end: float


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Share of each day's requests that each version answered."""

    days: tuple[float, ...]
    """In months from the first."""
    shares: dict[str, tuple[float, ...]]
    """By version, in the order in which they first answered."""
    shadows: tuple[Shadow, ...] = ()


def traffic_by_version(traffic: Traffic, months: Sequence[str]) -> str:
    """Who answered, day by day, as one band of 100 %; below it who answered unseen.

    Args:
        traffic: The shares.
        months: Their names, the first first.
    """
    with drawn_in_style():
        figure = Figure(figsize=(11.0, 2.9), layout="constrained")
        axis = figure.subplots()
        colours = dict(zip(traffic.shares, itertools.cycle(RUN_COLOURS)))
        shares = [[100 * one for one in of_version] for of_version in traffic.shares.values()]
        axis.stackplot(
            traffic.days, *shares, labels=list(traffic.shares), colors=list(colours.values()), alpha=0.85, step="post", lw=0
        )
        for shadow in traffic.shadows:
            axis.plot([shadow.start, shadow.end], [-9, -9], color=colours.get(shadow.version, INK), lw=6, solid_capstyle="butt")
        axis.text(0.0, -9, "as a shadow: ", ha="right", va="center", fontsize=9)
        axis.set_ylim(-16, 100)
        axis.set_xlim(0, max(traffic.days) + 0.05)
        axis.set_yticks([0, 50, 100], ["0", "50", "100"])
        axis.set_xticks([position + 0.5 for position in range(len(months))], [_short(month) for month in months])
        axis.set_ylabel("% of the requests")
        axis.grid(visible=False, axis="x")
        figure.legend(loc="outside upper left", ncols=max(1, len(traffic.shares)))
        return to_svg(figure)


def norms_by_run(runs: Mapping[str, Sequence[GradWindow]], bounds: Mapping[str, float | None]) -> str:
    """How large the gradients were before clipping, run by run, and where the threshold stood.

    Args:
        runs: The windows of each run, by the run's name.
        bounds: Its threshold at the end; None for no bound.
    """
    with drawn_in_style():
        figure = Figure(figsize=(11.0, 3.2), layout="constrained")
        axis = figure.subplots()
        for (name, windows), colour in zip(runs.items(), itertools.cycle(RUN_COLOURS)):
            counts: dict[int, int] = {}
            for window in windows:
                for bucket, count in window.norm_histogram.items():
                    counts[bucket] = counts.get(bucket, 0) + count
            if not counts:
                continue
            buckets = range(min(counts), max(counts) + 2)
            total = sum(counts.values())
            shares = [100 * counts.get(bucket, 0) / total for bucket in buckets]
            axis.step([2 ** (bucket / 4) for bucket in buckets], shares, where="post", color=colour, lw=2, label=name)
            bound = bounds.get(name)
            if bound is not None:
                axis.axvline(bound, color=colour, lw=1.4, ls="--")
        axis.set_xscale("log")
        plain_ticks(axis, (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0))
        axis.set_xlabel("gradient norm before clipping (dashed: the threshold)")
        axis.set_ylabel("% of steps")
        axis.legend(loc="upper right")
        return to_svg(figure)


def removed_mass(bars: Mapping[str, float]) -> str:
    """Share of the gradient mass that clipping removed, by run and arm."""
    with drawn_in_style():
        figure = Figure(figsize=(11.0, 0.55 + 0.34 * len(bars)), layout="constrained")
        axis = figure.subplots()
        positions = range(len(bars))
        axis.barh(positions, [100 * share for share in bars.values()], color="#2f6fde", height=0.62, alpha=0.85)
        for position, share in zip(positions, bars.values(), strict=True):
            axis.text(100 * share + 0.8, position, f"{share:.0%}", va="center")
        axis.set_yticks(positions, list(bars))
        axis.invert_yaxis()
        axis.set_xlim(0, 100)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("% of the gradient norm removed")
        return to_svg(figure)


def arms_against_same(retrains: Sequence[RetrainSummary]) -> str:
    """Each arm's loss minus that of the arm with the old threshold, with its interval. Left of the line: the arm is better."""
    with drawn_in_style():
        rows = [
            (f"{retrain.at[:10]}  {arm.name}", arm.against_same)
            for retrain in retrains
            for arm in retrain.arms
            if arm.against_same is not None
        ]
        figure = Figure(figsize=(11.0, 0.75 + 0.34 * max(1, len(rows))), layout="constrained")
        axis = figure.subplots()
        for position, (_, (difference, low, high)) in enumerate(rows):
            colour = "#2f9e6e" if high < 0 else "#c94f4f" if low > 0 else "#8a8f98"
            axis.plot([low, high], [position, position], color=colour, lw=2.4, solid_capstyle="round")
            axis.plot([difference], [position], "o", color=colour, ms=7)
        axis.axvline(0, color=INK, lw=1, alpha=0.6)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("Brier score of the arm minus that of the old threshold, 95 % interval over days (left of 0: better)")
        return to_svg(figure)


def _short(month: str) -> str:
    """
    Example:
        >>> _short("2013-03")
        'Mar'
    """
    return ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[int(month[-2:]) - 1]
