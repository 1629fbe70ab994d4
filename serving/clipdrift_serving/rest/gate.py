"""What all connections of one listener share: the application, the limits, and what is open right now."""

from time import perf_counter
from typing import Protocol

import msgspec

from clipdrift_serving.config import ServingConfig
from clipdrift_serving.rest.errors import error_body
from clipdrift_serving.rest.http import JSON_ONLY, App, Response

_BUSY_HEADERS = (*JSON_ONLY, (b"retry-after", b"1"))


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one listener; the meaning of each is in `ServingConfig`."""

    max_body_bytes: int = 4 * 1024 * 1024
    max_header_bytes: int = 16 * 1024
    max_chunks: int = 16_384
    max_connections: int = 2048
    max_in_flight: int = 2048
    max_buffered_bytes: int = 256 * 1024 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    send_seconds: float = 30.0

    @classmethod
    def of(cls, config: ServingConfig) -> "Limits":
        return cls(**{name: getattr(config, name) for name in cls.__struct_fields__})


class Guest(Protocol):
    """A connection, as its gate sees it."""

    deadline: float

    def on_deadline(self) -> None: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...


class Gate:
    """Lets connections and requests in while there is room. One thread (the event loop's) only.

    Args:
        app: Answers requests.
        limits: Bounds.
        is_always_open: Addresses that are answered however busy the server is: health must be seen.
    """

    def __init__(self, app: App, limits: Limits, is_always_open: frozenset[bytes] = frozenset()) -> None:
        self.app = app
        self.limits = limits
        self.num_in_flight = 0
        self.num_buffered_bytes = 0
        self.is_draining = False
        self.num_refused = {"connections": 0, "in_flight": 0, "memory": 0, "deadline": 0}
        self._is_always_open = is_always_open
        self._guests: set[Guest] = set()

    @property
    def num_connections(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest) -> bool:
        """Count a new connection; False when there is no room for it (it is counted all the same, until it leaves)."""
        is_welcome = len(self._guests) < self.limits.max_connections
        self._guests.add(guest)
        if not is_welcome:
            self.num_refused["connections"] += 1
        return is_welcome

    def leave(self, guest: Guest, num_buffered_bytes: int, num_in_flight: int) -> None:
        """A connection is gone, and with it what it held."""
        self._guests.discard(guest)
        self.num_buffered_bytes -= num_buffered_bytes
        self.num_in_flight -= num_in_flight

    def refusal(self, url: bytes) -> Response | None:
        """The answer to a request that there is no room for now; asked before anything of its body is kept."""
        if self.num_in_flight < self.limits.max_in_flight and self.num_buffered_bytes < self.limits.max_buffered_bytes:
            return None
        if url in self._is_always_open:
            return None
        is_memory = self.num_buffered_bytes >= self.limits.max_buffered_bytes
        self.num_refused["memory" if is_memory else "in_flight"] += 1
        return Response(503, error_body("the server is busy: too many requests wait; try again"), _BUSY_HEADERS)

    def sweep(self) -> None:
        """Tell the connections whose time is over; called about twice a second."""
        now = perf_counter()
        for guest in [one for one in self._guests if one.deadline < now]:
            self.num_refused["deadline"] += 1
            guest.on_deadline()

    def drain(self) -> None:
        """Take no further request on any connection."""
        self.is_draining = True
        for guest in list(self._guests):
            guest.drain()

    def abort(self) -> None:
        """Hang up on everybody who is left."""
        for guest in list(self._guests):
            guest.abort()
