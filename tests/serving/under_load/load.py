"""A client that asks as fast as it can over several connections and keeps what it was told."""

import asyncio
import json
import threading
import time
from typing import NamedTuple


class Told(NamedTuple):
    """One answer: status, version, role, the last output's second value, its receipt, when it had come (time.monotonic)."""

    status: int
    version: str
    role: str
    value: float
    receipt: str
    at: float


class Load:
    """Runs in a thread of its own until `stop`; `answers` grows meanwhile.

    Args:
        port: Of the data listener.
        body: Of the inference request.
        num_connections: Each waits for its answer before it asks again.
    """

    def __init__(self, port: int, body: dict, num_connections: int = 8) -> None:
        content = json.dumps(body).encode()
        self._request = b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            len(content),
            content,
        )
        self._port = port
        self._num_connections = num_connections
        self.answers: list[Told] = []
        self.num_cut_off = 0  # connections that ended before their answer was whole
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> "Load":
        self._thread.start()
        return self

    def stop(self) -> list[Told]:
        self._is_over = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.answers

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(self._num_connections)))

    async def _ask(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            self.num_cut_off += 1
            return
        try:
            while not self._is_over:
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head[9:12])
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.answers.append(_told(status, await reader.readexactly(length)))
        except (OSError, asyncio.IncompleteReadError):
            self.num_cut_off += 1
        finally:
            writer.close()


def _told(status: int, body: bytes) -> Told:
    at = time.monotonic()
    if status != 200:
        return Told(status, "", "", 0.0, body.decode(errors="replace"), at)
    answer = json.loads(body)
    parameters = answer["parameters"]
    value = answer["outputs"][0]["data"][1]
    return Told(status, answer["model_version"], parameters["role"], value, parameters["receipts"][0], at)
