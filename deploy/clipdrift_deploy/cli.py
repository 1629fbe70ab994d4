"""The `clipdrift` command. Each subcommand translates words into one call and an error into one sentence; nothing is decided
here."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_deploy import monitor_client
from clipdrift_deploy import up as processes
from clipdrift_deploy.initialise import initialise, split_moment_ms
from clipdrift_deploy.moments import format_moment, parse_moment
from clipdrift_deploy.project import Project, open_project, read_environment

app = typer.Typer(
    name="clipdrift",
    help="Watches models that were trained with gradient clipping, and repairs them before their users notice.\n\n"
    "Start with [bold]clipdrift demo[/] (the whole loop on real flights) or [bold]clipdrift init[/] (your own model).",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
dashboards_app = typer.Typer(help="Grafana dashboards and Prometheus rules, built as files.", no_args_is_help=True)
app.add_typer(dashboards_app, name="dashboards")

out = Console()
err = Console(stderr=True)

ProjectOption = Annotated[
    Path | None, typer.Option("--project", "-p", help="The project's folder. Default: $CLIPDRIFT_PROJECT, else here.")
]
ModelArgument = Annotated[str, typer.Argument(help="A model's name, as in \\[models.NAME] of clipdrift.toml.")]
PortOption = Annotated[int | None, typer.Option(help="Port to listen on. Default: the project's.")]


def _open(folder: Path | None) -> Project:
    environment = read_environment(os.environ)
    logging.basicConfig(level=environment.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return open_project(folder or Path(environment.project), environment)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write it; made when missing.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write a first project that works as it is: a task, data, a script that sends traffic."""
    files = initialise(folder, SystemClock().now_ms(), force=force)
    where = "" if folder == Path() else f" in {folder}"
    until = format_moment(split_moment_ms(folder))[:10]
    for file in files:
        out.print(f"wrote {file}", highlight=False)
    python = Path(sys.executable).name
    steps = (
        (f"clipdrift train pump --until {until}", "train the first version (some seconds)"),
        ("clipdrift up", "serve and watch it; keep this terminal open"),
        (f"{python} send.py", "in a second terminal: a month of traffic and its labels"),
    )
    out.print(f"\nNext:{where}")
    for command, meaning in steps:
        out.print(f"  [bold]{command:<42}[/] {meaning}", highlight=False)
    out.print("Then open the status page that `clipdrift up` named. Your own model: change task.py and clipdrift.toml.")


@app.command()
def train(
    model: ModelArgument,
    project: ProjectOption = None,
    since: Annotated[str, typer.Option("--from", help="First moment of the data, such as 2013-01-01.")] = "1970-01-01",
    until: Annotated[str | None, typer.Option(help="Data end before this moment. Default: now.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Use only labels that were known at this moment. Default: the same as --until.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the project's.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus metrics here while it trains.")] = None,
) -> None:
    """Train one version, export it as ONNX, and tell the monitor. The first version of a model goes into service by itself."""
    from clipdrift_deploy.training import train_model  # noqa: PLC0415  torch takes two seconds that `status` should not pay

    opened = _open(project)
    until_ms = parse_moment(until) if until else SystemClock().now_ms()
    run = train_model(
        opened,
        model,
        start_ms=parse_moment(since),
        end_ms=until_ms,
        as_of_ms=parse_moment(as_of) if as_of else until_ms,
        seed=seed,
        metrics_port=metrics_port,
        console=out,
    )
    overall = run.validation[0]
    out.print(
        f"[bold]{model}[/] version {run.version}: accuracy {overall.num_correct / max(1, overall.num_rows):.3f} "
        f"on {overall.num_rows:,} held-out rows; clipping removed {run.removed_mass_ratio:.0%} of the gradient mass "
        f"({run.clip_rate_ratio:.0%} of steps clipped)\n{run.artifact_uri}",
        highlight=False,
    )


@app.command()
def serve(
    project: ProjectOption = None,
    port: PortOption = None,
    admin_port: Annotated[int | None, typer.Option(help="Port of the admin listener.")] = None,
) -> None:
    """Serve the models (Open Inference Protocol v2) and record predictions and labels. Runs until it is told to end."""
    from clipdrift_deploy import wiring  # noqa: PLC0415

    wiring.serve(_open(project), port=port, admin_port=admin_port)


@app.command()
def monitor(project: ProjectOption = None, port: PortOption = None) -> None:
    """Watch the models, decide, order retrains, and show the status page. Runs until it is told to end."""
    from clipdrift_deploy import wiring  # noqa: PLC0415

    wiring.monitor(_open(project), port=port)


@app.command()
def retrain(
    model: Annotated[str | None, typer.Argument(help="A model to retrain now, by order of a person.")] = None,
    project: ProjectOption = None,
    why: Annotated[str, typer.Option(help="The reason, kept in the record.")] = "",
    job: Annotated[Path | None, typer.Option(help="Carry out the order in this job folder (what CI runs).")] = None,
) -> None:
    """Order a retrain of a model, or carry out one that was ordered (--job)."""
    opened = _open(project)
    if (job is None) == (model is None):
        raise ConfigError("name either a MODEL to order a retrain of, or --job FOLDER to carry one out")
    if job is not None:
        from clipdrift_deploy.training import carry_out  # noqa: PLC0415

        outcome = carry_out(opened, job)
        words = "another process is carrying it out" if outcome is None else f"{outcome.verdict}: {'; '.join(outcome.reasons)}"
        out.print(words, highlight=False)
        return
    if not why:
        raise ConfigError("a retrain ordered by a person needs a reason: --why '...'")
    assert model is not None
    opened.model(model)
    with monitor_client.connect(opened) as client:
        answer = client.order_retrain(model, why)
    out.print(f"ordered: {answer['key']}; follow it with `clipdrift status`")


@app.command()
def up(
    project: ProjectOption = None,
    train_first: Annotated[bool, typer.Option("--train", help="Train models that were never trained, on all data.")] = False,
) -> None:
    """Everything in one command: serving, monitor and status page. Ctrl-C ends it."""
    opened = _open(project)
    if train_first:
        from clipdrift_deploy.training import train_missing  # noqa: PLC0415

        train_missing(opened, SystemClock().now_ms(), out)
    with processes.start(opened, ports=processes.configured_ports(opened)) as running:
        out.print(
            f"status page  [bold]{running.monitor_url}[/]\npredictions  {running.serving_url}/v2/models/"
            f"{next(iter(opened.file.models))}/infer\nadmin        {running.serving_admin_url} (token in "
            f"{opened.state / 'secrets.json'})\nlogs         {opened.logs}\nCtrl-C ends it.",
            highlight=False,
        )
        _wait_until_ended(running)


def _wait_until_ended(running: processes.Running) -> None:
    try:
        while not (ended := running.ended()):
            time.sleep(0.5)
    except KeyboardInterrupt:
        out.print("ending ...")
        return
    name, code = next(iter(ended.items()))
    raise processes.StartError(f"{name} ended by itself with status {code}; see {running.project.logs / f'{name}.log'}")


@app.command()
def status(
    project: ProjectOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Show each model's version, live accuracy, alarms, and what the monitor makes of it."""
    with monitor_client.connect(_open(project)) as client:
        models = client.models()
    if as_json:
        sys.stdout.write(json.dumps(models, indent=2) + "\n")
        return
    table = Table("model", "version", "state", "live accuracy", "labels", "clipping", "retrain")
    for model in models:
        table.add_row(*monitor_client.status_row(model))
    out.print(table if models else "no model is known yet; train one with `clipdrift train MODEL`")


@app.command()
def report(
    project: ProjectOption = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("clipdrift-report.html"),
) -> None:
    """Write what the status pages show as one HTML file that needs no server."""
    opened = _open(project)
    with monitor_client.connect(opened) as client:
        pages = client.save_report(to, opened.name)
    out.print(f"wrote {to} ({pages} models)")


@app.command()
def rollback(
    model: ModelArgument,
    why: Annotated[str, typer.Option(help="The reason, kept in the record.")],
    project: ProjectOption = None,
) -> None:
    """Put the previous version back into service, at once, and keep the present one out."""
    opened = _open(project)
    opened.model(model)
    with monitor_client.connect(opened) as client:
        answer = client.rollback(model, why)
    out.print(f"{model}: version {answer['version']} is ordered into service (generation {answer['generation']})")


@app.command()
def demo(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for results and state.")] = Path("build/demo"),
    keep_open: Annotated[bool, typer.Option("--keep-open", help="Keep the status page up when it has ended.")] = False,
) -> None:
    """The whole loop on real flights of 2013: two models decay, are found out, and are repaired. About four minutes."""
    from clipdrift_deploy.demo.run import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(to, keep_open=keep_open))


@dashboards_app.command("build")
def dashboards_build(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("dashboards/generated"),
) -> None:
    """Write the Grafana dashboards (JSON) and the Prometheus rules (YAML)."""
    from clipdrift_dashboards.build import build  # noqa: PLC0415

    for path in build(to):
        out.print(f"wrote {path}", highlight=False)


def fail(message: str) -> NoReturn:
    """One sentence on standard error, exit status 2."""
    err.print(f"[red]clipdrift:[/] {message}", highlight=False, soft_wrap=True)
    sys.exit(2)


def main() -> None:
    """Entry point of the `clipdrift` command."""
    try:
        app()
    except ClipdriftError as error:
        fail(str(error).replace("[", "\\["))
