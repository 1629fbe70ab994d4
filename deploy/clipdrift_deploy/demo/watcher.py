"""What the demo asks the monitor, over its HTTP API."""

from typing import Any

import httpx

from clipdrift_contract.errors import ClipdriftError


class WatcherError(ClipdriftError):
    """The monitor does not answer as it should; the message says what it said."""


class MonitorWatcher:
    """A kept connection to the monitor's API."""

    def __init__(self, url: str, token: str) -> None:
        # a proxy knows nothing of this machine's ports, and must not see the token
        self._http = httpx.Client(base_url=url, timeout=60.0, headers={"authorization": f"Bearer {token}"}, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def progress(self) -> dict[str, Any]:
        """`{"is_idle": bool, "models": {name: {"num_predictions": int, "num_labels": int}}}`."""
        answer: dict[str, Any] = self._get("/api/v1/progress")
        return answer

    def accuracy(self, model: str, start_ms: int, end_ms: int) -> dict[str, tuple[int, int]]:
        """(num_labels, num_correct) by slice, of predictions that happened in [start, end); "" is all slices together."""
        answer = self._get(f"/api/v1/models/{model}/accuracy", start_ms=start_ms, end_ms=end_ms)
        return {one["slice"]: (one["num_labels"], one["num_correct"]) for one in answer["slices"]}

    def worths(self, model: str) -> dict[str, dict[str, Any]]:
        """What each retrain was worth, as measured beside the version that it replaced, by the retrain's key."""
        found: dict[str, dict[str, Any]] = self._get(f"/api/v1/models/{model}/retrains")["worths"]
        return found

    def exposition(self) -> str:
        """What Prometheus would scrape at this moment."""
        return self._ask("/metrics").text

    def _get(self, path: str, **parameters: int) -> Any:
        return self._ask(path, **parameters).json()

    def _ask(self, path: str, **parameters: int) -> httpx.Response:
        try:
            answer = self._http.get(path, params=parameters)
        except httpx.HTTPError as error:
            raise WatcherError(f"the monitor does not answer GET {path}: {error}") from error
        if answer.is_error:
            raise WatcherError(f"the monitor refused GET {path}: {answer.status_code} {answer.text[:300]}")
        return answer
