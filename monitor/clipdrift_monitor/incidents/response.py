"""What people say to an incident: that they see to it, that it be silent, whether it was true."""

from typing import Literal

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import (
    Acknowledgement,
    FeedbackVerdict,
    Incident,
    IncidentFeedback,
    Silence,
)
from clipdrift_monitor.incidents.change import changed
from clipdrift_monitor.incidents.config import IncidentConfig

_MAX_FEEDBACK = 50


class ResponseError(ClipdriftError):
    """What a person said cannot be; the message says why."""


def acknowledge(incident: Incident, *, actor: str, reason: str, at_ms: int, until_ms: int, config: IncidentConfig) -> Incident:
    """Somebody sees to an incident, until `until_ms`. The same again changes nothing.

    Raises:
        ResponseError: It is over, or the time is past or too far.
    """
    _check(incident, at_ms, until_ms, config, "acknowledged")
    known = incident.acknowledgement
    if known is not None and (known.actor, known.reason, known.until_ms) == (actor, reason, until_ms):
        return incident
    given = Acknowledgement(actor=actor, reason=reason, at_ms=at_ms, until_ms=until_ms, severity=incident.severity)
    return changed(incident, "acknowledged", at_ms, acknowledgement=given)


def silence(incident: Incident, *, actor: str, reason: str, at_ms: int, until_ms: int, config: IncidentConfig) -> Incident:
    """An incident is not to be heard until `until_ms`, unless it grows worse. The same again changes nothing.

    Raises:
        ResponseError: It is over, or the time is past or too far.
    """
    _check(incident, at_ms, until_ms, config, "silenced")
    known = incident.silence
    if known is not None and (known.actor, known.reason, known.until_ms) == (actor, reason, until_ms):
        return incident
    given = Silence(actor=actor, reason=reason, at_ms=at_ms, until_ms=until_ms, severity=incident.severity)
    return changed(incident, "silenced", at_ms, silence=given)


def give_feedback(incident: Incident, *, verdict: FeedbackVerdict, actor: str, reason: str, at_ms: int) -> Incident:
    """What a person found out about an incident, also when it is over. What the same person said last, said again, changes
    nothing."""
    last = next((one for one in reversed(incident.feedback) if one.actor == actor), None)
    if last is not None and (last.verdict, last.reason) == (verdict, reason) and incident.feedback[-1] == last:
        return incident
    given = IncidentFeedback(verdict=verdict, actor=actor, reason=reason, at_ms=at_ms)
    return changed(incident, "feedback", at_ms, feedback=(*incident.feedback, given)[-_MAX_FEEDBACK:])


def lapse(incident: Incident, now_ms: int) -> Incident | None:
    """An open incident once a time that a person set has passed; None where none has.

    An acknowledgement that lapses is news again: whoever saw to it did not end it. A silence that ends
    is news where there was some that it held back.
    """
    acknowledgement, silence = incident.acknowledgement, incident.silence
    if not incident.is_open:
        return None
    is_forgotten = acknowledgement is not None and acknowledgement.until_ms <= now_ms
    is_heard = silence is not None and silence.until_ms <= now_ms
    if not is_forgotten and not is_heard:
        return None
    still_silent = silence is not None and not is_heard
    has_news = is_forgotten or (is_heard and incident.is_held_back)
    return changed(
        incident, "lapsed", now_ms, is_news=has_news and not still_silent,
        acknowledgement=None if is_forgotten else acknowledgement, silence=None if is_heard else silence,
        is_held_back=still_silent and (has_news or incident.is_held_back),
    )  # fmt: skip


def is_hushed(incident: Incident, now_ms: int) -> bool:
    """Whether a person has said, and not too long ago, that they need not hear of it again."""
    held = (incident.acknowledgement, incident.silence)
    return any(one is not None and one.until_ms > now_ms for one in held)


def hold_of(incident: Incident) -> Literal["silenced", "acknowledged", "open"]:
    """What people have said to an open incident. Times that have passed are taken out of it by `lapse`."""
    if incident.silence is not None:
        return "silenced"
    return "acknowledged" if incident.acknowledgement is not None else "open"


def verdict_of(incident: Incident) -> FeedbackVerdict | None:
    """What people found out about it: the newest word stands."""
    return incident.feedback[-1].verdict if incident.feedback else None


def _check(incident: Incident, at_ms: int, until_ms: int, config: IncidentConfig, what: str) -> None:
    if not incident.is_open:
        raise ResponseError(f"{incident.incident_id} is over and cannot be {what}; feedback can still be given")
    days = (until_ms - at_ms) / MS_PER_DAY
    if not 0 < days <= config.max_hold_days:
        raise ResponseError(
            f"an incident is {what} until a time within the next {config.max_hold_days:g} days, got one in {days:.1f} days"
        )
