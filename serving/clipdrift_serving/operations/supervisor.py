"""Several serving processes on one port. This process holds no model: it owns the sockets, the workers and the admin listener.

Each worker takes connections from a listening socket of its own, which lives here: what the kernel has queued for a
worker waits for its successor when it is restarted.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from socket import socket
from subprocess import PIPE
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from clipdrift_contract import metrics as names
from clipdrift_contract.access.keys import ApiKeys
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.metrics import OPENMETRICS, MetricSet, encoded
from clipdrift_serving.access.authorise import authoriser
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.operations.child import Start
from clipdrift_serving.operations.scrapes import Scrapes
from clipdrift_serving.operations.worker import Worker, last_figures_path
from clipdrift_serving.rest.admin_access import REQUESTS, refusal_of
from clipdrift_serving.rest.errors import error_body
from clipdrift_serving.rest.gate import Gate, Limits
from clipdrift_serving.rest.http import Reply, Request, Response, failed
from clipdrift_serving.rest.listener import BACKLOG, Listener, bound_socket

_SCRAPE_SECONDS = 1.0
_ASK_SECONDS = 35.0  # a flush may take 30
_SCRAPE_TIMEOUT_SECONDS = 2.0
_GRACE_SECONDS = 5.0
_START_SECONDS = 60.0
_MAX_DEATHS_A_MINUTE = 10
_MAX_BACKOFF_SECONDS = 5.0
_PASSED = (b"accept", b"authorization", b"x-api-key")  # headers that a worker is told
_MAX_PATH = 107  # of a Unix socket, bytes: sockaddr_un
_log = logging.getLogger(__name__)


def supervise(config: ServingConfig, num_workers: int) -> None:
    """Serve with so many processes until SIGTERM or SIGINT; SIGHUP restarts them one after another.

    Raises:
        ConfigError: The spool folder's path is too long for a socket in it, or gRPC is asked for.
        ClipdriftError: Workers die again and again.
        OSError: An address is taken.
    """
    if config.grpc_port:
        raise ConfigError("several workers cannot share a gRPC port: set grpc_port = 0, or workers = 1")
    asyncio.run(_Supervisor(config, num_workers).run())


class _Slot:
    """A worker's place: its socket and folder stay, its process changes."""

    def __init__(self, config: ServingConfig, index: int) -> None:
        self.index = index
        self.listening: socket = bound_socket(config.host, config.port, is_shared=True)
        self.listening.listen(BACKLOG)
        folder = config.spool_dir.resolve() / f"worker-{index}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.admin_path = str(folder / "admin.sock")
        if len(os.fsencode(self.admin_path)) > _MAX_PATH:
            raise ConfigError(f"the path {self.admin_path} is too long for a socket: at most {_MAX_PATH} bytes; move the spool")
        fd = self.listening.fileno()
        # the socket's folder is the owner's, and the supervisor has looked at the token of whoever asks for metrics
        own = msgspec.structs.replace(config, spool_dir=folder, metrics_need_token=False)
        self._config = own
        self._worker = Worker(index, fd, self.admin_path)
        self.had_models = False
        self.process: asyncio.subprocess.Process | None = None
        self.is_replaced = False  # its end was asked for

    async def start(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "clipdrift_serving.operations.child")
        last_figures_path(self.admin_path).unlink(missing_ok=True)  # of a server that was killed
        made = await asyncio.create_subprocess_exec(*command, stdin=PIPE, pass_fds=(self.listening.fileno(),))
        assert made.stdin is not None, "a pipe was asked for"
        made.stdin.write(Start(self._config, self._worker._replace(had_models=self.had_models)).to_line())
        self.process = made
        return made

    def last_figures(self) -> str | None:
        """What the worker that has ended wrote when it was done; None when it was killed."""
        try:
            return last_figures_path(self.admin_path).read_text()
        except FileNotFoundError:
            return None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def end(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL when it has not ended in time."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            _log.error("worker %d did not end in %.0f s: killed", self.index, seconds)
            process.kill()
            await process.wait()


class _Supervisor:
    def __init__(self, config: ServingConfig, num_workers: int) -> None:
        self._config = config
        self._metrics = MetricSet()
        self._restarts = self._metrics.counter(names.SERVING_WORKER_RESTARTS)
        self._slots = [_Slot(config, index) for index in range(num_workers)]
        self._scrapes = Scrapes()
        self._is_ending = asyncio.Event()
        self._is_rolling = False
        self._deaths: deque[float] = deque()
        self._failure: ClipdriftError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        keys = ApiKeys(SystemClock(), Path(config.api_keys_file)) if config.api_keys_file else None
        self._authorise = authoriser(config.admin_token, keys)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._is_ending.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._roll()))
        admin = Listener(
            Gate(self._answer, Limits.of(self._config)), bound_socket(self._config.admin_host, self._config.admin_port)
        )
        await admin.open()
        keeping = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        for task in keeping:
            task.add_done_callback(lambda _: self._is_ending.set())  # a worker that cannot be started ends the server
        scraping = asyncio.create_task(self._scrape_for_ever())
        await self._is_ending.wait()
        for task in (scraping, *self._tasks):
            task.cancel()
        await asyncio.gather(*(slot.end(self._config.drain_seconds + _GRACE_SECONDS) for slot in self._slots))
        await asyncio.gather(*keeping)
        await admin.close(1.0)
        if self._failure is not None:
            raise self._failure

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the workers' lives -------------------------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot) -> None:
        """Start the worker, again when it ended, until the end."""
        loop = asyncio.get_running_loop()
        while not self._is_ending.is_set():
            process = await slot.start()
            if self._is_ending.is_set():  # asked to end while it was made
                await slot.end(self._config.drain_seconds + _GRACE_SECONDS)
            code = await process.wait()
            figures = slot.last_figures()
            if figures is not None:
                self._scrapes.update(slot.index, figures)
            self._scrapes.end(slot.index)
            if self._is_ending.is_set() or slot.is_replaced:
                slot.is_replaced = False
                continue
            now = loop.time()
            self._deaths.append(now)
            while self._deaths[0] < now - 60.0:
                self._deaths.popleft()
            self._restarts.inc()
            _log.error("worker %d ended unasked (exit status %s); it is started again", slot.index, code)
            if len(self._deaths) >= _MAX_DEATHS_A_MINUTE:
                self._failure = ClipdriftError(f"{len(self._deaths)} workers died within a minute: giving up; see their logs")
                self._is_ending.set()
                return
            await self._pause(min(0.05 * 2 ** len(self._deaths), _MAX_BACKOFF_SECONDS))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_ending.wait(), seconds)

    async def _roll(self) -> None:
        """Restart the workers one after another, each when the one before answers again."""
        if self._is_rolling:
            return
        self._is_rolling = True
        try:
            for slot in self._slots:
                await self._scrape(slot)
                slot.is_replaced = slot.is_running  # else it has died, and its successor is on its way
                old = slot.process
                await slot.end(self._config.drain_seconds + _GRACE_SECONDS)
                end = asyncio.get_running_loop().time() + _START_SECONDS
                while slot.process is old or not await self._scrape(slot):
                    if asyncio.get_running_loop().time() > end:
                        _log.error("worker %d does not answer after its restart: the others are left as they are", slot.index)
                        return
                    await asyncio.sleep(0.05)
        finally:
            self._is_rolling = False

    # --- what the workers say -----------------------------------------------------------------------------------------------

    async def _scrape_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SCRAPE_SECONDS)
            await asyncio.gather(*(self._scrape(slot) for slot in self._slots))

    async def _scrape(self, slot: _Slot) -> bool:
        process = slot.process
        accept = {b"accept": OPENMETRICS.encode()}
        status, body = await _ask(slot.admin_path, "GET", "/metrics", accept, _SCRAPE_TIMEOUT_SECONDS)
        if status != 200 or process is None or process is not slot.process or process.returncode is not None:
            return False
        slot.had_models = names.SERVING_GENERATION.name.encode() + b"{" in body
        self._scrapes.update(slot.index, body.decode())
        return True

    def _answer(self, request: Request, reply: Reply) -> None:
        try:
            refusal = refusal_of(request, self._authorise, self._config)
        except Exception as error:  # noqa: BLE001  the boundary: it is answered, and logged where it is ours
            reply(failed(error))
            return
        if refusal is not None:
            reply(refusal)
            return
        self._begin(self._reply_later(request, reply))

    async def _reply_later(self, request: Request, reply: Reply) -> None:
        try:
            reply(await self._answered(request))
        except Exception as error:  # noqa: BLE001  the same boundary
            reply(failed(error))

    async def _answered(self, request: Request) -> Response:
        if request.path == "/metrics" and request.method in ("GET", "HEAD"):
            await asyncio.gather(*(self._scrape(slot) for slot in self._slots))
            accept = request.headers.get(b"accept", b"").decode("latin-1")
            text, kind = encoded([self._scrapes, self._metrics.registry], accept)
            return Response(200, text, ((b"content-type", kind.encode()),))
        # the path comes decoded: as it is, a line end in it would begin a header of its own
        target = quote(request.path)
        asked = (_ask(slot.admin_path, request.method, target, request.headers, _ASK_SECONDS) for slot in self._slots)
        answers = await asyncio.gather(*asked)
        if (request.path, request.method) == ("/v1/models", "GET") and all(status == 200 for status, _ in answers):
            return Response(200, orjson.dumps(summed([orjson.loads(body) for _, body in answers])))
        # one request is known to the worker that answered it, at first; the rest has happened where it has happened everywhere
        choose = min if request.path.startswith(REQUESTS) else max
        status, body = choose(answers, key=lambda answer: answer[0])
        return Response(status, body)


def summed(told: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What several workers say of their models as one: counts are summed, the rest is of the worker that is furthest behind.

    Example:
        >>> one = {"toy": {"generation": 2, "requests": 3, "rows": 3, "labels": 2, "correct": 1, "live_accuracy": 0.5}}
        >>> summed([one, one])["toy"]["requests"]
        6
    """
    found: dict[str, dict[str, Any]] = {}
    for name in {name: None for models in told for name in models}:
        every = [models[name] for models in told if name in models]
        made = found[name] = dict(min(every, key=lambda one: one["generation"]))
        for count in ("requests", "rows", "labels", "correct"):
            made[count] = sum(one[count] for one in every)
        made["live_accuracy"] = made["correct"] / made["labels"] if made["labels"] else None
    return found


async def _ask(path: str, method: str, target: str, headers: Mapping[bytes, bytes], seconds: float) -> tuple[int, bytes]:
    """Status and body of one request on a worker's Unix socket; 503 when it does not answer."""
    passed = b"".join(name + b": " + headers[name] + b"\r\n" for name in _PASSED if name in headers)
    head = f"{method} {target} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\ncontent-length: 0\r\n".encode()
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(head + passed + b"\r\n")
                answer = await reader.read(-1)
            finally:
                writer.close()
        first, _, body = answer.partition(b"\r\n\r\n")
        return int(first.split(b" ", 2)[1]), body
    except (OSError, TimeoutError, IndexError, ValueError):
        return 503, error_body("a worker does not answer; it may be starting: try again")
