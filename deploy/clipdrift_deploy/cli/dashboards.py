"""Dashboards and rules: built as files, checked, brought into a Grafana, and fetched from one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_contract.errors import ClipdriftError
from clipdrift_deploy.cli.app import ProjectOption, app, examples, open_project_at, out, say

if TYPE_CHECKING:
    from clipdrift_dashboards.links import Links

dashboards_app = typer.Typer(
    help="Grafana dashboards and Prometheus rules: built as files, checked, published.\n\n"
    "Files are the default: Grafana reads dashboards from a folder (provisioning), Prometheus reads rules from a file. "
    "`publish` brings the same into a Grafana that you reach only by its API.",
    epilog=examples("dashboards build --out /etc/clipdrift/dashboards", "dashboards publish --dry-run"),
    no_args_is_help=True,
)
app.add_typer(dashboards_app, name="dashboards")

GENERATED = Path("dashboards/generated")
GrafanaUrlOption = Annotated[
    str, typer.Option("--grafana-url", envvar="GRAFANA_URL", help="As people's browsers and this command reach Grafana.")
]
MonitorUrlOption = Annotated[str, typer.Option("--monitor-url", help="As people's browsers reach the monitor's status page.")]
RunbooksUrlOption = Annotated[str, typer.Option("--runbooks-url", help="The folder of runbooks, as your team reads it.")]
TokenOption = Annotated[
    str,
    typer.Option("--token", envvar="GRAFANA_TOKEN", show_envvar=True, help="Of a service account with the role Editor. Better "
                 "given by the environment than here."),
]  # fmt: skip
_GRAFANA, _MONITOR, _SERVING = "http://localhost:3000", "http://localhost:8090", "http://localhost:8081"
_RUNBOOKS = "docs/runbooks"
_SIGNS = {"create": "+", "update": "~", "keep": "=", "conflict": "!", "refuse": "!"}
_COLOURS = {"create": "green", "update": "yellow", "keep": "dim", "conflict": "red", "refuse": "red"}


@dashboards_app.command(
    "build", epilog=examples("dashboards build --out /etc/clipdrift/dashboards", "dashboards build --schema v2")
)
def build(
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = GENERATED,
    schema: Annotated[
        Literal["v1", "v2"], typer.Option(help="v1: what Grafana 10 to 13 read. v2: what Grafana 13 writes; dashboards only.")
    ] = "v1",
    grafana_url: GrafanaUrlOption = _GRAFANA,
    monitor_url: MonitorUrlOption = _MONITOR,
    runbooks_url: RunbooksUrlOption = _RUNBOOKS,
    failed_budget: Annotated[
        float, typer.Option(help="Share of 30 days' requests that may fail; alerts tell when it goes too fast.")
    ] = 0.01,
    wrong_budget: Annotated[
        float | None, typer.Option(help="Share of labelled answers that may be wrong. Default: no such alert.")
    ] = None,
) -> None:
    """Write the Grafana dashboards (JSON) and the Prometheus rules (YAML).

    Links in them lead where the options say: build them once for your own addresses. A budget whose alerts could never fire is
    refused.
    """
    from clipdrift_dashboards.build import build as build_files  # noqa: PLC0415
    from clipdrift_dashboards.rules import Objectives  # noqa: PLC0415
    from clipdrift_dashboards.schema_v2 import build_v2  # noqa: PLC0415

    links = _links(grafana_url, monitor_url, runbooks_url)
    objectives = Objectives(failed_requests=failed_budget, wrong_answers=wrong_budget)
    for path in build_files(to, links, objectives) if schema == "v1" else build_v2(to, links):
        say(f"wrote {escape(str(path))}")


@dashboards_app.command(
    "check",
    epilog=examples("dashboards check", "dashboards check our-copy/model.json", "dashboards check /etc/grafana/dashboards"),
)
def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Files, or folders of them. Default: dashboards/generated.")
    ] = None,
) -> None:
    """Hold dashboards against Grafana's types, PromQL, the list of metrics and our own rules. Status 1: something is wrong."""
    from clipdrift_dashboards.linting import findings  # noqa: PLC0415

    files = _json_files(paths or [GENERATED])
    num_found = 0
    for path in files:
        try:
            board = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ClipdriftError(f"{path} is no readable JSON: {error}") from error
        for one in findings(board):
            num_found += 1
            say(f"{escape(str(path))}: {escape(str(one))}")
    say(f"{len(files)} dashboards, {num_found or 'no'} findings")
    raise typer.Exit(1 if num_found else 0)


@dashboards_app.command(
    "publish",
    epilog=examples(
        "dashboards publish --dry-run",
        "dashboards publish --datasource prometheus --alerts --contact-points contacts.yml",
        "dashboards publish --datasource prometheus --prometheus-url http://prometheus:9090",
    ),
)
def publish(
    grafana_url: GrafanaUrlOption = _GRAFANA,
    token: TokenOption = "",
    folder: Annotated[str, typer.Option(help="Uid of the folder for dashboards and alert rules.")] = "clipdrift",
    datasource: Annotated[str, typer.Option(help="Uid of the Prometheus data source: needed for alert rules.")] = "",
    prometheus_url: Annotated[
        str, typer.Option(help="Make that data source, with this address as Grafana reaches it. Needs the role Admin.")
    ] = "",
    alerts: Annotated[bool, typer.Option("--alerts", help="Let Grafana evaluate the alerts, too.")] = False,
    contact_points: Annotated[
        Path | None, typer.Option(help="YAML file of contact points, each with name, type and settings.")
    ] = None,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="Mark deployments and incidents of the project's monitor, each once.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over what people changed in Grafana.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    monitor_url: MonitorUrlOption = _MONITOR,
    serving_url: Annotated[
        str, typer.Option(help="As people's browsers reach serving's admin listener: there that data source's exemplars lead.")
    ] = _SERVING,
    runbooks_url: RunbooksUrlOption = _RUNBOOKS,
    project: ProjectOption = None,
) -> None:
    """Bring dashboards, and what else you ask for, into a Grafana by its API: first looks, then writes what differs.

    What people changed in Grafana is never written over without --force: then nothing at all is written, and it is said what
    stands in the way. Ended half-way, run it again.
    """
    from clipdrift_dashboards.publishing.connection import connect  # noqa: PLC0415
    from clipdrift_dashboards.publishing.publisher import ConflictError, Publisher  # noqa: PLC0415
    from clipdrift_dashboards.publishing.wanted import read_contacts, wanted  # noqa: PLC0415
    from clipdrift_deploy.happenings import happenings  # noqa: PLC0415

    links = _links(grafana_url, monitor_url, runbooks_url, serving_url)
    content = wanted(
        links,
        folder_uid=folder,
        source_uid=datasource,
        prometheus_url=prometheus_url,
        with_alerts=alerts,
        contacts=read_contacts(contact_points) if contact_points else (),
        annotations=happenings(open_project_at(project)) if annotations else (),
    )
    publisher = Publisher(connect(grafana_url, token), content)
    try:
        changes = publisher.plan() if dry_run else publisher.publish(force=force)
    except ConflictError as error:
        out.print(_table(error.changes))
        raise
    out.print(_table(changes))
    num_writes = sum(one.is_write or (force and one.act == "conflict") for one in changes)
    say(f"{num_writes} of {len(changes)} {'would be ' if dry_run else ''}written to {escape(grafana_url)}")


@dashboards_app.command(
    "export", epilog=examples("dashboards export clipdrift-model", "dashboards export clipdrift-model --out ours")
)
def export(
    uids: Annotated[list[str], typer.Argument(metavar="UID...", help="Of dashboards, as in their address: /d/UID.")],
    to: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("exported"),
    grafana_url: GrafanaUrlOption = _GRAFANA,
    token: TokenOption = "",
) -> None:
    """Fetch dashboards from a Grafana as files: what people changed there, to compare with the code and to keep."""
    from clipdrift_dashboards.build import write_texts  # noqa: PLC0415
    from clipdrift_dashboards.links import file_of  # noqa: PLC0415
    from clipdrift_dashboards.publishing.connection import connect  # noqa: PLC0415
    from clipdrift_dashboards.publishing.publisher import exported  # noqa: PLC0415

    boards = exported(connect(grafana_url, token), uids)
    texts = {file_of(uid): json.dumps(board, indent=2, sort_keys=True) + "\n" for uid, board in boards.items()}
    for path in write_texts(to, texts):
        say(f"wrote {escape(str(path))}")


def _links(grafana_url: str, monitor_url: str, runbooks_url: str, serving_url: str = _SERVING) -> "Links":
    from clipdrift_dashboards.links import Links  # noqa: PLC0415

    return Links(
        grafana_url=grafana_url.rstrip("/"),
        monitor_url=monitor_url.rstrip("/"),
        serving_url=serving_url.rstrip("/"),
        runbooks_url=runbooks_url.rstrip("/"),
    )


def _json_files(paths: Sequence[Path]) -> list[Path]:
    found = [file for path in paths for file in ([path] if path.suffix == ".json" else sorted(path.glob("*.json")))]
    if not found:
        raise ClipdriftError(f"no dashboards in {', '.join(map(str, paths))}: clipdrift dashboards build writes them")
    return found


def _table(changes: Sequence[object]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("", "what", "name", "why"):
        table.add_column(column, overflow="fold")
    for one in changes:
        act = str(getattr(one, "act", ""))
        row = (_SIGNS[act], getattr(one, "kind", ""), getattr(one, "name", ""), getattr(one, "why", "") or act)
        table.add_row(*(escape(str(cell)) for cell in row), style=_COLOURS[act])
    return table
