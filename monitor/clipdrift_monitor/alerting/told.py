"""What Alertmanager is to hold: an alert for each model, alert name and severity with an open incident, and a silence where
people have said of all its incidents that they see to them. Values in, values out."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from clipdrift_contract.alerts import ALERT_OF_ROOT, ALERT_SEVERITIES
from clipdrift_contract.events import Acknowledgement, Incident, Silence
from clipdrift_monitor.alerting.config import AlertingConfig
from clipdrift_monitor.incidents.root import RANK

Labels = frozenset[tuple[str, str]]
"""The labels of an alert: Alertmanager knows it by them, and takes two that have the same for one."""
_MARK = "[clipdrift"
_SAME_END_MS = 1_000  # Alertmanager may cut a time to the second


class Told(NamedTuple):
    """An alert that fires."""

    labels: Labels
    annotations: Mapping[str, str]
    url: str
    incidents: tuple[Incident, ...]


class Hush(msgspec.Struct, frozen=True, kw_only=True):
    """A silence, as Alertmanager has it or is to have it. `silence_id`: empty for one that is not there yet."""

    labels: Labels
    ends_ms: int
    by: str
    comment: str
    silence_id: str = ""


class Believed(NamedTuple):
    """An alert that fires as Alertmanager has it. `url`: of who told it last."""

    labels: Labels
    url: str


def alerts_of(incidents: Iterable[Incident], config: AlertingConfig) -> dict[Labels, Told]:
    """What fires now. Labels are those of Prometheus's rules, so that Alertmanager takes both for one alert."""
    behind: dict[Labels, list[Incident]] = {}
    for one in incidents:
        if one.is_open and one.root in ALERT_OF_ROOT and one.told_severity in ALERT_SEVERITIES:
            own = {"alertname": ALERT_OF_ROOT[one.root], "model": one.model, "severity": one.told_severity}
            behind.setdefault(frozenset((own | config.labels).items()), []).append(one)
    return {labels: _told(labels, found, config) for labels, found in behind.items()}


def hushes_of(told: Iterable[Told], now_ms: int, project: str) -> dict[Labels, Hush]:
    """What is silent now: alerts of which people hold every incident, until the first of them is to be heard again.

    An incident that grew worse after it was held is heard.
    """
    found = {}
    for one in told:
        holds = [_hold(incident, now_ms) for incident in one.incidents]
        known = [hold for hold in holds if hold is not None]
        if len(known) == len(holds):
            names = ", ".join(incident.incident_id for incident in one.incidents)
            found[one.labels] = Hush(
                labels=one.labels, ends_ms=min(hold.until_ms for hold in known), by=known[0].actor,
                comment=f"{'; '.join(hold.reason for hold in known)} {_mark(project)} {names}]",
            )  # fmt: skip
    return found


def hushes_to_change(
    wanted: Mapping[Labels, Hush], found: Sequence[Hush], models: Collection[str], project: str
) -> tuple[list[Hush], list[str]]:
    """Silences to make or to change, and ids of those to end, so that there is one for each that is wanted.

    Args:
        wanted: That are to be.
        found: That Alertmanager has, also those of other people.
        models: That this monitor knows: silences of others are left alone.
        project: Of this monitor.
    """
    ours: dict[Labels, list[Hush]] = {}
    for one in found:
        if _mark(project) in one.comment and dict(one.labels).get("model") in models:
            ours.setdefault(one.labels, []).append(one)
    make = []
    for labels, one in wanted.items():
        have = ours.pop(labels, [])
        if not have:
            make.append(one)
            continue
        kept, *doubled = sorted(have, key=lambda other: (abs(other.ends_ms - one.ends_ms), other.silence_id))
        if abs(kept.ends_ms - one.ends_ms) > _SAME_END_MS:
            make.append(msgspec.structs.replace(one, silence_id=kept.silence_id))
        if doubled:
            ours[labels] = doubled
    return make, [one.silence_id for rest in ours.values() for one in rest]


class Differences(NamedTuple):
    """Where Alertmanager and the monitor differ. `ours`: of the unknown, those that the monitor itself told last."""

    missing: frozenset[Labels]
    unknown: frozenset[Labels]
    ours: frozenset[Labels]


def compare(
    told: Collection[Labels], believed: Sequence[Believed], models: Collection[str], config: AlertingConfig
) -> Differences:
    """
    Args:
        told: What fires by what the monitor knows.
        believed: What fires by what Alertmanager knows, of everybody.
        models: That the monitor knows: alerts of others are none of its business.
        config: Whose address tells what this monitor has told.
    """
    names = set(ALERT_OF_ROOT.values())
    about = {
        one.labels: one.url
        for one in believed
        if dict(one.labels).get("alertname") in names and dict(one.labels).get("model") in models
        and set(config.labels.items()) <= one.labels
    }  # fmt: skip
    unknown = frozenset(about) - frozenset(told)
    return Differences(
        missing=frozenset(told) - frozenset(about),
        unknown=unknown,
        ours=frozenset(labels for labels in unknown if about[labels].startswith(f"{config.monitor_url}/")),
    )


def moment(at_ms: int) -> str:
    """A time as Alertmanager writes it.

    Example:
        >>> moment(1362096000500)
        '2013-03-01T00:00:00.500Z'
    """
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _told(labels: Labels, incidents: Sequence[Incident], config: AlertingConfig) -> Told:
    """Of several incidents the loudest comes first."""
    first, *rest = sorted(incidents, key=lambda one: (-RANK[one.severity], one.opened_at_ms, one.incident_id))
    name, url = dict(labels)["alertname"], f"{config.monitor_url}/incidents/{quote(first.incident_id, safe='')}"
    board = f"{config.grafana_url}/d/clipdrift-model?var-model={quote(first.model, safe='')}"
    more = f" {len(rest)} more of its incidents have the same name." if rest else ""
    annotations = {
        "summary": first.summary,
        "description": f"{first.plain}{more}".strip(),
        "runbook_url": first.runbook_url or f"{config.runbooks_url}/{name}.md",
        "dashboard_url": first.dashboard_url or board,
        "incident_url": url,
    }
    return Told(labels, annotations, url, (first, *rest))


def _hold(incident: Incident, now_ms: int) -> Acknowledgement | Silence | None:
    """The longest word of people that holds this incident back at its present severity."""
    held = [
        one
        for one in (incident.acknowledgement, incident.silence)
        if one is not None and one.until_ms > now_ms and RANK[incident.told_severity] <= RANK[one.severity]
    ]
    return max(held, key=lambda one: one.until_ms, default=None)


def _mark(project: str) -> str:
    return f"{_MARK} {project}:"


def payload(told: Told, *, ends_ms: int) -> dict[str, Any]:
    """An alert as `POST /api/v2/alerts` takes it. Without a start: Alertmanager knows better since when it has it."""
    return {
        "labels": dict(told.labels), "annotations": dict(told.annotations), "generatorURL": told.url, "endsAt": moment(ends_ms),
    }  # fmt: skip
