"""The commands that train a model and tell what a training did."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape

from clipdrift_contract.clipping import percent
from clipdrift_contract.clock import SystemClock, format_moment
from clipdrift_deploy.cli.app import ModelArgument, ProjectOption, app, examples, open_project_at, out, say
from clipdrift_deploy.initialise import initialise, split_moment_ms
from clipdrift_deploy.moments import parse_moment
from clipdrift_deploy.pipeline_files import CiName, write_pipeline
from clipdrift_deploy.project import FILE_NAME
from clipdrift_deploy.validation_words import validation_words

SinceOption = Annotated[str, typer.Option("--from", help="First moment of the data, such as 2026-01-01.")]
UntilOption = Annotated[str | None, typer.Option(help="Data end before this moment. Default: now.")]
AsOfOption = Annotated[
    str | None, typer.Option(help="Use only labels that were known at this moment. Default: the same as --until.")
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="MODEL|FILE", help="A model of the project, or a run's JSON Lines file.")
]


@app.command(epilog=examples("init", "init pumps", "init --ci github", "init pumps --ci gitlab"))
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it; made when missing.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    ci: Annotated[
        CiName | None, typer.Option(help="Write the files by which this CI retrains; into a project that is there, only these.")
    ] = None,
) -> None:
    """Write a first project that works as it is: a task, data, a script that sends traffic; or a CI's files for retrains."""
    if ci is None or not (folder / FILE_NAME).exists():
        _write_project(folder, force=force)
    if ci is not None:
        _write_pipeline(folder, ci, force=force)


def _write_project(folder: Path, *, force: bool) -> None:
    for file in initialise(folder, SystemClock().now_ms(), force=force):
        say(f"wrote {escape(str(file))}")
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
    say("\nNext:")
    for step, meaning in steps:
        say(f"  [bold]{escape(step):<{width}}[/]   {meaning}")
    say("\nFor your own model change task.py (rows, network) and clipdrift.toml (name, clipping).")


def _write_pipeline(folder: Path, ci: CiName, *, force: bool) -> None:
    written = write_pipeline(folder, ci, force=force)
    for file in written.files:
        say(f"wrote {escape(str(file))}")
    say(f"\nFor retrains on {ci}:")
    for number, step in enumerate(written.steps, 1):
        say(f"  {number}. {escape(step)}")
    say(f"  {len(written.steps) + 1}. add to {FILE_NAME}, and start the monitor anew:\n")
    say(escape("\n".join(f"     {line}".rstrip() for line in written.settings.splitlines())))


def _span_ms(since: str, until: str | None, as_of: str | None) -> tuple[int, int, int]:
    """Where the data begin and end, and until when a label must have been known; without words for them, now.

    Raises:
        ConfigError: One is no moment.
    """
    start_ms, end_ms = parse_moment(since), parse_moment(until) if until else SystemClock().now_ms()
    return start_ms, end_ms, parse_moment(as_of) if as_of else end_ms


def _command_name() -> str:
    """How this command is called here: its name where the PATH knows it, else how to reach it anyway."""
    if shutil.which("clipdrift"):
        return "clipdrift"
    called = Path(sys.argv[0])
    return shlex.quote(str(called.resolve())) if called.name == "clipdrift" else f"{sys.executable} -m clipdrift_deploy"


@app.command(
    epilog=examples(
        "train pump", "train pump --until 2026-10-01", "train pump --from 2026-01-01 --until 2026-07-01 --as-of 2026-08-01"
    )
)
def train(
    model: ModelArgument,
    project: ProjectOption = None,
    since: SinceOption = "1970-01-01",
    until: UntilOption = None,
    as_of: AsOfOption = None,
    seed: Annotated[int | None, typer.Option(help="Default: the project's.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Serve Prometheus metrics here while it trains.")
    ] = None,
) -> None:
    """Train one version, export it as ONNX, and tell the monitor. The first version of a model goes into service by itself."""
    opened = open_project_at(project)
    opened.model(model)
    from clipdrift_deploy.training import train_model  # noqa: PLC0415  torch takes two seconds that `status` should not pay

    start_ms, end_ms, as_of_ms = _span_ms(since, until, as_of)
    run = train_model(
        opened,
        model,
        start_ms=start_ms,
        end_ms=end_ms,
        as_of_ms=as_of_ms,
        seed=seed,
        metrics_port=metrics_port,
        console=out,
    )
    say(f"[bold]{model}[/] version {run.version}: {escape(validation_words(run))}")
    say(
        f"clipping removed {percent(run.removed_mass_ratio)} of the gradient mass ({percent(run.clip_rate_ratio)} of the "
        f"steps clipped)\n{escape(run.artifact_uri)}"
    )


@app.command(
    epilog=examples(
        "ablate pump --until 2026-10-01",
        "ablate pump --until 2026-10-01 --threshold 0.1 --threshold 1 --rule zclip --seeds 8",
        "ablate pump --until 2026-10-01 --test-from 2026-08-01 --workers 4 --out pump-ablation",
    )
)
def ablate(
    model: ModelArgument,
    project: ProjectOption = None,
    since: SinceOption = "1970-01-01",
    until: UntilOption = None,
    as_of: AsOfOption = None,
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
    opened = open_project_at(project)
    opened.model(model)
    from clipdrift_deploy.ablating import Asked, ablate_model, say_answer  # noqa: PLC0415  torch, as above

    start_ms, end_ms, as_of_ms = _span_ms(since, until, as_of)
    asked = Asked(
        start_ms=start_ms,
        end_ms=end_ms,
        as_of_ms=as_of_ms,
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
    epilog=examples("check-data pump", "check-data pump --until 2026-10-01 --labels", "check-data pump --strict --json"),
)
def check_data(
    model: ModelArgument,
    project: ProjectOption = None,
    since: SinceOption = "1970-01-01",
    until: UntilOption = None,
    as_of: AsOfOption = None,
    labels: Annotated[bool, typer.Option("--labels", help="Look for wrong labels too; some small models are trained.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with status 1 where something warns.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")] = False,
) -> None:
    """Check the rows that a training would take: leaks, duplicates, missing values, rare classes. Status 3: it would stop."""
    opened = open_project_at(project)
    opened.model(model)
    from clipdrift_deploy import data_checks  # noqa: PLC0415  torch

    start_ms, end_ms, as_of_ms = _span_ms(since, until, as_of)
    checks = data_checks.check_data(
        opened,
        model,
        start_ms=start_ms,
        end_ms=end_ms,
        as_of_ms=as_of_ms,
        with_labels=labels,
    )
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(checks), indent=2) + "\n")
    else:
        out.print(data_checks.checks_table(checks))
    raise typer.Exit(data_checks.exit_status(checks, is_strict=strict))


@app.command(epilog=examples("watch pump", "watch runs/pump-20261001T0000.jsonl"))
def watch(
    target: TargetArgument,
    project: ProjectOption = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Planned steps. Default: those of the model's last run.")] = None,
) -> None:
    """Follow a training that runs elsewhere, until it ends: by the project's bus, or by the file that it writes."""
    from clipdrift_deploy import watching  # noqa: PLC0415

    try:
        end = watching.watch(lambda: open_project_at(project), target, out, steps)
    except KeyboardInterrupt:
        return
    say(f"{escape(target)}: ended" + (f", version {escape(end.version)}" if end else ""))


@app.command(
    name="clip-report",
    epilog=examples("clip-report pump", "clip-report pump --run 20261001-abc123", "clip-report runs/pump-20261001T0000.jsonl"),
)
def clip_report(
    target: TargetArgument,
    project: ProjectOption = None,
    run: Annotated[str, typer.Option(help="A version or run id. Default: the newest run.")] = "",
    to: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("clip-report.html"),
) -> None:
    """Write what clipping did in a run as one HTML file: is clipping the problem here, and what else stood out."""
    from clipdrift_deploy.clip_report.report import report_on  # noqa: PLC0415  matplotlib takes a second

    said = report_on(lambda: open_project_at(project), target, run, to)
    say(f"{escape(said)}\nwrote {escape(str(to))}")


@app.command(
    name="run-metrics",
    epilog=examples(
        "run-metrics pump",
        "run-metrics runs/pump-20261001T0000.jsonl --out pump.om",
    )
    + "\n\n$ promtool tsdb create-blocks-from openmetrics run.om /var/lib/prometheus/data",
)
def run_metrics(
    target: TargetArgument,
    project: ProjectOption = None,
    run: Annotated[str, typer.Option(help="A version or run id. Default: the newest run.")] = "",
    to: Annotated[Path, typer.Option("--out", "-o", help="The OpenMetrics file to write.")] = Path("run.om"),
) -> None:
    """Write a run's steps as OpenMetrics, each window at its own time: backfill for a run that no Prometheus scraped."""
    from clipdrift_deploy.clip_report.gathering import record_of  # noqa: PLC0415
    from clipdrift_deploy.run_metrics import write_run_metrics  # noqa: PLC0415

    record = record_of(lambda: open_project_at(project), target, run)
    num_scrapes = write_run_metrics(record, to)
    say(f"{escape(record.run_id)}: {len(record.windows)} windows at {num_scrapes} moments in {escape(str(to))}")
