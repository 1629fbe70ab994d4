"""A Grafana as its HTTP API behaves, version by version, in memory and on a real port.

What it answers is what Grafana's documentation and its OpenAPI say of these paths: statuses, shapes, and the conflicts. Where
versions differ: 10 tells a dashboard's history as a list, 11 and later as an object; 13 addresses data sources by uid alone.
"""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKENS = {"editor-token": "Editor", "viewer-token": "Viewer", "admin-token": "Admin"}
RELEASES = {10: "10.4.19", 11: "11.6.4", 12: "12.4.1", 13: "13.0.2"}


class RefusedError(Exception):
    """What is answered instead."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status, self.body = status, body


class FakeGrafana:
    """State and behaviour; `writes` lists every request that changed something."""

    def __init__(self, major: int) -> None:
        self.major = major
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.boards: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.groups: dict[tuple[str, str], dict[str, Any]] = {}
        self.contacts: dict[str, dict[str, Any]] = {}
        self.annotations: list[dict[str, Any]] = []
        self.provisioned: set[str] = set()
        self.writes: list[str] = []
        self.breaks_after: int | None = None  # writes that still go through; then 500
        self.before_save: Callable[[], object] = lambda: None

    # --- what a person does in the browser ---

    def edit(self, uid: str, who: str = "ada") -> None:
        board = self.boards[uid]["dashboard"]
        board["title"] = f"{board['title']} (edited)"
        self._note(uid, "", who)

    def take_over(self, folder: str, group: str) -> None:
        for rule in self.groups[folder, group]["rules"]:
            rule["provenance"] = ""

    # --- HTTP ---

    def answer(self, method: str, target: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        path = parts.path.removeprefix("/api")
        if path == "/health":
            return 200, {"database": "ok", "version": RELEASES[self.major], "commit": "0"}
        try:
            self._let_in(method, path, headers)
            return self._handled(method, path, parse_qs(parts.query), body)
        except RefusedError as refused:
            return refused.status, refused.body

    def _let_in(self, method: str, path: str, headers: dict[str, str]) -> None:
        role = TOKENS.get(headers.get("authorization", "").removeprefix("Bearer "), "")
        if not role:
            raise RefusedError(401, {"message": "Invalid API key"})
        if method == "GET":
            return
        if role == "Viewer" or (path.startswith("/datasources") and role != "Admin"):
            raise RefusedError(403, {"message": "You'll need additional permissions to perform this action"})
        if self.breaks_after is not None:
            if not self.breaks_after:
                raise RefusedError(500, {"message": "database is locked"})
            self.breaks_after -= 1

    def _handled(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        for pattern, handler in self._routes():
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                answer = handler(*found.groups(), query=query, body=body)
                if method != "GET":
                    self.writes.append(f"{method} {path}")
                return answer
        raise RefusedError(404, {"message": "Not found"})

    def _routes(self) -> list[tuple[str, Callable[..., tuple[int, Any]]]]:
        return [
            (r"GET /folders/([^/]+)", self._get_folder),
            (r"POST /folders", self._make_folder),
            (r"GET /datasources/uid/([^/]+)", self._get_source),
            (r"POST /datasources", self._make_source),
            (r"PUT /datasources/uid/([^/]+)", self._change_source),
            (r"GET /dashboards/uid/([^/]+)", self._get_board),
            (r"GET /dashboards/uid/([^/]+)/versions", self._get_history),
            (r"POST /dashboards/db", self._save_board),
            (r"GET /v1/provisioning/folder/([^/]+)/rule-groups/([^/]+)", self._get_group),
            (r"PUT /v1/provisioning/folder/([^/]+)/rule-groups/([^/]+)", self._put_group),
            (r"GET /v1/provisioning/contact-points", self._get_contacts),
            (r"POST /v1/provisioning/contact-points", self._make_contact),
            (r"PUT /v1/provisioning/contact-points/([^/]+)", self._change_contact),
            (r"GET /annotations", self._get_annotations),
            (r"POST /annotations", self._make_annotation),
        ]

    def _get_folder(self, uid: str, **_: Any) -> tuple[int, Any]:
        if uid not in self.folders:
            raise RefusedError(404, {"message": "folder not found", "status": "not-found"})
        return 200, self.folders[uid]

    def _make_folder(self, *, body: Any, **_: Any) -> tuple[int, Any]:
        if body["uid"] in self.folders:
            raise RefusedError(412, {"message": "the folder has been changed by someone else", "status": "version-mismatch"})
        self.folders[body["uid"]] = {"uid": body["uid"], "title": body["title"], "version": 1}
        return 200, self.folders[body["uid"]]

    def _get_source(self, uid: str, **_: Any) -> tuple[int, Any]:
        if uid not in self.sources:
            raise RefusedError(404, {"message": "Data source not found"})
        return 200, self.sources[uid]

    def _make_source(self, *, body: Any, **_: Any) -> tuple[int, Any]:
        if body["uid"] in self.sources or any(one["name"] == body["name"] for one in self.sources.values()):
            raise RefusedError(409, {"message": "data source with the same name already exists"})
        self.sources[body["uid"]] = {"id": len(self.sources) + 1, "readOnly": False, **body}
        return 200, {"datasource": self.sources[body["uid"]], "message": "Datasource added"}

    def _change_source(self, uid: str, *, body: Any, **_: Any) -> tuple[int, Any]:
        if self.sources[uid]["readOnly"]:
            raise RefusedError(403, {"message": "Cannot update read-only data source"})
        self.sources[uid] = self.sources[uid] | body
        return 200, {"datasource": self.sources[uid], "message": "Datasource updated"}

    def _get_board(self, uid: str, **_: Any) -> tuple[int, Any]:
        if uid not in self.boards:
            raise RefusedError(404, {"message": "Dashboard not found"})
        meta = {"folderUid": self.boards[uid]["folderUid"], "provisioned": uid in self.provisioned, "type": "db"}
        return 200, {"dashboard": self.boards[uid]["dashboard"], "meta": meta}

    def _get_history(self, uid: str, *, query: dict[str, list[str]], **_: Any) -> tuple[int, Any]:
        rows = list(reversed(self.history[uid]))[: int(query.get("limit", ["1000"])[0])]
        return 200, rows if self.major == 10 else {"continueToken": "", "versions": rows}

    def _save_board(self, *, body: Any, **_: Any) -> tuple[int, Any]:
        self.before_save()
        board, uid = dict(body["dashboard"]), body["dashboard"]["uid"]
        if body["folderUid"] not in self.folders:
            raise RefusedError(400, {"message": "folder not found"})
        if uid in self.provisioned:
            raise RefusedError(400, {"message": "Cannot save provisioned dashboard"})
        there = self.boards.get(uid)
        if there is not None and not body["overwrite"] and board.get("version") != there["dashboard"]["version"]:
            raise RefusedError(412, {"status": "version-mismatch", "message": "The dashboard has been changed by someone else"})
        version = there["dashboard"]["version"] if there else 0
        kept = {**board, "id": len(self.boards) + 1, "version": version}
        self.boards[uid] = {"dashboard": kept, "folderUid": body["folderUid"]}
        self._note(uid, body.get("message", ""), "sa-clipdrift")
        return 200, {"uid": uid, "status": "success", "version": version + 1, "url": f"/d/{uid}"}

    def _note(self, uid: str, message: str, who: str) -> None:
        board = self.boards[uid]["dashboard"]
        board["version"] += 1
        row = {"version": board["version"], "message": message, "createdBy": who, "uid": uid}
        self.history.setdefault(uid, []).append(row)

    def _get_group(self, folder: str, group: str, **_: Any) -> tuple[int, Any]:
        if (folder, group) not in self.groups:
            raise RefusedError(404, {"message": "rule group not found"})
        return 200, self.groups[folder, group]

    def _put_group(self, folder: str, group: str, *, body: Any, **_: Any) -> tuple[int, Any]:
        if folder not in self.folders:
            raise RefusedError(400, {"message": "folder does not exist"})
        for rule in body["rules"]:
            if rule["condition"] not in {one["refId"] for one in rule["data"]} or len(rule["uid"]) > 40:
                raise RefusedError(400, {"message": "invalid alert rule"})
        rules = [{"id": i + 1, "orgID": 1, "updated": "2026-11-26T00:00:00Z", "provenance": "api", **one}
                 for i, one in enumerate(body["rules"])]  # fmt: skip
        self.groups[folder, group] = {**body, "rules": rules}
        return 200, self.groups[folder, group]

    def _get_contacts(self, **_: Any) -> tuple[int, Any]:
        secret = {"url", "token", "integrationKey"}
        return 200, [
            {**one, "settings": {key: "[REDACTED]" if key in secret else value for key, value in one["settings"].items()}}
            for one in self.contacts.values()
        ]

    def _make_contact(self, *, body: Any, **_: Any) -> tuple[int, Any]:
        self.contacts[body["uid"]] = {"provenance": "api", "disableResolveMessage": False, **body}
        return 202, self.contacts[body["uid"]]

    def _change_contact(self, uid: str, *, body: Any, **_: Any) -> tuple[int, Any]:
        self.contacts[uid] = self.contacts[uid] | body
        return 202, {"message": "contactpoint updated"}

    def _get_annotations(self, *, query: dict[str, list[str]], **_: Any) -> tuple[int, Any]:
        start, end, tags = int(query["from"][0]), int(query["to"][0]), set(query["tags"])
        return 200, [one for one in self.annotations if start <= one["time"] < end and tags <= set(one["tags"])]

    def _make_annotation(self, *, body: Any, **_: Any) -> tuple[int, Any]:
        self.annotations.append(dict(body))
        return 200, {"message": "Annotation added", "id": len(self.annotations)}


def served(grafana: FakeGrafana) -> tuple[str, Callable[[], None]]:
    """Its address, and what ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: else each answer waits 40 ms for an acknowledgement

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = grafana.answer(self.command, self.path, headers, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return f"http://127.0.0.1:{server.server_address[1]}", end
