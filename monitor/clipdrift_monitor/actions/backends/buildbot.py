"""Buildbot: a build request for each attempt, begun by a ForceScheduler, found again by its properties.

What a person does in the browser: log in for a session's cookie, press "force". Credentials on the call itself are ignored.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from clipdrift_contract.clock import Clock
from clipdrift_monitor.actions.backends.backend import Attempt, CiRun, CiState, RefusedError, first_of, tail_of
from clipdrift_monitor.actions.backends.ci_client import CiClient, json_of, told_by
from clipdrift_monitor.actions.config import BuildbotConfig

T = TypeVar("T")
_PAGE_ROWS = 200
_MAX_PAGES = 5
_NUM_LOG_ROWS = 20
_CANCELLED = 6
_GOOD = (0, 1)  # success, warnings
_BAD_STEPS = (2, 4)  # failure, exception


class Buildbot:
    """Build requests of one scheduler.

    Args:
        config: Which, and who asks.
        password: The user's.
        clock: For when to ask again.
        transport: In place of the network, for tests.
    """

    def __init__(
        self, config: BuildbotConfig, password: str, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._config = config
        self._login = httpx.BasicAuth(config.user, password)
        self._url = config.url.rstrip("/")
        self._http = CiClient("Buildbot", self._url, clock, secrets=(password,), transport=transport)
        self._has_session = False

    def find(self, attempt: Attempt) -> CiRun | None:
        for kind, key in (("buildrequests", "buildrequestid"), ("builds", "buildid")):
            ids = self._ids_of(attempt, kind, key)
            runs = [run for one in ids if (run := self.look(attempt, str(one))) is not None]
            if (found := first_of(runs)) is not None:
                return found
        return None

    def dispatch(self, attempt: Attempt) -> CiRun:
        params = {**attempt.inputs, "reason": f"{attempt.request.cause}: {attempt.title}"}
        answer = self._logged_in(
            lambda: self._http.change(
                "POST", f"/api/v2/forceschedulers/{self._config.scheduler}", expected=(200,), json=_call("force", params)
            )
        )
        run_id = _request_id(answer)
        return CiRun(run_id=run_id, url=self._link(run_id), state="queued")

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        answer = self._read(f"/api/v2/buildrequests/{run_id}", expected=(200, 404))
        rows = json_of(answer).get("buildrequests", []) if answer.status_code == 200 else []
        if not rows:
            return None
        build = self._build_of(run_id) if rows[0].get("claimed") else None
        return CiRun(run_id=run_id, url=self._link(run_id, build), state=_state_of(rows[0]))

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        # a request that has become a build stops that
        self._logged_in(
            lambda: self._http.change(
                "POST", f"/api/v2/buildrequests/{run_id}", expected=(200, 404),
                json=_call("cancel", {"reason": "cancelled at the monitor"}),
            )
        )  # fmt: skip

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        build = self._build_of(run_id)
        if build is None:
            return ""
        steps = json_of(self._read(f"/api/v2/builds/{build['buildid']}/steps")).get("steps", [])
        bad = [step for step in steps if step.get("results") in _BAD_STEPS] or steps
        for step in reversed(bad):
            for log in json_of(self._read(f"/api/v2/steps/{step['stepid']}/logs")).get("logs", []):
                if log.get("num_lines"):
                    return self._tail(log)
        return ""

    def close(self) -> None:
        self._http.close()

    def _tail(self, log: dict[str, Any]) -> str:
        offset = max(0, int(log["num_lines"]) - _NUM_LOG_ROWS)
        asked = {"offset": str(offset), "limit": str(_NUM_LOG_ROWS)}
        answer = self._read(f"/api/v2/logs/{log['logid']}/contents", params=asked)
        chunks = json_of(answer).get("logchunks", [])
        text = "".join(str(chunk.get("content", "")) for chunk in chunks)
        is_typed = log.get("type") == "s"  # each line begins with the letter of its stream
        return tail_of("\n".join(line[1:] for line in text.splitlines()) if is_typed else text)

    def _ids_of(self, attempt: Attempt, kind: str, order: str) -> list[int]:
        """Of all requests with the attempt's properties, the oldest first."""
        found: set[int] = set()
        for page in range(_MAX_PAGES):
            asked = [
                ("property", "key"), ("property", "attempt"), ("order", f"-{order}"), ("limit", str(_PAGE_ROWS)),
                ("offset", str(page * _PAGE_ROWS)),
            ]  # fmt: skip
            rows = json_of(self._read(f"/api/v2/{kind}", params=asked)).get(kind, [])
            found |= {int(row["buildrequestid"]) for row in rows if _is_of(row, attempt)}
            if len(rows) < _PAGE_ROWS:
                break
        return sorted(found)

    def _build_of(self, run_id: str) -> dict[str, Any] | None:
        """The newest build of a request."""
        answer = self._read("/api/v2/builds", params={"buildrequestid": run_id, "order": "-buildid", "limit": "1"})
        rows = json_of(answer).get("builds", [])
        return rows[0] if rows else None

    def _link(self, run_id: str, build: dict[str, Any] | None = None) -> str:
        if build is None:
            return f"{self._url}/#/buildrequests/{run_id}" if run_id else ""
        return f"{self._url}/#/builders/{build['builderid']}/builds/{build['number']}"

    def _read(self, path: str, expected: tuple[int, ...] = (200,), **request: Any) -> httpx.Response:
        return self._logged_in(lambda: self._http.read(path, expected, **request))

    def _logged_in(self, ask: Callable[[], T]) -> T:
        """Ask within a session. One that has ended refuses, and nothing was done: then once more in a new one."""
        is_new = not self._has_session
        if is_new:
            self._begin_session()
        try:
            return ask()
        except RefusedError as error:
            if is_new or error.status not in (401, 403):
                raise
            self._begin_session()
            return ask()

    def _begin_session(self) -> None:
        self._has_session = False
        self._http.read("/auth/login", expected=(200, 302), auth=self._login)
        self._has_session = True


def _call(method: str, params: dict[str, str]) -> dict[str, Any]:
    return {"id": 1, "jsonrpc": "2.0", "method": method, "params": params}


def _request_id(answer: httpx.Response) -> str:
    """Of the build request that was begun; empty where the answer does not say."""
    result = told_by(answer).get("result")
    ids = list(result[1].values()) if isinstance(result, list) and len(result) == 2 and isinstance(result[1], dict) else []
    return str(ids[0]) if ids else ""


def _is_of(row: dict[str, Any], attempt: Attempt) -> bool:
    """Properties are pairs of a value and where it came from."""
    told = {name: str(pair[0]) for name, pair in (row.get("properties") or {}).items() if pair}
    return told.get("key") == attempt.request.key and told.get("attempt") == str(attempt.number)


def _state_of(row: dict[str, Any]) -> CiState:
    if not row.get("complete"):
        return "running" if row.get("claimed") else "queued"
    results = row.get("results")
    if results == _CANCELLED:
        return "cancelled"
    return "succeeded" if results in _GOOD else "failed"
