"""A serving process: two listeners on one event loop, a recorder, a spool, a follower of deployments."""

import asyncio
import gc
import logging
import os
import signal

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
from clipdrift_serving.rest.data import HEALTH, DataApp
from clipdrift_serving.rest.gate import Gate, Limits
from clipdrift_serving.rest.listener import Listener, bound_socket

_FLUSH_SECONDS = 0.1
_GC_THRESHOLD = (10_000, 20, 50)  # a request makes no cycles; the default of 700 looks for them all the time
_log = logging.getLogger(__name__)


def run(config: ServingConfig, clock: Clock | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight, write what is recorded, and return.

    Raises:
        ConfigError: The bus address or the receipt key is wrong.
    """
    uvloop.run(_serve(config, clock or SystemClock()))


async def _serve(config: ServingConfig, clock: Clock) -> None:
    loop = asyncio.get_running_loop()
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
    receipts = ReceiptBook(config.receipt_keys, epoch)
    plane = DataPlane(
        config, repository, receipts, recorder, clock, metrics, schedule=loop.call_soon_threadsafe, soon=loop.call_soon
    )
    follower = DeploymentFollower(bus, repository, metrics, clock)
    follower.start()
    limits = Limits.of(config)
    listeners = [
        Listener(Gate(DataApp(config, plane, metrics), limits, HEALTH), bound_socket(config.host, config.port)),
        Listener(
            Gate(AdminApp(config, plane, recorder, spool, metrics), limits), bound_socket(config.admin_host, config.admin_port)
        ),
    ]
    is_ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_ending.set)
    for listener in listeners:
        await listener.open()
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked at again at each collection
    gc.set_threshold(*_GC_THRESHOLD)
    flushing = asyncio.create_task(_flush_for_ever(recorder))
    _log.info("serving on port %d, admin on port %d, life %s", config.port, config.admin_port, epoch)
    await is_ending.wait()
    await asyncio.gather(*(listener.close(config.drain_seconds) for listener in listeners))
    flushing.cancel()
    follower.stop()
    plane.close()
    recorder.flush()
    spool.close()
    publisher.close()
    bus.close()


async def _flush_for_ever(recorder: Recorder) -> None:
    """Every 100 ms, sooner when a batch is full."""
    waited = 0.0
    while True:
        await asyncio.sleep(_FLUSH_SECONDS / 10)
        waited += _FLUSH_SECONDS / 10
        if recorder.num_pending_rows and (waited >= _FLUSH_SECONDS or recorder.num_pending_rows >= BATCH_ROWS):
            recorder.flush()
            waited = 0.0
