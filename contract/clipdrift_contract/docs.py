"""Writes the reference pages that are made from the code: every event, every metric. `python -m clipdrift_contract.docs`."""

import ast
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from clipdrift_contract import events
from clipdrift_contract.envelope import TYPE_PREFIX
from clipdrift_contract.events import Event
from clipdrift_contract.metrics import METRICS, Metric

SCHEMA_FOLDER = Path("docs/reference/events")
EVENTS_PAGE = Path("docs/reference/events.md")
METRICS_PAGE = Path("docs/reference/metrics.md")
EVENT_TYPES: tuple[type[msgspec.Struct], ...] = get_args(Event)
_KEY_WORDS = {events.PREDICTIONS: "model/epoch", events.LABELS: "model/epoch"}
_COMPONENTS = {
    "trainer": ("Trainer", "Scraped while a run lasts."),
    "serving": ("Serving", "On the admin listener of each serving process."),
    "model": ("Models", "Exported by the monitor, the one exporter of figures about models."),
    "monitor": ("Monitor", "About the monitor itself."),
    "bus": ("Bus", "By every process that reads the bus."),
}


def pages() -> dict[Path, str]:
    """Every generated page of this package by its path below the repository's root."""
    made = {SCHEMA_FOLDER / f"{kind.__name__}.json": schema_page(kind) for kind in EVENT_TYPES}
    return {**made, EVENTS_PAGE: events_page(), METRICS_PAGE: metrics_page()}


def schema_page(kind: type[msgspec.Struct]) -> str:
    """JSON Schema (2020-12) of an event's JSON form."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TYPE_PREFIX + kind.__name__,
        **msgspec.json.schema(kind),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def events_page() -> str:
    """The page of all events and of the structures within them, as Markdown."""
    lines = [
        "# Events",
        "",
        "What crosses the bus. Each record's value is one event, in msgpack (`content-type: application/msgpack`) or JSON",
        "(`application/json`); its CloudEvents 1.0 attributes are headers: `ce_specversion`, `ce_id`, `ce_source`, `ce_type`",
        f"(`{TYPE_PREFIX}` and the event's name), `ce_time`, `ce_subject` (the model). Fields are only ever added, each with a",
        "default. Times ending in `_ms` are milliseconds since 1970 UTC. Where the meaning is empty, the name says it.",
        f"What cannot be read is parked on `{events.POISON}` with the headers `poison_reason` and `poison_origin`.",
        "",
        "Made by `make docs` from the code; a test compares the two.",
        "",
        "| event | topic | key | what it holds | schema |",
        "|---|---|---|---|---|",
    ]
    for kind in EVENT_TYPES:
        topic = events.TOPIC_OF[kind]
        name = kind.__name__
        lines.append(
            f"| [{name}](#{name.lower()}) | `{topic}` | {_KEY_WORDS.get(topic, 'model')} | {_sentence(kind)} "
            f"| [{name}.json](events/{name}.json) |"
        )
    for kind in EVENT_TYPES:
        lines += _section(kind)
    lines += ["", "# Structures within events"]
    for kind in _inner_types():
        lines += _section(kind)
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """The page of all metrics by component, as Markdown."""
    lines = [
        "# Metrics",
        "",
        "The closed list: Clipdrift exports these and no others, and dashboards and alert rules query nothing else.",
        "Base units; ratios are in 0..1; counters end in `_total`.",
        "",
        "Made by `make docs` from the code; a test compares the two.",
    ]
    by_component: dict[str, list[Metric]] = defaultdict(list)
    for metric in METRICS:
        by_component[metric.name.split("_")[1]].append(metric)
    for component, found in by_component.items():
        title, words = _COMPONENTS[component]
        lines += ["", f"## {title}", "", words, "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
        for metric in found:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(metric.help)} |")
    return "\n".join(lines) + "\n"


def meanings_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """By field: the comment behind it in the source, where there is one."""
    source = inspect.getsource(kind)
    lines = source.splitlines()
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno is not None:
            behind = re.search(r"#\s*(?!noqa|fmt)(.+)$", lines[node.end_lineno - 1][node.end_col_offset :])
            found[node.target.id] = behind.group(1) if behind else ""
    return found


def _section(kind: type[msgspec.Struct]) -> list[str]:
    lines = ["", f"## {kind.__name__}", "", *_docstring(kind), "| field | type | default | meaning |", "|---|---|---|---|"]
    meanings = meanings_of(kind)
    for field in msgspec.structs.fields(kind):
        default = "required" if field.required else _default(field)
        lines.append(f"| `{field.name}` | {_type_words(field.type)} | {default} | {_cell(meanings.get(field.name, ''))} |")
    return lines


def _inner_types() -> list[type[msgspec.Struct]]:
    """Every struct within an event, in the order in which a reader meets it."""
    found: dict[type[msgspec.Struct], None] = {}
    waiting = list(EVENT_TYPES)
    while waiting:
        for field in msgspec.structs.fields(waiting.pop(0)):
            for inner in _structs_in(field.type):
                if inner not in found and inner not in EVENT_TYPES:
                    found[inner] = None
                    waiting.append(inner)
    return list(found)


def _structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    if get_origin(kind) is not Literal:
        for inner in get_args(kind):
            yield from _structs_in(inner)


_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", bytes: "bytes (JSON: base64)", type(None): "null"}


def _type_words(kind: Any) -> str:
    """The type as a reader of the wire sees it."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in inner)
    words = [_type_words(one) for one in inner if one is not Ellipsis]
    if origin is tuple:
        return f"list of {words[0]}"
    if origin is dict:
        return f"map of {words[0]} to {words[1]}"
    return " or ".join(words) if inner else f"[{kind.__name__}](#{kind.__name__.lower()})"


def _default(field: "msgspec.structs.FieldInfo") -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "its own defaults"
    return f"`{msgspec.json.encode(value).decode()}`"


def _docstring(kind: type[msgspec.Struct]) -> list[str]:
    """The prose of its docstring; msgspec gives a struct without one a signature instead, which says nothing."""
    words = inspect.cleandoc(kind.__doc__ or "").split("\n\nExample:")[0]
    return [] if words.startswith(f"{kind.__name__}(") or not words else [*words.splitlines(), ""]


def _sentence(kind: type[msgspec.Struct]) -> str:
    words = " ".join(_docstring(kind)).strip()
    return _cell(re.split(r"(?<=\.) ", words)[0])


def _cell(words: str) -> str:
    return re.sub(r"([|*<])", r"\\\1", words)


def main() -> None:
    """Write the pages below the working directory, which must be the repository's root."""
    if not SCHEMA_FOLDER.parent.is_dir():
        sys.exit(f"run this at the root of the repository: there is no {SCHEMA_FOLDER.parent} here")
    SCHEMA_FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
