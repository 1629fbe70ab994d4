"""GitHub Actions: a run of one workflow for each attempt, found again by its title.

GitHub knows no idempotency key, and a request without an answer may have begun a run: the workflow's `run-name` is the
attempt's title, so that the list of runs tells.
"""

import datetime
from collections.abc import Callable
from typing import Any

import httpx

from clipdrift_contract.clock import MS_PER_HOUR, MS_PER_SECOND, Clock
from clipdrift_monitor.actions.backends.backend import Attempt, AwayError, CiRun, CiState, first_of, tail_of
from clipdrift_monitor.actions.backends.ci_client import CiClient, json_of, told_by
from clipdrift_monitor.actions.config import GithubConfig

API_VERSION = "2022-11-28"
_PAGE_ROWS = 100
_MAX_PAGES = 10  # GitHub lists no more than 1,000
_CLOCKS_MS = MS_PER_HOUR  # how far our clock may be from GitHub's
_TAIL_BYTES = 65_536
_STATES: dict[str, CiState] = {"success": "succeeded", "cancelled": "cancelled"}


class Github:
    """Runs of one workflow of a repository.

    Args:
        config: Which.
        token: Gives the token for the next request: a personal one, or an App's that is renewed every hour.
        clock: For rate limits.
        transport: In place of the network, for tests.
    """

    def __init__(
        self, config: GithubConfig, token: Callable[[], str], clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._config = config
        headers = {"accept": "application/vnd.github+json", "x-github-api-version": API_VERSION}
        self._http = CiClient("GitHub", config.api_url, clock, headers=headers, bearer=token, transport=transport)
        self._logs = httpx.Client(timeout=20.0, transport=transport)  # they lie elsewhere, where our token has no business
        self._actions = f"/repos/{config.repository}/actions"
        self._workflow = f"{self._actions}/workflows/{config.workflow}"

    def find(self, attempt: Attempt) -> CiRun | None:
        since = datetime.datetime.fromtimestamp((attempt.ordered_at_ms - _CLOCKS_MS) / MS_PER_SECOND, datetime.UTC)
        asked = {"event": "workflow_dispatch", "created": f">={since:%Y-%m-%dT%H:%M:%SZ}", "per_page": str(_PAGE_ROWS)}
        found: list[CiRun] = []
        for page in range(1, _MAX_PAGES + 1):
            answer = self._http.read(f"{self._workflow}/runs", params={**asked, "page": str(page)})
            rows = json_of(answer).get("workflow_runs", [])
            found += [_run_of(row) for row in rows if row.get("display_title") == attempt.title]
            if len(rows) < _PAGE_ROWS:
                break
        return first_of(sorted(found, key=lambda run: int(run.run_id)))

    def dispatch(self, attempt: Attempt) -> CiRun:
        body = {"ref": self._config.ref, "inputs": attempt.inputs, "return_run_details": True}
        answer = self._http.change("POST", f"{self._workflow}/dispatches", expected=(200, 201, 204), json=body)
        told = told_by(answer)  # nothing with 204: servers of before 2026 do not say which run it is
        return CiRun(run_id=str(told.get("workflow_run_id") or ""), url=str(told.get("html_url") or ""), state="queued")

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        answer = self._http.read(f"{self._actions}/runs/{run_id}", expected=(200, 404))
        return None if answer.status_code == 404 else _run_of(json_of(answer))

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        # 409: it has ended already
        self._http.change("POST", f"{self._actions}/runs/{run_id}/cancel", expected=(202, 404, 409))

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        answer = self._http.read(f"{self._actions}/runs/{run_id}/jobs", expected=(200, 404))
        jobs = json_of(answer).get("jobs", []) if answer.status_code == 200 else []
        told = next((job for job in jobs if job.get("conclusion") == "failure"), jobs[-1] if jobs else None)
        if told is None:
            return ""
        answer = self._http.read(f"{self._actions}/jobs/{told['id']}/logs", expected=(200, 302, 404, 410))
        if answer.status_code != 302:
            return tail_of(answer.text) if answer.status_code == 200 else ""
        return tail_of(self._log_at(answer.headers.get("location", "")))

    def close(self) -> None:
        self._http.close()
        self._logs.close()

    def _log_at(self, url: str) -> str:
        if not url.startswith(("https://", "http://")):  # a proxy's page in place of the answer
            raise AwayError("GitHub: the log was not given (its address is missing)")
        try:
            with self._logs.stream("GET", url) as answer:
                log = b""
                for piece in answer.iter_bytes():
                    log = (log + piece)[-_TAIL_BYTES:]
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # its address holds a signature
            raise AwayError(f"GitHub: the log was not given ({type(error).__name__})") from None
        return log.decode(errors="replace") if answer.is_success else ""


def _run_of(row: dict[str, Any]) -> CiRun:
    return CiRun(run_id=str(row["id"]), url=str(row.get("html_url") or ""), state=_state_of(row))


def _state_of(row: dict[str, Any]) -> CiState:
    if row.get("status") == "completed":
        return _STATES.get(str(row.get("conclusion")), "failed")
    return "running" if row.get("status") == "in_progress" else "queued"
