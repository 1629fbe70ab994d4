"""The picture of a gate: each check's figure with its interval, beside what is allowed."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipdrift_contract.events import GateCheck
from clipdrift_deploy.gate_report.rows import name_of
from clipdrift_deploy.svg import INK, drawn_in_style, to_svg

_COLOURS = {"pass": "#2f9e6e", "fail": "#c0392b", "inconclusive": "#d98a1f", "unreachable": "#d98a1f"}
_IN_UNITS_OF_THE_LOSS = ("loss", "slice", "time_order")
_NEUTRAL = {"latency": 1.0, "latency_p99": 1.0, "size": 1.0, "membership": 0.5}
_LIMITS = (-1.5, 2.5)  # in units of what is allowed; what lies beyond is drawn at the edge
_ROW_INCHES, _FRAME_INCHES = 0.34, 0.9


def margin_plot(checks: Sequence[GateCheck]) -> str:
    """SVG: above, the loss of candidate minus model in service, by slice; below, the other checks as shares of what is allowed:
    0 is as good as the model in service, 1 the bound. Hollow: on trial. "" where no check has a figure."""
    measured = [one for one in checks if one.value is not None and math.isfinite(one.value) and one.bound is not None]
    losses = [one for one in measured if one.name in _IN_UNITS_OF_THE_LOSS]
    others = [one for one in measured if one.name not in _IN_UNITS_OF_THE_LOSS]
    panels = [one for one in (losses, others) if one]
    if not panels:
        return ""
    with drawn_in_style():
        heights = [len(panel) * _ROW_INCHES + _FRAME_INCHES for panel in panels]
        figure = Figure(figsize=(7.2, sum(heights)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            if panel is losses:
                _draw_losses(axis, panel)
            else:
                _draw_shares(axis, panel)
        return to_svg(figure)


def _draw_losses(axis: Axes, checks: Sequence[GateCheck]) -> None:
    for place, one in enumerate(checks):
        assert one.value is not None
        assert one.bound is not None
        _point(axis, place, one, one.value, one.low, one.high)
        axis.plot([one.bound, one.bound], [place - 0.35, place + 0.35], color=INK, linewidth=1.6)
    axis.axvline(0.0, color=INK, linewidth=0.8, linestyle="--")
    _name_places(axis, checks)
    axis.set_title(f"{checks[0].unit}, candidate minus model in service (short lines: allowed)")


def _draw_shares(axis: Axes, checks: Sequence[GateCheck]) -> None:
    for place, one in enumerate(checks):
        value, low, high = (_share(one, figure) for figure in (one.value, one.low, one.high))
        assert value is not None
        _point(axis, place, one, value, low, high)
    axis.axvline(0.0, color=INK, linewidth=0.8, linestyle="--")
    axis.axvline(1.0, color=INK, linewidth=1.6)
    axis.set_xlim(*_LIMITS)
    _name_places(axis, checks)
    axis.set_title("the rest: 0 is as good as the model in service, 1 is what is allowed")


def _share(check: GateCheck, figure: float | None) -> float | None:
    """0 for as good as the model in service, 1 for the bound; cut at the picture's edge."""
    if figure is None or check.bound is None:
        return None
    neutral = _NEUTRAL.get(check.name, 0.0)
    room = check.bound - neutral
    share = (figure - neutral) / room if room > 0 else math.copysign(math.inf, figure - neutral) if figure != neutral else 0.0
    return min(max(share, _LIMITS[0]), _LIMITS[1])


def _point(axis: Axes, place: int, check: GateCheck, value: float, low: float | None, high: float | None) -> None:
    colour = _COLOURS[check.outcome]
    if low is not None and high is not None:
        axis.plot([low, high], [place, place], color=colour, linewidth=2.0, solid_capstyle="butt")
    axis.plot([value], [place], "o", color=colour, markerfacecolor=colour if check.is_decisive else "none", markersize=6)


def _name_places(axis: Axes, checks: Sequence[GateCheck]) -> None:
    axis.set_yticks(range(len(checks)), [name_of(one) for one in checks])
    axis.set_ylim(len(checks) - 0.4, -0.6)
