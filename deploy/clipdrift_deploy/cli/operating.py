"""The commands that ask the monitor, or order it to do something."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_contract.clock import SystemClock, format_moment
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy import monitor_client
from clipdrift_deploy.cli.app import ModelArgument, ProjectOption, WhyOption, app, examples, open_project_at, out, say
from clipdrift_deploy.project import Project


@app.command(epilog=examples("status", "status --json"))
def status(
    project: ProjectOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Show each model's version, live accuracy, alarms, and what the monitor makes of it."""
    with monitor_client.connect(open_project_at(project)) as client:
        models = client.models()
    if as_json:
        sys.stdout.write(json.dumps(models, indent=2) + "\n")
        return
    if not models:
        say("no model is known yet; train one with `clipdrift train MODEL`")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in monitor_client.STATUS_COLUMNS:
        table.add_column(column, no_wrap=column != "clipping")
    for model in models:
        table.add_row(*map(escape, monitor_client.status_row(model)))
    out.print(table)
    for model in models:
        for line in monitor_client.status_words(model):
            say(escape(line))


@app.command(epilog=examples("report", "report --out pumps.html"))
def report(
    project: ProjectOption = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("clipdrift-report.html"),
) -> None:
    """Write what the status pages show as one HTML file that needs no server."""
    opened = open_project_at(project)
    note = f"Written by clipdrift report, {format_moment(SystemClock().now_ms())} UTC."
    with monitor_client.connect(opened) as client:
        num_models = client.save_report(to, opened.name, note)
    say(f"wrote {escape(str(to))} ({num_models} model{'' if num_models == 1 else 's'})")


@app.command(epilog=examples("rollback pump --why 'customers complain since noon'"))
def rollback(model: ModelArgument, why: WhyOption, project: ProjectOption = None) -> None:
    """Put the previous version back into service, at once, and keep the present one out."""
    opened = open_project_at(project)
    opened.model(model)
    with monitor_client.connect(opened) as client:
        answer = client.rollback(model, why)
    say(f"{model}: version {answer['version']} is ordered into service (generation {answer['generation']})")


@app.command(
    epilog=examples(
        "retrain pump --why 'the supplier changed the sensor'",
        "retrain --job .clipdrift/jobs/KEY",
        'retrain "$MODEL" --key "$KEY" --attempt "$ATTEMPT"',
    )
)
def retrain(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model to retrain now, by order of a person.")] = None,
    project: ProjectOption = None,
    why: WhyOption = "",
    job: Annotated[Path | None, typer.Option(help="Carry out the order in this job folder (what the monitor starts).")] = None,
    key: Annotated[str, typer.Option(help="Carry out the order with this key, asked of the monitor (what a CI runs).")] = "",
    attempt: Annotated[int, typer.Option(min=1, help="Of an order with --key: which try the CI was told it is.")] = 1,
    report_to: Annotated[
        Path, typer.Option("--report", help="Of an order with --key: folder for summary, pages and plots.")
    ] = Path("report"),
) -> None:
    """Order a retrain of a model, or carry out one that was ordered (--job on this machine, --key in a CI).

    With --key the status is 0: passed, or nothing to do; 3: the gate failed; 4: inconclusive; 5: cancelled, or no longer ours;
    2: settings, or the monitor refused; 1: no outcome.
    """
    if key and model is not None and job is None and not why:
        _carry_out_in_ci(open_project_at(project, log_level="INFO"), model, key, attempt, report_to)
        return
    opened = open_project_at(project, log_level="INFO" if job else "WARNING")
    if job is not None and model is None and not key:
        _carry_out(opened, job)
    elif model is not None and job is None and not key:
        opened.model(model)
        if not why:
            raise ConfigError("a retrain ordered by a person needs a reason: --why '...'")
        with monitor_client.connect(opened) as client:
            answer = client.order_retrain(model, why)
        asked = answer.get("approval")
        then = (
            f"another person agrees first: `clipdrift approvals show {asked}`" if asked else "follow it with `clipdrift status`"
        )
        say(f"{'asked for' if asked else 'ordered'}: {answer['key']}; {then}")
    else:
        raise ConfigError(
            "name either a MODEL to order a retrain of, --job FOLDER to carry one out, or a MODEL and --key KEY to carry one "
            "out in a CI"
        )


@app.command(epilog=examples("cancel 9dfdb5c29b88fd08ba7bb06be18f0e52 --why 'it takes too long'"))
def cancel(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Of the retrain, as `clipdrift retrain` and the pages say it.")],
    why: WhyOption,
    project: ProjectOption = None,
) -> None:
    """End a retrain that was ordered: its run in the CI is stopped, and nobody waits for it any more."""
    with monitor_client.connect(open_project_at(project)) as client:
        client.cancel_retrain(key, why)
    say(f"{escape(key)}: cancelled; its run is ended as soon as the CI can be asked")


def _carry_out(project: Project, job: Path) -> None:
    from clipdrift_deploy.training import carry_out  # noqa: PLC0415

    outcome = carry_out(project, job)
    if outcome is None:
        say("another process is carrying it out")
    else:
        say(escape(f"{outcome.verdict}: {'; '.join(outcome.reasons)}"))


def _carry_out_in_ci(project: Project, model: str, key: str, attempt: int, report: Path) -> None:
    from clipdrift_deploy.ci_job.start import start_job  # noqa: PLC0415  matplotlib

    project.model(model)
    ended = start_job(project, model, key, attempt, report, os.environ)
    say(escape(ended.words))
    raise typer.Exit(ended.status)
