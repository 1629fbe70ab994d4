"""Writes the page of a gate: one HTML file that needs no server, no network and no script."""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import RetrainOutcome
from clipdrift_contract.files import write_whole
from clipdrift_deploy.gate_report.plots import margin_plot
from clipdrift_deploy.gate_report.rows import TONES, check_rows

PAGE_NAME = "gate.html"
_TITLES: Mapping[str, str] = {
    "pass": "the candidate passes",
    "fail": "the candidate fails",
    "inconclusive": "nothing is decided",
}


def gate_page(outcome: RetrainOutcome) -> str:
    """The page of one retrain's gate: verdict, reasons, every check, the arms."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent]), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rows = check_rows(outcome.checks)
    return environment.get_template("report.html.j2").render(
        title=f"{outcome.model}: {_TITLES[outcome.verdict]}",
        outcome=outcome,
        tone=TONES[outcome.verdict],
        rows=rows,
        picture=margin_plot(outcome.checks),
        advice=[row for row in rows if row.advice and row.role == "decides"],
        tiles=_tiles(outcome),
        arms=[(one.arm.name, describe_clip(one.arm.clip), one.arm.name == outcome.winner) for one in outcome.arms],
    )


def write_gate_page(path: Path, outcome: RetrainOutcome) -> None:
    """Write the page of `outcome` to `path`.

    Raises:
        ClipdriftError: The file cannot be written.
    """
    try:
        write_whole(path, gate_page(outcome).encode())
    except OSError as error:
        raise ClipdriftError(f"{path} cannot be written ({error.strerror}); make room and start again") from error


def _tiles(outcome: RetrainOutcome) -> list[tuple[str, str]]:
    decisive = [one for one in outcome.checks if one.is_decisive]
    passed = sum(one.outcome == "pass" for one in decisive)
    return [
        (f"{passed} of {len(decisive)}", "checks that decide were passed"),
        (str(len(outcome.checks) - len(decisive)), "checks are on trial and change nothing"),
        (outcome.winner or "-", "is the clipping policy that won"),
        (f"{outcome.wall_seconds:.1f} s", f"for the whole retrain ({outcome.cpu_seconds:.1f} s of CPU time)"),
    ]
