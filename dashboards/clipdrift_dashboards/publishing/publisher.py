"""Publishes: looks first, says what it would change, then changes that and nothing else.

It may be ended at any moment and run again: what stands there already is kept.
"""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_dashboards.publishing.changes import (
    Change,
    contact_change,
    dashboard_change,
    message_of,
    rules_change,
    source_change,
)
from clipdrift_dashboards.publishing.connection import Connection, GrafanaError
from clipdrift_dashboards.publishing.wanted import Annotation, Wanted

ANNOTATION_TAG = "clipdrift"
_PAGE = 1000


class ConflictError(ClipdriftError):
    """People changed what would be written over; nothing was written.

    Attributes:
        changes: All that was found.
    """

    def __init__(self, message: str, changes: tuple[Change, ...]) -> None:
        super().__init__(message)
        self.changes = changes


class Publisher:
    """Brings what is wanted into one Grafana. Not thread-safe.

    Args:
        connection: To Grafana.
        wanted: What is to stand there.
    """

    def __init__(self, connection: Connection, wanted: Wanted) -> None:
        self._ask = connection
        self._wanted = wanted
        self._versions: dict[str, int] = {}  # of the dashboards as they were found
        self._folders: dict[str, str] = {}  # in which they were found: who moved one had a reason

    def plan(self) -> tuple[Change, ...]:
        """What publishing would do; asks and writes nothing.

        Raises:
            GrafanaError: Grafana cannot be asked.
        """
        self._ask.version()
        return tuple(self._changes())

    def publish(self, *, force: bool = False, told: Callable[[Change], object] = lambda _: None) -> tuple[Change, ...]:
        """Look, then write what differs.

        Args:
            force: Write over what people changed.
            told: Called after each write.

        Returns:
            All changes, those that were not needed included.

        Raises:
            ConflictError: People changed something, or it cannot be changed from here; nothing was written.
            GrafanaError: A write failed. What was written before it stays, and the next call goes on from there.
        """
        found = self.plan()
        stands_in_the_way = [one for one in found if one.act == "refuse" or (one.act == "conflict" and not force)]
        if stands_in_the_way:
            words = "; ".join(f"{one.kind} {one.name}: {one.why}" for one in stands_in_the_way)
            hint = "" if any(one.act == "refuse" for one in stands_in_the_way) else "; --force writes over it"
            raise ConflictError(f"nothing was published: {words}{hint}", found)
        done = [msgspec.structs.replace(one, act="update") if one.act == "conflict" else one for one in found]
        for one in done:
            if one.is_write:
                self._write(one, is_forced=force)
                told(one)
        return tuple(done)

    def _changes(self) -> Iterator[Change]:
        wanted, find = self._wanted, self._ask.find
        folder = find(f"/folders/{quote(wanted.folder_uid)}")
        yield Change(kind="folder", name=wanted.folder_uid, act="create" if folder is None else "keep")
        if wanted.source is not None:
            yield source_change(wanted.source, find(f"/datasources/uid/{quote(wanted.source['uid'])}"))
        for uid, board in wanted.dashboards.items():
            yield self._dashboard_change(uid, board)
        for group in wanted.groups:
            path = _group_path(group) if folder is not None else ""
            yield rules_change(group, find(path) if path else None)
        if wanted.contacts:
            there = {str(one.get("uid")): one for one in self._ask.ask("GET", "/v1/provisioning/contact-points")}
            for contact in wanted.contacts:
                yield contact_change(contact, there.get(contact["uid"]))
        if wanted.annotations:
            known = self._known_annotations()
            for one in wanted.annotations:
                yield Change(kind="annotation", name=one.key, act="keep" if one.key in known else "create")

    def _dashboard_change(self, uid: str, board: dict[str, Any]) -> Change:
        found = self._ask.find(f"/dashboards/uid/{quote(uid)}")
        if found is not None:
            self._versions[uid] = int(found["dashboard"].get("version", 0))
            self._folders[uid] = str(found.get("meta", {}).get("folderUid", ""))
        return dashboard_change(uid, board, found, self._newest(uid) if found is not None else {})

    def _newest(self, uid: str) -> dict[str, Any]:
        """The newest row of a dashboard's history. Grafana 10 tells a list, later ones an object with a list in it."""
        told = self._ask.ask("GET", f"/dashboards/uid/{quote(uid)}/versions?limit=1")
        rows = told.get("versions", []) if isinstance(told, dict) else told
        newest: dict[str, Any] = max(rows, key=lambda row: row.get("version", 0), default={})
        return newest

    def _known_annotations(self) -> set[str]:
        times = [one.time_ms for one in self._wanted.annotations]
        asked = {"tags": ANNOTATION_TAG, "from": min(times), "to": max(times) + 1, "limit": _PAGE * 10, "type": "annotation"}
        rows = self._ask.ask("GET", f"/annotations?{urlencode(asked)}")
        return {tag.removeprefix("key:") for row in rows for tag in row.get("tags", []) if tag.startswith("key:")}

    def _write(self, change: Change, *, is_forced: bool) -> None:
        wanted, ask = self._wanted, self._ask.ask
        match change.kind:
            case "folder":
                ask("POST", "/folders", {"uid": wanted.folder_uid, "title": wanted.folder_title})
            case "data source" if change.act == "create":
                ask("POST", "/datasources", wanted.source)
            case "data source":
                ask("PUT", f"/datasources/uid/{quote(change.name)}", wanted.source)
            case "dashboard":
                self._write_dashboard(change.name, is_forced=is_forced)
            case "alert rules":
                (group,) = [one for one in wanted.groups if one["title"] == change.name]
                ask("PUT", _group_path(group), group)
            case "contact point":
                (contact,) = [one for one in wanted.contacts if one["name"] == change.name]
                path = "/v1/provisioning/contact-points"
                if change.act == "create":
                    ask("POST", path, contact)
                else:
                    ask("PUT", f"{path}/{quote(contact['uid'])}", contact)
            case "annotation":
                ask("POST", "/annotations", _annotation(next(a for a in wanted.annotations if a.key == change.name)))

    def _write_dashboard(self, uid: str, *, is_forced: bool) -> None:
        board = self._wanted.dashboards[uid]
        body = {
            "dashboard": {**board, "id": None, "version": self._versions.get(uid, 0)},
            "folderUid": self._folders.get(uid, self._wanted.folder_uid),
            "message": message_of(board),
            "overwrite": is_forced,
        }
        try:
            self._ask.ask("POST", "/dashboards/db", body)
        except GrafanaError as error:
            if error.status != 412:
                raise
            raise GrafanaError(
                f"dashboard {uid}: somebody saved it while this was being published ({error.body.get('status', 'conflict')}); "
                "publish again to see what they changed",
                412,
                error.body,
            ) from error


def exported(connection: Connection, uids: list[str]) -> dict[str, dict[str, Any]]:
    """Dashboards as they stand in Grafana, by uid, without what only that Grafana knows of them.

    Raises:
        GrafanaError: There is no such dashboard, or Grafana cannot be asked.
    """
    boards = {}
    for uid in uids:
        found = connection.find(f"/dashboards/uid/{quote(uid)}")
        if found is None:
            raise GrafanaError(f"there is no dashboard {uid!r} at {connection.url}", 404)
        boards[uid] = {key: value for key, value in found["dashboard"].items() if key not in ("id", "version", "iteration")}
    return boards


def _group_path(group: dict[str, Any]) -> str:
    return f"/v1/provisioning/folder/{quote(group['folderUid'])}/rule-groups/{quote(group['title'])}"


def _annotation(one: Annotation) -> dict[str, Any]:
    body = {"time": one.time_ms, "text": one.text, "tags": [ANNOTATION_TAG, f"key:{one.key}", *one.tags]}
    return body | ({"timeEnd": one.end_ms} if one.end_ms else {})
