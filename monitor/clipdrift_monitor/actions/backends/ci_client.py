"""HTTP to a CI: one request, one time-out, and every way to fail told as one of three errors without a secret in it."""

from collections.abc import Callable, Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from clipdrift_contract.clock import MS_PER_SECOND, Clock
from clipdrift_monitor.actions.backends.backend import AwayError, RefusedError, UnsureError

_TIMEOUT = httpx.Timeout(20.0, connect=10.0)
_MAX_WORDS = 200
_MAX_PATIENCE_MS = 3_600 * MS_PER_SECOND
_DEFAULT_PATIENCE_MS = 60 * MS_PER_SECOND
_NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


class CiClient:
    """A connection to one CI. One thread.

    Args:
        name: Of the CI, for errors.
        base_url: All paths are below it.
        clock: For how long a CI is left in peace that asks for it.
        headers: Sent with each request.
        bearer: Gives the token that goes with the next request.
        secrets: Never shown, should the CI's answer hold one.
        transport: In place of the network, for tests.
        verify: Path of the certificate authority's file, or whether the system's are used.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        clock: Clock,
        *,
        headers: Mapping[str, str] | None = None,
        bearer: Callable[[], str] | None = None,
        secrets: Collection[str] = (),
        transport: httpx.BaseTransport | None = None,
        verify: Any = True,
    ) -> None:
        self._name = name
        self._clock = clock
        self._bearer = bearer
        self._secrets = {one for one in secrets if one}
        self._quiet_until_ms = 0
        self._http = httpx.Client(
            base_url=base_url.rstrip("/"), headers=dict(headers or {}), timeout=_TIMEOUT, transport=transport, verify=verify
        )

    def close(self) -> None:
        self._http.close()

    def read(self, path: str, expected: Collection[int] = (200,), **request: Any) -> httpx.Response:
        """Ask for something. Changes nothing, so that no answer is as good as not reached.

        Raises:
            AwayError: No answer, a status of 500 or more, or too many requests.
            RefusedError: Any other status than those expected.
        """
        try:
            return self._send("GET", path, expected, **request)
        except UnsureError as error:
            raise AwayError(str(error)) from error

    def change(self, method: str, path: str, expected: Collection[int], **request: Any) -> httpx.Response:
        """Have something done; never repeated.

        Raises:
            AwayError: Surely not done: no connection, or too many requests.
            UnsureError: Perhaps done: no answer, or a status of 500 or more.
            RefusedError: Any other status than those expected: surely not done.
        """
        return self._send(method, path, expected, **request)

    def _send(self, method: str, path: str, expected: Collection[int], **request: Any) -> httpx.Response:
        now_ms = self._clock.now_ms()
        if now_ms < self._quiet_until_ms:
            raise AwayError(f"{self._name} asked for patience", self._quiet_until_ms)
        if self._bearer is not None:
            token = self._bearer()
            self._secrets.add(token)
            request["headers"] = {**request.get("headers", {}), "authorization": f"Bearer {token}"}
        what = f"{self._name}: {method} {httpx.URL(path).path}"
        try:
            answer = self._http.request(method, path, **request)
        except _NOTHING_SENT as error:
            raise AwayError(f"{what}: not reached ({self._hidden(str(error))})") from None
        except httpx.HTTPError as error:
            raise UnsureError(f"{what}: no answer ({type(error).__name__})") from None
        if answer.status_code in expected:
            return answer
        words = f"{what}: status {answer.status_code}{self._words_of(answer)}"
        if (until_ms := self._asked_patience(answer, now_ms)) is not None:
            self._quiet_until_ms = until_ms
            raise AwayError(words, until_ms)
        if answer.status_code >= 500:
            raise UnsureError(words)
        raise RefusedError(words, answer.status_code)

    def _asked_patience(self, answer: httpx.Response, now_ms: int) -> int | None:
        """Until when a CI wants no more requests; None where it is not that. 403 is how GitHub says so, too."""
        headers = answer.headers
        is_spent = headers.get("x-ratelimit-remaining") == "0"
        if answer.status_code != 429 and not (answer.status_code == 403 and ("retry-after" in headers or is_spent)):
            return None
        wait_ms = _retry_after_ms(headers.get("retry-after", ""), now_ms)
        if wait_ms is None and is_spent and headers.get("x-ratelimit-reset", "").isdecimal():
            wait_ms = int(headers["x-ratelimit-reset"]) * MS_PER_SECOND - now_ms
        if wait_ms is None:
            wait_ms = _DEFAULT_PATIENCE_MS
        return now_ms + min(max(wait_ms, MS_PER_SECOND), _MAX_PATIENCE_MS)

    def _words_of(self, answer: httpx.Response) -> str:
        """What the CI says is wrong, in a line."""
        try:
            told = answer.json()
        except ValueError:
            told = None
        words = told.get("message") or told.get("error") if isinstance(told, dict) else None
        text = " ".join(str(words or answer.text).split())[:_MAX_WORDS]
        return f" ({self._hidden(text)})" if text else ""

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def json_of(answer: httpx.Response, kind: type[Any] = dict) -> Any:
    """The answer's JSON.

    Raises:
        AwayError: It is none, or another kind: something else than the CI has answered.
    """
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not isinstance(told, kind):
        raise AwayError(f"{answer.request.url.host} answered {answer.status_code} with something that is no {kind.__name__}")
    return told


def told_by(answer: httpx.Response) -> dict[str, Any]:
    """What came with something that was done; empty where it cannot be read: it was done all the same."""
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _retry_after_ms(text: str, now_ms: int) -> int | None:
    """Seconds, or a date.

    Example:
        >>> _retry_after_ms("120", 0), _retry_after_ms("Thu, 01 Jan 1970 00:01:00 GMT", 0), _retry_after_ms("soon", 0)
        (120000, 60000, None)
    """
    if text.isdecimal():
        return int(text) * MS_PER_SECOND
    try:
        return round(parsedate_to_datetime(text).timestamp() * MS_PER_SECOND) - now_ms
    except ValueError:
        return None
