"""The commands about versions: which there are, and whether they are what they were."""

import json
import sys
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from clipdrift_deploy.cli.app import ProjectOption, app, examples, open_project_at, say

BROKEN = 3
"""Exit status of `clipdrift verify` where something is wrong."""
_DIGITS = 16
AnyModelArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model. Default: all of the project.")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]


@app.command(epilog=examples("verify", "verify pump", "verify pump --version 20261101-abc123 --json"))
def verify(
    model: AnyModelArgument = None,
    project: ProjectOption = None,
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    audit_head: Annotated[
        str, typer.Option(help="Hash of the audit log's newest row at an earlier look: no row may have been cut off since.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Look whether versions, approvals and the audit log are what they were. Names what was changed, and ends with status 3."""
    opened = open_project_at(project)
    if model is not None:
        opened.model(model)
    from clipdrift_deploy.verifying import verify_project  # noqa: PLC0415  sqlalchemy, and the packages that check signatures

    report = verify_project(opened, model, version, audit_head)
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    else:
        for one in report.versions:
            signed = (
                f"signed by {one.signed_by}" if one.signed_by else "signature not checked" if _has(one.notes) else "unsigned"
            )
            state = "[red]not what it was[/]" if one.problems else "as it was made"
            say(f"{escape(one.model)} {escape(one.version)}: {state}, {one.num_files} files, {escape(signed)}")
            for problem in one.problems:
                say(f"  [red]{escape(problem.words)}[/]")
            for note in one.notes:
                say(f"  {escape(note)}")
        for problem in report.problems:
            say(f"[red]{escape(problem.words)}[/]")
        for note in report.notes:
            say(escape(note))
        if report.audit_head:
            say(f"audit log: {report.num_audit_rows} rows, head {report.audit_head}")
        say("nothing is wrong" if report.is_sound else "[red]something was changed[/]")
    if not report.is_sound:
        raise typer.Exit(BROKEN)


def _has(notes: tuple[str, ...]) -> bool:
    return any(note.startswith("it is signed") for note in notes)
