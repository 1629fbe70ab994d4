"""The folder that a CI keeps of a retrain, and what it shows on the run's own page."""

import logging
import os
from pathlib import Path

import msgspec

from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_deploy.ci_job.summary import summary
from clipdrift_deploy.gate_report.plots import margin_plot
from clipdrift_deploy.gate_report.report import PAGE_NAME, write_gate_page

SUMMARY_NAME = "summary.md"
_MAX_SUMMARY_BYTES = 1_000_000  # GitHub shows nothing of a larger one
_log = logging.getLogger(__name__)


def write_report(
    folder: Path, request: RetrainRequest, outcome: RetrainOutcome, run_end: RunEnd | None, step_summary: str | None = None
) -> None:
    """Write summary, the gate's page and picture, and order, outcome and run as JSON; append the summary to GitHub's page.

    The outcome is told already, so what cannot be written is logged and changes nothing.

    Args:
        folder: Made where it is missing.
        request: The order.
        outcome: What was found.
        run_end: The training run of the candidate, where there is one.
        step_summary: The file that GitHub shows; None: as `GITHUB_STEP_SUMMARY` says.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = summary(request, outcome)
        (folder / SUMMARY_NAME).write_text(text)
        for name, value in (("request", request), ("outcome", outcome), ("run_end", run_end)):
            if value is not None:
                (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(value)))
        _append(os.environ.get("GITHUB_STEP_SUMMARY", "") if step_summary is None else step_summary, text)
        write_gate_page(folder / PAGE_NAME, outcome)
        picture = margin_plot(outcome.checks)
        if picture:
            (folder / "gate.svg").write_text(picture)
    except Exception as error:  # noqa: BLE001  whatever drawing raises
        _log.warning("the report in %s is not complete: %s", folder, error)


def _append(path: str, text: str) -> None:
    if not path:
        return
    with Path(path).open("a") as file:
        file.write(
            text if len(text.encode()) <= _MAX_SUMMARY_BYTES else "The summary is too long for this page: see summary.md.\n"
        )
