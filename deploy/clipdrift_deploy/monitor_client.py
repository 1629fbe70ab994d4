"""The monitor's HTTP interface as the command line uses it."""

import json
from pathlib import Path
from typing import Any

import httpx

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_deploy.project import Project


class MonitorError(ClipdriftError):
    """The monitor refused, or could not be reached; the message says what to do."""


class MonitorClient:
    """A connection to a running monitor. A context manager; raises `MonitorError` for every refusal."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30.0)

    def __enter__(self) -> "MonitorClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Every model that the monitor knows, each in full."""
        listed = self._call("GET", "/api/v1/models")
        items: list[dict[str, Any]] = listed["items"] if isinstance(listed, dict) else listed
        return [self._call("GET", f"/api/v1/models/{item['model']}") for item in items]

    def rollback(self, model: str, reason: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("POST", f"/api/v1/models/{model}/rollback", {"reason": reason, "actor": "cli"})
        return answer

    def order_retrain(self, model: str, reason: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._call("POST", f"/api/v1/models/{model}/retrain", {"reason": reason, "actor": "cli"})
        return answer

    def page(self, path: str) -> str:
        """A status page's HTML."""
        return self._send("GET", path, None).text

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._send(method, path, body).json()

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise MonitorError(f"the monitor at {self.url} does not answer ({error}); is `clipdrift up` running?") from error
        if answer.is_error:
            raise MonitorError(f"the monitor refused {method} {path}: {answer.status_code} {answer.text.strip()[:500]}")
        return answer


def connect(project: Project) -> MonitorClient:
    """A client for the monitor of `project`, at the address that it left behind when it started.

    Raises:
        ConfigError: No monitor was ever started for this project.
    """
    path = project.state / "addresses.json"
    if not path.exists():
        raise ConfigError(f"no monitor was started for {project.folder}; start it with `clipdrift up`")
    return MonitorClient(json.loads(Path(path).read_text())["monitor"], project.secrets().api_token)
