"""Figures and tables, as HTML."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from clipdrift_dashboards.viewer.asking import Series
from clipdrift_dashboards.viewer.fields import Field, config_of, mapped, threshold_color
from clipdrift_dashboards.viewer.numbers import shown

Cell = str | float


def figures(panel: Mapping[str, Any], fields: Sequence[Field], width: int, height: int) -> str:
    """One box for each field, side by side where the panel is wider than high."""
    options = panel["options"]
    words = [_figure(one, options) for one in fields]
    is_stacked = options.get("orientation") == "horizontal" or (len(words) > 1 and height > width)
    num = len(words)
    wide, high = (width, height / num) if is_stacked else (width / num, height)
    size = _size(
        [value for _, value, _ in words], wide, high, has_names=any(name for name, _, _ in words), is_beside=is_stacked
    )
    inside = "".join(
        f'<div class="one"><span class="name">{escape(name)}</span>'
        f'<span class="big" style="font-size:{size:.0f}px;color:{color or "inherit"}">{escape(value)}</span></div>'
        for name, value, color in words
    )
    return f'<div class="figures {"stacked" if is_stacked else "row"}">{inside}</div>'


def text(what: str, width: int, height: int) -> str:
    """What a figure says where there is none."""
    size = min(30.0, max(12.0, (width * height / max(1, len(what)) / 1.4) ** 0.5 * 0.62))
    return alone(what, "none", f"font-size:{size:.0f}px")


def alone(what: str, kind: str, css: str) -> str:
    """One word, or a few, in the middle of a panel."""
    return f'<div class="figures row"><div class="one"><span class="{kind}" style="{css}">{escape(what)}</span></div></div>'


def label_of(panel: Mapping[str, Any], series: Sequence[Series]) -> str | None:
    """The label that a figure shows in place of a number (`reduceOptions.fields` names it); None: it shows a number."""
    wanted = re.fullmatch(r"/\^(\w+)\$/", str(panel["options"]["reduceOptions"].get("fields", "")))
    if not wanted:
        return None
    return next((one.labels[wanted[1]] for one in series if wanted[1] in one.labels), "")


def table(
    panel: Mapping[str, Any], answers: Sequence[tuple[Mapping[str, Any], list[Series]]], link: Callable[[str], str]
) -> str:
    """Rows of the same labels merged, columns renamed and in order, as the panel's transformations say; `link` fills what
    Grafana fills in the address of a click."""
    organize = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    rows: dict[tuple[tuple[str, str], ...], dict[str, Cell]] = {}
    values = [f"Value #{target['refId']}" if len(answers) > 1 else "Value" for target, _ in answers]
    for column, (_, series) in zip(values, answers, strict=True):
        for one in series:
            row = rows.setdefault(tuple(sorted(one.labels.items())), {**one.labels})
            row[column] = one.samples[-1][1]
    place, renamed = organize["indexByName"], organize["renameByName"]
    columns = [
        name
        for name in sorted(place, key=lambda one: place[one])
        if name in renamed and (not name.startswith("Value") or name in values)
    ]
    ranked = list(rows.values())
    for order in panel["options"].get("sortBy", []):
        by = next((name for name in columns if renamed[name] == order["displayName"]), "")
        ranked.sort(key=lambda row: (by in row, row.get(by, 0.0)), reverse=bool(order.get("desc")))
    head = "".join(f"<th>{escape(renamed[name])}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(_cell(panel, renamed[name], row.get(name), link) for name in columns) + "</tr>" for row in ranked
    )
    return f'<div class="scroll"><table class="data"><tr>{head}</tr>{body}</table></div>'


def links_of(config: Mapping[str, Any]) -> Iterable[str]:
    """Addresses of a column's clicks."""
    return (str(one["url"]) for one in config.get("links", []))


def _cell(panel: Mapping[str, Any], column: str, value: Cell | None, link: Callable[[str], str]) -> str:
    config = config_of(panel, column)
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        address = next(iter(links_of(config)), "")
        inside = escape(value)
        if address:
            target = re.sub(r"\$\{__data\.fields\.\w+\}", lambda _: quote(value), link(address))
            inside = f'<a href="{escape(target)}">{inside}</a>'
        return f"<td>{inside}</td>"
    word = mapped(config, value)
    said = str(word["text"]) if word else shown(value, str(config.get("unit", "none")), int(config.get("decimals", 0)))
    color = str(word["color"]) if word else threshold_color(config, value)
    is_colored = config["custom"].get("cellOptions", {}).get("type") == "color-text" and color not in ("", "transparent")
    return f'<td class="{"word" if word else "number"}"{f" style=color:{color}" if is_colored else ""}>{escape(said)}</td>'


def _figure(field: Field, options: Mapping[str, Any]) -> tuple[str, str, str]:
    """Name, value, colour."""
    mode = options.get("textMode", "auto")
    has_name = mode in ("value_and_name", "name") or (mode == "auto" and options.get("orientation") == "horizontal")
    name = field.shown_name if has_name else ""
    if field.last is None:
        return name, str(field.config.get("noValue", "-")), ""
    return name, field.text(field.last), field.value_color(field.last)


def _size(values: Sequence[str], wide: float, high: float, *, has_names: bool, is_beside: bool) -> float:
    longest = max((len(one) for one in values), default=1)
    room = wide * (0.55 if is_beside and has_names else 0.92)
    return max(13.0, min(44.0, room / max(1, longest) / 0.58, high * (0.42 if has_names and not is_beside else 0.5)))
