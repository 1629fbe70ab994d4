"""What an evidence pack is to be about, and where it lies on disk."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Decision, RunEnd, Signal
from clipdrift_monitor.evidence.plots import Course
from clipdrift_monitor.state import JudgedBlock

_SAFE_NAME = re.compile(r"[A-Za-z0-9_(][A-Za-z0-9._()-]{0,119}")
_REFERENCE_DAYS = 14  # enough rows of every weekday, twice, before the model has aged
_KIND_WORDS = {
    "sudden_break": "Sudden break",
    "worse_than_validated": "Worse than validated",
    "repairable": "Repairable harm",
    "feature_drift": "Inputs have moved",
    "prediction_drift": "Predictions have moved",
    "mix_drift": "The mix of slices has moved",
    "calibration_drift": "Scores no longer mean what they did",
    "estimated_accuracy": "Scores promise less accuracy",
    "error_drift": "The errors have changed",
    "joint_drift": "Inputs have moved together",
    "schema": "Columns are not as they were",
    "freshness": "No predictions for longer than usual",
    "labels_missing": "Labels are missing",
    "data_broken": "Data look broken",
    "training_fault": "Training fault",
}


class EvidenceOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One report: the rows of one version in the window of an alarm, against its rows in a reference window.

    Windows are of event time, the end excluded. `slice` "" means all rows. The names of classes and slices may be missing; then
    numbers stand for them.
    """

    signal_id: str
    model: str
    version: str
    bus_url: str
    reference_start_ms: int
    reference_end_ms: int
    current_start_ms: int
    current_end_ms: int
    slice: str = ""
    title: str = ""
    why: str = ""
    html_path: str = ""  # filled by the starter
    classes: tuple[str, ...] = ()
    slice_names: tuple[str, ...] = ()
    block: JudgedBlock | None = None
    """What was seen and said of the block that raised the alarm."""
    decision: Decision | None = None
    """What was decided on it, with the numbers that were weighed."""
    course: Course = Course()


class EvidencePaths(NamedTuple):
    """The files of one pack: the report (whole, or not there), the order, and what the process printed. Where the report is
    there, its figures lie beside it."""

    html: Path
    json: Path
    log: Path

    @property
    def partial(self) -> Path:
        """The report while it is being written."""
        return self.html.with_suffix(".html.partial")

    @property
    def numbers(self) -> Path:
        """The report's figures as JSON."""
        return numbers_path(self.html)


def numbers_path(html: Path) -> Path:
    """Where the figures of the report in `html` lie.

    Example:
        >>> numbers_path(Path("evidence/pump-v1.2.html")).as_posix()
        'evidence/pump-v1.2.numbers'
    """
    return html.with_suffix(".numbers")


def paths_of(folder: Path, signal_id: str) -> EvidencePaths:
    """Where the pack of a signal lies: FOLDER/<signal_id>.html, .json and .log.

    An id that is no safe file name has its other characters replaced and a digest added, so two ids never meet.

    Example:
        >>> paths_of(Path("evidence"), "pump-v1-repairable-86400000").html.as_posix()
        'evidence/pump-v1-repairable-86400000.html'
        >>> paths_of(Path("evidence"), "../pump").html.as_posix()
        'evidence/_.._pump-61b79cc0.html'
    """
    name = signal_id
    if not _SAFE_NAME.fullmatch(name):
        digest = hashlib.sha256(signal_id.encode()).hexdigest()[:8]
        name = f"_{re.sub(r'[^A-Za-z0-9._-]', '_', signal_id)[:100]}-{digest}"
    return EvidencePaths(folder / f"{name}.html", folder / f"{name}.json", folder / f"{name}.log")


def order_for(
    signal: Signal,
    *,
    run: RunEnd | None,
    bus_url: str,
    in_service_since_ms: int,
    at_least_ms: int = 0,
    block: JudgedBlock | None = None,
    decision: Decision | None = None,
    course: Course | None = None,
) -> EvidenceOrder:
    """The order for an alarm: its window against the version's first 14 days in service, or as many as lie before the window.

    Args:
        signal: The alarm.
        run: Of the version that the alarm is about; gives classes and slices their names.
        bus_url: Where the predictions were recorded.
        in_service_since_ms: Event time since which the version serves.
        at_least_ms: A shorter window of the alarm is made so long, towards the past: a single day has its own weather.
        block: That raised it.
        decision: On that block.
        course: Of the blocks up to it.
    """
    profile = run.profile if run is not None else None
    start_ms = min(in_service_since_ms, signal.window_start_ms)
    current_ms = max(start_ms, min(signal.window_start_ms, signal.window_end_ms - at_least_ms))
    return EvidenceOrder(
        signal_id=signal.signal_id,
        model=signal.model,
        version=signal.version,
        bus_url=bus_url,
        reference_start_ms=start_ms,
        reference_end_ms=min(start_ms + _REFERENCE_DAYS * MS_PER_DAY, current_ms),
        current_start_ms=current_ms,
        current_end_ms=signal.window_end_ms,
        slice=signal.slice,
        title=f"{_KIND_WORDS.get(signal.kind, signal.kind)}: {signal.model} {signal.version}",
        why=signal.summary,
        classes=profile.classes if profile is not None else (),
        slice_names=profile.slice_names if profile is not None else (),
        block=block,
        decision=decision,
        course=course or Course(),
    )


def course_of(blocks: Sequence[JudgedBlock], signal: Signal) -> Course:
    """The course of the alarm's test over the blocks of its version, up to the alarm."""
    known = [one for one in blocks if one.version == signal.version and one.end_ms <= signal.window_end_ms]
    return Course(
        start_ms=tuple(one.start_ms for one in known),
        evidence=tuple(one.levels.get(signal.kind) for one in known),
        accuracy=tuple(one.view.accuracy for one in known),
        accuracy_low=tuple(one.view.accuracy_low for one in known),
        accuracy_high=tuple(one.view.accuracy_high for one in known),
    )


def read_order(path: Path) -> EvidenceOrder:
    """The order in a file.

    Raises:
        OSError, msgspec.DecodeError: It cannot be read, or is no order.
    """
    return msgspec.json.decode(path.read_bytes(), type=EvidenceOrder)
