"""A replay as a picture: the evidence for a repair over time, and below it what was done beside what would have been."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Action
from clipdrift_deploy.svg import INK, drawn_in_style, to_svg
from clipdrift_monitor.decisions.replay import Replay, ReplayedBlock

_SIZE = (8.6, 3.9)
_EVIDENCE = "#2f6fde"
_COLOURS: dict[Action, str] = {"alert": "#d98a1f", "retrain": "#2f9e6e", "rollback": "#b23b3b"}
_MARKERS: dict[Action, str] = {"alert": "|", "retrain": "^", "rollback": "v"}
_LANES = {"done": 1.0, "this policy": 0.0}


def over_time(told: Replay) -> str:
    """SVG text; "" where no block is told."""
    if not told.blocks:
        return ""
    times = [_day(one) for one in told.blocks]
    with drawn_in_style():
        drawn = Figure(figsize=_SIZE, layout="constrained")
        above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        above.plot(times, [one.evidence for one in told.blocks], color=_EVIDENCE, linewidth=1.4)
        above.axhline(1.0, color=INK, linestyle="--", linewidth=0.8)
        above.set_ylim(0, max(1.15, *(one.evidence for one in told.blocks)))
        above.set_title("evidence that a simple repair would help (1: alarm)")
        _draw_lanes(below, told.blocks, times)
        dates = AutoDateLocator(maxticks=9)
        below.xaxis.set_major_locator(dates)
        below.xaxis.set_major_formatter(ConciseDateFormatter(dates))
        return to_svg(drawn)


def _draw_lanes(axis: Axes, blocks: Sequence[ReplayedBlock], times: Sequence[float]) -> None:
    for action, colour in _COLOURS.items():
        for lane, height in _LANES.items():
            at = [when for one, when in zip(blocks, times, strict=True) if (one.did if lane == "done" else one.would) == action]
            axis.scatter(
                at, [height] * len(at), marker=_MARKERS[action], color=colour, s=60, label=action if height else None, zorder=3
            )
    for one, when in zip(blocks, times, strict=True):
        if one.is_order and not one.is_alike:
            axis.axvspan(when, when, color=INK, alpha=0.25, linewidth=5)
    axis.set_yticks(list(_LANES.values()), list(_LANES))
    axis.set_ylim(-0.6, 1.6)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05))


def _day(one: ReplayedBlock) -> float:
    """Days since 1970, as matplotlib counts dates."""
    return one.at_ms / MS_PER_DAY
