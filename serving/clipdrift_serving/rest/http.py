"""The few pieces of HTTP that both listeners need: reading a body within its limit, sending an answer, counting what went
wrong."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.recording.spool import SpoolFullError
from clipdrift_serving.rest.errors import STATUS_OF, error_body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
JSON = (b"content-type", b"application/json")
_MAX_HEADER_BYTES = 16 * 1024
_BODY_SECONDS = 30.0
_log = logging.getLogger(__name__)


class Response(NamedTuple):
    """An answer: status, body and further headers."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        RequestError: It is larger than allowed (said before it is read where its length is declared), compressed, or too slow;
            or the headers are too large.
    """
    headers = dict(scope["headers"])
    if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
        raise RequestError("headers_too_large", f"headers hold at most {_MAX_HEADER_BYTES} bytes")
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding not in (b"identity", b""):
        raise RequestError("bad_input", f"content-encoding {encoding.decode('latin-1')[:30]!r} is not accepted; send it plain")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise RequestError("too_large", f"a body holds at most {max_bytes} bytes, got {int(declared)}")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            body = await _read_parts(receive, max_bytes)
    except TimeoutError as error:
        raise RequestError("too_slow", f"the body did not arrive within {_BODY_SECONDS:g} s") from error
    if not body and b"upgrade" in headers:  # an offer that came in pieces: the parser has dropped what was behind it
        raise RequestError("bad_input", "the protocol is HTTP/1.1; send the request without the header Upgrade")
    return body


async def _read_parts(receive: Receive, max_bytes: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("bad_input", "the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > max_bytes:
            raise RequestError("too_large", f"a body holds at most {max_bytes} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def send(response: Response, send_message: Send) -> None:
    headers = [*response.headers, (b"content-length", str(len(response.body)).encode())]
    try:
        await send_message({"type": "http.response.start", "status": response.status, "headers": headers})
        await send_message({"type": "http.response.body", "body": response.body})
    except RuntimeError as error:  # uvloop's word for a client that left while its answers waited to be read
        _log.info("an answer could not be sent: %s", error)


def refused(error: RequestError) -> Response:
    """The answer to a request that cannot be answered."""
    headers = (JSON, (b"allow", error.allowed.encode())) if error.allowed else (JSON,)
    return Response(STATUS_OF[error.fault], error_body(str(error)), headers)


def wrong_method(scope: Scope, allowed: str) -> RequestError:
    """The address exists, and is asked for with another method."""
    message = f"{scope['path'][:200]} is asked for with {allowed}, got {scope['method']}"
    return RequestError("method_not_allowed", message, allowed=allowed)


async def guarded(answer: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, or what went wrong as an answer: the boundary at which no exception passes."""
    try:
        return await answer()
    except RequestError as error:
        return refused(error)
    except SpoolFullError as error:
        return Response(503, error_body(f"nothing was accepted: {error}"), (JSON, (b"retry-after", b"5")))
    except Exception:  # noqa: BLE001  a fault of ours must not end the connection of others; it is logged and counted
        _log.exception("a request failed inside the server")
        return Response(500, error_body("a fault inside the server; it is in its log"))
