"""An incident in words: a line, a paragraph for an engineer, and one for anybody."""

from collections.abc import Mapping, Sequence

import msgspec

from clipdrift_contract.events import Incident, IncidentRoot, Signal
from clipdrift_monitor.incidents.root import RANK

_MAX_NAMED = 3
_MAX_TOLD = 5
_TITLES: Mapping[IncidentRoot, str] = {
    "data": "the data look broken",
    "labels": "labels are missing or wrong",
    "training": "training was faulty",
    "harm": "the model is worse than validated",
    "drift": "inputs have moved; no harm is proven",
}
_PLAIN: Mapping[IncidentRoot, str] = {
    "data": "What the model is fed looks broken{features}. Its answers cannot be trusted until that is mended; training it "
    "anew would only teach it the fault.",
    "labels": "The outcomes that show whether the model is right do not come as they should. Until they do, nobody can say how "
    "good it is.",
    "training": "Something went wrong when this model was trained. It should be trained again once that is mended.",
    "harm": "The model makes more mistakes than when it was checked{slices}.",
    "drift": "What the model is asked about has changed{features}. That alone is no harm, and nobody needs to act.",
}


def with_words(incident: Incident, signals: Sequence[Signal]) -> Incident:
    """The incident with its words, from its open signals and its diagnosis."""
    return msgspec.structs.replace(
        incident, summary=_summary(incident), words=_words(incident, signals), plain=_plain(incident)
    )


def named(names: Sequence[str]) -> str:
    """Names in a sentence; of many, the first.

    Example:
        >>> named(["a"]), named(["a", "b"]), named(list("abcde"))
        ('a', 'a and b', 'a, b, c and 2 more')
    """
    if len(names) > _MAX_NAMED + 1:
        return f"{', '.join(names[:_MAX_NAMED])} and {len(names) - _MAX_NAMED} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def _summary(incident: Incident) -> str:
    where = []
    if incident.slices:
        where.append(f"in {named(incident.slices)}")
    if incident.features:
        where.append(f"inputs: {named(incident.features)}")
    behind = f" ({'; '.join(where)})" if where else ""
    return f"{incident.model}: {_TITLES[incident.root]}{behind}"


def _words(incident: Incident, signals: Sequence[Signal]) -> str:
    loud = sorted(signals, key=lambda one: -RANK[one.severity])
    told = list(dict.fromkeys(one.summary for one in loud if one.summary))
    more = f"And {len(told) - _MAX_TOLD} more signals." if len(told) > _MAX_TOLD else ""
    diagnosis = incident.diagnosis.words if incident.diagnosis is not None else ""
    return " ".join(part for part in (diagnosis, *told[:_MAX_TOLD], more) if part)


def _plain(incident: Incident) -> str:
    places = {
        "features": f": {named(incident.features)}" if incident.features else "",
        "slices": f", above all in {named(incident.slices)}" if incident.slices else "",
    }
    own = _PLAIN[incident.root]
    for place, words in places.items():  # names may hold braces
        own = own.replace(f"{{{place}}}", words)
    found = incident.diagnosis.plain if incident.diagnosis is not None else ""
    return f"{own} {found}".rstrip()
