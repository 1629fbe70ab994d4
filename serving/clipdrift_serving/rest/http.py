"""What both listeners speak: a request as it came off the wire, an answer as it goes back, and compressed bodies."""

import logging
import zlib
from collections.abc import Callable
from typing import NamedTuple

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.recording.spool import SpoolFullError
from clipdrift_serving.rest.errors import STATUS_OF, error_body

Headers = tuple[tuple[bytes, bytes], ...]
JSON_ONLY: Headers = ((b"content-type", b"application/json"),)
_MIN_COMPRESSED = 4096  # a shorter answer takes longer to pack than to send
_LEVEL = 1
_VARY = (b"vary", b"accept-encoding")
_WINDOW_BITS = {b"gzip": 31, b"deflate": 15}  # RFC 9110: deflate is the zlib format
_log = logging.getLogger(__name__)


class Request:
    """One HTTP request, complete with its body."""

    __slots__ = ("body", "headers", "method", "path", "query", "received_at")

    def __init__(
        self, method: str, path: str, query: bytes, headers: dict[bytes, bytes], body: bytes, received_at: float
    ) -> None:
        self.method = method
        self.path = path  # percent-decoded
        self.query = query
        self.headers = headers  # names in lower case; a name that came twice holds both values, with ", " between
        self.body = body
        self.received_at = received_at  # seconds of time.perf_counter


class Response(NamedTuple):
    """An answer: status, body and its headers (the connection adds the length)."""

    status: int
    body: bytes
    headers: Headers = JSON_ONLY


Reply = Callable[[Response], None]
App = Callable[[Request, Reply], None]
"""Called on the loop's thread for each complete request; must not block or raise, and calls `reply` once, now or later."""


def plain_body(request: Request, max_bytes: int) -> bytes:
    """The body, unpacked when it came with `Content-Encoding: gzip` or `deflate`; never more than `max_bytes` are unpacked.

    Raises:
        RequestError: Another encoding, data that is not what it says, or a body that unpacks to more than allowed.
    """
    encoding = request.headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding in (b"identity", b""):
        return request.body
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        known = "gzip, deflate or identity"
        raise RequestError("unknown_encoding", f"content-encoding must be {known}, got {encoding.decode('latin-1')[:30]!r}")
    unpacking = zlib.decompressobj(bits)
    try:
        body = unpacking.decompress(request.body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError("bad_input", f"the body is no {encoding.decode()} data: {error}") from error
    if len(body) > max_bytes:
        raise RequestError("too_large", f"a body holds at most {max_bytes} bytes, this one unpacks to more")
    if not unpacking.eof or unpacking.unused_data:
        raise RequestError("bad_input", f"the {encoding.decode()} data of the body is cut off, or goes on behind its end")
    return body


def packed(response: Response, accept_encoding: bytes) -> Response:
    """The answer compressed as the client asked for, where it is long enough to be worth it."""
    if len(response.body) < _MIN_COMPRESSED:
        return response
    parts = [part.partition(b";") for part in accept_encoding.lower().replace(b" ", b"").split(b",")]
    accepted = {name for name, _, weight in parts if weight.rstrip(b"0.") != b"q="}  # q=0 in any form: not this one
    for name, bits in _WINDOW_BITS.items():
        if name in accepted:
            packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, bits)
            body = packing.compress(response.body) + packing.flush()
            return Response(
                response.status, body, (*response.headers, (b"content-encoding", name), (b"vary", b"accept-encoding"))
            )
    return response


def refused(error: RequestError) -> Response:
    """The answer to a request that cannot be answered."""
    headers = JSON_ONLY
    if error.allowed:
        headers = (*headers, (b"allow", error.allowed.encode()))
    if error.fault == "unauthorized":
        headers = (*headers, (b"www-authenticate", b"Bearer"))
    if error.fault in ("busy", "not_ready"):
        headers = (*headers, (b"retry-after", b"1"))
    return Response(STATUS_OF[error.fault], error_body(str(error)), headers)


def wrong_method(request: Request, allowed: str) -> RequestError:
    """The address exists, and is asked for with another method."""
    message = f"{request.path[:200]} is asked for with {allowed}, got {request.method}"
    return RequestError("method_not_allowed", message, allowed=allowed)


def failed(error: Exception) -> Response:
    """What went wrong, as an answer: the boundary at which no exception passes."""
    if isinstance(error, RequestError):
        return refused(error)
    if isinstance(error, SpoolFullError):
        return Response(503, error_body(f"nothing was accepted: {error}"), (*JSON_ONLY, (b"retry-after", b"5")))
    _log.error("a request failed inside the server", exc_info=error)
    return Response(500, error_body("a fault inside the server; it is in its log"))
