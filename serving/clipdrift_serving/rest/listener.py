"""A socket that takes connections for an application, and its end without a request lost."""

import asyncio
import ssl
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SO_REUSEPORT, SOCK_STREAM, SOL_SOCKET, socket

from clipdrift_serving.rest.connection import Connection
from clipdrift_serving.rest.gate import Gate

_SWEEP_SECONDS = 0.5
_BACKLOG = 2048


def bound_socket(host: str, port: int, *, is_shared: bool = False) -> socket:
    """A listening address; `is_shared`: other processes may bind it too, and the kernel spreads connections over them.

    Raises:
        OSError: The address is taken, or is none of this machine's.
    """
    made = socket(AF_INET6 if ":" in host else AF_INET, SOCK_STREAM)
    made.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    if is_shared:
        made.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
    try:
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


class Listener:
    """Takes connections on a socket until it is closed.

    Args:
        gate: The application and its limits.
        bound: A bound socket, or the path of a Unix socket.
        tls: For HTTPS.
    """

    def __init__(self, gate: Gate, bound: socket | str, tls: ssl.SSLContext | None = None) -> None:
        self.gate = gate
        self._bound = bound
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to take connections."""
        loop = asyncio.get_running_loop()
        if isinstance(self._bound, str):
            self._server = await loop.create_unix_server(lambda: Connection(self.gate), self._bound, backlog=_BACKLOG)
        else:
            self._server = await loop.create_server(
                lambda: Connection(self.gate), sock=self._bound, ssl=self._tls, backlog=_BACKLOG
            )
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self, drain_seconds: float) -> None:
        """Take no more connections, let what has begun end, then hang up on who is left."""
        assert self._server is not None, "opened before it is closed"
        assert self._sweeping is not None, "opened before it is closed"
        self._server.close()
        self.gate.drain()
        loop = asyncio.get_running_loop()
        end = loop.time() + drain_seconds
        while self.gate.num_connections and loop.time() < end:
            await asyncio.sleep(0.02)
        self._sweeping.cancel()
        self.gate.abort()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.gate.sweep()
