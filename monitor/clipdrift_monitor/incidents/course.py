"""The course of incidents: signals join the one of their root, and it opens, changes, is over, and comes back as the same."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Diagnosis, Incident, IncidentChange, IncidentRoot, Severity, Signal
from clipdrift_monitor.incidents.change import changed
from clipdrift_monitor.incidents.config import IncidentConfig, link
from clipdrift_monitor.incidents.response import is_hushed
from clipdrift_monitor.incidents.root import OF_A_VERSION, RANK, concerns, loudest, root_of, root_of_cause
from clipdrift_monitor.incidents.words import with_words
from clipdrift_monitor.risk.harm import TEST_NAMES

_MAX_IDS = 200
_MAX_NAMES = 50  # of features, and of slices


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What a judged window shows of a version.

    `at_ms` is the event time by which its labels were due, `now_ms` the wall's, by which people's silences end.
    """

    model: str
    version: str
    start_ms: int
    end_ms: int
    at_ms: int
    now_ms: int
    signals: tuple[Signal, ...]  # open after the window
    diagnosis: Diagnosis
    decision_id: str = ""
    moved: tuple[str, ...] = ()  # features, those that moved most first
    evidence: Mapping[str, str] = {}  # where the evidence of a signal lies, by its id


class Course(NamedTuple):
    """Incidents after a step, and those of them that changed in a way to be told."""

    incidents: list[Incident]
    told: list[Incident]


def follow(known: Sequence[Incident], seen: Sighting, config: IncidentConfig) -> Course:
    """One judged window further.

    Args:
        known: Incidents of the model that are open, or were not long ago.
        seen: What the window shows.
        config: When signals are one incident, and when it is over.
    """
    now = {one.incident_id: one for one in known}
    members: dict[str, list[Signal]] = {}
    is_harmed = any(signal.kind in TEST_NAMES for signal in seen.signals)
    for signal in sorted(seen.signals, key=lambda one: (one.kind not in TEST_NAMES, -RANK[one.severity])):
        home = _home(list(now.values()), signal, seen, config, is_harmed=is_harmed)
        now[home.incident_id] = home
        members.setdefault(home.incident_id, []).append(signal)
    before = {one.incident_id: one for one in known}
    incidents, told = [], []
    for name, one in now.items():
        after = _seen(one, tuple(members[name]), seen, config) if name in members else _quiet(one, seen, config)
        change = _change(before.get(name), after)
        if change is not None:
            after = _told(after, change, seen, is_new=name not in before)
            told.append(after)
        if after.is_open or _is_recent(after, seen.at_ms, config):
            incidents.append(after)
    return Course(incidents, told)


def retire(known: Sequence[Incident], version: str, at_ms: int) -> Course:
    """Another version has come into service: what was about the one before is over; a broken feed is not.

    Args:
        known: Incidents of the model that are open, or were not long ago.
        version: That came.
        at_ms: When, in event time.
    """
    incidents, told = [], []
    for one in known:
        after = msgspec.structs.replace(one, open_signal_ids=())  # they were closed with their version
        if one.is_open and one.root in OF_A_VERSION and one.version != version:
            resolution = f"Version {version} came into service in place of {one.version}."
            after = changed(after, "resolved", at_ms, is_open=False, resolved_at_ms=at_ms, resolution=resolution)
            told.append(after)
        incidents.append(after)
    return Course(incidents, told)


# --- where a signal belongs ---


def _home(
    incidents: Sequence[Incident], signal: Signal, seen: Sighting, config: IncidentConfig, *, is_harmed: bool
) -> Incident:
    """The incident that a signal belongs to, opened where it must be."""
    for one in incidents:
        if one.is_open and signal.signal_id in one.open_signal_ids:
            return one
    root = root_of(signal, seen.diagnosis, is_harmed=is_harmed)
    here = [one for one in incidents if one.root not in OF_A_VERSION or one.version == seen.version]
    for one in here:
        if one.is_open and one.root == root:
            return one
    for one in here:
        if one.is_open and _may_become(one, root, seen, config):
            return msgspec.structs.replace(one, root=root)
    for one in here:
        if not one.is_open and one.root == root and _is_recent(one, seen.at_ms, config):
            return _reopened(one, seen)
    return _opened(root, seen, config)


def _may_become(one: Incident, root: IncidentRoot, seen: Sighting, config: IncidentConfig) -> bool:
    """Drift turns out to be harm, and either to be a fault, where that is found soon after."""
    is_young = seen.at_ms - one.opened_at_ms <= config.same_cause_days * MS_PER_DAY
    if one.root == "drift" and root == "harm":
        return is_young
    return is_young and one.root in ("drift", "harm") and root == root_of_cause(seen.diagnosis)


def _reopened(one: Incident, seen: Sighting) -> Incident:
    acknowledgement, silence = one.acknowledgement, one.silence
    return msgspec.structs.replace(
        one, is_open=True, resolved_at_ms=None, resolution="", num_reopened=one.num_reopened + 1,
        acknowledgement=acknowledgement if acknowledgement is not None and acknowledgement.until_ms > seen.now_ms else None,
        silence=silence if silence is not None and silence.until_ms > seen.now_ms else None,
    )  # fmt: skip


def _opened(root: IncidentRoot, seen: Sighting, config: IncidentConfig) -> Incident:
    bound = seen.version if root in OF_A_VERSION else ""
    digest = hashlib.sha256(f"{seen.model}\0{bound}\0{root}\0{seen.start_ms}".encode()).hexdigest()[:8]
    name = f"{seen.model}-{root}-{digest}"
    return Incident(
        incident_id=name, model=seen.model, version=seen.version, root=root, severity="note", is_open=True, change="opened",
        revision=0, is_news=True, at_ms=seen.at_ms, opened_at_ms=seen.at_ms, first_window_ms=seen.start_ms,
        last_window_ms=seen.end_ms,
    )  # fmt: skip


def _is_recent(one: Incident, at_ms: int, config: IncidentConfig) -> bool:
    return one.resolved_at_ms is not None and at_ms - one.resolved_at_ms <= config.reopen_days * MS_PER_DAY


# --- what a window makes of an incident ---


def _seen(one: Incident, signals: tuple[Signal, ...], seen: Sighting, config: IncidentConfig) -> Incident:
    severity, told = loudest(signals), one.told_severity
    num_milder = one.num_milder_windows + 1 if RANK[severity] < RANK[told] else 0
    if num_milder >= config.quiet_windows:
        told, num_milder = severity, 0
    added = [signal.signal_id for signal in signals if signal.signal_id not in one.open_signal_ids]
    moved = seen.moved if one.root != "labels" else ()
    after = msgspec.structs.replace(
        one,
        version=seen.version,
        severity=severity,
        worst_severity=_louder(one.worst_severity, severity),
        told_severity=told,
        last_window_ms=max(one.last_window_ms, seen.end_ms),
        slices=_joined(one.slices, [signal.slice for signal in signals]),
        features=_joined(one.features, [*(signal.feature for signal in signals), *moved]),
        signal_ids=(*one.signal_ids, *added)[-_MAX_IDS:],
        open_signal_ids=tuple(signal.signal_id for signal in signals),
        num_signals=one.num_signals + len(added),
        num_windows=one.num_windows + 1,
        num_quiet_windows=0,
        num_milder_windows=num_milder,
        evidence_uri=next((seen.evidence[name] for name in map(_id, signals) if name in seen.evidence), one.evidence_uri),
        dashboard_url=link(config.dashboard_url, model=one.model, root=one.root, incident=one.incident_id),
        runbook_url=link(config.runbook_url, model=one.model, root=one.root, incident=one.incident_id),
    )
    if concerns(seen.diagnosis, one.root):
        after = msgspec.structs.replace(
            after, cause=seen.diagnosis.cause, fault=seen.diagnosis.fault, diagnosis=seen.diagnosis,
            decision_id=seen.decision_id,
        )  # fmt: skip
    return with_words(after, signals)


def _quiet(one: Incident, seen: Sighting, config: IncidentConfig) -> Incident:
    if not one.is_open:
        return one
    num_quiet = one.num_quiet_windows + 1
    after = msgspec.structs.replace(one, open_signal_ids=(), num_quiet_windows=num_quiet)
    if num_quiet < config.quiet_windows:
        return after
    how_long = "A judged window" if num_quiet == 1 else f"{num_quiet} judged windows in a row"
    resolution = f"{how_long} showed none of its signals."
    return msgspec.structs.replace(after, is_open=False, resolved_at_ms=seen.at_ms, resolution=resolution)


def _id(signal: Signal) -> str:
    return signal.signal_id


def _joined(before: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in (*before, *more) if name))[:_MAX_NAMES]


def _louder(one: Severity, other: Severity) -> Severity:
    return max(one, other, key=lambda severity: RANK[severity])


# --- what is told ---


def _change(before: Incident | None, after: Incident) -> IncidentChange | None:
    """Why an incident is to be told; None where nothing changed but figures."""
    if before is None:
        return "opened"
    if before.is_open != after.is_open:
        return "reopened" if after.is_open else "resolved"
    is_changed = any(
        getattr(before, name) != getattr(after, name)
        for name in ("root", "severity", "cause", "fault", "slices", "features", "num_signals")
    )
    return "updated" if is_changed else None


def _told(after: Incident, change: IncidentChange, seen: Sighting, *, is_new: bool) -> Incident:
    """News is what opened, came back, or grew worse than was told; a person's word holds back all but the last."""
    has_risen = not is_new and after.is_open and RANK[after.severity] > RANK[after.told_severity]
    is_back = change == "reopened"
    is_held = is_back and not has_risen and is_hushed(after, seen.now_ms)
    is_news = is_new or has_risen or (is_back and not is_held)
    if is_news:  # from here on, only more than this is news
        after = msgspec.structs.replace(after, told_severity=after.severity, num_milder_windows=0)
    return changed(after, change, seen.at_ms, is_news=is_news, is_held_back=after.is_held_back or is_held)
