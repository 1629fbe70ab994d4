"""The words around Evidently's report: what the alarm was, which rows it is about, how to read it. Values in, HTML out."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clipdrift_contract.clock import format_moment
from clipdrift_monitor.evidence import plots
from clipdrift_monitor.evidence.order import EvidenceOrder
from clipdrift_monitor.evidence.plots import Shape
from clipdrift_monitor.evidence.rows import Found, Side

MIN_ROWS = 30  # below it no distance between two samples says anything
# Evidently's own scripts are inline; nothing may be loaded, sent or framed.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; base-uri 'none'; form-action 'none'"
)
_HEAD = f"""<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<style>
.pack {{ background: #fff; max-width: 1080px; margin: 1.6rem auto; padding: 0 1.2rem; color: #1d2330; font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }}
.pack h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }} .pack h2 {{ font-size: 1.15rem; margin: 1.6rem 0 .4rem; }}
.pack p, .pack li {{ max-width: 78ch; }} .pack .soft {{ color: #5c6577; }}
.pack table {{ border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }}
.pack th, .pack td {{ padding: .34rem .55rem; text-align: left; border-bottom: 1px solid #dfe3ea; overflow-wrap: anywhere; }}
.pack svg {{ width: 100%; height: auto; }} .pack .grid {{ stroke: #dfe3ea; }} .pack .tick {{ fill: #5c6577; font-size: 11px; }}
.pack .limit {{ stroke: #b3261e; stroke-dasharray: 5 4; }} .pack .mark {{ stroke: #5c6577; stroke-dasharray: 2 3; }}
.pack .line {{ fill: none; stroke-width: 1.8; }} .pack .line.a, .pack .dot.a {{ stroke: #2459c4; }} .pack .line.b, .pack .dot.b {{ stroke: #1d7a52; }}
.pack .band.b {{ fill: #1d7a52; opacity: .15; }} .pack .before {{ fill: #a9b3c4; }} .pack .now {{ fill: #b3261e; opacity: .75; }}
.pack .shapes {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 1rem; }} .pack figure {{ margin: 0; }}
.pack th {{ color: #5c6577; font-weight: 600; }} .pack .n {{ text-align: right; }} .pack .far {{ color: #b3261e; font-weight: 650; }}
</style>"""  # noqa: E501  one rule a line reads better


_COURSES = ("Evidence until the alarm", "Accuracy until the alarm")
_BODY = re.compile(r"</head>\s*<body>")


class Moved(NamedTuple):
    """How far one column has moved, by one of Evidently's tests, and what it looked like before and now."""

    column: str
    method: str
    score: float
    threshold: float
    has_drifted: bool
    before: str
    now: str


def with_heading(
    report: str, order: EvidenceOrder, found: Found, moved: Sequence[Moved], quality: str, shapes: Sequence[Shape] = ()
) -> str:
    """Evidently's page with a heading of ours, and forbidden to load anything.

    Raises:
        ValueError: The report is no whole HTML page.
    """
    begins, ends = report.find("<head>"), _BODY.search(report)
    if begins < 0 or ends is None:
        raise ValueError("Evidently's report is no HTML page with <head> and <body>; this version is not the one we know")
    inside = begins + len("<head>")
    head = f"<title>{_text(_title(order))} · evidence</title>{_HEAD}{report[inside : ends.start()]}"
    heading = _heading(order, found, _how_to_read(moved, quality, shapes))
    return f"{report[:inside]}{head}{ends.group()}{heading}{report[ends.end() :]}".strip() + "\n"


def too_few(order: EvidenceOrder, found: Found) -> str:
    """A small page that says which rows are missing, where there are not enough for a comparison."""
    missing = [
        f"The {name} window has {side.num_rows} recorded {_plural(side.num_rows, 'row')}; at least {MIN_ROWS} are needed."
        for name, side in (("reference", found.reference), ("alarm's", found.current))
        if side.num_sampled < MIN_ROWS
    ]
    advice = (
        "Rows are missing where the version was in service for too short a time before the alarm, where predictions are not "
        "recorded or were left out by the field policy, or where the bus no longer keeps them."
    )
    body = f"<h2>No comparison is possible</h2>{_list(missing)}<p>{advice}</p>"
    title = f"<title>{_text(_title(order))} · evidence</title>"
    head = f'<meta charset="utf-8">{title}{_HEAD}'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{_heading(order, found, body)}</body></html>\n'


def _heading(order: EvidenceOrder, found: Found, body: str) -> str:
    rows = "".join(
        f"<tr><td>{name}</td><td>{_window(start_ms, end_ms)}</td>{_numbers(side)}</tr>"
        for name, start_ms, end_ms, side in (
            ("reference", order.reference_start_ms, order.reference_end_ms, found.reference),
            ("alarm's window", order.current_start_ms, order.current_end_ms, found.current),
        )
    )
    about = f"Model {order.model}, version {order.version}, {f'slice {order.slice}' if order.slice else 'all slices'}."
    return f"""<div class="pack"><h1>{_text(_title(order))}</h1>
<p>{_text(order.why)}</p><p class="soft">{_text(about)}</p>
<table><tr><th>rows</th><th>predictions asked for, UTC</th><th class="n">recorded</th><th class="n">in this report</th>
<th class="n">of them labelled</th></tr>{rows}</table>
{_judged(order)}
{body}</div>"""


def _judged(order: EvidenceOrder) -> str:
    """What the monitor saw until the alarm, and what it decided, with its numbers."""
    parts = [f"<h2>{title}</h2>{svg}" for title, svg in zip(_COURSES, plots.of_course(order.course), strict=True) if svg]
    decision = order.decision
    if decision is not None:
        action = (
            f"{decision.action}, and {decision.would} were this no dry run" if decision.would != "none" else decision.action
        )
        terms = "".join(
            f'<tr><td>{_text(name)}</td><td class="n">{value:.6g}</td></tr>' for name, value in decision.terms.items()
        )
        parts.append(f"<h2>What was decided: {_text(action)}</h2>{_list(decision.reasons)}")
        parts.append(f'<table><tr><th>weighed</th><th class="n">value</th></tr>{terms}</table>' if terms else "")
    return "".join(parts)


def _how_to_read(moved: Sequence[Moved], quality: str, shapes: Sequence[Shape]) -> str:
    lines = [
        "The reference is the same version in its first days in service, so what differs is the world and not the model.",
        "Where a window has more rows than the report, the report holds a random sample of them.",
        "A score beyond its threshold says that a column has moved. It does not say that the model is harmed, and it is "
        "outside the monitor's false-alarm budget: read it as an explanation of the alarm, not as a further alarm.",
        "Evidently's headline speaks of drift of the whole data set only where half of all columns have moved; one can do.",
        "With many columns some lie beyond their threshold by chance, the more so in small windows.",
        quality,
    ]
    table = "".join(
        f'<tr><td>{_text(one.column)}</td><td>{_text(one.before)}</td><td>{_text(one.now)}</td><td>{_text(one.method)}</td>'
        f'<td class="n{" far" if one.has_drifted else ""}">{one.score:.3g}</td><td class="n">{one.threshold:g}</td></tr>'
        for one in moved
    )  # fmt: skip
    return f"""<h2>How to read it</h2>{_list(lines)}
<h2>What has moved most</h2>
<table><tr><th>column</th><th>reference</th><th>alarm's window</th><th>test</th><th class="n">score</th>
<th class="n">threshold</th></tr>{table}</table>
{_shapes(shapes)}
<h2>Evidently's report</h2>"""


def _shapes(shapes: Sequence[Shape]) -> str:
    """How the columns that have moved most are spread: grey the reference, red the alarm's window."""
    figures = "".join(f"<figure><figcaption>{_text(one.column)}</figcaption>{plots.of_shape(one)}</figure>" for one in shapes)
    words = '<p class="soft">Share of the rows: grey the reference, red the alarm\'s window.</p>'
    return f'<div class="shapes">{figures}</div>{words}' if figures else ""


def _title(order: EvidenceOrder) -> str:
    return order.title or f"Alarm {order.signal_id}"


def _numbers(side: Side) -> str:
    return "".join(f'<td class="n">{number:,}</td>' for number in (side.num_rows, side.num_sampled, side.num_labelled))


def _window(start_ms: int, end_ms: int) -> str:
    if end_ms <= start_ms:
        return "none: the alarm came with the version's first window"
    return f"{format_moment(start_ms)} to {format_moment(end_ms)}"


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _plural(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"


def _text(words: str) -> str:
    return html.escape(words)
