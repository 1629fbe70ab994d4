"""A monitor process: the engine in a thread of its own, the HTTP interface beside it."""

import logging
import os
import threading

import uvicorn

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.actions.local_process import LocalProcesses
from clipdrift_monitor.api.app import Api
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.pages import Pages
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine import Engine
from clipdrift_monitor.store.store import Store

_JOIN_SECONDS = 20.0
_log = logging.getLogger(__name__)


def run(config: MonitorConfig, clock: Clock | None = None) -> None:
    """Watch until SIGTERM or SIGINT; then save and return.

    Raises:
        ConfigError: An address is wrong.
        ClipdriftError: The engine ended by an error of its own; its story is in the log.
    """
    chosen = clock or SystemClock()
    metrics = MetricSet()
    bus, store = connect(config.bus_url), Store(config.store_url)
    engine = Engine(config, bus, store, LocalProcesses(config.jobs_dir, config.retrain_command), metrics, chosen)
    reader = Reader(config, store, lambda: engine.snapshot)
    api = Api(engine, reader, store, Exporter(reader, metrics), Pages(reader, config), config.api_token, config.evidence_dir)
    server = uvicorn.Server(
        uvicorn.Config(
            api.app(),
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
        )
    )
    failure: list[BaseException] = []
    thread = threading.Thread(target=_run_engine, args=(engine, server, failure), name="engine", daemon=True)
    thread.start()
    _log.info("monitoring %s, status page on port %d, process %d", config.project_name, config.port, os.getpid())
    server.run()
    engine.stop()
    thread.join(_JOIN_SECONDS)
    store.close()
    bus.close()
    if failure:
        raise ClipdriftError(f"the monitor's engine ended by {type(failure[0]).__name__}: {failure[0]}") from failure[0]


def _run_engine(engine: Engine, server: uvicorn.Server, failure: list[BaseException]) -> None:
    try:
        engine.run()
    except Exception as error:  # noqa: BLE001  a thread's boundary: logged once, and the process ends by it
        _log.exception("the engine ends; the process ends with it, so that whoever watches it starts it again")
        failure.append(error)
        server.should_exit = True
