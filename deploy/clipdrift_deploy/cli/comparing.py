"""The command that compares rows: detectors that need more than sums."""

import sys
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_deploy.cli.app import ModelArgument, ProjectOption, app, examples, open_project_at, out, say
from clipdrift_deploy.moments import parse_moment, require_span


@app.command(epilog=examples("drift pump", "drift pump --detector mmd --detector evidently:wasserstein --from 2026-10-01"))
def drift(
    model: ModelArgument,
    project: ProjectOption = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(help="mmd (features together), or Evidently's by name, as evidently:ks. Default: \\[policy.drift] rows."),
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="First moment of the rows. Default: the last 7 windows.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="First moment after them. Default: the newest event.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Compare recorded rows with the first days of the version in service, by detectors that need rows. Starts nothing else."""
    from clipdrift_deploy.row_comparison import order_of  # noqa: PLC0415  the store
    from clipdrift_monitor.evidence.comparison import compare_rows  # noqa: PLC0415

    opened = open_project_at(project)
    start_ms, end_ms = (None if moment is None else parse_moment(moment) for moment in (since, until))
    if start_ms is not None and end_ms is not None:
        require_span(start_ms, end_ms)
    found = compare_rows(order_of(opened, model, tuple(detector or ()), start_ms=start_ms, end_ms=end_ms))
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    if found.findings:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("detector", "feature", "value", "drift", "words"):
            table.add_column(column)
        for one in found.findings:
            value = "" if one.value is None else f"{one.value:.4g}"
            table.add_row(*map(escape, (one.detector, one.feature, value, "yes" if one.is_drift else "no", one.words)))
        out.print(table)
    words = found.words or f"{found.num_current:,} rows against {found.num_reference:,}."
    say(escape(words))
