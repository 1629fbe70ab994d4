"""A dashboard as one page: its rows and panels at their places, with the answers of a Prometheus."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from clipdrift_dashboards.viewer import figures, graph
from clipdrift_dashboards.viewer.asking import Prometheus, Series, Span, filled_expr, filling, offered, step_seconds
from clipdrift_dashboards.viewer.fields import fields_of, name_of

_CELL, _GAP = 30, 8
"""Height of a line of Grafana's grid, and what lies between panels, in pixels."""
_COLUMNS = 24
_STYLE = Path(__file__).with_name("page.css")


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at: the dashboard's time, what is chosen of each variable, and how it is shown."""

    span: Span
    chosen: Mapping[str, str] = {}
    is_open: bool = False
    """Collapsed rows, too."""
    theme: str = "dark"
    width: int = 1_600
    boards: Sequence[tuple[str, str]] = ()
    """The other dashboards for the menu, as (uid, title)."""


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    """What all panels of one page share."""

    prometheus: Prometheus
    sight: Sight
    values: Mapping[str, str]
    marks: Sequence[graph.Mark] = ()


def page(board: Mapping[str, Any], prometheus: Prometheus, sight: Sight) -> str:
    """The whole page as HTML without a script and without anything from elsewhere.

    Raises:
        ClipdriftError: Prometheus cannot be reached, or refuses a query.
    """
    choices = offered(board, prometheus, sight.span, sight.chosen)
    context = _Context(prometheus=prometheus, sight=sight, values=filling(board, choices, sight.chosen))
    context = msgspec.structs.replace(context, marks=_marks(board, context))
    parts, bottom = _panels(board, choices, context)
    return (
        f'<!doctype html><html lang="en" class="{escape(sight.theme)}"><head><meta charset="utf-8">'
        f"<title>{escape(board['title'])}</title><style>{_STYLE.read_text()}</style></head><body>"
        f"{_head(board, choices, context)}"
        f'<main style="width:{sight.width}px;height:{bottom}px">{"".join(parts)}</main></body></html>'
    )


def _head(board: Mapping[str, Any], choices: Mapping[str, Sequence[str]], context: _Context) -> str:
    """Title, question, variables, marks and links."""
    sight, parts = context.sight, []
    for variable in board["templating"]["list"]:
        name = variable["name"]
        if name in choices and variable.get("hide", 0) != 2:
            links = "".join(
                f"<option{' selected' if one == context.values[name] else ''}>{escape(one)}</option>" for one in choices[name]
            )
            parts.append(
                f'<label>{escape(variable.get("label") or name)}<select name="var-{escape(name)}">{links}</select></label>'
            )
    hidden = (f'<input type="hidden" name="from" value="{sight.span.start:.0f}"><input type="hidden" name="to" '
              f'value="{sight.span.end:.0f}">')  # fmt: skip
    marks = "".join(
        f'<span class="mark" style="--color:{escape(one["iconColor"])}">{escape(one["name"])}</span>'
        for one in board.get("annotations", {}).get("list", []) if one["enable"]
    )  # fmt: skip
    menu = "".join(
        f'<a href="{escape(_address(uid, context))}"{" class=here" if uid == board["uid"] else ""}>{escape(title)}</a>'
        for uid, title in sight.boards
    )
    question = str(board["description"]).partition(" Generated")[0]
    show = f"<form>{''.join(parts)}{hidden}<button>Show</button></form>" if parts else ""
    return f"<header><h1>{escape(board['title'])}</h1><p>{escape(question)}</p>{show}{marks}<nav>{menu}</nav></header>"


def _address(uid: str, context: _Context) -> str:
    span = context.sight.span
    model = context.values.get("model") or context.sight.chosen.get("model", "")
    return f"/d/{uid}?from={span.start:.0f}&to={span.end:.0f}" + (f"&var-model={model}" if model else "")


def _panels(board: Mapping[str, Any], choices: Mapping[str, Sequence[str]], context: _Context) -> tuple[list[str], int]:
    """Boxes at their places, and where the page ends."""
    found: list[str] = []
    moved, bottom = 0, 0
    for panel in board["panels"]:
        place = {**panel["gridPos"], "y": panel["gridPos"]["y"] + moved}
        if panel["type"] != "row":
            found.append(_box(panel, place, context))
        else:
            inside = panel.get("panels", [])
            is_closed = bool(inside) and not context.sight.is_open
            found.append(_row(panel, place, len(inside) if is_closed else 0, context.sight))
            if inside and not is_closed:
                boxes, grown = _inside(inside, moved, choices, context)
                found, moved = [*found, *boxes], moved + grown
                bottom = max(bottom, place["y"] + 1 + grown)
        bottom = max(bottom, place["y"] + place["h"])
    return found, bottom * (_CELL + _GAP) + 20


def _inside(
    panels: Sequence[Mapping[str, Any]], moved: int, choices: Mapping[str, Sequence[str]], context: _Context
) -> tuple[list[str], int]:
    """The panels of a collapsed row that is opened, and by how many lines all that follows moves down."""
    first, found, grown = min(one["gridPos"]["y"] for one in panels), [], 0
    for panel in panels:
        place = {**panel["gridPos"], "y": panel["gridPos"]["y"] + moved}
        if "repeat" not in panel:
            found.append(_box(panel, place, context))
            grown = max(grown, place["y"] - moved - first + place["h"])
            continue
        name, per_row = panel["repeat"], int(panel.get("maxPerRow", 4))
        values = choices.get(name, [])
        wide = _COLUMNS // max(1, min(per_row, len(values)))
        for index, value in enumerate(values):
            at = place | {"x": index % per_row * wide, "y": place["y"] + index // per_row * place["h"], "w": wide}
            one = msgspec.structs.replace(context, values={**context.values, name: value})
            found.append(_box({**panel, "id": panel["id"] * 100 + index}, at, one))
        grown = max(grown, place["h"] * (1 + max(0, len(values) - 1) // per_row))
    return found, grown


def _pixels(place: Mapping[str, int], sight: Sight) -> tuple[float, int, float, int]:
    """Left, top, width, height."""
    wide = (sight.width + _GAP) / _COLUMNS
    left, width = place["x"] * wide, place["w"] * wide - _GAP
    return left, place["y"] * (_CELL + _GAP), width, place["h"] * (_CELL + _GAP) - _GAP


def _row(panel: Mapping[str, Any], place: Mapping[str, int], num_inside: int, sight: Sight) -> str:
    left, top, width, height = _pixels(place, sight)
    closed = f"<small>({num_inside} panels)</small>" if num_inside else ""
    sign = "›" if num_inside else "⌄"
    return (f'<h2 style="left:{left:.0f}px;top:{top}px;width:{width:.0f}px;height:{height}px"><i>{sign}</i>'
            f"{escape(panel['title'])} {closed}</h2>")  # fmt: skip


def _box(panel: Mapping[str, Any], place: Mapping[str, int], context: _Context) -> str:
    left, top, width, height = _pixels(place, context.sight)
    title = _with_values(str(panel["title"]), context.values)
    links = "".join(
        f'<a href="{escape(_link(one["url"], context))}" title="{escape(one["title"])}">↗</a>' for one in panel.get("links", [])
    )
    body = _body(panel, context, int(width) - 20, height - 46)
    return (
        f'<section id="panel-{panel["id"]}" class="{panel["type"]}" style="left:{left:.1f}px;top:{top}px;width:{width:.1f}px;'
        f'height:{height}px"><h3>{escape(title)}<abbr title="{escape(panel["description"])}">i</abbr>{links}</h3>'
        f"{body}</section>"
    )


def _body(panel: Mapping[str, Any], context: _Context, width: int, height: int) -> str:
    span = context.sight.span
    step = step_seconds(panel, span, width)
    answers = [(target, _answer(target, step, context)) for target in panel["targets"]]
    series = [one for _, of_it in answers for one in of_it]
    none = str(panel["fieldConfig"]["defaults"]["noValue"])
    if panel["type"] == "table":
        filled = figures.table(panel, answers, lambda url: _link(url, context)) if series else ""
        return filled or f'<div class="empty">{escape(none)}</div>'
    if panel["type"] == "stat":
        word = figures.label_of(panel, series)
        if word:
            color = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["color"]
            size = min(28.0, width / max(1, len(word)) / 0.58)
            return figures.alone(word, "big", f"font-size:{size:.0f}px;color:{color}")
        found = fields_of(panel, answers)
        return figures.figures(panel, found, width, height) if found else figures.text(none, width, height)
    found = fields_of(panel, answers)
    if not any(value == value for one in found for _, value in one.samples):
        return f'<div class="empty">{escape(none)}</div>'
    return graph.drawn(panel, found, context.marks, span, step, width, height)


def _answer(target: Mapping[str, Any], step: int, context: _Context) -> list[Series]:
    span = context.sight.span
    expr = filled_expr(target["expr"], context.values, span, step)
    return context.prometheus.instant(expr, span) if target.get("instant") else context.prometheus.range(expr, span, step)


def _marks(board: Mapping[str, Any], context: _Context) -> list[graph.Mark]:
    """Annotations; samples that follow one another without a gap are one stretch of time, as in Grafana."""
    found: list[graph.Mark] = []
    span = context.sight.span
    step = step_seconds({}, span, context.sight.width // 2)
    for one in board.get("annotations", {}).get("list", []):
        if not one["enable"]:
            continue
        for series in _answer(one["target"], step, context):
            text = f"{one['titleFormat']}: {name_of(one['textFormat'], series.labels)}"
            runs: list[list[float]] = []
            for time, _ in series.samples:
                if runs and time - runs[-1][1] <= 1.01 * step:
                    runs[-1][1] = time
                else:
                    runs.append([time, time])
            found += [graph.Mark(start=start, end=end, color=one["iconColor"], text=text) for start, end in runs]
    return found


def _link(url: str, context: _Context) -> str:
    """An address inside keeps time and variables."""
    span = context.sight.span
    url = url.replace("${datasource:queryparam}&", "").replace(
        "${__url_time_range}", f"from={span.start:.0f}&to={span.end:.0f}"
    )
    return _with_values(url, context.values)


def _with_values(text: str, values: Mapping[str, str]) -> str:
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(f"${name}", values[name])
    return text
