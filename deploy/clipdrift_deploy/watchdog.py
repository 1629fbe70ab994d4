"""A dead man's switch: hears the alert that always fires, and says so elsewhere when it has not heard it for a while."""

import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from clipdrift_contract.clock import Clock

ALERT = "ClipdriftWatchdog"
_MAX_BYTES = 1_000_000
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)
Tell = Callable[[str], bool]
"""Says a sentence where people hear it; False where that did not work, and it is tried again."""


class Switch:
    """Whether the alert was heard of late. Thread-safe.

    Args:
        within_seconds: How long silence is no news; counted from the start, too.
        clock: Of monotonic time.
    """

    def __init__(self, within_seconds: float, clock: Clock) -> None:
        if within_seconds <= 0:
            raise ValueError(f"within_seconds must be > 0, got {within_seconds!r}")
        self._within_seconds = within_seconds
        self._clock = clock
        self._heard_seconds = clock.monotonic_seconds()
        self._told: Literal["well", "silent"] = "well"

    @property
    def silent_seconds(self) -> float:
        return self._clock.monotonic_seconds() - self._heard_seconds

    @property
    def is_silent(self) -> bool:
        return self.silent_seconds > self._within_seconds

    def hear(self, message: Any) -> bool:
        """Take what Alertmanager posts; whether the alert was in it, firing."""
        alerts = message.get("alerts", []) if isinstance(message, dict) else []
        is_heard = any(
            isinstance(one, dict) and one.get("status") == "firing" and one.get("labels", {}).get("alertname") == ALERT
            for one in alerts
        )
        if is_heard:
            self._heard_seconds = self._clock.monotonic_seconds()
        return is_heard

    def look(self, tell: Tell) -> None:
        """Tell once that it fell silent, and once that it is heard again; again at the next look where telling failed."""
        now: Literal["well", "silent"] = "silent" if self.is_silent else "well"
        if now == self._told:
            return
        minutes = self.silent_seconds / 60
        words = (
            f"Alerts of Clipdrift do not reach you: nothing was heard for {minutes:.0f} minutes. Do Prometheus and "
            "Alertmanager run?"
            if now == "silent"
            else "Alerts of Clipdrift reach you again."
        )
        if tell(words):
            self._told = now


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, switch: Switch) -> None:
        super().__init__((host, port), _Handler)
        self.switch = switch


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_POST(self) -> None:
        """A message of Alertmanager."""
        try:
            num_bytes = int(self.headers.get("Content-Length", ""))
            if not 0 < num_bytes <= _MAX_BYTES:
                raise ValueError(f"a message has 1 to {_MAX_BYTES} bytes, got {num_bytes}")
            message = json.loads(self.rfile.read(num_bytes))
        except ValueError as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._answer(HTTPStatus.OK, "heard" if self.server.switch.hear(message) else "not the watchdog")

    def do_GET(self) -> None:
        """200 while the alert is heard, 503 when not: for whoever watches this process."""
        switch = self.server.switch
        status = HTTPStatus.SERVICE_UNAVAILABLE if switch.is_silent else HTTPStatus.OK
        self._answer(status, f"last heard {switch.silent_seconds:.0f} s ago")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        _log.debug(format, *args)

    def _answer(self, status: HTTPStatus, words: str) -> None:
        body = f"{words}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def listen(host: str, port: int, switch: Switch) -> ThreadingHTTPServer:
    """A listener in a thread of its own; `shutdown` ends it.

    Raises:
        OSError: The port is taken.
    """
    server = _Server(host, port, switch)
    threading.Thread(target=server.serve_forever, name="watchdog", daemon=True).start()
    return server


def watch(switch: Switch, tell: Tell, stop: threading.Event) -> None:
    """Look every second until told to stop."""
    while not stop.wait(_LOOK_SECONDS):
        switch.look(tell)
