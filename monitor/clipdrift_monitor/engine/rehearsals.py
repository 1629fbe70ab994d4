"""How many false alarms each model's own healthy days would bring, found out while there is nothing else to do."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from clipdrift_contract.events import Severity
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.replayed_days import Day, begin_tests, lived_day, validated_days
from clipdrift_monitor.engine.spending import Spending
from clipdrift_monitor.risk.healthy import JudgedDay, healthy_days
from clipdrift_monitor.risk.realised import MIN_DAYS, REPLAY_DAYS, Realised, Rehearsal
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import Store

_NUM_REPLAYS = 80
_REPLAYS_A_TURN = 20  # of one model before the next: the first that a figure is said of
_BLOCKS_A_PORTION = 4  # some 10 ms
_NEW_AFTER_BLOCKS = 7  # a history that has grown by so many is rehearsed anew
_MAX_BLOCKS = 120  # of a history, the newest
_MIN_BLOCKS = 21  # healthy ones in production; with fewer the validated days are taken, too


class _Progress(NamedTuple):
    """How far a model is; `key` says of which history and with which tests."""

    key: tuple[object, ...]
    counts: tuple[dict[Severity, int], ...] = ()
    is_over: bool = False


class Rehearsals:
    """Replays the harm tests of each model in service on its own healthy days, a few at a time.

    Nothing of it is saved: the same comes of the same history after a restart. Of hundreds of models one history is in memory.

    Args:
        config: Of the monitor.
        memory: With the models in service.
        store: Where windows and judged blocks are.
        spending: What each model may spend.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, store: Store, spending: Spending) -> None:
        self._config = config
        self._memory = memory
        self._store = store
        self._spending = spending
        self._progress: dict[str, _Progress] = {}
        self._current: tuple[str, Rehearsal[Day]] | None = None
        self._figures: dict[str, tuple[Realised, ...]] = {}

    @property
    def figures(self) -> Mapping[str, tuple[Realised, ...]]:
        """By model, one for each severity that its harm tests have; none before the first replays are through."""
        return self._figures

    def forget(self) -> None:
        """Begin again from what the memory holds now."""
        self._progress, self._current, self._figures = {}, None, {}

    def portion(self) -> None:
        """A little of the work; to be called by the engine's thread when nothing waits."""
        if self._current is None:
            self._begin_next()
            return
        model, rehearsal = self._current
        state = self._memory.states.get(model)
        if state is None or self._progress[model].key != self._key(state):
            self._current = None
            return
        num_replays = rehearsal.num_replays
        for _ in range(_BLOCKS_A_PORTION):
            rehearsal.step()
        if rehearsal.num_replays > num_replays:
            self._note(model, rehearsal)

    def _begin_next(self) -> None:
        """Take up the model that is least far."""
        waiting = []
        for model, state in self._memory.states.items():
            key = self._key(state)
            if key is None:
                continue
            if model not in self._progress or self._progress[model].key != key:
                self._progress[model] = _Progress(key)
            if not self._progress[model].is_over:
                waiting.append((len(self._progress[model].counts), model))
        if not waiting:
            return
        _, model = min(waiting)
        progress, history = self._progress[model], self._history(self._memory.states[model])
        if len(history) < MIN_DAYS:
            self._progress[model] = progress._replace(is_over=True)
            return
        harm, allotment, config = self._memory.harm[model], self._spending.allotment(), self._config.policy.harm
        self._current = model, Rehearsal(history, lambda: begin_tests(harm, allotment, config), counts=progress.counts)

    def _note(self, model: str, rehearsal: Rehearsal[Day]) -> None:
        """After each replay; others take their turn after so many that a figure can be said."""
        self._figures = {**self._figures, **self._said(model, rehearsal)}
        is_over = rehearsal.num_replays >= _NUM_REPLAYS
        if is_over or rehearsal.num_replays % _REPLAYS_A_TURN == 0:
            self._progress[model] = self._progress[model]._replace(counts=rehearsal.counts, is_over=is_over)
            self._current = None

    def _said(self, model: str, rehearsal: Rehearsal[Day]) -> dict[str, tuple[Realised, ...]]:
        allotment, found = self._spending.allotment(), []
        severities: tuple[Severity, ...] = ("page", "ticket", "note")
        for severity in severities:
            if not allotment.severities.tests(severity):
                continue
            promised = REPLAY_DAYS / allotment.budget.days_per_false(severity) / allotment.num_models
            one = rehearsal.realised(severity, promised)
            if one is not None:
                found.append(one)
        return {model: tuple(found)} if found else {}

    def _key(self, state: ModelState) -> tuple[object, ...] | None:
        """Another one begins the rehearsal anew; None while no version is in service."""
        if state.in_service is None or state.model not in self._memory.harm:
            return None
        age = state.judged_until_ms // self._config.window_ms // _NEW_AFTER_BLOCKS
        verdicts = tuple(one.incident_id for one in state.past_incidents if one.verdict == "false")
        return state.generation, age, self._spending.allotment(), verdicts

    def _history(self, state: ModelState) -> list[Day]:
        assert state.in_service is not None
        model, version, window_ms = state.model, state.in_service.version, self._config.window_ms
        run = self._memory.run(model, version)
        if run is None:
            return []
        layout = self._memory.layout(model, version)
        reference, tested = self._memory.harm[model].reference, self._memory.harm[model]
        judged = [msgspec.msgpack.decode(body, type=JudgedBlock) for body in self._store.blocks(model)]
        of_version = [one for one in judged if one.version == version and one.start_ms >= state.in_service_since_ms]
        excused = {
            at_ms // window_ms * window_ms
            for one in state.past_incidents if one.verdict == "false" for at_ms in (one.opened_at_ms, one.opened_at_ms - 1)
        }  # fmt: skip
        days = [JudgedDay(one.start_ms, one.alarms, one.levels) for one in of_version]
        starts = healthy_days(days, excused)[-_MAX_BLOCKS:]
        found = [] if len(starts) >= _MIN_BLOCKS else validated_days(run, tested, window_ms)
        windows = self._memory.version_windows(model, version, starts[0], starts[-1] + window_ms) if starts else {}
        for start_ms in starts:
            found.append(lived_day(layout, tested, windows.get(start_ms, {}), start_ms, window_ms, reference.lag1))
        return [day for day in found if day.block.num_labels]
