"""The commands about incidents: what is wrong, who sees to it, and whether it was true."""

import getpass
import json
import sys
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_contract.clock import SystemClock, format_moment
from clipdrift_deploy import incident_words, monitor_client
from clipdrift_deploy.cli.app import ProjectOption, app, examples, open_project_at, out, say
from clipdrift_deploy.moments import parse_duration

incidents_app = typer.Typer(
    help="What is wrong with your models: one incident for each cause.\n\n"
    "An incident gathers every signal that has one root, opens once, and ends by itself when its signals have been quiet. "
    "You may say that you see to it (`ack`), that you need not hear of it for a while (`silence`), and whether it was true "
    "(`feedback`): that is how the monitor's precision becomes known.",
    epilog=examples("incidents list", "incidents show 3f9a2c10", "incidents ack 3f9a2c10 --why 'mending the sensor' --for 4h"),
    no_args_is_help=True,
)
app.add_typer(incidents_app, name="incidents")

IncidentArgument = Annotated[
    str, typer.Argument(metavar="INCIDENT", help="An incident's id, or any part of it that no other open one has.")
]
WhyArgument = Annotated[str, typer.Option("--why", help="The reason, kept in the record.")]
ByOption = Annotated[str, typer.Option("--by", help="Who says so, kept in the record. Default: your login name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]


@incidents_app.command("list", epilog=examples("incidents list", "incidents list --all --model pump", "incidents list --json"))
def list_incidents(
    project: ProjectOption = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    severity: Annotated[Literal["page", "ticket", "note"] | None, typer.Option(help="Only those of this severity.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show the open incidents, the newest first, and how often incidents have been right so far."""
    with monitor_client.connect(open_project_at(project)) as client:
        answer = client.incidents(model=model, severity=severity, state="all" if is_all else "open", limit=limit)
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    if answer["items"]:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in incident_words.COLUMNS:
            table.add_column(column, no_wrap=column != "what")
        for one in answer["items"]:
            table.add_row(*map(escape, incident_words.row_of(one)))
        out.print(table)
    else:
        say("no incident" if is_all else "no incident is open")
    say(escape(incident_words.precision_words(answer.get("precision") or {})))


@incidents_app.command(epilog=examples("incidents show 3f9a2c10", "incidents show pump-data-3f9a2c10 --json"))
def show(incident: IncidentArgument, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Show one incident: in plain words, for an engineer, since when, its signals, and what people said."""
    with monitor_client.connect(open_project_at(project)) as client:
        one = client.incident(incident)
    if as_json:
        sys.stdout.write(json.dumps(one, indent=2) + "\n")
        return
    for line in incident_words.paragraphs(one):
        say(escape(line))


@incidents_app.command(
    epilog=examples(
        "incidents ack 3f9a2c10 --why 'the supplier mends the sensor'", "incidents ack 3f9a2c10 --why mending --for 2d"
    )
)
def ack(
    incident: IncidentArgument,
    why: WhyArgument,
    project: ProjectOption = None,
    by: ByOption = "",
    lasting: Annotated[str, typer.Option("--for", help="How long, such as 45m, 8h or 2d.")] = "8h",
) -> None:
    """Say that you see to an incident. If it is still open when the time is over, it is told again."""
    _hold("acknowledge", incident, why, project, by, lasting)


@incidents_app.command(epilog=examples("incidents silence 3f9a2c10 --why 'planned work until Friday' --for 3d"))
def silence(
    incident: IncidentArgument,
    why: WhyArgument,
    lasting: Annotated[str, typer.Option("--for", help="How long, such as 45m, 8h or 2d.")],
    project: ProjectOption = None,
    by: ByOption = "",
) -> None:
    """Hear nothing more of an incident for a while, unless it grows worse."""
    _hold("silence", incident, why, project, by, lasting)


@incidents_app.command(
    epilog=examples(
        "incidents feedback 3f9a2c10 true --why 'the sensor was unplugged'",
        "incidents feedback 3f9a2c10 false --why 'nothing was wrong'",
        "incidents feedback 3f9a2c10 known --why 'we had announced it'",
    )
)
def feedback(
    incident: IncidentArgument,
    verdict: Annotated[
        Literal["true", "false", "known"],
        typer.Argument(help="true: something was wrong; false: nothing was; known: something was, and everybody knew."),
    ],
    why: WhyArgument,
    project: ProjectOption = None,
    by: ByOption = "",
) -> None:
    """Say whether an incident was true, also when it is over. The newest word counts."""
    with monitor_client.connect(open_project_at(project)) as client:
        one = client.judge_incident(incident, verdict, why, by or getpass.getuser())
    say(escape(f"{one['incident_id']}: kept as {verdict}"))


def _hold(what: Literal["acknowledge", "silence"], incident: str, why: str, project: Any, by: str, lasting: str) -> None:
    until_ms = SystemClock().now_ms() + parse_duration(lasting)
    with monitor_client.connect(open_project_at(project)) as client:
        one = client.hold_incident(what, incident, why, by or getpass.getuser(), until_ms)
    done = "acknowledged" if what == "acknowledge" else "silenced"
    say(escape(f"{one['incident_id']}: {done} until {format_moment(until_ms)} UTC"))
