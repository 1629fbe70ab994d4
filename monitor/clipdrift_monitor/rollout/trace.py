"""How a rollout went, look by look, for whoever draws it. Nothing is decided on it."""

from collections.abc import Sequence

import msgspec

from clipdrift_monitor.rollout.course import Rollout
from clipdrift_monitor.rollout.finding import Finding, Shown

MAX_ROLLOUTS = 8
MAX_POINTS = 240


class TracePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What was shown at one look. Differences are the candidate's minus the champion's: above 0 it is worse."""

    at_ms: int
    stage: str
    weight: float
    num_labels: int
    labels_of_stage: int
    progress: float
    harm_level: float
    more_labels: int | None = None
    watched: str = ""
    """Of what the difference is: error or loss."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class RolloutTrace(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout's looks, the oldest first."""

    rollout_id: str
    points: tuple[TracePoint, ...] = ()
    words: str = ""
    """Of the newest look, for an engineer."""
    plain: str = ""
    """For anybody."""
    shown: tuple[Shown, ...] = ()
    """All that was watched, by the newest look."""


def traced(traces: Sequence[RolloutTrace], rollout: Rollout, finding: Finding, at_ms: int) -> list[RolloutTrace]:
    """The traces with one more look. Of two looks at one moment and stage the later counts; where there are too many, every
    second of the older half is let go."""
    mine = next((one for one in traces if one.rollout_id == rollout.rollout_id), RolloutTrace(rollout_id=rollout.rollout_id))
    before = mine.points  # how requests fared is looked at sooner than labels, which are of an earlier time
    point = _point(rollout, finding, max(at_ms, before[-1].at_ms if before else at_ms))
    if before and (before[-1].at_ms, before[-1].stage) == (point.at_ms, point.stage):
        before = before[:-1]
    points = (*before, point)
    if len(points) > MAX_POINTS:
        half = len(points) // 2
        points = (*points[:half:2], *points[half:])
    new = RolloutTrace(
        rollout_id=rollout.rollout_id, points=points, words=finding.words, plain=finding.plain, shown=finding.shown
    )
    return [*(one for one in traces if one.rollout_id != rollout.rollout_id), new][-MAX_ROLLOUTS:]


def _point(rollout: Rollout, finding: Finding, at_ms: int) -> TracePoint:
    overall = [one for one in finding.shown if one.slice == "" and one.watched in ("error", "loss")]
    seen = next((one for one in overall if one.watched == "error"), overall[0] if overall else None)
    return TracePoint(
        at_ms=at_ms, stage=rollout.stage.name, weight=rollout.stage.weight, num_labels=finding.num_labels,
        labels_of_stage=finding.labels_of_stage, progress=finding.progress, harm_level=finding.harm_level,
        more_labels=finding.more_labels, watched=seen.watched if seen is not None else "",
        difference=seen.estimate if seen is not None else None, low=seen.low if seen is not None else None,
        high=seen.high if seen is not None else None,
    )  # fmt: skip
