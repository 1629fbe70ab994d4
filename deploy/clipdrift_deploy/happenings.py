"""What happened to a project's models, as annotations for dashboards: deployments and incidents, as the monitor tells them."""

from collections.abc import Iterator
from typing import Any

from clipdrift_dashboards.publishing.wanted import Annotation
from clipdrift_deploy.monitor_client import MonitorClient, connect
from clipdrift_deploy.project import Project


def happenings(project: Project) -> list[Annotation]:
    """The newest deployments and incidents of every model.

    Raises:
        MonitorError: The monitor cannot be asked.
    """
    with connect(project) as monitor:
        return list(_of(monitor))


def _of(monitor: MonitorClient) -> Iterator[Annotation]:
    for model in monitor.models():
        name = str(model["model"])
        for deployment in monitor.deployments(name):
            yield deployed(deployment)
        for incident in monitor.incidents(model=name, state="all", limit=500)["items"]:
            yield from of_incident(incident)


def deployed(told: dict[str, Any]) -> Annotation:
    """A deployment's mark.

    Example:
        >>> told = {"model": "pump", "generation": 2, "champion": {"version": "b"}, "decided_at_ms": 5, "reason": "better"}
        >>> deployed(told).text
        'pump: version b in service (better)'
    """
    stage = f", {told['stage']}" if told.get("stage") else ""
    why = f" ({told['reason']})" if told.get("reason") else ""
    return Annotation(
        key=f"deployment-{told['model']}-{told['generation']}",
        time_ms=told["decided_at_ms"],
        text=f"{told['model']}: version {told['champion']['version']} in service{stage}{why}",
        tags=("deployment", told["model"]),
    )


def of_incident(told: dict[str, Any]) -> Iterator[Annotation]:
    """An incident's marks: where it was opened, and where it was over. A mark is never changed, so these are two.

    Example:
        >>> told = {"incident_id": "i", "model": "pump", "opened_at_ms": 5, "summary": "", "root": "harm"}
        >>> [mark.text for mark in of_incident({**told, "worst_severity": "page", "resolved_at_ms": None})]
        ['pump: harm (page)']
        >>> [mark.time_ms for mark in of_incident({**told, "worst_severity": "page", "resolved_at_ms": 9})]
        [5, 9]
    """
    what = f"{told['model']}: {told['summary'] or told['root']}"
    tags = ("incident", str(told["model"]))
    key = f"incident-{told['incident_id']}"
    yield Annotation(key=key, time_ms=told["opened_at_ms"], text=f"{what} ({told['worst_severity']})", tags=tags)
    if told["resolved_at_ms"] is not None:
        yield Annotation(key=f"{key}-over", time_ms=told["resolved_at_ms"], text=f"Over: {what}", tags=tags)
