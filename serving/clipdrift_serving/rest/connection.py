"""One client's connection: uvicorn's, with bounds on what it leaves without: headers, pipelined requests, waiting."""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from clipdrift_serving.rest.errors import error_body

_MAX_UNUSED_BYTES = 64 * 1024  # a head, a trailer or the line before a chunk; the request line too
_MAX_URL_BYTES = 65_535  # the parser takes no longer one apart
_HEAD_SECONDS = 30.0
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """A head that does not end is refused with 431, one that does not come with 408; what is no HTTP gets an error like any.

    A request without trouble pays for one addition.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.url = b""
        self._is_in_head = True
        self._num_unused = 0  # bytes since the parser last had something for us: it keeps them, however many they are
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's own
        super().connection_made(transport)
        # a client that connects and says nothing is like one that has nothing more to say
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._moved_on()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head and not self._num_unused:
            data = _without_upgrade(data)
        self._num_unused += len(data)
        super().data_received(data)
        if not self._num_unused or self.transport.is_closing():
            return
        if self._num_unused > _MAX_UNUSED_BYTES:
            self._refuse(431, f"request line and headers hold at most {_MAX_UNUSED_BYTES} bytes")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._on_slow_head)

    def on_headers_complete(self) -> None:
        self._moved_on()
        self._is_in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved_on()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved_on()
        self._is_in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # uvicorn reads on whatever waits here, so a client that only asks would fill the memory
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        if len(self.url) >= _MAX_URL_BYTES:
            self._refuse(431, f"an address holds fewer than {_MAX_URL_BYTES} bytes, got {len(self.url)}")
        else:
            self._refuse(400, "this is no HTTP/1.1 request: its first line, a header, its length or a chunk is malformed")

    def _moved_on(self) -> None:
        self._num_unused = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_slow_head(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(408, f"the request did not go on within {_HEAD_SECONDS:g} s")

    def _refuse(self, status: int, message: str) -> None:
        body = error_body(message)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """A head without its offer to change the protocol: the parser drops the body behind one, and Java's client offers h2c."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2] if end >= 0 else b""
    return _UPGRADE.sub(b"", head) + data[end + 2 :] if _UPGRADE.search(head) else data
