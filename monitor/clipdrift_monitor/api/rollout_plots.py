"""What the page of a rollout draws over time."""

from collections.abc import Sequence

from clipdrift_contract.events import Deployment
from clipdrift_monitor.api.charts import Line, Mark, Point, time_chart
from clipdrift_monitor.rollout.trace import TracePoint


def stage_marks(points: Sequence[TracePoint]) -> list[Mark]:
    """Each stage's first look."""
    marks, before = [], ""
    for one in points:
        if one.stage != before:
            marks.append(Mark(time_ms=one.at_ms, words=f"first look in: {one.stage}"))
        before = one.stage
    return marks


def weight_chart(deployments: Sequence[Deployment], end_ms: int) -> str:
    """Share of the requests that the candidate answers, from one deployment of its rollout to the next, until `end_ms`."""
    steps: list[Point] = []
    for one in deployments:
        weight = one.canary_weight if one.canary is not None else 0.0
        if steps and steps[-1].value != weight:
            steps.append(Point(one.decided_at_ms, steps[-1].value))
        steps.append(Point(one.decided_at_ms, weight))
    if steps and end_ms > steps[-1].time_ms:
        steps.append(Point(end_ms, steps[-1].value))
    return time_chart(
        [Line(name="weight", css="b", points=tuple(steps))], floor=0.0, title="Share of the requests that the candidate answers"
    )


def difference_chart(points: Sequence[TracePoint], margin: float | None) -> str:
    """The candidate's errors minus the champion's with its interval; above 0 it is worse."""
    seen = tuple(Point(one.at_ms, one.difference, one.low, one.high) for one in points if one.difference is not None)
    return time_chart(
        [Line(name="difference", css="a", points=seen)], marks=stage_marks(points), limit=0.0 if margin is None else margin,
        limit_words="as good as the champion" if margin is None else "by so much it may be worse",
        title="Difference to the model in service, with its interval",
    )  # fmt: skip


def labels_chart(points: Sequence[TracePoint], needed: int) -> str:
    """Mature labels of the candidate's rows in each stage against what a step needs."""
    seen = tuple(Point(one.at_ms, float(one.labels_of_stage)) for one in points)
    return time_chart(
        [Line(name="labels", css="c", points=seen)], marks=stage_marks(points), limit=float(needed), limit_css="aim",
        limit_words="a step needs", is_ratio=False, floor=0.0, title="Labels of the stage",
    )  # fmt: skip


def evidence_chart(points: Sequence[TracePoint]) -> str:
    """How much of the evidence for a promotion, and of that for a rollback, is there; 1 is all."""
    good = tuple(Point(one.at_ms, one.progress) for one in points)
    harm = tuple(Point(one.at_ms, one.harm_level) for one in points)
    return time_chart(
        [Line(name="promotion", css="a", points=good), Line(name="rollback", css="b", points=harm)],
        marks=stage_marks(points), limit=1.0, limit_words="enough", is_ratio=False, floor=0.0, ceiling=1.1,
        title="Evidence for a promotion and for a rollback",
    )  # fmt: skip
