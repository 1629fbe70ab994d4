"""One revision of an incident to the next."""

import msgspec

from clipdrift_contract.events import Incident, IncidentChange


def changed(incident: Incident, change: IncidentChange, at_ms: int, *, is_news: bool = False, **fields: object) -> Incident:
    """An incident one revision further."""
    return msgspec.structs.replace(
        incident, change=change, at_ms=at_ms, revision=incident.revision + 1, is_news=is_news, **fields
    )
