"""The commands about the monitor's store."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.markup import escape

from clipdrift_contract.clock import LATEST_MS, SystemClock, format_moment
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.cli.app import ProjectOption, examples, open_project_at, say, store_app
from clipdrift_deploy.moments import parse_moment, require_span
from clipdrift_deploy.wiring import monitor_config

if TYPE_CHECKING:
    from clipdrift_monitor.store.dump import Contents

BROKEN = 3
"""Exit status of `clipdrift store check` where something is wrong."""
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what the store holds; all of that is lost.")]


@store_app.command(epilog=examples("store backup /backup/store-2026-11-25.clipdrift"))
def backup(file: FileArgument, project: ProjectOption = None) -> None:
    """Write the whole store into one file, as it is at one moment. The monitor may go on meanwhile."""
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415
    from clipdrift_monitor.store.dump import back_up  # noqa: PLC0415

    database = Database(open_project_at(project).store_url, migrate=False, must_exist=True)
    contents = back_up(database, file, SystemClock().now_ms())
    say(f"wrote {escape(str(file))}: {_words(contents)}, {contents.num_bytes / 1e6:.1f} MB")


@store_app.command(epilog=examples("store restore /backup/store-2026-11-25.clipdrift", "store restore FILE --force"))
def restore(file: FileArgument, project: ProjectOption = None, force: ForceOption = False) -> None:
    """Make the store what a backup holds, whichever database it was made of. Stop the monitor first."""
    from clipdrift_monitor.store import dump  # noqa: PLC0415
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415

    opened = open_project_at(project)
    opened.state.mkdir(parents=True, exist_ok=True)
    database = Database(opened.store_url, migrate=False)
    contents = dump.restore(database, file, force=force, now_ms=SystemClock().now_ms())
    say(f"restored {_words(contents)}, as of {format_moment(contents.made_at_ms)} UTC")
    say("start the monitor: it reads on from there")


@store_app.command(epilog=examples("store copy postgresql://clipdrift:SECRET@db.example/clipdrift"))
def copy(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of the other database.")],
    project: ProjectOption = None,
    force: ForceOption = False,
) -> None:
    """Copy the store into another database, such as from SQLite to PostgreSQL. Stop the monitor first."""
    from clipdrift_monitor.store import dump  # noqa: PLC0415
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415

    opened = open_project_at(project)
    if url == opened.store_url:
        raise ConfigError("that is the store itself; name the database to copy it to")
    source, target = Database(opened.store_url, migrate=False, must_exist=True), Database(url, migrate=False)
    contents = dump.copy(source, target, force=force, now_ms=SystemClock().now_ms())
    say(f"copied {_words(contents)} to {escape(target.shown)}")
    say("now set \\[project] store_url (or CLIPDRIFT_STORE_URL) to it and start the monitor")


@store_app.command(epilog=examples("store migrate"))
def migrate(project: ProjectOption = None) -> None:
    """Bring the store to this version's schema, as a start of the monitor does; there is no way back but a backup."""
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415

    url = open_project_at(project).store_url
    before = Database(url, migrate=False, must_exist=True).schema_version
    after = Database(url).schema_version
    say(f"the store has schema {after} already" if before == after else f"the store went from schema {before} to {after}")


@store_app.command(epilog=examples("store check", "store check --json"))
def check(
    project: ProjectOption = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False
) -> None:
    """Look whether the store is whole: schema, file, audit log, states. Ends with status 3 where something is wrong."""
    from clipdrift_monitor.store.checking import check as check_store  # noqa: PLC0415
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415

    report = check_store(Database(open_project_at(project).store_url, migrate=False, must_exist=True))
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    else:
        rows = ", ".join(f"{number} {name}" for name, number in report.num_rows.items() if number)
        say(escape(f"schema {report.schema} of {report.newest_schema} on {report.database}: {rows or 'nothing'}"))
        say(f"audit log: {report.audit.num_rows} rows, head {report.audit.head[:16]}...")
        for problem in report.problems:
            say(f"[red]{escape(problem)}[/]")
        if not report.problems:
            say("nothing is wrong")
    if report.problems:
        raise typer.Exit(BROKEN)


@store_app.command(
    epilog=examples(
        "store backfill pumps --from 2026-11-01 --until 2026-11-08", "store backfill pumps --from 2026-11-01 --force"
    )
)
def backfill(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Whose windows.")],
    from_: Annotated[str, typer.Option("--from", metavar="MOMENT", help="First day (UTC) that is rebuilt.")],
    until: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="The day after the last. Default: all that follow.")
    ] = None,
    project: ProjectOption = None,
    force: Annotated[bool, typer.Option("--force", help="Also where the bus holds less than the store.")] = False,
) -> None:
    """Rebuild a model's windows from the bus. Nothing is judged again, and nothing is told. Stop the monitor first."""
    from clipdrift_contract.bus.connect import connect  # noqa: PLC0415
    from clipdrift_monitor.engine.backfill import backfill as rebuild  # noqa: PLC0415
    from clipdrift_monitor.store.store import Store  # noqa: PLC0415

    opened = open_project_at(project)
    config = monitor_config(opened)
    window_ms = config.window_ms
    start_ms = parse_moment(from_) // window_ms * window_ms
    end_ms = (parse_moment(until) if until is not None else LATEST_MS) // window_ms * window_ms
    require_span(start_ms, end_ms)
    found = rebuild(
        connect(opened.bus_url), Store(opened.store_url), model, start_ms=start_ms, end_ms=end_ms, window_ms=window_ms,
        part_ms=config.part_ms, is_forced=force, clock=SystemClock(),
    )  # fmt: skip
    say(
        f"{found.num_windows} windows rebuilt from {found.num_predictions:,} predictions and {found.num_labels:,} labels on "
        f"the bus; {found.num_changed} had other sums"
    )
    if found.num_poison or found.num_without_run:
        say(f"left out: {found.num_poison} batches that do not fit, {found.num_without_run} of versions without a run")


def _words(contents: "Contents") -> str:
    return f"{sum(contents.num_rows.values())} rows of {len(contents.num_rows)} tables (schema {contents.schema})"
