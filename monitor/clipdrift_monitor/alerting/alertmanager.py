"""One Alertmanager, by its API v2."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import httpx

from clipdrift_contract.errors import RetryableError
from clipdrift_monitor.alerting.told import Believed, Hush, Labels, moment


class AlertmanagerError(RetryableError):
    """It did not answer, or not as it should; the message says how."""


class Alertmanager:
    """Calls block for the time-out at most, and fail with `AlertmanagerError` alone. One thread only.

    Args:
        url: Without a slash at its end.
        timeout_seconds: Of one call.
        transport: For tests.
    """

    def __init__(self, url: str, timeout_seconds: float, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/api/v2", timeout=timeout_seconds, transport=transport)

    def log_in(self, user: str, secret: str) -> None:
        """Ask with this from now on; without a secret as nobody."""
        self._client.headers.pop("Authorization", None)
        self._client.auth = httpx.BasicAuth(user, secret) if user else httpx.Auth()
        if secret and not user:
            self._client.headers["Authorization"] = f"Bearer {secret}"

    def close(self) -> None:
        self._client.close()

    def tell(self, alerts: Sequence[dict[str, Any]]) -> None:
        if alerts:
            self._ask("POST", "/alerts", json=list(alerts))

    def believed(self) -> list[Believed]:
        """What fires now, silenced or not."""
        answer = self._ask("GET", "/alerts", params={"active": "true", "silenced": "true", "inhibited": "true"})
        return [Believed(_labels(one["labels"]), one.get("generatorURL") or "") for one in answer]

    def hushes(self) -> list[Hush]:
        """Silences that hold now, or will, and match each label by its value."""
        found = []
        for one in self._ask("GET", "/silences"):
            is_plain = all(not it["isRegex"] and it.get("isEqual", True) for it in one["matchers"])
            if one["status"]["state"] != "expired" and is_plain:
                found.append(
                    Hush(
                        labels=frozenset((it["name"], it["value"]) for it in one["matchers"]), ends_ms=_ms(one["endsAt"]),
                        by=one["createdBy"], comment=one["comment"], silence_id=one["id"],
                    )
                )  # fmt: skip
        return found

    def hush(self, wanted: Hush, now_ms: int) -> str:
        """Make a silence, or change the one of that id.

        Returns:
            Its id.
        """
        matchers = [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in sorted(wanted.labels)]
        body = {
            "matchers": matchers, "startsAt": moment(now_ms), "endsAt": moment(wanted.ends_ms), "createdBy": wanted.by,
            "comment": wanted.comment,
        }  # fmt: skip
        answer = self._ask("POST", "/silences", json=body | ({"id": wanted.silence_id} if wanted.silence_id else {}))
        return str(answer["silenceID"])

    def unhush(self, silence_id: str) -> None:
        self._ask("DELETE", f"/silence/{silence_id}")

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        try:
            answer = self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise AlertmanagerError(f"no answer from {self.url} ({type(error).__name__})") from error
        if not answer.is_success:
            raise AlertmanagerError(f"{self.url} answers {answer.status_code} to {method} {path}: {answer.text[:200]}")
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise AlertmanagerError(f"{self.url} answers {method} {path} with no JSON: is it an Alertmanager?") from error


def _labels(labels: dict[str, str]) -> Labels:
    return frozenset(labels.items())


def _ms(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)
