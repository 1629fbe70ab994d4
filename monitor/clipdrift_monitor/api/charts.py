"""Small charts as SVG text, drawn on the server: no script, no library, readable in light and dark."""

import html
import math
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

_WIDTH, _HEIGHT = 720.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 16.0, 26.0


class Point(msgspec.Struct, frozen=True):
    """A value at a time, perhaps with an interval."""

    time_ms: int
    value: float
    low: float | None = None
    high: float | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A named line; `css` is its class in the page's style sheet."""

    name: str
    css: str
    points: tuple[Point, ...]


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """An upright line at a moment, such as a deployment."""

    time_ms: int
    words: str
    css: str = "mark"


def time_chart(
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark] = (),
    limit: float | None = None,
    limit_words: str = "",
    limit_css: str = "limit",
    is_ratio: bool = True,
    floor: float | None = None,
    ceiling: float | None = None,
    title: str = "",
) -> str:
    """Lines over time, with intervals as bands, a horizontal limit and upright marks; "" where there is nothing to draw.

    Args:
        lines: At least one with a point.
        marks: Moments to show.
        limit: A value to show as a dashed horizontal line.
        limit_words: What it is.
        limit_css: Its class in the page's style sheet.
        is_ratio: Label the axis in per cent.
        floor: Lowest value of the axis; else the data decide.
        ceiling: Highest value of the axis; what lies above is drawn at it.
        title: For screen readers.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    values = [v for p in points for v in (p.value, p.low, p.high) if v is not None] + ([limit] if limit is not None else [])
    top = max(values) if ceiling is None else min(ceiling, max(values))
    low, high, step = _axis(min(values) if floor is None else floor, top)
    frame = _Frame(min(p.time_ms for p in points), max(p.time_ms for p in points), low, high)
    parts = [f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{html.escape(title)}">']
    parts += [frame.grid(low + i * step, is_ratio) for i in range(round((high - low) / step) + 1)]
    parts += [frame.date(at) for at in _dates(frame.first_ms, frame.last_ms)]
    parts += [frame.mark(mark) for mark in marks if frame.first_ms <= mark.time_ms <= frame.last_ms]
    parts += [frame.band(line) for line in lines]
    parts += [frame.limit(limit, limit_words, limit_css)] if limit is not None else []
    parts += [frame.line(line) for line in lines]
    return "".join((*parts, "</svg>"))


class _Frame:
    """Where a moment and a value lie on the picture, and the pieces drawn there."""

    def __init__(self, first_ms: int, last_ms: int, low: float, high: float) -> None:
        self.first_ms = first_ms
        self.last_ms = last_ms
        self._low = low
        self._high = high

    def x(self, time_ms: int) -> float:
        return _LEFT + (time_ms - self.first_ms) / max(1, self.last_ms - self.first_ms) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        inside = min(max(value, self._low), self._high)
        return _TOP + (self._high - inside) / (self._high - self._low) * (_HEIGHT - _TOP - _BOTTOM)

    def grid(self, value: float, is_ratio: bool) -> str:
        words, at = f"{value:.0%}" if is_ratio else f"{value:g}", self.y(value)
        return _across("grid", at) + _text(_LEFT - 6, at + 4, words, "end")

    def date(self, time_ms: int) -> str:
        return _text(self.x(time_ms), _HEIGHT - 6, _day(time_ms), "middle")

    def mark(self, mark: Mark) -> str:
        at = self.x(mark.time_ms)
        line = f'<line class="{mark.css}" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
        return f"{line}<title>{html.escape(mark.words)}</title></line>"

    def limit(self, value: float, words: str, css: str) -> str:
        at = self.y(value)
        beside = at - 4 if at > _TOP + 14 else at + 17  # above the line, but within the picture
        return _across(css, at) + _text(_WIDTH - _RIGHT, beside, words, "end")

    def band(self, line: Line) -> str:
        known = [(self.x(p.time_ms), p.low, p.high) for p in line.points if p.low is not None and p.high is not None]
        if len(known) < 2:
            return ""
        upper = [f"{at:.1f},{self.y(high):.1f}" for at, _, high in known]
        lower = [f"{at:.1f},{self.y(low):.1f}" for at, low, _ in reversed(known)]
        return f'<polygon class="band {line.css}" points="{" ".join(upper + lower)}"/>'

    def line(self, line: Line) -> str:
        places = [(self.x(p.time_ms), self.y(p.value)) for p in line.points]
        if len(places) == 1:
            return f'<circle class="dot {line.css}" r="3" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}"/>'
        return f'<polyline class="line {line.css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'


def _across(css: str, at: float) -> str:
    return f'<line class="{css}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def sparkline(values: Sequence[float]) -> str:
    """A line without axes; "" with fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scale = (high - low) or 1.0
    points = " ".join(f"{i / (len(values) - 1) * 158 + 1:.1f},{33 - (v - low) / scale * 30:.1f}" for i, v in enumerate(values))
    return f'<svg class="spark" viewBox="0 0 160 36" aria-hidden="true"><polyline class="line a" points="{points}"/></svg>'


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Round limits and step, some four steps.

    Example:
        >>> _axis(0.61, 0.88)
        (0.6, 0.9, 0.1)
        >>> _axis(0.0, 0.0)
        (0.0, 0.25, 0.25)
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= span / 4.5)
    first = round(math.floor(low / step + 1e-9) * step, 10)
    return first, max(round(math.ceil(high / step - 1e-9) * step, 10), first + step), step


def _dates(first_ms: int, last_ms: int) -> list[int]:
    """Five moments in between."""
    if last_ms == first_ms:
        return [first_ms]
    return [first_ms + (last_ms - first_ms) * i // 6 for i in range(1, 6)]


def _day(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{moment.day} {moment:%b}"
