"""What the pages draw over time."""

from collections.abc import Sequence

from clipdrift_contract.events import Deployment, Incident
from clipdrift_monitor.api.answers import WindowTold
from clipdrift_monitor.api.charts import Line, Mark, Point, time_chart
from clipdrift_monitor.risk.harm import TEST_NAMES
from clipdrift_monitor.state import JudgedBlock
from clipdrift_monitor.windows.view import View

_TEST_CSS = {"sudden_break": "c", "worse_than_validated": "b", "repairable": "a"}


def deployment_marks(deployments: Sequence[Deployment]) -> list[Mark]:
    """Each version's moment."""
    return [Mark(time_ms=one.decided_at_ms, words=f"version {one.champion.version} goes into service") for one in deployments]


def incident_marks(incident: Incident) -> list[Mark]:
    """From its first window to its last."""
    return [
        Mark(time_ms=incident.first_window_ms, words="the first window that shows it", css="alarm"),
        Mark(time_ms=incident.last_window_ms, words="the end of the last one", css="alarm"),
    ]


def accuracy_chart(
    views: Sequence[tuple[int, View]], marks: Sequence[Mark], validated: float | None = None, of_what: str = ""
) -> str:
    """Live accuracy by window with its interval; views with the start of their window, the oldest first."""
    points = tuple(
        Point(start_ms, one.accuracy, one.accuracy_low, one.accuracy_high)
        for start_ms, one in views
        if one.accuracy is not None
    )
    return time_chart(
        [Line(name="accuracy", css="a", points=points)], marks=marks, limit=validated,
        limit_words="validated" if validated is not None else "", limit_css="aim",
        title=f"Live accuracy{of_what} by day, with 95 % interval",
    )  # fmt: skip


def evidence_chart(blocks: Sequence[JudgedBlock], marks: Sequence[Mark]) -> str:
    """Evidence of harm by test; 1 is an alarm."""
    lines = [
        Line(
            name=test,
            css=_TEST_CSS[test],
            points=tuple(Point(one.start_ms, one.levels[test]) for one in blocks if test in one.levels),
        )
        for test in TEST_NAMES
    ]
    return time_chart(
        lines, marks=marks, limit=1.0, limit_words="alarm", is_ratio=False, floor=0.0, ceiling=1.25,
        title="Evidence of harm by test; 1 is an alarm",
    )  # fmt: skip


def losses_chart(blocks: Sequence[JudgedBlock], marks: Sequence[Mark]) -> str:
    """Brier score and calibration error."""
    lines = [
        Line(
            name=name,
            css=css,
            points=tuple(Point(one.start_ms, value) for one in blocks if (value := getattr(one.view, name)) is not None),
        )
        for name, css in (("brier", "a"), ("ece", "b"))
    ]
    return time_chart(lines, marks=marks, is_ratio=False, floor=0.0, title="Brier score and calibration error by day")


def drift_chart(blocks: Sequence[JudgedBlock], features: Sequence[str], marks: Sequence[Mark], limit: float) -> str:
    """How far the three features that moved most lie from the validation days."""
    lines = [
        Line(
            name=name, css=css,
            points=tuple(Point(one.start_ms, one.drift.features[name]) for one in blocks if name in one.drift.features),
        )
        for name, css in zip(features, "abc", strict=False)
    ]  # fmt: skip
    return time_chart(
        lines, marks=marks, limit=limit, limit_words="worth a note", is_ratio=False, floor=0.0,
        title=f"Drift of {', '.join(features)}",
    )  # fmt: skip


def share_chart(windows: Sequence[WindowTold], totals: dict[int, int], validated: float | None, marks: Sequence[Mark]) -> str:
    """A slice's share of all predictions, by window."""
    points = tuple(
        Point(one.start_ms, one.view.num_predictions / totals[one.start_ms]) for one in windows if totals.get(one.start_ms)
    )
    return time_chart(
        [Line(name="share", css="b", points=points)], marks=marks, limit=validated, limit_css="aim",
        limit_words="validated" if validated is not None else "", floor=0.0, title="Share of all predictions by day",
    )  # fmt: skip
