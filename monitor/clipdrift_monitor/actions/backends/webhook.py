"""Anything that takes a POST. What it is told is signed, and bears a key by which it may know what it was told before.

    POST URL   Idempotency-Key: KEY-ATTEMPT   X-Clipdrift-Signature-256: sha256=HMAC-SHA256(secret, body)
    {"model": ..., "key": ..., "attempt": "1", "request": {...}}

Any 2xx is "accepted"; `{"id": ..., "url": ...}` in the answer is kept.
"""

import hashlib
import hmac
from typing import Any, get_args

import httpx
import msgspec

from clipdrift_contract.clock import Clock
from clipdrift_monitor.actions.backends.backend import Attempt, CiRun, CiState
from clipdrift_monitor.actions.backends.ci_client import CiClient, json_of, told_by
from clipdrift_monitor.actions.config import WebhookConfig

_OK = (200, 201, 202, 204)
_STATES: tuple[CiState, ...] = get_args(CiState)


class Webhook:
    """A receiver of orders.

    Args:
        config: Where it listens.
        secret: Signs what it is told; empty: it is not signed.
        clock: For when to ask again.
        transport: In place of the network, for tests.
    """

    def __init__(self, config: WebhookConfig, secret: str, clock: Clock, transport: httpx.BaseTransport | None = None) -> None:
        self._config = config
        self._secret = secret.encode()
        self._http = CiClient("the webhook", "", clock, secrets=(secret,), transport=transport)

    def find(self, attempt: Attempt) -> CiRun | None:
        if not self._config.status_url:
            return None
        answer = self._http.read(
            self._config.status_url, expected=(200, 404), params=attempt.inputs, headers=self._signature(_query(attempt))
        )
        return None if answer.status_code == 404 else _run_of(json_of(answer), "running")

    def dispatch(self, attempt: Attempt) -> CiRun:
        body = msgspec.json.encode({**attempt.inputs, "request": attempt.request})
        headers = {
            "content-type": "application/json",
            "idempotency-key": f"{attempt.request.key}-{attempt.number}",
            **self._signature(body),
        }
        answer = self._http.change("POST", self._config.url, expected=_OK, content=body, headers=headers)
        return _run_of(told_by(answer), "queued")

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        return self.find(attempt)

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        """Without an address for it, the job hears at its next beat that it is not wanted any more."""
        if self._config.status_url:
            self._http.change(
                "DELETE", self._config.status_url, expected=(*_OK, 404), params=attempt.inputs,
                headers=self._signature(_query(attempt)),
            )  # fmt: skip

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        return ""

    def close(self) -> None:
        self._http.close()

    def _signature(self, content: bytes) -> dict[str, str]:
        if not self._secret:
            return {}
        return {"x-clipdrift-signature-256": f"sha256={hmac.new(self._secret, content, hashlib.sha256).hexdigest()}"}


def _query(attempt: Attempt) -> bytes:
    """What is signed where there is no body."""
    return str(httpx.QueryParams(attempt.inputs)).encode()


def _run_of(told: dict[str, Any], otherwise: CiState) -> CiRun:
    given = (state for state in _STATES if state == told.get("state"))
    return CiRun(run_id=str(told.get("id") or ""), url=str(told.get("url") or ""), state=next(given, otherwise))
