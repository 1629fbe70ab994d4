"""A serving process: two listeners on one event loop, a recorder, a spool, a follower of deployments."""

import asyncio
import gc
import logging
import os
import signal
from hashlib import blake2b
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import msgspec
import uvloop

from clipdrift_contract.access.keys import ApiKeys
from clipdrift_contract.bus.connect import connect
from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.errors import ConfigError
from clipdrift_contract.metrics import OPENMETRICS, MetricSet, encoded
from clipdrift_serving.access.authorise import Authorise, authoriser
from clipdrift_serving.access.tls import TlsContext
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.admission import require_signing_keys
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.deployments import DeploymentFollower
from clipdrift_serving.operations.exposed import ExposedUsage
from clipdrift_serving.operations.logs import AccessLog, start_logging
from clipdrift_serving.operations.supervisor import supervise
from clipdrift_serving.operations.worker import Worker, last_figures_path
from clipdrift_serving.recording.fields import Fields
from clipdrift_serving.recording.inbox import FeedbackInbox
from clipdrift_serving.recording.recorder import BATCH_ROWS, Recorder
from clipdrift_serving.recording.requests import RequestBook
from clipdrift_serving.recording.spool import Spool
from clipdrift_serving.rest.admin import AdminApp
from clipdrift_serving.rest.data import HEALTH, DataApp
from clipdrift_serving.rest.gate import Gate, Limits
from clipdrift_serving.rest.listener import Listener, bound_socket, room_for

if TYPE_CHECKING:
    from clipdrift_serving.grpc.server import GrpcServer

_FLUSH_SECONDS = 0.1
_TURNS_A_FLUSH = 10
_MODELS_SECONDS = 30.0
_GC_THRESHOLD = (10_000, 20, 50)  # a request makes no cycles; the default of 700 looks for them all the time
_log = logging.getLogger(__name__)


def run(config: ServingConfig, clock: Clock | None = None, worker: Worker | None = None) -> None:
    """Serve, alone or as a worker, until SIGTERM or SIGINT; then finish what is in flight, write what is recorded, and return.

    Raises:
        ConfigError: The bus address or the receipt key is wrong, or signatures cannot be checked.
    """
    require_signing_keys(config.admission)
    logs = (
        start_logging([config.admin_token, *config.receipt_keys, config.fields.hmac_key])
        if config.log_format == "json"
        else None
    )
    try:
        if config.workers > 1 and worker is None:
            supervise(config, config.workers)
        else:
            uvloop.run(_serve(config, clock or SystemClock(), worker))
    finally:
        if logs is not None:
            logs.stop()


async def _serve(config: ServingConfig, clock: Clock, worker: Worker | None) -> None:
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
    repository = ModelRepository(metrics, config.admission)
    receipts = ReceiptBook(config.receipt_keys, epoch)
    requests = RequestBook(config.spool_dir.parent if worker else config.spool_dir, receipts, clock, config.request_ids)
    recorder = Recorder(
        spool,
        epoch,
        metrics,
        config.max_pending_rows,
        fields=_fields(config),
        sampling=config.sampling,
        remember=requests.remember,
    )
    plane = DataPlane(
        config,
        repository,
        receipts,
        recorder,
        clock,
        metrics,
        schedule=loop.call_soon_threadsafe,
        soon=loop.call_soon,
        find=requests.find,
    )
    keys = ApiKeys(clock, Path(config.api_keys_file)) if config.api_keys_file else None
    authorise = authoriser(config.admin_token, keys)
    tls = _tls(config, clock)
    follower = DeploymentFollower(bus, repository, metrics, clock)
    follower.start()
    inbox = FeedbackInbox(bus, plane.feedback, loop.call_soon_threadsafe, repository.is_ready, metrics, clock)
    inbox.start()
    limits = Limits.of(msgspec.structs.replace(config, max_connections=room_for(config.max_connections)))
    log = AccessLog(config.access_log_ratio) if config.access_log_ratio else None
    data = DataApp(config, plane, metrics, authorise if keys is not None else None, log)
    admin = AdminApp(config, plane, recorder, spool, metrics, authorise, requests.answers)
    gate = Gate(data, limits, HEALTH)
    metrics.registry.register(ExposedUsage(plane.usage, gate, data.labels.pairing, requests.figures))
    bound = socket(fileno=worker.data_fd) if worker else bound_socket(config.host, config.port)
    listeners = [
        Listener(gate, bound, tls.context if tls else None),
        Listener(Gate(admin, limits), worker.admin_path if worker else bound_socket(config.admin_host, config.admin_port)),
    ]
    remote_calls = _grpc(config, plane, loop, authorise, tls)
    is_ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_ending.set)
    if worker is not None and worker.had_models:
        await _models_are_back(repository, is_ending)
    for listener in listeners:
        await listener.open()
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked at again at each collection
    gc.set_threshold(*_GC_THRESHOLD)
    flushing = asyncio.create_task(_flush_for_ever(recorder, requests, tls))
    _log.info("serving on port %d, admin on port %d, life %s", config.port, config.admin_port, epoch)
    await is_ending.wait()
    ends = [listener.close(config.drain_seconds) for listener in listeners]
    if remote_calls is not None:
        ends.append(asyncio.to_thread(remote_calls.stop, config.drain_seconds))
    await asyncio.gather(*ends)
    flushing.cancel()
    await asyncio.to_thread(inbox.stop)  # it may be waiting for this loop
    follower.stop()
    plane.close()
    recorder.flush()
    requests.close()
    spool.close()
    publisher.close()
    bus.close()
    if worker is not None:  # what was counted after the last scrape
        last_figures_path(worker.admin_path).write_bytes(encoded([metrics.registry], OPENMETRICS)[0])


async def _models_are_back(repository: ModelRepository, is_ending: asyncio.Event) -> None:
    """Connections wait in the socket's queue meanwhile, for as long as it is worth waiting for."""
    end = asyncio.get_running_loop().time() + _MODELS_SECONDS
    while not (repository.is_caught_up and repository.names()) and not is_ending.is_set():
        if asyncio.get_running_loop().time() > end:
            _log.error("no model is back after %.0f s: serving without", _MODELS_SECONDS)
            return
        await asyncio.sleep(0.02)


def _fields(config: ServingConfig) -> Fields:
    """The policy, with a key of its own where the operator gave none."""
    key = config.fields.hmac_key
    if not key:
        oldest = bytes.fromhex(config.receipt_keys[-1])
        key = blake2b(b"fields", key=oldest, digest_size=32).hexdigest()
    return Fields(msgspec.structs.replace(config.fields, hmac_key=key))


def _tls(config: ServingConfig, clock: Clock) -> TlsContext | None:
    given = (config.tls_certificate_file, config.tls_key_file)
    if not any(given):
        return None
    if not all(given):
        raise ConfigError("TLS needs both: set tls_certificate_file and tls_key_file")
    client_ca = Path(config.tls_client_ca_file) if config.tls_client_ca_file else None
    return TlsContext(Path(given[0]), Path(given[1]), client_ca, clock)


def _grpc(
    config: ServingConfig,
    plane: DataPlane,
    loop: asyncio.AbstractEventLoop,
    authorise: Authorise,
    tls: TlsContext | None,
) -> "GrpcServer | None":
    if not config.grpc_port:
        return None
    # imported where it is used: some 7 MB that a server without gRPC, at the edge say, does not have
    from clipdrift_serving.grpc.credentials import server_credentials  # noqa: PLC0415
    from clipdrift_serving.grpc.server import GrpcConfig, GrpcServer  # noqa: PLC0415

    listening = GrpcConfig(
        host=config.host,
        port=config.grpc_port,
        num_threads=config.grpc_threads,
        max_message_bytes=config.max_body_bytes,
        max_in_flight=config.max_in_flight,
        max_rows=config.max_rows,
    )
    made = GrpcServer(listening, plane, loop, authorise, server_credentials(tls) if tls is not None else None)
    made.start()
    return made


async def _flush_for_ever(recorder: Recorder, requests: RequestBook, tls: TlsContext | None) -> None:
    """Every 100 ms, sooner when a batch is full; and look for a new certificate."""
    num_turns = 0
    while True:
        await asyncio.sleep(_FLUSH_SECONDS / _TURNS_A_FLUSH)
        num_turns += 1
        requests.flush()  # cheap where nobody gives ids
        if recorder.num_pending_rows and (num_turns >= _TURNS_A_FLUSH or recorder.num_pending_rows >= BATCH_ROWS):
            recorder.flush()
            num_turns = 0
        if tls is not None:
            tls.refresh()  # looks once a second at most
