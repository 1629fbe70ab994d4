"""Logs as one JSON object a line on stderr, written by a thread of their own; a sampled access log; no secret in either."""

import logging
import random
import re
import sys
from collections.abc import Callable, Iterable
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from time import gmtime, monotonic
from typing import TextIO

import orjson

_access = logging.getLogger("clipdrift_serving.access_log")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}  # JSON lets them stand; some readers break lines there
_ANSWERED = "answered %(status)d for model %(model)r %(version)r, %(rows)d rows, request %(request_id)r, in %(seconds)s s"
_HIDDEN = "[secret]"
_MAX_WAITING = 10_000  # records, some kilobytes each at most
_MIN_SECRET = 6  # a shorter one would blank ordinary words


def valid_traceparent(header: str) -> str:
    """The header as it was when it is one of version 00, else "".

    Source: W3C Trace Context (2021), section 3.2: lower-case hex, neither id all zeros.

    Example:
        >>> valid_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")[:6]
        '00-4bf'
        >>> valid_traceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01")
        ''
    """
    return header if _TRACEPARENT.fullmatch(header) else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a record, on one line whatever the message holds; known secrets are blanked in all of it.

    Args:
        secrets: Blanked wherever they stand; those under 6 characters are left, and "".
    """

    converter = staticmethod(gmtime)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        known = sorted((secret for secret in secrets if len(secret) >= _MIN_SECRET), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._clean(record.getMessage()),
        }
        for name, value in getattr(record, "fields", {}).items():
            entry[name] = self._clean(value) if isinstance(value, str) else value
        if record.exc_info:
            entry["exception"] = self._clean(self.formatException(record.exc_info))
        return orjson.dumps(entry, default=str).decode().translate(_LINE_ENDS)

    def _clean(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no JSON
        return self._secrets.sub(_HIDDEN, text) if self._secrets is not None else text


class _AsTheyAre(QueueHandler):
    """Hands records to the thread unformatted: the caller, the event loop, pays for a queue's put only.

    While nobody reads stderr the queue fills; what comes then is left out, and the next record that fits is told how many were.
    """

    num_dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        if self.num_dropped:
            record.__dict__["fields"] = {**getattr(record, "fields", {}), "num_dropped_before": self.num_dropped}
        try:
            self.queue.put_nowait(record)
            self.num_dropped = 0
        except Full:
            self.num_dropped += 1


class _Writing(QueueListener):
    """A queue that is full makes the end wait for room, not fail."""

    def __init__(self, records: "Queue[logging.LogRecord | None]", handler: logging.Handler) -> None:
        super().__init__(records, handler)
        self._records = records

    def enqueue_sentinel(self) -> None:
        self._records.put(None)  # logging's own mark of the end


def start_logging(secrets: Iterable[str] = (), stream: TextIO | None = None) -> QueueListener:
    """Send every logger's records as JSON to stderr (or `stream`); call `stop` on what is returned, at the end."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(secrets))
    queue: Queue[logging.LogRecord | None] = Queue(_MAX_WAITING)
    listener = _Writing(queue, handler)
    root = logging.getLogger()
    root.handlers[:] = [_AsTheyAre(queue)]
    root.setLevel(logging.INFO)
    listener.start()
    return listener


class AccessLog:
    """Says which requests were answered: a share of those that went well, and errors up to so many a second.

    Args:
        ratio: Share of good answers that get an entry, 0 to 1.
        max_errors_per_second: Further errors within the same second are left out; the next entry tells how many.
        seconds_now: Monotonic time.
        seed: Of the sample.
    """

    def __init__(
        self,
        ratio: float,
        max_errors_per_second: int = 20,
        *,
        seconds_now: Callable[[], float] = monotonic,
        seed: int | None = None,
    ) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"ratio must be in 0..1, got {ratio!r}")
        self._ratio = ratio
        self._max_errors = max_errors_per_second
        self._random = random.Random(seed).random  # noqa: S311  a sample, no secret
        self._seconds_now = seconds_now
        self._second = 0
        self._num_errors = 0

    def ended(
        self,
        status: int,
        seconds: float,
        *,
        model: str = "",
        version: str = "",
        rows: int = 0,
        request_id: str = "",
        traceparent: str = "",
    ) -> None:
        """Call once at the end of each request."""
        if status < 400:
            if self._random() >= self._ratio:
                return
        elif not self._has_room():
            return
        fields = {
            "status": status, "seconds": round(seconds, 6), "model": model, "version": version, "rows": rows,
            "request_id": request_id[:128], "traceparent": valid_traceparent(traceparent),
        }  # fmt: skip
        _access.log(logging.INFO if status < 500 else logging.ERROR, _ANSWERED, fields, extra={"fields": fields})

    def _has_room(self) -> bool:
        second = int(self._seconds_now())
        if second != self._second:
            if self._num_errors > self._max_errors:
                _access.warning("%d errors without an entry of their own", self._num_errors - self._max_errors)
            self._second, self._num_errors = second, 0
        self._num_errors += 1
        return self._num_errors <= self._max_errors
