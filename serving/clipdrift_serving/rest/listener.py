"""A socket that takes connections for an application, and its end without a request lost."""

import asyncio
import ssl
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SO_REUSEPORT, SOCK_STREAM, SOL_SOCKET, socket

from clipdrift_serving.rest.connection import Connection
from clipdrift_serving.rest.gate import Gate

_SWEEP_SECONDS = 0.5
BACKLOG = 2048
_OTHER_FILES = 256  # models, bus, spool, gRPC, and some to spare


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


def room_for(max_connections: int) -> int:
    """Connections that each of two listeners may have open, after this process's limit of open files was raised for them.

    Debian's default is 1,024 files: connections alone could use up all of them, and then neither the bus nor a model opens.
    """
    wanted = 2 * max_connections + _OTHER_FILES
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if soft < wanted and soft != RLIM_INFINITY:
        soft = wanted if hard == RLIM_INFINITY else min(wanted, hard)
        setrlimit(RLIMIT_NOFILE, (soft, hard))
    return max_connections if soft == RLIM_INFINITY else max(1, min(max_connections, (soft - _OTHER_FILES) // 2))


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
            self._server = await loop.create_unix_server(lambda: Connection(self.gate), self._bound, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(
                lambda: Connection(self.gate),
                sock=self._bound,
                ssl=self._tls,
                backlog=BACKLOG,
                # a half-open handshake is no connection yet, so the gate cannot end it
                ssl_handshake_timeout=self.gate.limits.head_seconds if self._tls is not None else None,
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
