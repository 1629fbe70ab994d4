"""Writes the reference pages that are made from the code: every setting, every command. `python -m clipdrift_deploy.docs`."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import typer
from click import Command, Group

from clipdrift_deploy.cli import app
from clipdrift_deploy.project import ENVIRONMENT_PREFIX, Environment, ModelSection, ProjectSection

SETTINGS_PAGE = Path("docs/reference/settings.md")
COMMANDS_PAGE = Path("docs/reference/commands.md")


def owners() -> tuple[tuple[str, type[msgspec.Struct]], ...]:
    """Every table of `clipdrift.toml` with the struct that checks it."""
    from clipdrift_deploy.wiring import SECTIONS  # noqa: PLC0415  needs every component

    return (("[project]", ProjectSection), ("[models.NAME]", ModelSection), *SECTIONS)


def settings_page() -> str:
    """The page of all settings, as Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from the structs that check them; a test compares the two. An unknown name is an error, in the",
        "file and in the environment. Times in `_ms` are milliseconds.",
    ]
    for title, owner in owners():
        lines += ["", f"## `{title}`", "", _first_paragraph(owner), "", "| setting | default | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in rows_of(owner)]
    lines += ["", "## Environment", "", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{ENVIRONMENT_PREFIX}{name.upper()}` | {meaning} |" for name, _, meaning in rows_of(Environment)]
    return "\n".join(lines) + "\n"


def rows_of(owner: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each field; the meaning is the string that stands below the field."""
    meanings = _attribute_docstrings(owner)
    for field in msgspec.structs.fields(owner):
        default: Any = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        shown = "required" if default is msgspec.NODEFAULT else f"`{_shown(default)}`"
        yield field.name, shown, meanings.get(field.name, "")


def commands_page() -> str:
    """The page of all commands with their options, as Markdown."""
    root = typer.main.get_command(app)
    assert isinstance(root, Group)
    lines = ["# The `clipdrift` command", "", "Made by `make docs` from the command itself."]
    for path, command in _walk(root, ()):
        help_text = inspect.cleandoc(command.help or "").replace("\\[", "[")
        lines += ["", f"## `clipdrift {' '.join(path)}`", "", help_text, "", "| argument or option | meaning |", "|---|---|"]
        for parameter in command.params:
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts) if name != "--help")
            meaning = (getattr(parameter, "help", None) or "").replace("\\[", "[")
            if names:
                lines.append(f"| {names} | {meaning} |")
    return "\n".join(lines) + "\n"


def _walk(group: Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        if isinstance(command, Group):
            yield from _walk(command, (*path, name))
        else:
            yield (*path, name), command


def _attribute_docstrings(owner: type[msgspec.Struct]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    body = tree.body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            assert isinstance(below, ast.Expr)
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _first_paragraph(owner: type[Any]) -> str:
    return " ".join(inspect.cleandoc(owner.__doc__ or "").split("\n\n")[0].split())


def _shown(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value) if isinstance(value, str | Path) else repr(value)


def main() -> int:
    """Write the pages below the present folder."""
    for path, text in ((SETTINGS_PAGE, settings_page()), (COMMANDS_PAGE, commands_page())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
