"""What is remembered of incidents when they are long over: how many there were, how loud, and whether they were right."""

from collections.abc import Sequence

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import FeedbackVerdict, Incident, Severity
from clipdrift_monitor.incidents.response import verdict_of

HISTORY_DAYS = 90
_MAX_REMEMBERED = 500


class PastIncident(msgspec.Struct, frozen=True, kw_only=True):
    """One incident, open or over."""

    incident_id: str
    opened_at_ms: int  # event time
    severity: Severity  # the highest that it reached
    verdict: FeedbackVerdict | None = None  # of people; None: none was given


def remember(past: Sequence[PastIncident], incidents: Sequence[Incident]) -> list[PastIncident]:
    """What is known of `incidents` put to what was remembered, the oldest first: those that opened in the 90 days before the
    newest, at most 500."""
    known = {one.incident_id: one for one in past}
    for one in incidents:
        known[one.incident_id] = PastIncident(
            incident_id=one.incident_id,
            opened_at_ms=one.opened_at_ms,
            severity=one.worst_severity,
            verdict=verdict_of(one),
        )
    newest_ms = max((one.opened_at_ms for one in known.values()), default=0)
    recent = [one for one in known.values() if newest_ms - one.opened_at_ms <= HISTORY_DAYS * MS_PER_DAY]
    return sorted(recent, key=lambda one: (one.opened_at_ms, one.incident_id))[-_MAX_REMEMBERED:]
