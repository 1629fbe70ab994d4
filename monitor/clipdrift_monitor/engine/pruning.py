"""Lets go of what is older than the settings say: a portion at a time, in turns that have nothing else to do."""

import logging

from clipdrift_contract.clock import MS_PER_DAY, Clock
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import EVENT_IDS, Memory
from clipdrift_monitor.evidence.expiry import remove_old_packs
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.retention import Floors, event_ids_floor, records_floor, windows_floor
from clipdrift_monitor.store.store import Store

_PLAN_SECONDS = 3_600.0
_PORTION_ROWS = 500
_REST = 19.0  # times as long as a portion took: at most a twentieth of the engine's time
_log = logging.getLogger(__name__)


class Pruning:
    """First it is saved from which moment on things are kept, then what lies before is deleted: a row of a time that is kept no
    more is left out from then on, so nothing that was deleted can be counted a second time.

    Args:
        config: Of the monitor.
        memory: States, and from when on ids are kept.
        store: Deletes.
        clock: For ages, and for how long a portion took.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, store: Store, clock: Clock) -> None:
        self._config = config
        self._memory = memory
        self._store = store
        self._clock = clock
        self._next_plan = self._next_portion = float("-inf")
        self._is_due = False

    def plan(self, draft: Draft) -> None:
        """Now and then, for the draft of a turn: move on what is kept from."""
        now = self._clock.monotonic_seconds()
        if now < self._next_plan:
            return
        self._next_plan, self._is_due = now + _PLAN_SECONDS, True
        memory, retention = self._memory, self._config.retention
        ids_ms = event_ids_floor(retention, self._clock.now_ms(), self._store.newest_record_ms(), memory.ids_from_ms)
        if ids_ms != memory.ids_from_ms:
            memory.ids_from_ms = draft.changes.floors[EVENT_IDS] = ids_ms
        for state in memory.states.values():
            kept_from_ms = self._windows_floor(state)
            if kept_from_ms != state.kept_from_ms:
                state.kept_from_ms = kept_from_ms
                draft.touched.add(state.model)
        remove_old_packs(self._config.evidence_dir, retention.evidence_days)

    def portion(self) -> None:
        """Delete some of what lies before the moments that were saved, if any is left."""
        began = self._clock.monotonic_seconds()
        if not self._is_due or began < self._next_portion:
            return
        num_gone = self._store.let_go(self._floors(), _PORTION_ROWS) + self._merge_parts()
        ended = self._clock.monotonic_seconds()
        self._next_portion = ended + _REST * (ended - began)
        self._is_due = num_gone > 0
        if num_gone:
            _log.info("%d rows were older than [monitor.retention] keeps and are gone", num_gone)

    def forget(self) -> None:
        """Of a turn that failed: what was to be saved is planned again."""
        self._next_plan, self._is_due = float("-inf"), False

    def _merge_parts(self) -> int:
        """Put the parts of old windows together, where sums are kept in parts; how many went into others."""
        config, num_gone = self._config, 0
        if config.part_ms:
            for state in self._memory.states.values():
                before_ms = (state.watermark_ms - config.part_days * MS_PER_DAY) // config.window_ms * config.window_ms
                num_gone += self._store.merge_windows(state.model, before_ms, config.window_ms, _PORTION_ROWS)
        if num_gone:
            self._memory.windows.clear()  # nothing is pending in a turn that has nothing else to do
        return num_gone

    def _windows_floor(self, state: ModelState) -> int:
        config, width = self._config, self._config.window_ms
        num_kept = config.retention.window_days * MS_PER_DAY // width
        if config.part_ms and num_kept:  # the newest of them are several parts each
            num_kept += min(num_kept, config.part_days * MS_PER_DAY // width) * (width // config.part_ms - 1)
        oldest_kept_ms = self._store.nth_newest_window_ms(state.model, num_kept) if num_kept else 0
        judged_ms = state.judged_until_ms if state.in_service is not None else state.watermark_ms
        needed_from_ms = judged_ms - (config.view_windows + 1) * width - config.label_horizon_ms
        found = windows_floor(config.retention, state.watermark_ms, oldest_kept_ms, needed_from_ms, state.kept_from_ms)
        return found // width * width  # a window is kept whole or not at all

    def _floors(self) -> Floors:
        states = self._memory.states.values()
        return Floors(
            self._memory.ids_from_ms,
            {state.model: state.kept_from_ms for state in states},
            {state.model: records_floor(self._config.retention, state.watermark_ms, state.kept_from_ms) for state in states},
        )
