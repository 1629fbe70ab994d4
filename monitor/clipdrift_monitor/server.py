"""A monitor process: the engine in a thread of its own, the HTTP interface beside it."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import uvicorn

from clipdrift_contract.access.keys import ApiKeys
from clipdrift_contract.bus.connect import connect
from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_contract.events import RunEnd
from clipdrift_contract.files import lock_file
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.actions.backends.connect import connect_backend
from clipdrift_monitor.actions.dispatcher import Dispatcher
from clipdrift_monitor.alerting import teller as alerting
from clipdrift_monitor.api.access import Access
from clipdrift_monitor.api.app import Api
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.jobs import Jobs
from clipdrift_monitor.api.pages import Pages
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.api.retrain_reader import RetrainReader
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.judging import Judgement
from clipdrift_monitor.detectors.window_drift import check_detectors
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.engine import STANDS_BY, Engine
from clipdrift_monitor.evidence.order import course_of, order_for
from clipdrift_monitor.evidence.starter import EvidenceStarter, Finished
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import Store

LOCK = ".monitor.lock"  # in the jobs folder
_JOIN_SECONDS = 20.0
_DRAIN_SECONDS = 10
_COURSE_BLOCKS = 90  # that a pack shows until its alarm
_STANDBY_SECONDS = 0.5
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep an idle connection, so that it is never closed under their next request
_log = logging.getLogger(__name__)


class _Listener(uvicorn.Server):
    """Ends at a signal and returns: uvicorn would raise the signal again, and the engine's turn would be cut off by it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(config: MonitorConfig, clock: Clock | None = None) -> None:
    """Watch until SIGTERM or SIGINT; then save and return.

    Of several monitors on one store and bus, one works; the others stand by, say so at `/readyz`, and one of them takes over
    when it ends: at once on the same machine, after some fifteen seconds without a sign of life on another.

    Raises:
        ConfigError: An address is wrong, or a detector that the policy names cannot be used.
        ClipdriftError: The engine ended by an error of its own; its story is in the log.
    """
    check_detectors(config.policy.drift)
    clock = clock or SystemClock()
    config.jobs_dir.mkdir(parents=True, exist_ok=True)
    metrics = MetricSet()
    bus, store = connect(config.bus_url), Store(config.store_url)
    backend = connect_backend(
        config.ci, config.ci_secrets, clock, jobs_dir=config.jobs_dir, command=config.retrain_command
    )  # fmt: skip
    evidence = None if config.evidence_for == "nothing" else EvidenceStarter(config.evidence_dir)
    engine = Engine(
        config, bus, store, lambda errand: dispatcher.take(errand), metrics, clock,
        on_alarm=None if evidence is None else partial(_order_evidence, config, evidence, store),
        on_turn=None if evidence is None else lambda: audit_packs(engine, evidence.poll()),
        writer=_name_of(config.jobs_dir / LOCK),
    )  # fmt: skip
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every look at a CI, with addresses that may be signed
    dispatcher = Dispatcher(backend, engine.note, engine.runs.is_current)
    teller = alerting.connect(
        config.alerting, lambda: engine.snapshot, metrics, clock, project=config.project_name, token=config.alertmanager_token,
        folder=config.ci_secrets.folder,
    )  # fmt: skip
    reader = Reader(config, store, lambda: engine.snapshot)
    exporter = Exporter(reader, metrics, config, () if teller is None else (teller.export,))
    api = Api(
        engine, reader, store, exporter, Pages(reader, config), RetrainReader(config, store, reader),
        Jobs(engine, config.ci.beat_seconds, config.ci_secrets.hook_secret), _access(config, clock), config.evidence_dir,
        artifacts_dir=config.artifacts_dir,
    )  # fmt: skip
    server = _Listener(
        uvicorn.Config(
            api.app(),
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            http="h11",  # bounds headers
            ws="none",
            timeout_graceful_shutdown=_DRAIN_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )
    failure: list[BaseException] = []
    thread = threading.Thread(
        target=_run_engine, args=(engine, config.jobs_dir / LOCK, server, failure), name="engine", daemon=True
    )
    thread.start()
    if teller is not None:
        teller.start()
    _log.info("monitoring %s, status page on port %d, process %d", config.project_name, config.port, os.getpid())
    try:
        server.run()
    finally:  # also when the port is taken, which uvicorn ends the process for
        engine.stop()
        thread.join(_JOIN_SECONDS)
        if teller is not None:
            teller.close()
        dispatcher.close()
        if evidence is not None:
            evidence.close()
        if thread.is_alive():
            _log.warning("the engine's turn did not end in %.0f s; what it has not saved is done again", _JOIN_SECONDS)
        else:
            store.close()
            bus.close()
    if failure:
        raise ClipdriftError(f"the monitor's engine ended by {type(failure[0]).__name__}: {failure[0]}") from failure[0]


def _access(config: MonitorConfig, clock: Clock) -> Access:
    keys = ApiKeys(clock, Path(config.api_keys_file)) if config.api_keys_file else None
    return Access(config.api_token, keys, does_reading_need_key=config.does_reading_need_key)


def _name_of(lock: Path) -> str:
    """Whoever holds this lock is the one living monitor of this name: the kernel lets go of it however a process ends, so a
    holder of the lock need not wait for an earlier one. On another machine, or with another jobs folder, it is another name.
    """
    lock.touch()
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = boot.read_text().strip() if boot.exists() else socket.gethostname()
    found = lock.stat()
    return f"{machine}:{found.st_dev}:{found.st_ino}"


@contextlib.contextmanager
def _alone(engine: Engine, lock: Path) -> Iterator[bool]:
    """Stand by for as long as another monitor with this jobs folder lives; False when told to stop before it ended."""
    while (handle := lock_file(lock)) is None:
        if engine.wait(STANDS_BY, _STANDBY_SECONDS):
            yield False
            return
    try:
        yield True
    finally:
        os.close(handle)


def audit_packs(engine: Engine, ended: Sequence[Finished]) -> None:
    """A row in the audit log for each pack that was made, with its digest, or could not be. Waits for nothing."""
    for one in ended:
        engine.command(partial(_audit_pack, one))


def _audit_pack(one: Finished, draft: Draft) -> None:
    if one.html is None:
        draft.audit("evidence failed", one.signal_id, {"problem": one.problem})
    else:
        draft.audit("evidence", one.signal_id, {"page": one.html.name, "numbers_sha256": one.digest})


def _order_evidence(
    config: MonitorConfig, starter: EvidenceStarter, store: Store, told: Judgement, state: ModelState, run: RunEnd
) -> None:
    """A report for each test that raised an alarm; where only retrains are to be documented, for the one that ordered it."""
    if config.evidence_for == "retrains" and told.request is None:
        return
    for raised in told.signals:
        is_wanted = raised.kind in told.block.alarms and (config.evidence_for == "alarms" or raised.kind == "repairable")
        if is_wanted:
            since_ms, week_ms = state.in_service_since_ms, 7 * config.window_ms  # a single day has its own weather
            starter.order(
                order_for(
                    raised, run=run, bus_url=config.bus_url, in_service_since_ms=since_ms, at_least_ms=week_ms,
                    block=told.block, decision=told.decision, course=course_of(_last_blocks(store, state.model), raised),
                )
            )  # fmt: skip


def _last_blocks(store: Store, model: str) -> list[JudgedBlock]:
    """None while the store is away: a pack without its course is better than none."""
    try:
        return [msgspec.msgpack.decode(body, type=JudgedBlock) for body in store.blocks(model)[-_COURSE_BLOCKS:]]
    except RetryableError:
        return []


def _run_engine(engine: Engine, lock: Path, server: uvicorn.Server, failure: list[BaseException]) -> None:
    try:
        with _alone(engine, lock) as is_alone:
            if is_alone:
                engine.run()
    except Exception as error:  # noqa: BLE001  a thread's boundary: logged once, and the process ends by it
        _log.exception("the engine ends; the process ends with it, so that whoever watches it starts it again")
        failure.append(error)
        server.should_exit = True
