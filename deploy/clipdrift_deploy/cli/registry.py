"""The commands about versions: which there are, and whether they are what they were."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_contract.clock import format_moment
from clipdrift_deploy.cli.app import ProjectOption, app, examples, open_project_at, out, say

if TYPE_CHECKING:
    from clipdrift_deploy.verifying import VersionReport
    from clipdrift_deploy.versions import VersionRow

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
            signed = f"signed by {one.signed_by}" if one.signed_by else _unknown_signer(one)
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


@app.command(epilog=examples("versions", "versions pump --json", "versions --sync"))
def versions(
    model: AnyModelArgument = None,
    project: ProjectOption = None,
    sync: Annotated[
        bool, typer.Option("--sync", help="Move the registry's aliases to where the monitor's deployments say; show no list.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List versions: which is in service, where each comes from, what the gate said, whether it is signed.

    The registry's aliases champion, canary, shadow and previous follow the monitor's deployments, never the other way round.
    """
    opened = open_project_at(project)
    if model is not None:
        opened.model(model)
    from clipdrift_deploy import versions as found  # noqa: PLC0415  sqlalchemy

    if sync:
        num_moved = 0
        for name, change in found.follow_deployments(opened):
            num_moved += 1
            say(escape(f"{name}: {change.alias} was at {change.before or 'none'}, is at {change.after or 'none'}"))
        say("the aliases stand where the deployments say" if not num_moved else f"{num_moved} aliases moved")
        return
    rows = [row for name in ([model] if model else sorted(opened.file.models)) for row in found.versions_of(opened, name)]
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(rows), indent=2) + "\n")
        return
    if not rows:
        say("no version was trained yet; `clipdrift train` makes the first")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "version", "in service", "trained", "by", "in place of", "gate", "accuracy", "signed"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, _cells(row)))
    out.print(table)


def _cells(row: "VersionRow") -> tuple[str, ...]:
    trained = "not on this machine" if not row.is_here else "no card"
    return (
        row.model,
        row.version,
        ", ".join(row.roles),
        trained if row.trained_at_ms is None else format_moment(row.trained_at_ms),
        "" if row.trained_at_ms is None else f"retrain {row.retrain_key[:_DIGITS]}" if row.retrain_key else "hand",
        row.parent,
        row.gate,
        "" if row.accuracy is None else f"{row.accuracy:.4f}",
        "yes" if row.is_signed else "no",
    )


def _unknown_signer(one: "VersionReport") -> str:
    if not one.has_signature:
        return "unsigned"
    is_bad = any(problem.what == "signature" for problem in one.problems)
    return "its signature does not hold" if is_bad else "signature not checked"
