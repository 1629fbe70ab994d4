"""The commands that run for ever: serving, monitor, both; and the keys to serving."""

import datetime
import signal
import sys
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy import up as processes
from clipdrift_deploy.cli.app import HostOption, PortOption, ProjectOption, app, examples, open_project_at, out, say
from clipdrift_deploy.project import Project


@app.command(epilog=examples("serve", "serve --project pumps --port 8080 --admin-port 8081"))
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

    opened = open_project_at(project, log_level="INFO")
    wiring.serve(opened, host=host, port=port, admin_host=admin_host, admin_port=admin_port)


@app.command(epilog=examples("key billing --scope infer --scope feedback", "key on-call --scope read --scope respond"))
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What logs call its holder.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="Its use: infer, feedback, admin, read; monitor: read, respond, operate, approve, report. Once for each."
        ),
    ],
    model: Annotated[list[str] | None, typer.Option(help="Only these models (* and ? may stand in it). Default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="Its last day, such as 2027-01-31. Default: none.")] = None,
) -> None:
    """Make an API key: shown once, with the lines for the file that `api_keys_file` of `\\[serving]` or `\\[monitor]` names."""
    from clipdrift_contract.access.keys import make_key, show_once  # noqa: PLC0415

    try:
        last_day = datetime.date.fromisoformat(expires) if expires else None
    except ValueError as error:
        raise ConfigError(f"--expires is a day such as 2027-01-31, got {expires!r}") from error
    try:
        made = make_key(name, cast(Any, scope), model or (), last_day)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    show_once(made, sys.stdout)


@app.command(epilog=examples("monitor", "monitor --project pumps --port 8090"))
def monitor(project: ProjectOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Watch the models, decide, order retrains, and show the status page. Runs until it is told to end."""
    from clipdrift_deploy import wiring  # noqa: PLC0415

    wiring.monitor(open_project_at(project, log_level="INFO"), host=host, port=port)


@app.command(epilog=examples("up", "up --train", "up --project pumps"))
def up(
    project: ProjectOption = None,
    train_first: Annotated[bool, typer.Option("--train", help="Train models that were never trained, on all data.")] = False,
) -> None:
    """Everything in one command: serving, monitor and status page. What crashes is started again. Ctrl-C ends it."""
    opened = open_project_at(project)
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
            say(escape(_addresses(opened, running)))
            processes.keep_running(running, lambda line: say(escape(line)))
    except KeyboardInterrupt:
        say("ended")


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
