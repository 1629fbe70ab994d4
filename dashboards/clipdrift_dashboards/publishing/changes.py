"""What would have to change in a Grafana, found by comparing. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Kind = Literal["folder", "data source", "dashboard", "alert rules", "contact point", "annotation"]
Act = Literal["create", "update", "keep", "conflict", "refuse"]
Json = Mapping[str, Any]
_MARK = "clipdrift "
_REDACTED = "[REDACTED]"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing and what is to be done with it. A conflict may be forced; what is refused may not."""

    kind: Kind
    name: str
    act: Act
    why: str = ""

    @property
    def is_write(self) -> bool:
        return self.act in ("create", "update")


def digest_of(content: Any) -> str:
    """Twelve digits of any JSON.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def message_of(content: Any) -> str:
    """What stands in a dashboard's history where we saved it: whoever saved it since left another message, or none."""
    return _MARK + digest_of(content)


def dashboard_change(name: str, wanted: Json, found: Json | None, newest: Json) -> Change:
    """Compare a dashboard with Grafana's.

    Args:
        name: For words.
        wanted: Its JSON.
        found: What Grafana has under its uid: {"dashboard": ..., "meta": ...}; None: nothing.
        newest: The newest row of its history there; empty where there is none.

    Example:
        >>> one = {"title": "A"}
        >>> saved = {"message": message_of(one), "version": 3}
        >>> dashboard_change("a", one, {"dashboard": {}, "meta": {}}, saved).act
        'keep'
        >>> dashboard_change("a", {"title": "B"}, {"dashboard": {}, "meta": {}}, saved).act
        'update'
        >>> dashboard_change("a", one, {"dashboard": {}, "meta": {}}, {"message": "", "createdBy": "ada"}).why
        'changed by ada'
    """
    if found is None:
        return Change(kind="dashboard", name=name, act="create")
    if found.get("meta", {}).get("provisioned"):
        return Change(
            kind="dashboard", name=name, act="refuse", why="it comes from a file on Grafana's machine: change that file"
        )
    message = str(newest.get("message", ""))
    if not message.startswith(_MARK):
        return Change(kind="dashboard", name=name, act="conflict", why=f"changed by {newest.get('createdBy') or 'somebody'}")
    if message == message_of(wanted):
        return Change(kind="dashboard", name=name, act="keep")
    return Change(kind="dashboard", name=name, act="update", why=f"was {message.removeprefix(_MARK)}")


def source_change(wanted: Json, found: Json | None) -> Change:
    """Compare a data source with Grafana's; only what we set is compared."""
    name = str(wanted["uid"])
    if found is None:
        return Change(kind="data source", name=name, act="create")
    other = [key for key in ("type", "url") if found.get(key) != wanted[key]]
    if not other:
        return Change(kind="data source", name=name, act="keep")
    why = ", ".join(f"{key} is {found.get(key)!r}, not {wanted[key]!r}" for key in other)
    return Change(kind="data source", name=name, act="refuse" if found.get("readOnly") else "conflict", why=why)


def rules_change(wanted: Json, found: Json | None) -> Change:
    """Compare a group of alert rules with Grafana's.

    Rules that come by the API cannot be changed in Grafana's pages, so what stands there is ours, unless somebody made or took
    over the group: such rules have no provenance.
    """
    name = str(wanted["title"])
    there = (found or {}).get("rules") or []
    if not there:
        return Change(kind="alert rules", name=name, act="create")
    if any(rule.get("provenance", "") != "api" for rule in there):
        return Change(kind="alert rules", name=name, act="conflict", why="made or taken over in Grafana")
    same = {**(found or {}), "rules": [_as_wanted(rule, wanted["rules"]) for rule in there]}
    is_kept = same["rules"] == list(wanted["rules"]) and same.get("interval") == wanted["interval"]
    return Change(kind="alert rules", name=name, act="keep" if is_kept else "update")


def contact_change(wanted: Json, found: Json | None) -> Change:
    """Compare a contact point with Grafana's, which tells no secrets: a secret that was changed is not seen."""
    name = str(wanted["name"])
    if found is None:
        return Change(kind="contact point", name=name, act="create")
    if found.get("provenance", "") != "api":
        return Change(kind="contact point", name=name, act="conflict", why="made or taken over in Grafana")
    told = found.get("settings", {})
    is_kept = found.get("type") == wanted["type"] and all(
        told.get(key) in (value, _REDACTED) for key, value in wanted["settings"].items()
    )
    return Change(kind="contact point", name=name, act="keep" if is_kept else "update")


def _as_wanted(rule: Json, wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """A rule of Grafana's with the keys that we set, no others: it adds ids, times and its own defaults."""
    ours = next((one for one in wanted if one["uid"] == rule.get("uid")), None)
    return {key: rule.get(key) for key in ours} if ours is not None else dict(rule)
