"""GitLab: a pipeline for each attempt, found again by its name (`workflow:name` in the pipeline's file)."""

from typing import Any
from urllib.parse import quote

import httpx

from clipdrift_contract.clock import Clock
from clipdrift_monitor.actions.backends.backend import Attempt, CiRun, CiState, first_of, tail_of
from clipdrift_monitor.actions.backends.ci_client import CiClient, json_of, told_by
from clipdrift_monitor.actions.config import GitlabConfig

_PAGE_ROWS = 100
_STATES: dict[str, CiState] = {
    "success": "succeeded", "failed": "failed", "skipped": "failed", "canceled": "cancelled", "canceling": "running",
    "running": "running",
}  # fmt: skip


class Gitlab:
    """Pipelines of one project.

    Args:
        config: Which.
        token: Reads, cancels and, without a trigger token, creates pipelines.
        trigger_token: Begins them where `start` is "trigger".
        clock: For rate limits.
        transport: In place of the network, for tests.
    """

    def __init__(
        self, config: GitlabConfig, token: str, trigger_token: str, clock: Clock, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._config = config
        self._trigger_token = trigger_token
        self._http = CiClient(
            "GitLab", config.url, clock, headers={"private-token": token}, secrets=(token, trigger_token), transport=transport
        )
        self._project = f"/api/v4/projects/{quote(config.project, safe='')}"

    def find(self, attempt: Attempt) -> CiRun | None:
        asked = {"name": attempt.title, "order_by": "id", "sort": "asc", "per_page": str(_PAGE_ROWS)}
        rows = json_of(self._http.read(f"{self._project}/pipelines", params=asked), list)
        return first_of(_run_of(row) for row in rows if row.get("name") == attempt.title)

    def dispatch(self, attempt: Attempt) -> CiRun:
        path, body = f"{self._project}/pipeline", {"ref": self._config.ref, "inputs": attempt.inputs}
        if self._config.start == "trigger":
            path, body = f"{self._project}/trigger/pipeline", {**body, "token": self._trigger_token}
        told = told_by(self._http.change("POST", path, expected=(201,), json=body))
        return _run_of(told) if "id" in told else CiRun(run_id="", url="", state="queued")

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        answer = self._http.read(f"{self._project}/pipelines/{run_id}", expected=(200, 404))
        return None if answer.status_code == 404 else _run_of(json_of(answer))

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        self._http.change("POST", f"{self._project}/pipelines/{run_id}/cancel", expected=(200, 201, 404))

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        answer = self._http.read(f"{self._project}/pipelines/{run_id}/jobs", expected=(200, 403, 404))
        jobs = json_of(answer, list) if answer.status_code == 200 else []
        told = next((job for job in jobs if job.get("status") == "failed"), jobs[0] if jobs else None)
        if told is None:
            return ""
        answer = self._http.read(f"{self._project}/jobs/{told['id']}/trace", expected=(200, 403, 404))
        return tail_of(answer.text) if answer.status_code == 200 else ""

    def close(self) -> None:
        self._http.close()


def _run_of(row: dict[str, Any]) -> CiRun:
    return CiRun(
        run_id=str(row["id"]), url=str(row.get("web_url") or ""), state=_STATES.get(str(row.get("status")), "queued")
    )  # fmt: skip
