"""A thread that keeps Alertmanager true, so that judging never waits for the network."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from clipdrift_contract import metrics as names
from clipdrift_contract.clock import Clock
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.alerting.alertmanager import Alertmanager, AlertmanagerError
from clipdrift_monitor.alerting.config import AlertingConfig
from clipdrift_monitor.alerting.told import (
    Differences,
    Hush,
    Labels,
    Told,
    alerts_of,
    compare,
    hushes_of,
    hushes_to_change,
    payload,
)
from clipdrift_monitor.engine.engine import STANDS_BY
from clipdrift_monitor.engine.snapshot import Snapshot

_NUM_REPEATS = 5  # an alert that was not told for so many of them is over
_TICK_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_CLOSE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class _Known:
    """What is remembered of one Alertmanager between rounds."""

    def __init__(self, server: Alertmanager) -> None:
        self.server = server
        self.due_seconds = float("-inf")
        self.reached_ms = 0
        self.is_failing = False
        self.over_since: dict[Labels, float] = {}  # unknown alerts that we told, by when that was first seen
        self.differences = Differences(frozenset(), frozenset(), frozenset())


class Teller:
    """Tells Alertmanagers of open incidents again and again, ends what is over, and has what people hold silenced.

    Nothing is kept: each round asks what an Alertmanager believes and what it silences, and sets right what differs. So neither
    a restart of it nor one of the monitor loses an alert or makes a second silence. Silences are made at the first that
    answers: the others of its cluster have them from there.

    Args:
        config: Of `[monitor.alerting]`.
        servers: One for each address; used by this object's thread alone, and closed with it.
        snapshot: What the engine knows; cheap.
        metrics: Counts failures.
        clock: For when a round is due, and for ends of alerts.
        project: Marks silences of this monitor.
        token: Of the environment.
        token_file: Read before each round, in place of `token`.
    """

    def __init__(
        self,
        config: AlertingConfig,
        servers: Iterable[Alertmanager],
        snapshot: Callable[[], Snapshot],
        metrics: MetricSet,
        clock: Clock,
        *,
        project: str = "",
        token: str = "",
        token_file: Path | None = None,
    ) -> None:
        self._config = config
        self._known = [_Known(server) for server in servers]
        self._snapshot = snapshot
        self._failures = metrics.counter(names.MONITOR_ALERTMANAGER_FAILURES)
        self._clock = clock
        self._project = project
        self._token = token
        self._token_file = token_file
        self._last: tuple[object, ...] = ()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerting", daemon=True)
        for one in self._known:
            self._failures.labels(one.server.url).inc(0)

    def start(self) -> None:
        """Begin rounds in a thread; without it, `step` does one."""
        self._thread.start()

    def close(self) -> None:
        """Alerts stay as they are in Alertmanager: they end by themselves if no monitor comes back."""
        self._is_closing.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            for one in self._known:
                one.server.close()

    def export(self, metrics: MetricSet) -> None:
        """Set the figures about Alertmanagers. Any thread."""
        for one in self._known:
            metrics.gauge(names.MONITOR_ALERTMANAGER_REACHED).labels(one.server.url).set(one.reached_ms / 1000)
            for side, found in (("missing", one.differences.missing), ("unknown", one.differences.unknown)):
                metrics.gauge(names.MONITOR_ALERTS_DIFFERING).labels(one.server.url, side).set(len(found))

    def step(self) -> None:
        """A round with each Alertmanager that is due: those whose time has come, and all when something has changed."""
        snapshot = self._snapshot()
        if not snapshot.is_loaded or snapshot.waits_for == STANDS_BY:
            return
        told = alerts_of((one for state in snapshot.models.values() for one in state.incidents), self._config)
        now = self._clock.monotonic_seconds()
        hushes = hushes_of(told.values(), self._clock.now_ms(), self._project) if self._config.does_silence else {}
        now_told = (frozenset(told), frozenset((labels, one.ends_ms) for labels, one in hushes.items()))
        if now_told != self._last:
            self._last = now_told
            for known in self._known:
                known.due_seconds = min(known.due_seconds, now) if not known.is_failing else known.due_seconds
        for known in self._known:
            if known.due_seconds <= now:
                self._round(known, told, hushes, snapshot)

    def _round(self, known: _Known, told: Mapping[Labels, Told], hushes: Mapping[Labels, Hush], snapshot: Snapshot) -> None:
        try:
            known.server.log_in(self._config.user, self._secret())
            self._set_right(known, told, hushes, snapshot)
        except (AlertmanagerError, OSError) as error:
            self._failures.labels(known.server.url).inc()
            if not known.is_failing:
                _log.warning("Alertmanager is not told of incidents: %s", error)
            known.is_failing, wait = True, min(_RETRY_SECONDS, self._config.repeat_seconds)
        else:
            if known.is_failing:
                _log.info("Alertmanager %s is told of incidents again", known.server.url)
            known.is_failing, known.reached_ms, wait = False, self._clock.now_ms(), self._config.repeat_seconds
            if known.over_since:
                wait = min(wait, max(1.0, self._config.resolve_after_seconds))
        known.due_seconds = self._clock.monotonic_seconds() + wait

    def _set_right(self, known: _Known, told: Mapping[Labels, Told], hushes: Mapping[Labels, Hush], snapshot: Snapshot) -> None:
        now_ms, now = self._clock.now_ms(), self._clock.monotonic_seconds()
        first = next((one for one in self._known if not one.is_failing), known)
        if self._config.does_silence and known is first:  # before the alert: nobody is called about what somebody sees to
            make, end = hushes_to_change(hushes, known.server.hushes(), snapshot.models.keys(), self._project)
            for hush in make:
                known.server.hush(hush, now_ms)
            for silence_id in end:
                known.server.unhush(silence_id)
        found = compare(told.keys(), known.server.believed(), snapshot.models.keys(), self._config)
        known.differences = found
        known.over_since = {labels: known.over_since.get(labels, now) for labels in found.ours}
        over = [labels for labels, since in known.over_since.items() if now - since >= self._config.resolve_after_seconds]
        ends_ms = now_ms + round(_NUM_REPEATS * self._config.repeat_seconds * 1000)
        known.server.tell([payload(one, ends_ms=ends_ms) for one in told.values()])
        known.server.tell([payload(Told(labels, {}, f"{self._config.monitor_url}/", ()), ends_ms=now_ms) for labels in over])

    def _secret(self) -> str:
        return self._token_file.read_text().strip() if self._token_file is not None else self._token

    def _run(self) -> None:
        while not self._is_closing.wait(_TICK_SECONDS):
            try:
                self.step()
            except Exception:  # noqa: BLE001  a thread's boundary: the next round goes on
                _log.exception("a round with Alertmanager has failed")


def connect(
    config: AlertingConfig,
    snapshot: Callable[[], Snapshot],
    metrics: MetricSet,
    clock: Clock,
    *,
    project: str,
    token: str,
    folder: Path,
) -> Teller | None:
    """A teller of all addresses; None where there is none."""
    if not config.urls:
        return None
    servers: Sequence[Alertmanager] = [Alertmanager(url, config.timeout_seconds) for url in config.urls]
    file = folder / config.token_file if config.token_file else None
    return Teller(config, servers, snapshot, metrics, clock, project=project, token=token, token_file=file)
