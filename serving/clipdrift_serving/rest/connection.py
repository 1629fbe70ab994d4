"""One client's HTTP/1.1 connection, on httptools: bounded in bytes, in time and in what waits. A request costs no task.

Answers go out in the order of their requests, also when a later one was ready first. What is refused before its body has come
is answered at once; the connection then reads and drops what the client still sends for a moment, since a socket that is closed
with unread bytes takes the answer back with it.
"""

import logging
import re
from asyncio import Protocol, Transport
from collections import deque
from time import perf_counter
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.rest.errors import error_body
from clipdrift_serving.rest.gate import Gate
from clipdrift_serving.rest.http import JSON_ONLY, Request, Response, failed, packed, refused

_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)
_MAX_PIPELINED = 32  # requests of one client that may wait; beyond, it is not read on
_LINGER_SECONDS = 2.0
_NEVER = float("inf")
_VERSIONS = frozenset({"1.1", "1.0"})
_REASONS = {
    200: "OK", 202: "Accepted", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type",
    422: "Unprocessable Content", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip
_STATUS_LINE = {status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()}
_JSON_HEAD = {
    status: line + b"content-type: application/json\r\ncontent-length: %d\r\n" for status, line in _STATUS_LINE.items()
}
_log = logging.getLogger(__name__)


class _Exchange:
    """A request that waits for its answer, and the answer while it waits for its turn."""

    __slots__ = ("accept_encoding", "connection", "is_head", "is_last", "output")

    def __init__(self, connection: "Connection", *, is_head: bool, is_last: bool, accept_encoding: bytes | None) -> None:
        self.connection = connection
        self.is_head = is_head
        self.is_last = is_last  # the connection ends with this answer
        self.accept_encoding = accept_encoding
        self.output: bytes | None = None

    def reply(self, response: Response) -> None:
        if self.output is not None:
            return
        if self.accept_encoding is not None:
            response = packed(response, self.accept_encoding)
        if response.headers is JSON_ONLY:
            head = _JSON_HEAD[response.status] % len(response.body)
        else:
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in response.headers)
            head = _STATUS_LINE[response.status] + lines + b"content-length: %d\r\n" % len(response.body)
        end = b"connection: close\r\n\r\n" if self.is_last else b"\r\n"
        self.output = head + end if self.is_head else head + end + response.body
        self.connection.on_reply()


class Connection(Protocol):
    """A connection of a listener. All of it runs on the loop's thread.

    Args:
        gate: The listener's limits, what it has open, and the application.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._limits = gate.limits
        self._parser: Any = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # what follows a last request is dropped, not an error
        self._transport: Transport = None  # type: ignore[assignment]  # set by connection_made
        self._waiting: deque[_Exchange] = deque()
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._num_head_bytes = 0
        self._num_unused = 0  # bytes since the parser last had something for us: it keeps them, however many they are
        self._body: list[bytes] = []
        self._num_body_bytes = 0
        self._num_chunks = 0
        self._refusal: Response | None = None  # of the request whose body is being dropped
        self._is_in_head = True
        self._is_in_body = False
        self._is_ending = False  # no further request is read
        self._is_read_paused = False
        self._received_at = 0.0
        self._begun_at = 0.0  # when the head that is being read began; 0: none is
        self.deadline = _NEVER  # seconds of time.perf_counter; looked at by the gate

    # --- transport ----------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        self._transport = transport
        if not self._gate.enter(self):
            self._end_with(Response(503, error_body("too many connections"), (*JSON_ONLY, (b"retry-after", b"1"))))
        else:
            self.deadline = perf_counter() + self._limits.idle_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.leave(self, self._num_body_bytes, len(self._waiting))
        self._num_body_bytes = 0
        self._body.clear()
        self._waiting.clear()
        self._is_ending = True

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            return
        self._received_at = perf_counter()
        if self._is_in_head and not self._num_unused and b"pgrade:" in data:
            data = _without_upgrade(data)
        self._num_unused += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end_with_error(400, "the protocol is HTTP/1.1; send the request without the header Upgrade")
        except httptools.HttpParserCallbackError as error:
            self._end_with(failed(error.__context__ if isinstance(error.__context__, Exception) else error))
        except httptools.HttpParserError:
            self._end_with_error(
                400, "this is no HTTP/1.1 request: its first line, a header, its length or a chunk is malformed"
            )
        if self._is_ending:
            return
        if self._is_in_head and self._begun_at:
            self.deadline = self._begun_at + self._limits.head_seconds
        if self._num_unused > self._limits.max_header_bytes:  # a head, a trailer or the line before a chunk without an end
            self._end_with_error(431, f"request line and headers hold at most {self._limits.max_header_bytes} bytes")

    def eof_received(self) -> bool:
        """The client has said all; it may still read, where an answer is due."""
        if self._waiting:
            self._waiting[-1].is_last = True
            self._is_ending = True
            return True
        return False

    def pause_writing(self) -> None:
        self._pause_reading()
        self.deadline = perf_counter() + self._limits.send_seconds

    def resume_writing(self) -> None:
        self.deadline = _NEVER if self._waiting else perf_counter() + self._limits.idle_seconds
        self._resume_reading()

    # --- parser -------------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begun_at = self._received_at

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:
            return  # a trailer: nobody asked for it, and it must not pass for a header
        name = name.lower()
        self._num_head_bytes += len(name) + len(value)
        known = self._headers.get(name)
        self._headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._num_unused = 0
        if self._is_ending:
            return
        limits, headers = self._limits, self._headers
        declared = headers.get(b"content-length", b"0")
        if self._num_head_bytes + len(self._url) > limits.max_header_bytes:
            self._end_with_error(431, f"request line and headers hold at most {limits.max_header_bytes} bytes")
        elif self._parser.get_http_version() not in _VERSIONS:
            self._end_with_error(400, "the protocol is HTTP/1.1")
        elif declared.isdigit() and int(declared) > limits.max_body_bytes:
            self._end_with_error(413, f"a body holds at most {limits.max_body_bytes} bytes, got {int(declared)}")
        else:
            self._is_in_body = True
            self._refusal = self._gate.refusal(self._url)
            if declared != b"0" or b"transfer-encoding" in headers:
                self.deadline = self._received_at + limits.body_seconds
                is_asked = headers.get(b"expect", b"").lower() == b"100-continue"
                if is_asked and self._refusal is None and not self._waiting:  # never between the answers to others
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_chunk_header(self) -> None:
        self._num_chunks += 1
        if self._num_chunks > self._limits.max_chunks and not self._is_ending:
            self._end_with_error(400, f"a body comes in at most {self._limits.max_chunks} chunks")

    def on_body(self, body: bytes) -> None:
        self._num_unused = 0
        if self._is_ending or self._refusal is not None:
            return
        self._body.append(body)
        self._num_body_bytes += len(body)
        self._gate.num_buffered_bytes += len(body)
        if self._num_body_bytes > self._limits.max_body_bytes:
            self._end_with_error(413, f"a body holds at most {self._limits.max_body_bytes} bytes")

    def on_message_complete(self) -> None:
        self._num_unused = 0
        self._begun_at = 0.0
        self._is_in_head = True
        self._is_in_body = False
        if self._is_ending:
            return
        headers, url, refusal = self._headers, self._url, self._refusal
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._forget_request()
        parser = self._parser
        method = parser.get_method().decode("ascii")
        # after an upgrade (CONNECT is one) what follows is no HTTP
        keep_alive = parser.should_keep_alive() and not parser.should_upgrade() and not self._gate.is_draining
        exchange = _Exchange(
            self, is_head=method == "HEAD", is_last=not keep_alive, accept_encoding=headers.get(b"accept-encoding")
        )
        self._waiting.append(exchange)
        self._gate.num_in_flight += 1
        self.deadline = _NEVER
        if not keep_alive:
            self._is_ending = True
        if len(self._waiting) >= _MAX_PIPELINED:
            self._pause_reading()
        if refusal is not None:
            exchange.reply(refusal)
            return
        try:
            path, _, query = url.partition(b"?")
            request = Request(method, _decoded(path), query, headers, body, self._received_at)
        except RequestError as error:
            exchange.reply(refused(error))
            return
        try:
            self._gate.app(request, exchange.reply)
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the connections of others
            exchange.reply(failed(error))

    # --- answers ------------------------------------------------------------------------------------------------------------

    def on_reply(self) -> None:
        """An exchange has its answer: write all that are next."""
        waiting = self._waiting
        while waiting and waiting[0].output is not None:
            exchange = waiting.popleft()
            self._gate.num_in_flight -= 1
            if exchange.output:
                self._transport.write(exchange.output)
            if exchange.is_last:
                self._close()
                return
        if not waiting and self.deadline == _NEVER:
            self.deadline = self._received_at + self._limits.idle_seconds
        if self._is_read_paused and len(waiting) < _MAX_PIPELINED // 2 and not self._transport.get_write_buffer_size():
            self._resume_reading()

    def on_deadline(self) -> None:
        """The time for what the client should have done is over."""
        if self._is_ending or self._is_read_paused:
            self.deadline = _NEVER
            self._transport.abort()
        elif self._is_in_body:
            self._end_with_error(408, f"the body did not arrive within {self._limits.body_seconds:g} s")
        elif self._begun_at:
            self._end_with_error(408, f"the head did not arrive within {self._limits.head_seconds:g} s")
        else:
            self._transport.close()

    def drain(self) -> None:
        """Take no further request; close once what has begun is answered."""
        if self._waiting:
            self._waiting[-1].is_last = True
            self._is_ending = not self._is_in_body
        elif not self._begun_at:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _end_with_error(self, status: int, message: str) -> None:
        self._end_with(Response(status, error_body(message)))

    def _end_with(self, response: Response) -> None:
        """Answer after what waits, and read no more."""
        if self._is_ending:
            return
        self._is_ending = True
        self._forget_request()
        exchange = _Exchange(self, is_head=False, is_last=True, accept_encoding=None)
        self._waiting.append(exchange)
        self._gate.num_in_flight += 1
        exchange.reply(response)

    def _close(self) -> None:
        """Say that no more comes, and go on dropping what the client sends until it closes or a moment is over."""
        self._is_ending = True
        if self._transport.is_closing():
            return
        self.deadline = perf_counter() + _LINGER_SECONDS
        if self._transport.can_write_eof():
            self._resume_reading()
            self._transport.write_eof()
        else:
            self._transport.close()

    def _forget_request(self) -> None:
        self._gate.num_buffered_bytes -= self._num_body_bytes
        self._url, self._headers, self._body = b"", {}, []
        self._num_head_bytes = self._num_body_bytes = self._num_chunks = 0
        self._refusal = None

    def _pause_reading(self) -> None:
        if not self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()


def _decoded(raw_path: bytes) -> str:
    """The path of an address, percent-decoded.

    Raises:
        RequestError: It is neither a path nor a whole address, or not UTF-8.
    """
    if not raw_path.startswith(b"/"):
        try:
            raw_path = httptools.parse_url(raw_path).path or b"/"
        except httptools.HttpParserInvalidURLError as error:
            raise RequestError("bad_input", f"the address must begin with /, got {raw_path[:100]!r}") from error
    try:
        return (unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path).decode()
    except UnicodeDecodeError as error:
        raise RequestError("bad_input", "the address must be UTF-8") from error


def _without_upgrade(data: bytes) -> bytes:
    """A head without its offer to change the protocol: the parser drops the body behind one, and Java's client offers h2c."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2] if end >= 0 else b""
    return _UPGRADE.sub(b"", head) + data[end + 2 :] if _UPGRADE.search(head) else data
