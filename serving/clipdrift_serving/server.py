"""A serving process: two listeners on one event loop, a recorder, a spool, a follower of deployments."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterator

import uvicorn
import uvloop

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.deployments import DeploymentFollower
from clipdrift_serving.recording.recorder import BATCH_ROWS, Recorder
from clipdrift_serving.recording.spool import Spool
from clipdrift_serving.rest.admin import AdminApp
from clipdrift_serving.rest.connection import Connection
from clipdrift_serving.rest.data import DataApp
from clipdrift_serving.rest.http import Receive, Scope, Send

_FLUSH_SECONDS = 0.1
_DRAIN_SECONDS = 10
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep an idle connection, so that it is never closed under their next request
_log = logging.getLogger(__name__)


class _Listener(uvicorn.Server):
    """Signals are handled once, for both listeners."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(config: ServingConfig, clock: Clock | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight, write what is recorded, and return.

    Raises:
        ConfigError: The bus address or the receipt key is wrong.
    """
    uvloop.run(_serve(config, clock or SystemClock()))


async def _serve(config: ServingConfig, clock: Clock) -> None:
    metrics = MetricSet()
    epoch = os.urandom(8).hex()
    bus = connect(config.bus_url)
    publisher = bus.publisher()
    spool = Spool(
        config.spool_dir,
        publisher,
        source="serving",
        epoch=epoch,
        clock=clock,
        metrics=metrics,
        max_bytes=config.max_spool_bytes,
    )
    repository = ModelRepository(metrics)
    recorder = Recorder(spool, epoch, metrics, config.max_pending_rows)
    plane = DataPlane(config, repository, ReceiptBook(config.receipt_keys, epoch), recorder, clock, metrics)
    follower = DeploymentFollower(bus, repository, metrics, clock)
    follower.start()
    listeners = [
        _listener(DataApp(config, plane, metrics), config.host, config.port),
        _listener(AdminApp(config, plane, recorder, spool, metrics), config.admin_host, config.admin_port),
    ]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, listeners)
    flushing = asyncio.create_task(_flush_for_ever(recorder))
    _log.info("serving on port %d, admin on port %d, life %s", config.port, config.admin_port, epoch)
    await asyncio.gather(*(listener.serve() for listener in listeners))
    flushing.cancel()
    follower.stop()
    recorder.flush()
    spool.close()
    publisher.close()
    bus.close()


def _listener(app: "DataApp | AdminApp", host: str, port: int) -> _Listener:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return _Listener(
        uvicorn.Config(
            application,
            host=host,
            port=port,
            http=Connection,
            loop="none",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )


def _end(listeners: list[_Listener]) -> None:
    for listener in listeners:
        listener.should_exit = True


async def _flush_for_ever(recorder: Recorder) -> None:
    """Every 100 ms, sooner when a batch is full."""
    waited = 0.0
    while True:
        await asyncio.sleep(_FLUSH_SECONDS / 10)
        waited += _FLUSH_SECONDS / 10
        if recorder.num_pending_rows and (waited >= _FLUSH_SECONDS or recorder.num_pending_rows >= BATCH_ROWS):
            recorder.flush()
            waited = 0.0
