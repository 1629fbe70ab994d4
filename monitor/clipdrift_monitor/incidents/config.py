"""Settings of incidents."""

import string
from urllib.parse import quote

import msgspec

_PLACES = ("model", "root", "incident")


class IncidentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.incidents]`: when signals are one incident, and when it is over."""

    quiet_windows: int = 2
    """An incident is over after so many judged windows in a row without any of its signals; what was told at a higher severity
    counts as over likewise, so only then is a rise told again."""
    reopen_days: float = 7.0
    """What comes back with the same root within so many days after it was over is the same incident, reopened and counted."""
    same_cause_days: float = 7.0
    """An incident that began as drift or harm becomes what the diagnosis finds behind it for so long; what is found later is an
    incident of its own."""
    max_hold_days: float = 30.0
    """The longest that a person may acknowledge or silence an incident for."""
    dashboard_url: str = ""
    """Link in every incident; {model}, {root} and {incident} are filled in, as in
    "https://grafana.example/d/clipdrift-model?var-model={model}"."""
    runbook_url: str = ""
    """The same, to what your people should do, as in "https://wiki.example/clipdrift/{root}"."""

    def __post_init__(self) -> None:
        if self.quiet_windows < 1:
            raise ValueError(f"incidents.quiet_windows must be >= 1, got {self.quiet_windows!r}")
        for name in ("reopen_days", "same_cause_days", "max_hold_days"):
            value = getattr(self, name)
            if not 0 <= value <= 3_650:
                raise ValueError(f"incidents.{name} must be in 0..3650, got {value!r}")
        for name in ("dashboard_url", "runbook_url"):
            _check_link(name, getattr(self, name))


def link(template: str, *, model: str, root: str, incident: str) -> str:
    """A link with its places filled in, each as it is written in an address.

    Example:
        >>> link("https://wiki.example/{root}?m={model}", model="pump", root="data", incident="i")
        'https://wiki.example/data?m=pump'
    """
    return template.format(model=quote(model, safe=""), root=root, incident=quote(incident, safe=""))


def _check_link(name: str, template: str) -> None:
    allowed = ", ".join(f"{{{place}}}" for place in _PLACES)
    try:
        places = [(place, form, cast) for _, place, form, cast in string.Formatter().parse(template) if place is not None]
    except ValueError as error:
        raise ValueError(f"incidents.{name} has a brace too few: {template!r}; braces hold {allowed}") from error
    if any(place not in _PLACES or form or cast for place, form, cast in places):
        raise ValueError(f"incidents.{name} may hold {allowed}, got {template!r}")
    if template and not template.startswith(("https://", "http://")):
        raise ValueError(f"incidents.{name} must begin with https:// or http://, got {template!r}")
