"""Lines over time, as SVG with a legend in HTML."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from clipdrift_dashboards.viewer.asking import Span
from clipdrift_dashboards.viewer.fields import Field
from clipdrift_dashboards.viewer.numbers import decimals_for, shown, ticks, time_ticks

_CHAR = 6.3
"""Pixels that a letter of an axis takes."""
_LEGEND_CHAR, _LEGEND_GAP, _KEY_WIDTH = 7, 10, 25
"""Pixels that a letter, the space around a cell and a line's sample take in a legend."""
_TOP, _BOTTOM = 8, 22
Point = tuple[float, float]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """An annotation: from `start` to `end`, which are the same for a moment."""

    start: float
    end: float
    color: str
    text: str


class _Plot(msgspec.Struct, frozen=True, kw_only=True):
    """The frame in pixels and in values."""

    width: int
    height: int
    left: float
    right: float
    low: float
    high: float
    span: Span
    is_log: bool

    def x(self, time: float) -> float:
        return self.left + (time - self.span.start) / self.span.seconds * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low / 10))
        part = (value - low) / (high - low)
        return _TOP + (1 - min(1.5, max(-0.5, part))) * (self.height - _TOP - _BOTTOM)


def drawn(
    panel: Mapping[str, Any], fields: Sequence[Field], marks: Iterable[Mark], span: Span, step: int, width: int, height: int
) -> str:
    """The panel's body, `width` × `height` pixels; it must have a field with a sample."""
    legend = panel["options"]["legend"]
    named = [field for field in fields if not field.is_hidden]
    rows = min(len(named), 1 if legend["placement"] == "bottom" else 99)
    if legend["placement"] == "right":
        wide = min(0.42 * width, max(190, _table_width(named))) if named else 0
        picture = _svg(panel, fields, marks, span, step, int(width - wide - 8), height)
        beside = f'<div class="legend table" style="width:{wide:.0f}px">{_table(named, legend)}</div>'
        return f'<div class="beside">{picture}{beside}</div>'
    high = 22 * rows if sum(len(one.shown_name) * 7 + 70 for one in named) <= width else 44
    picture = _svg(panel, fields, marks, span, step, width, height - high)
    return f'{picture}<div class="legend list" style="height:{high}px">{_list(named)}</div>'


def _list(fields: Iterable[Field]) -> str:
    return "".join(f"<span>{_key(one)}{escape(one.shown_name)} <b>{_last(one)}</b></span>" for one in fields)


def _table_width(fields: Sequence[Field]) -> int:
    columns = (
        [one.shown_name for one in fields],
        ["Max", *(one.text(_highest(one)) for one in fields)],
        ["Last *", *(_last(one) for one in fields)],
    )
    return _KEY_WIDTH + sum(_LEGEND_CHAR * max(map(len, words)) + _LEGEND_GAP for words in columns)


def _table(fields: Sequence[Field], legend: Mapping[str, Any]) -> str:
    ranked = sorted(fields, key=_highest, reverse=True) if legend.get("sortDesc") else fields
    rows = "".join(
        f'<tr><td title="{escape(one.shown_name)}">{_key(one)}{escape(one.shown_name)}</td>'
        f"<td>{escape(one.text(_highest(one)))}</td><td>{_last(one)}</td></tr>"
        for one in ranked
    )
    return f"<table><tr><th>Name</th><th>Max</th><th>Last *</th></tr>{rows}</table>"


def _key(field: Field) -> str:
    dash = " ".join(str(one) for one in _dash(field))
    return (f'<svg class="key" width="20" height="8"><line x1="0" x2="20" y1="4" y2="4" stroke="{field.color}" '
            f'stroke-width="3" stroke-dasharray="{dash}"/></svg>')  # fmt: skip


def _last(field: Field) -> str:
    return "-" if field.last is None else escape(field.text(field.last))


def _highest(field: Field) -> float:
    return max((value for _, value in field.samples if math.isfinite(value)), default=-math.inf)


def _svg(
    panel: Mapping[str, Any], fields: Sequence[Field], marks: Iterable[Mark], span: Span, step: int, width: int, height: int
) -> str:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    is_bars, is_stacked = custom.get("drawStyle") == "bars", custom.get("stacking", {}).get("mode") == "normal"
    plot = _frame(panel, fields, span, width, height, is_stacked=is_stacked)
    parts = [f'<svg class="graph" width="{width}" height="{height}" role="img" aria-label="{escape(panel["title"])}">']
    parts += _axes(panel, plot)
    for mark in marks:
        parts += _mark(mark, plot)
    parts.append(f'<clipPath id="in-{panel["id"]}"><rect x="{plot.left}" y="0" width="{width - plot.left - plot.right}" '
                 f'height="{height - _BOTTOM + 1}"/></clipPath><g clip-path="url(#in-{panel["id"]})">')  # fmt: skip
    parts += _bars(fields, plot, step) if is_bars else _lines(fields, plot, step)
    parts.append("</g>")
    if custom.get("thresholdsStyle", {}).get("mode") == "dashed":
        parts += [
            f'<line x1="{plot.left}" x2="{width - plot.right}" y1="{plot.y(one["value"]):.1f}" y2="{plot.y(one["value"]):.1f}" '
            f'stroke="{one["color"]}" stroke-dasharray="10 10" stroke-width="1.5"/>'
            for one in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            if one["value"] is not None and plot.low <= one["value"] <= plot.high
        ]
    return "".join([*parts, "</svg>"])


def _frame(
    panel: Mapping[str, Any], fields: Sequence[Field], span: Span, width: int, height: int, *, is_stacked: bool
) -> _Plot:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    is_log = custom.get("scaleDistribution", {}).get("type") == "log"
    values = [value for one in fields for _, value in one.samples if math.isfinite(value) and (value > 0 or not is_log)]
    if is_stacked:
        values += _sums(fields).values()
    low, high = min(values, default=0.0), max(values, default=1.0)
    if is_log:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high * 1.0001))
    else:
        room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
        low, high = defaults.get("min", low - room), max(high + room, custom.get("axisSoftMax", high))
        high = defaults.get("max", high)
    unit = defaults.get("unit", "none")
    marks = ticks(low, high, max(2, height // 36), unit)
    letters = max(len(shown(one, unit, decimals_for(marks, unit, 0))) for one in marks)
    return _Plot(
        width=width, height=height, left=14 + letters * _CHAR, right=10, low=low, high=max(high, low + 1e-12), span=span,
        is_log=is_log,
    )  # fmt: skip


def _axes(panel: Mapping[str, Any], plot: _Plot) -> list[str]:
    defaults = panel["fieldConfig"]["defaults"]
    unit, decimals = defaults.get("unit", "none"), int(defaults.get("decimals", 0))
    if plot.is_log:
        powers = range(round(math.log10(plot.low)), round(math.log10(plot.high)) + 1)
        marks = [10.0**power for power in powers]
    else:
        marks = ticks(plot.low, plot.high, max(2, plot.height // 36), unit)
        if decimals == 0 and unit in ("locale", "none"):
            marks = [one for one in marks if one == round(one)]  # there is no half of a retrain
    digits = decimals_for(marks, unit, 0)
    found = []
    for value in marks:
        y = plot.y(value)
        found.append(f'<line class="grid" x1="{plot.left}" x2="{plot.width - plot.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        found.append(f'<text class="axis" x="{plot.left - 6}" y="{y + 4:.1f}" text-anchor="end">'
                     f"{escape(shown(value, unit, digits))}</text>")  # fmt: skip
    for time, word in time_ticks(plot.span.start, plot.span.end, max(2, int(plot.width / 95))):
        x = plot.x(time)
        found.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{plot.height - _BOTTOM}"/>')
        if plot.left + 8 < x < plot.width - 18:
            found.append(f'<text class="axis" x="{x:.1f}" y="{plot.height - 6}" text-anchor="middle">{word}</text>')
    return found


def _mark(mark: Mark, plot: _Plot) -> list[str]:
    left, right, foot = plot.x(mark.start), plot.x(mark.end), plot.height - _BOTTOM
    note = f"<title>{escape(mark.text)}</title>"
    found = []
    if right > left + 1:
        found.append(f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{foot - _TOP}" fill="{mark.color}" '
                     f'opacity="0.12">{note}</rect>')  # fmt: skip
        found.append(f'<rect x="{left:.1f}" y="{foot}" width="{right - left:.1f}" height="4" fill="{mark.color}">{note}</rect>')
    found.append(f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{_TOP}" y2="{foot}" stroke="{mark.color}" stroke-dasharray="4 4">'
                 f"{note}</line>")  # fmt: skip
    found.append(f'<path d="M{left - 5:.1f},{foot + 5} h10 l-5,-6 z" fill="{mark.color}">{note}</path>')
    return found


def _lines(fields: Sequence[Field], plot: _Plot, step: int) -> list[str]:
    by_name = {one.name: one for one in fields}
    found = []
    for field in fields:
        below = by_name.get(str(field.custom.get("fillBelowTo", "")))
        if below is not None:
            found += _band(field, below, plot)
    for field in fields:
        width, runs = float(field.custom.get("lineWidth", 1)), _runs(field, plot, step)
        if "fillBelowTo" not in field.custom and field.custom.get("fillOpacity", 0) and width:
            found += [_area(run, field, plot) for run in runs if len(run) > 1]
        if not width:
            continue
        dash = " ".join(str(one) for one in _dash(field))
        found += [f'<path d="{_path(run)}" fill="none" stroke="{field.color}" stroke-width="{width}" stroke-dasharray="{dash}" '
                  'stroke-linejoin="round"/>' for run in runs if len(run) > 1]  # fmt: skip
        found += _points(field, runs, plot)
    return found


def _points(field: Field, runs: Sequence[Sequence[Point]], plot: _Plot) -> list[str]:
    """Where samples stand alone, or far apart; as Grafana's "auto" shows them."""
    if field.custom.get("showPoints") == "never":
        return []
    is_sparse = sum(len(run) for run in runs) * 14 < plot.width and field.custom.get("lineInterpolation") != "stepAfter"
    lonely = [run[0] for run in runs if len(run) == 1]
    points = [point for run in runs for point in run] if is_sparse else lonely
    return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{field.color}"/>' for x, y in points]


def _band(high: Field, low: Field, plot: _Plot) -> list[str]:
    lows = dict(low.samples)
    both = [(time, value, lows[time]) for time, value in high.samples if time in lows]
    if len(both) < 2:
        return []
    upper = [(plot.x(time), plot.y(value)) for time, value, _ in both]
    lower = [(plot.x(time), plot.y(value)) for time, _, value in reversed(both)]
    opacity = float(high.custom.get("fillOpacity", 30)) / 100
    return [f'<path d="{_path([*upper, *lower])} Z" fill="{high.color}" opacity="{opacity}"/>']


def _area(run: Sequence[Point], field: Field, plot: _Plot) -> str:
    foot = plot.y(max(0.0, plot.low))
    corners = [*run, (run[-1][0], foot), (run[0][0], foot)]
    return f'<path d="{_path(corners)} Z" fill="{field.color}" opacity="{float(field.custom["fillOpacity"]) / 100}"/>'


def _bars(fields: Sequence[Field], plot: _Plot, step: int) -> list[str]:
    """Stacked; a bar takes most of its step."""
    width = max(1.0, (plot.x(plot.span.start + step) - plot.x(plot.span.start)) * 0.85)
    feet: dict[float, float] = {}
    found = []
    for field in fields:
        for time, value in field.samples:
            if not math.isfinite(value) or value <= 0:
                continue
            foot = feet.get(time, 0.0)
            feet[time] = foot + value
            top, bottom = plot.y(foot + value), plot.y(foot)
            found.append(f'<rect x="{plot.x(time) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
                         f'height="{bottom - top:.1f}" fill="{field.color}" opacity="0.9"/>')  # fmt: skip
    return found


def _sums(fields: Sequence[Field]) -> dict[float, float]:
    sums: dict[float, float] = {}
    for time, value in itertools.chain.from_iterable(one.samples for one in fields):
        if math.isfinite(value):
            sums[time] = sums.get(time, 0.0) + max(0.0, value)
    return sums


def _runs(field: Field, plot: _Plot, step: int) -> list[list[Point]]:
    """Pieces of a line between gaps, in pixels."""
    runs: list[list[Point]] = []
    before = -math.inf
    is_stepped = field.custom.get("lineInterpolation") == "stepAfter"
    for time, value in field.samples:
        if not math.isfinite(value):
            continue
        point = (plot.x(time), plot.y(value))
        if time - before > 1.5 * step:
            runs.append([])
        elif is_stepped:
            runs[-1].append((point[0], runs[-1][-1][1]))
        runs[-1].append(point)
        before = time
    return runs


def _path(points: Sequence[Point]) -> str:
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _dash(field: Field) -> Sequence[float]:
    return field.custom.get("lineStyle", {}).get("dash", ())  # type: ignore[no-any-return]
