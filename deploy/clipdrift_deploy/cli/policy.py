"""The commands about policies."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_deploy.cli.app import ProjectOption, app, examples, open_project_at, out, say
from clipdrift_deploy.moments import parse_moment, require_span

policy_app = typer.Typer(
    help="Policies: what the monitor may do on its own.",
    epilog=examples("policy replay --policy careful.toml"),
    no_args_is_help=True,
)
app.add_typer(policy_app, name="policy")


@policy_app.command(
    epilog=examples(
        "policy replay --policy careful.toml", "policy replay --policy careful.toml --from 2026-09-01 --out replay.html"
    )
)
def replay(
    project: ProjectOption = None,
    policy: Annotated[
        Path | None, typer.Option(help="A TOML file with a table \\[policy]. Default: the project's own settings.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; once for each. Default: all.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="First moment to tell of, such as 2026-09-01.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="First moment not to tell of.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Every block, also where both do the same.")] = False,
    to: Annotated[Path | None, typer.Option("--out", "-o", help="Write a page with a picture to this HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Show what a policy would have decided over the history that the monitor has kept. Nothing is ordered.

    The alarms are those that were raised; what follows from them is decided anew, block by block, under the policy given.
    """
    from clipdrift_deploy.policy_replay import gathering, report  # noqa: PLC0415  the store and matplotlib
    from clipdrift_monitor.decisions import replay as replaying  # noqa: PLC0415

    opened = open_project_at(project)
    start_ms = 0 if since is None else parse_moment(since)
    end_ms = None if until is None else parse_moment(until)
    if end_ms is not None:
        require_span(start_ms, end_ms)
    tried = gathering.read_policy(opened, policy)
    told = [
        replaying.replay(past, tried, start_ms=start_ms, end_ms=end_ms)
        for past in gathering.read_past(opened, tuple(model or ()))
    ]
    if to is not None:
        report.write_page(to, told, str(policy) if policy is not None else f"{opened.name}'s own")
    if as_json:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return
    rows = [row for one in told for row in report.rows_of(one, is_all=is_all)]
    if rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in report.COLUMNS:
            table.add_column(column, no_wrap=column in ("when (UTC)", "done"))
        for *cells, why in rows:
            table.add_row(*map(escape, (*cells, why.partition(":")[0])))  # its figures have columns of their own
        out.print(table)
    for one in told:
        say(escape(f"{replaying.in_a_sentence(one)}."))
    for words in dict.fromkeys(words for one in told for words in one.cannot_know):
        say(escape(f"Not known: {words}"))
    if to is not None:
        say(f"wrote {escape(str(to))}")
