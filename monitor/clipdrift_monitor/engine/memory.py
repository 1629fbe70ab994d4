"""What the engine has in memory of the store."""

from collections.abc import Callable
from typing import Any

import msgspec

from clipdrift_contract.bus.log import Record, TopicPartition
from clipdrift_contract.clock import MS_PER_DAY, Clock
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import RetrainRequest, RunEnd
from clipdrift_monitor.actions.run import Run
from clipdrift_monitor.intake.label_book import LabelBook
from clipdrift_monitor.intake.pair_book import PairBook
from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.risk.harm import HarmState
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import Store
from clipdrift_monitor.windows.span import merged
from clipdrift_monitor.windows.window import Layout

EVENT_IDS = "event_ids"  # the floor's name in the store


class Memory:
    """States and books by model; `load` makes them what the store holds, whatever they were. One thread.

    Args:
        store: Where everything is kept.
        clock: Of the wall: since when a retrain that was found unfinished is called running.
        window_ms: Width of the windows that parts are put together to.
    """

    def __init__(self, store: Store, clock: Clock, window_ms: int = MS_PER_DAY) -> None:
        self._store = store
        self._clock = clock
        self._window_ms = window_ms
        self.windows = WindowBook(store.window)
        self.labels = LabelBook(store.seen_labels)
        self.pairs = PairBook(store.waiting_rows)
        self.states: dict[str, ModelState] = {}
        self.harm: dict[str, HarmState] = {}
        self.unfinished: dict[str, RetrainRequest] = {}
        self.ci_runs: dict[str, Run] = {}  # that have not ended; of unfinished retrains, and of some that have their outcome
        self.ci_requests: dict[str, RetrainRequest] = {}  # of these
        self.started: dict[str, float] = {}  # by model, in seconds of the wall clock
        self.offsets: dict[TopicPartition, int] = {}  # as the store has them
        self.ids_from_ms = 0  # of records before it, ids are not kept
        self._highest: dict[TopicPartition, int] = {}  # how far each place was ever read
        self._runs: dict[tuple[str, str], RunEnd | None] = {}
        self._layouts: dict[tuple[str, str], Layout] = {}

    def load(self) -> None:
        """Read everything anew."""
        self.windows.clear()
        self.labels.clear()
        self.pairs.clear()
        self._runs.clear()
        self._layouts.clear()
        self.states = {name: msgspec.msgpack.decode(body, type=ModelState) for name, body in self._store.models().items()}
        self.harm = {}
        for name in self.states:
            if (body := self._store.harm(name)) is not None:
                self.harm[name] = msgspec.msgpack.decode(body, type=HarmState)
        self._load_retrains()
        now = self._clock.now_ms() / 1000
        self.started = {request.model: self.started.get(request.model, now) for request in self.unfinished.values()}
        self.offsets = self._store.offsets()
        self.ids_from_ms = self._store.floors().get(EVENT_IDS, 0)
        self._highest = self._store.highest_offsets()

    def _load_retrains(self) -> None:
        """A retrain that was ordered before runs were kept may have been started: it is looked for first."""
        rows, now_ms = self._store.retrains(unfinished=True), self._clock.now_ms()
        self.unfinished = {row.key: row.request for row in rows}
        self.ci_runs = {run.key: run for run in self._store.open_runs()}
        for row in rows:
            if row.run is None:
                self.ci_runs[row.key] = Run(
                    key=row.key, model=row.model, ordered_at_ms=now_ms, since_ms=now_ms, attempt=max(1, row.attempts),
                    state="dispatching" if row.attempts else "requested", num_dispatches=row.attempts,
                )  # fmt: skip
        self.ci_requests = {}
        for key in self.ci_runs:
            row_of_run = None if key in self.unfinished else self._store.retrain(key)
            self.ci_requests[key] = self.unfinished[key] if row_of_run is None else row_of_run.request

    def is_forgotten(self, record: Record) -> bool:
        """Whether a record was counted and its id let go: it lies below what was read of its place before (so the bus, or one
        restored from it, is being read once more), and is older than the ids that are kept."""
        return record.timestamp_ms < self.ids_from_ms and record.offset < self._highest.get(record.place, 0)

    def state(self, model: str) -> ModelState:
        """The state of a model, begun where it is new."""
        if model not in self.states:
            self.states[model] = ModelState(model=model)
        return self.states[model]

    def as_it_is(self, model: str) -> Callable[[], None]:
        """What makes a model's state, its tests and its retrains again what they are now; the books are not kept."""
        state, harm = self.states[model], msgspec.msgpack.encode(self.harm[model])
        kept = msgspec.structs.asdict(state)  # shallow: what lies in a state is replaced and never changed
        unfinished, started = dict(self.unfinished), dict(self.started)
        ci_runs, ci_requests = dict(self.ci_runs), dict(self.ci_requests)

        def put_back() -> None:
            for name, value in kept.items():
                setattr(state, name, value)
            self.harm[model] = msgspec.msgpack.decode(harm, type=HarmState)
            self.unfinished, self.started = unfinished, started
            self.ci_runs, self.ci_requests = ci_runs, ci_requests

        return put_back

    def keep_run(self, run: RunEnd) -> None:
        """From now on this is the run that made its version."""
        self._runs[run.model, run.version] = run
        self._layouts.pop((run.model, run.version), None)

    def run(self, model: str, version: str) -> RunEnd | None:
        """The run that made a version; None where it is not known."""
        if (model, version) not in self._runs:  # nobody else writes runs: what is not there comes by `keep_run`
            self._runs[model, version] = self._store.run(model, version)
        return self._runs[model, version]

    def model_of_run(self, run_id: str) -> str | None:
        """Of which model a run is; None where it is not known."""
        here = (run.model for run in self._runs.values() if run is not None and run.run_id == run_id)
        return next(here, None) or self._store.model_of_run(run_id)

    def layout(self, model: str, version: str) -> Layout:
        """How the windows of a version whose run is known are laid out.

        Raises:
            PoisonError: Its run had no reference profile.
        """
        if (model, version) not in self._layouts:
            run = self.run(model, version)
            assert run is not None, version
            if run.profile is None:
                raise PoisonError(f"the run that made version {version} had no reference profile")
            self._layouts[model, version] = Layout(run.profile)
        return self._layouts[model, version]

    def block(self, model: str, version: str, start_ms: int) -> JudgedBlock | None:
        """A block that was judged and saved; None where there is none."""
        body = self._store.block(model, version, start_ms)
        return None if body is None else msgspec.msgpack.decode(body, type=JudgedBlock)

    def version_windows(self, model: str, version: str, start_ms: int, end_ms: int) -> dict[int, dict[int, Any]]:
        """Vectors by start and slice of the windows that start in [start, end): of the store, with what was added since."""
        parts = {key: sums for key, sums in self._store.windows(model, start_ms, end_ms) if key.version == version}
        for (of_model, key), sums in self.windows.changes().items():
            if of_model == model and key.version == version and start_ms <= key.start_ms < end_ms:
                parts[key] = sums
        found: dict[int, dict[int, Any]] = {}
        for key, sums in merged(parts.items(), width_ms=self._window_ms).items():
            found.setdefault(key.start_ms, {})[key.slice_index] = sums
        return found
