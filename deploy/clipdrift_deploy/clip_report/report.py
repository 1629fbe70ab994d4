"""Writes the report: one HTML file that needs no server, no network and no script."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.clock import format_moment
from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.files import write_whole
from clipdrift_deploy.clip_report.figures import MOST_STRETCHES, Course, course_of, course_of_end, slice_shares
from clipdrift_deploy.clip_report.gathering import RunRecord, record_of
from clipdrift_deploy.clip_report.learned import accuracy_words, chapters_of_end
from clipdrift_deploy.clip_report.page import chapters_of, tiles_of
from clipdrift_deploy.clip_report.verdict import Answer, answer_of
from clipdrift_deploy.project import Project


def report_on(project: Callable[[], Project], target: str, run: str, to: Path) -> str:
    """Write the report of a run and return its headline.

    Args:
        project: Opens the project; not called for a file.
        target: A JSON Lines file, or a model of the project.
        run: Version or run id, or how it begins; empty: the newest run.
        to: The HTML file.

    Raises:
        ConfigError: There is no such run, or it left nothing to report on.
        ClipdriftError: The file cannot be written.
    """
    return write_report(to, record_of(project, target, run)).headline


def write_report(path: Path, record: RunRecord) -> Answer:
    """Write the report of `record` to `path`; returns its answer.

    Raises:
        ConfigError: Neither a window nor the run's end was recorded.
        ClipdriftError: The file cannot be written.
    """
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, folder.parent]), autoescape=True, undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
    )  # fmt: skip
    course = _course(record)
    answer = answer_of(course, record.end.temperature if record.end else 1.0)
    page = environment.get_template("clip-report.html.j2").render(**_contents(record, course, answer))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode())
    except OSError as error:
        raise ClipdriftError(f"{path} cannot be written: {error.strerror}") from error
    return answer


def _unbroken(value: Any) -> Any:
    """A number and its per cent sign stay on one line."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value  # a picture (Markup) stays as it is


def _course(record: RunRecord) -> Course:
    """The windows' course; slices from the end of the run where norms were measured exactly there, as windows know the head
    layer alone."""
    if record.windows:
        course = course_of(record.windows)
        exact = [one for one in record.end.slice_gradients if one.kind == "exact"] if record.end else []
        return msgspec.structs.replace(course, slices=slice_shares(exact)) if exact else course
    if record.end is not None:
        return course_of_end(record.end)
    raise ConfigError(f"run {record.run_id} left neither windows nor its end")


def _contents(record: RunRecord, course: Course, answer: Answer) -> dict[str, Any]:
    end = record.end
    return {
        "title": f"Clipping of {record.model}, {f'version {end.version}' if end else f'run {record.run_id[:12]}'}",
        "subtitle": _subtitle(record, course),
        "answer": answer,
        "remarks": _remarks(record, course),
        "tiles": [*tiles_of(course), *(accuracy_words(end) if end else ())],
        "chapters": [*chapters_of(course), *(chapters_of_end(end, course) if end else ())],
        "footer": f"Written by clipdrift clip-report. Run {record.run_id}. A run is shown in at most {MOST_STRETCHES} "
        "stretches, and a table holds only some of its picture's rows.",
    }


def _subtitle(record: RunRecord, course: Course) -> str:
    parts = [course.optimizer, describe_clip(course.clip, digits=4), f"{course.num_steps:,} steps"]
    times = [w.started_at_ms for w in record.windows[:1]] + ([record.end.started_at_ms] if record.end else [])
    if times and min(times) > 0:
        parts.append(f"trained {format_moment(min(times))} UTC")
    if record.end is not None:
        start = f"from {format_moment(record.end.data_start_ms)[:10]} " if record.end.data_start_ms > 0 else ""
        parts.append(f"on data {start}until {format_moment(record.end.data_end_ms)[:10]}")
    return " · ".join(part for part in parts if part)


def _remarks(record: RunRecord, course: Course) -> list[str]:
    """What the reader must know about what is missing."""
    remarks = []
    if record.end is None:
        remarks.append("The end of this run was not recorded: it goes on, or it was ended. What it learned is not known.")
    if not record.windows:
        remarks.append("No windows of this run were kept, so there is no course to show.")
    num_missing = _num_missing(record)
    if num_missing:
        remarks.append(f"{num_missing:,} steps in between were not recorded.")
    if not course.num_checked:
        remarks.append("No step was checked, so it is not known whether the optimizer took what clipping left.")
    if record.num_unreadable:
        remarks.append(f"{record.num_unreadable:,} lines of the file could not be read and are left out.")
    return remarks


def _num_missing(record: RunRecord) -> int:
    """Steps before the last window's end that no window holds."""
    if not record.windows:
        return 0
    last = record.windows[-1]
    return max(0, last.step_first + last.num_steps - sum(window.num_steps for window in record.windows))
