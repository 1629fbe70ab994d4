"""The commands about approvals: what waits for a person, what it rests on, and the answer."""

import getpass
import json
import sys
from typing import Annotated, Literal

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from clipdrift_deploy import approval_words, monitor_client
from clipdrift_deploy.cli.app import ProjectOption, app, examples, open_project_at, out, say

approvals_app = typer.Typer(
    help="What waits for a person: candidates that passed the gate, retrains to be ordered.\n\n"
    "Without a command: what waits, what was answered, and how people answered so far. `show` opens the evidence, on record; "
    "`approve` and `reject` repeat its digest. Whose key $CLIPDRIFT_APPROVAL_KEY holds is who answers.",
    epilog=examples(
        "approvals",
        "approvals show 3f9a2c10",
        "approvals approve 3f9a2c10 --evidence 5d0c2f7a91be --why 'better in both sites'",
    ),
    invoke_without_command=True,
)
app.add_typer(approvals_app, name="approvals")

ApprovalArgument = Annotated[
    str, typer.Argument(metavar="APPROVAL", help="An approval's id, or any part of it that no other has.")
]
WhyArgument = Annotated[str, typer.Option("--why", help="The reason, kept in the record.")]
ByOption = Annotated[str, typer.Option("--by", help="Who answers, where no key says so. Default: your login name.")]
EvidenceOption = Annotated[str, typer.Option("--evidence", help="Digest of the evidence, as `show` names it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]


@approvals_app.callback()
def list_approvals(
    context: typer.Context,
    project: ProjectOption = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    is_waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait for an answer.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the last asked first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show what waits for a person, and how people answered so far."""
    if context.invoked_subcommand is not None:
        return
    with monitor_client.connect(open_project_at(project)) as client:
        answer = client.approvals(model=model, state="waiting" if is_waiting else None, limit=limit)
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
        return
    if answer["items"]:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in approval_words.COLUMNS:
            table.add_column(column, no_wrap=column != "what")
        for one in answer["items"]:
            table.add_row(*map(escape, approval_words.row_of(one)))
        out.print(table)
    else:
        say("nothing waits for a person" if is_waiting else "nothing was asked yet; \\[policy.approval] says what is")
    for line in approval_words.figures_words(answer.get("figures") or {}):
        say(escape(line))


@approvals_app.command(epilog=examples("approvals show 3f9a2c10", "approvals show 3f9a2c10 --expect better"))
def show(
    approval: ApprovalArgument,
    project: ProjectOption = None,
    by: ByOption = "",
    expect: Annotated[
        Literal["", "better", "same", "worse"],
        typer.Option(help="What you expect of live accuracy if it is done: some approvals ask it before they show findings."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Open the evidence of an approval; while it waits, that you did is kept in the record."""
    with monitor_client.connect(open_project_at(project)) as client:
        told = client.approval(approval)
        known = told["approval"]
        if known["state"] == "waiting" and (expect or not known["asks_expectation"]):
            told = client.look_at_approval(known["approval_id"], by or getpass.getuser(), expect)
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return
    for line in approval_words.paragraphs(told):
        say(escape(line))


@approvals_app.command(
    epilog=examples(
        "approvals approve 3f9a2c10 --evidence 5d0c2f7a91be --why 'better in both sites'",
        "approvals approve 3f9a2c10 --evidence 5d0c2f7a91be --why 'it fails on all night rows' --emergency",
    )
)
def approve(
    approval: ApprovalArgument,
    evidence: EvidenceOption,
    why: WhyArgument,
    project: ProjectOption = None,
    by: ByOption = "",
    is_emergency: Annotated[
        bool, typer.Option("--emergency", help="Pass over looking and over who ordered it; another person reviews it after.")
    ] = False,
) -> None:
    """Agree: what was asked is done."""
    with monitor_client.connect(open_project_at(project)) as client:
        one = client.answer_approval("approve", approval, why, by or getpass.getuser(), evidence, is_emergency=is_emergency)
    later = "; another person reviews it with `clipdrift approvals review`" if is_emergency else ""
    say(escape(f"{one['approval_id']}: approved by {one['answer']['actor']}{later}"))


@approvals_app.command(
    epilog=examples("approvals reject 3f9a2c10 --evidence 5d0c2f7a91be --why 'the south has too few labels'")
)
def reject(
    approval: ApprovalArgument, evidence: EvidenceOption, why: WhyArgument, project: ProjectOption = None, by: ByOption = ""
) -> None:
    """Do not agree: it is not done, and its cause is not taken up again."""
    with monitor_client.connect(open_project_at(project)) as client:
        one = client.answer_approval("reject", approval, why, by or getpass.getuser(), evidence, is_emergency=False)
    say(escape(f"{one['approval_id']}: rejected by {one['answer']['actor']}"))


@approvals_app.command(epilog=examples("approvals review 3f9a2c10 --why 'checked the next morning: it was right'"))
def review(approval: ApprovalArgument, why: WhyArgument, project: ProjectOption = None, by: ByOption = "") -> None:
    """Say what you found of an emergency that another person approved."""
    with monitor_client.connect(open_project_at(project)) as client:
        one = client.review_approval(approval, why, by or getpass.getuser())
    say(escape(f"{one['approval_id']}: reviewed by {one['review']['actor']}"))
