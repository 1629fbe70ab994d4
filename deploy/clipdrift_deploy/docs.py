"""Writes the reference pages that are made from the code: every setting, every command. `python -m clipdrift_deploy.docs`."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from clipdrift_deploy.cli import app
from clipdrift_deploy.project import ENVIRONMENT_PREFIX, Environment, ModelSection, ProjectSection
from clipdrift_deploy.training import TrainingSection
from clipdrift_deploy.wiring import MONITOR_FILLED, SERVING_FILLED
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_serving.config import ServingConfig

SETTINGS_PAGE = Path("docs/reference/settings.md")
COMMANDS_PAGE = Path("docs/reference/commands.md")
_ROOTS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("project", ProjectSection),
    ("models.NAME", ModelSection),
    ("serving", ServingConfig),
    ("monitor", MonitorConfig),
    ("policy", Policy),
    ("training", TrainingSection),
)
FILLED: dict[type[msgspec.Struct], Collection[str]] = {ServingConfig: SERVING_FILLED, MonitorConfig: MONITOR_FILLED}
"""Fields that Clipdrift fills, so they are no settings."""


def sections() -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Every table of `clipdrift.toml` with the struct that checks it; a table within a table follows it."""
    for name, owner in _ROOTS:
        yield from _with_tables_below(name, owner)


def _with_tables_below(name: str, owner: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    yield name, owner
    for field in _settings(owner):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _with_tables_below(f"{name}.{field.name}", field.type)


def settings_page() -> str:
    """The page of all settings, as Markdown."""
    lines = [
        "# Settings",
        "",
        "Tables of `clipdrift.toml`, and environment variables. An unknown name is an error in both. Names that end in `_ms`",
        "are milliseconds. Made by `make docs` from the structs that check the settings; a test compares the two.",
    ]
    for name, owner in sections():
        lines += ["", f"## `[{name}]`", "", _first_paragraph(owner), "", "| setting | default | meaning |", "|---|---|---|"]
        lines += [f"| `{setting}` | {default} | {meaning} |" for setting, default, meaning in rows_of(owner)]
    lines += ["", "## Environment", "", _first_paragraph(Environment), "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{ENVIRONMENT_PREFIX}{name.upper()}` | {meaning} |" for name, _, meaning in rows_of(Environment)]
    return "\n".join(lines) + "\n"


def rows_of(owner: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each setting; the meaning is the string that stands below the field."""
    meanings = meanings_of(owner)
    for field in _settings(owner):
        words = [meanings.get(field.name, "")]
        if get_origin(field.type) is Literal and "" not in get_args(field.type):
            words.append(f"One of {', '.join(get_args(field.type))}.")
        yield field.name, _default_words(field), " ".join(filter(None, words)).replace("|", "\\|")


def meanings_of(owner: type[msgspec.Struct]) -> dict[str, str]:
    """By field: the string that stands below it, or the comment behind it, in the class or in one that it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            found |= _attribute_docstrings(base)
    return found


def commands_page() -> str:
    """The page of all commands with their options, as Markdown."""
    lines = ["# The `clipdrift` command", "", "Made by `make docs` from the command itself; a test compares the two."]
    for path, command in _walk(typer.main.get_command(app), ()):
        lines += ["", f"## `clipdrift {' '.join(path)}`", "", _plain(command.help), ""]
        lines += ["    " + line.removeprefix("$ ") for line in _plain(command.epilog).splitlines() if line.startswith("$ ")]
        lines += ["", "| argument or option | default | meaning |", "|---|---|---|"]
        lines += [_parameter_row(parameter) for parameter in command.params if parameter.name != "help"]
    return "\n".join(lines) + "\n"


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            yield from _walk(below, (*path, name))
    else:
        yield path, command


def _parameter_row(parameter: Any) -> str:
    names = ", ".join(f"`{_shown_name(parameter, name)}`" for name in parameter.opts)
    has_default = parameter.default not in (None, False, "") and not parameter.required
    default = "required" if parameter.required else f"`{parameter.default}`" if has_default else ""
    return f"| {names} | {default} | {_plain(parameter.help)} |"


def _shown_name(parameter: Any, name: str) -> str:
    return str(parameter.metavar or name) if parameter.param_type_name == "argument" else name


def _plain(text: str | None) -> str:
    """Without the marks for bold and colour, lines joined, paragraphs apart."""
    plain = Text.from_markup(inspect.cleandoc(text or "")).plain
    return "\n".join(paragraph.replace("\n", " ") for paragraph in plain.split("\n\n"))


def _settings(owner: type[msgspec.Struct]) -> Iterator[msgspec.structs.FieldInfo]:
    for field in msgspec.structs.fields(owner):
        if field.name not in FILLED.get(owner, ()):
            yield field


def _attribute_docstrings(owner: type[Any]) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(owner))
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            found[field.target.id] = _string_of(below) or _comment_behind(source, field)
    return found


def _string_of(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str):
        return " ".join(statement.value.value.split())
    return ""


def _comment_behind(source: str, field: ast.AnnAssign) -> str:
    line = source.splitlines()[field.lineno - 1]
    return line.partition("  # ")[2].strip()


def _first_paragraph(owner: type[Any]) -> str:
    words = " ".join(inspect.cleandoc(owner.__doc__ or "").split("\n\n")[0].split())
    without_title = re.sub(r"^`\[[^]]*\]`: ", "", words)
    return without_title[:1].upper() + without_title[1:]


def _default_words(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value: Any = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "see below"
    return f"`{_as_toml(value)}`"


def _as_toml(value: Any) -> str:
    """As it would be written in `clipdrift.toml`.

    Example:
        >>> _as_toml(True), _as_toml((0, 1)), _as_toml("INFO"), _as_toml({})
        ('true', '[0, 1]', '"INFO"', '{}')
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_as_toml, value))}]"
    return str(value)


def main() -> int:
    """Write the pages below the present folder."""
    for path, text in ((SETTINGS_PAGE, settings_page()), (COMMANDS_PAGE, commands_page())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
