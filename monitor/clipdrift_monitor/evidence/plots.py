"""The pack's own pictures, as SVG text: how the evidence grew until the alarm, and how the columns that moved most look."""

import html
from collections.abc import Sequence

import msgspec

from clipdrift_monitor.api.charts import Line, Mark, Point, time_chart

_WIDTH, _HEIGHT, _LABELS, _TOP = 360.0, 120.0, 18.0, 8.0
_MAX_LABEL = 14


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks up to the alarm, the oldest first; None where a block has no figure."""

    start_ms: tuple[int, ...] = ()
    evidence: tuple[float | None, ...] = ()
    """Of the test that raised the alarm; 1 is an alarm."""
    accuracy: tuple[float | None, ...] = ()
    accuracy_low: tuple[float | None, ...] = ()
    accuracy_high: tuple[float | None, ...] = ()


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of a column are spread: shares of the rows of each side, in the same bins."""

    column: str
    bins: tuple[str, ...]
    before: tuple[float, ...]
    now: tuple[float, ...]


def of_course(course: Course) -> tuple[str, str]:
    """The evidence and the accuracy over time; "" where there is nothing to draw."""
    at = course.start_ms
    evidence = [Point(time_ms, value) for time_ms, value in zip(at, course.evidence, strict=True) if value is not None]
    bounds = zip(at, course.accuracy, course.accuracy_low, course.accuracy_high, strict=True)
    accuracy = [Point(time_ms, value, low, high) for time_ms, value, low, high in bounds if value is not None]
    mark = [Mark(time_ms=at[-1], words="the alarm")] if at else []
    grown, right = (
        [Line(name=name, css=css, points=tuple(points))]
        for name, css, points in (("evidence", "a", evidence), ("accuracy", "b", accuracy))
    )
    title = "Evidence of the test that raised the alarm, block by block"
    return (
        time_chart(grown, marks=mark, limit=1.0, limit_words="alarm", is_ratio=False, floor=0.0, title=title),
        time_chart(right, marks=mark, title="Accuracy, block by block, with its interval"),
    )


def of_shape(shape: Shape) -> str:
    """Two bars a bin: the reference and the alarm's window; "" without bins."""
    if not shape.bins:
        return ""
    top = max(*shape.before, *shape.now, 1e-9)
    step = _WIDTH / len(shape.bins)
    words = html.escape(f"{shape.column}: reference and alarm's window")
    parts = [f'<svg class="shape" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{words}">']
    for side, css, values in ((0, "before", shape.before), (1, "now", shape.now)):
        parts += [_bar(i * step + (0.08 + 0.42 * side) * step, 0.42 * step, value / top, css) for i, value in enumerate(values)]
    parts += _labels(shape.bins, step)
    return "".join((*parts, "</svg>"))


def _bar(left: float, width: float, share: float, css: str) -> str:
    height = share * (_HEIGHT - _LABELS - _TOP)
    return (
        f'<rect class="{css}" x="{left:.1f}" width="{width:.1f}" y="{_HEIGHT - _LABELS - height:.1f}" height="{height:.1f}"/>'
    )


def _labels(bins: Sequence[str], step: float) -> list[str]:
    """All where they have room; else the first and the last."""
    shown = range(len(bins)) if step > 40 else (0, len(bins) - 1)
    return [
        f'<text class="tick" x="{(i + 0.5) * step:.1f}" y="{_HEIGHT - 4:.1f}" text-anchor="'
        f'{"middle" if step > 40 else "start" if not i else "end"}">{html.escape(bins[i][:_MAX_LABEL])}</text>'
        for i in shown
    ]
