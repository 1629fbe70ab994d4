"""An incident as the command line tells it."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipdrift_contract.clock import format_moment

COLUMNS = ("incident", "severity", "since", "state", "what")


def row_of(incident: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one incident in the table of `clipdrift incidents list`.

    Example:
        >>> row_of({"incident_id": "pump-data-3f9a2c10", "severity": "page", "first_window_ms": 1362096000000, "is_open": True,
        ...         "summary": "pump: the data look broken"})
        ('pump-data-3f9a2c10', 'page', '2013-03-01 00:00', 'open', 'pump: the data look broken')
    """
    return (
        str(incident.get("incident_id")),
        str(incident.get("severity")),
        format_moment(int(incident.get("first_window_ms", 0))),
        state_of(incident),
        str(incident.get("summary", "")),
    )


def state_of(incident: Mapping[str, Any]) -> str:
    """In a word: open, acknowledged, silenced, or over."""
    if not incident.get("is_open"):
        return "over"
    if incident.get("silence"):
        return "silenced"
    return "acknowledged" if incident.get("acknowledgement") else "open"


def precision_words(precision: Mapping[str, Any]) -> str:
    """How often incidents were right, by what people said of them.

    Example:
        >>> precision_words({"num_true": 9, "num_false": 1, "num_known": 2, "value": 0.9, "low": 0.596, "high": 0.982})
        'precision so far: 90 % (95 % interval 60 to 98 %), by 9 true and 1 false; 2 were known before'
    """
    num_true, num_false, num_known = (int(precision.get(f"num_{verdict}", 0)) for verdict in ("true", "false", "known"))
    known = f"; {num_known} {'was' if num_known == 1 else 'were'} known before" if num_known else ""
    if not num_true + num_false:
        return f"precision so far: not known; `clipdrift incidents feedback` says whether one was true{known}"
    value, low, high = (100 * float(precision[name]) for name in ("value", "low", "high"))
    return (
        f"precision so far: {value:.0f} % (95 % interval {low:.0f} to {high:.0f} %), by {num_true} true and {num_false} "
        f"false{known}"
    )


def paragraphs(incident: Mapping[str, Any]) -> Iterator[str]:
    """Everything that a person needs of one incident, line by line."""
    yield f"{incident['incident_id']}: {incident.get('summary', '')}"
    worst = str(incident.get("worst_severity", ""))
    loud = f"{incident.get('severity')}, {worst} at its worst" if worst != incident.get("severity") else worst
    yield f"{state_of(incident)}; {loud}; {_span(incident)}"
    yield ""
    yield str(incident.get("plain", ""))
    yield ""
    yield f"For an engineer: {incident.get('words', '')}"
    diagnosis = incident.get("diagnosis") or {}
    if diagnosis.get("would_change"):
        yield f"What would change this: {diagnosis['would_change']}"
    yield from _lists(incident)
    yield from _said(incident)
    for name, title in (("evidence_uri", "evidence"), ("dashboard_url", "dashboard"), ("runbook_url", "what to do")):
        if incident.get(name):
            yield f"{title}: {incident[name]}"


def _span(incident: Mapping[str, Any]) -> str:
    first, last = (format_moment(int(incident.get(name, 0))) for name in ("first_window_ms", "last_window_ms"))
    num_back = int(incident.get("num_reopened", 0))
    back = f", come back {'once' if num_back == 1 else f'{num_back} times'}" if num_back else ""
    over = f" {incident['resolution']}" if incident.get("resolution") else ""
    return f"seen from {first} to {last} UTC in {incident.get('num_windows', 0)} windows{back}.{over}"


def _lists(incident: Mapping[str, Any]) -> Iterator[str]:
    for name in ("slices", "features"):
        if incident.get(name):
            yield f"{name}: {', '.join(incident[name])}"
    yield f"signals: {incident.get('num_signals', 0)} raised, {len(incident.get('open_signal_ids', ()))} open"
    if incident.get("decision_id"):
        yield f"decision: {incident['decision_id']}"


def _said(incident: Mapping[str, Any]) -> Iterator[str]:
    for name, done in (("acknowledgement", "acknowledged"), ("silence", "silenced")):
        one = incident.get(name)
        if one:
            yield f"{done} by {one['actor']} until {format_moment(one['until_ms'])} UTC: {one['reason']}"
    for one in incident.get("feedback", ()):
        yield f"{one['verdict']}, says {one['actor']} ({format_moment(one['at_ms'])} UTC): {one['reason']}"
