"""Blocks of the version in service that have closed: judged, the oldest first."""

from collections.abc import Mapping
from typing import Any

import msgspec

from clipdrift_contract.clock import Clock
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.judging import judge, total
from clipdrift_monitor.decisions.subject import BySlice, Subject
from clipdrift_monitor.diagnosis.faults import PastBlock, past_from_ms
from clipdrift_monitor.engine.draft import Alarm, Draft
from clipdrift_monitor.engine.incidents import Incidents
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.retrains import order
from clipdrift_monitor.state import ModelState


class Blocks:
    """Judges what is due.

    Args:
        config: Of the monitor.
        memory: Whose states and tests are moved on.
        incidents: Take up what is judged.
        clock: For when a retrain was started.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, incidents: Incidents, clock: Clock) -> None:
        self._config = config
        self._memory = memory
        self._incidents = incidents
        self._clock = clock

    def judge_closed(self, model: str, draft: Draft) -> None:
        """Judge each block of the version in service whose labels are due, the oldest first."""
        state = self._memory.states[model]
        if state.in_service is None or model not in self._memory.harm:
            return
        window_ms = self._config.window_ms
        due_ms = (state.watermark_ms - self._config.label_horizon_ms) // window_ms * window_ms
        first_ms = max(state.judged_until_ms, state.in_service_since_ms // window_ms * window_ms)
        if due_ms <= first_ms:
            return
        by_start = self._memory.version_windows(model, state.in_service.version, first_ms, due_ms)
        for start_ms in sorted(by_start):
            if start_ms + window_ms > due_ms:
                continue
            self._judge(state, start_ms, by_start[start_ms], draft)
        draft.touched.add(model)
        state.judged_until_ms = max(state.judged_until_ms, due_ms)

    def _judge(self, state: ModelState, start_ms: int, in_block: BySlice, draft: Draft) -> None:
        assert state.in_service is not None
        memory, changes, version = self._memory, draft.changes, state.in_service.version
        run, layout = memory.run(state.model, version), memory.layout(state.model, version)
        assert run is not None, version
        subject = Subject(
            run=run, layout=layout, window_ms=self._config.window_ms, label_horizon_ms=self._config.label_horizon_ms,
            min_label_share=self._config.min_label_share, policy=self._config.policy,
        )  # fmt: skip
        harm = memory.harm[state.model]
        view_ms = self._config.view_windows * self._config.window_ms
        view_from_ms = start_ms + self._config.window_ms - view_ms
        past_from = past_from_ms(state.faults, view_from_ms, view_ms)
        by_start = memory.version_windows(state.model, version, past_from, start_ms + self._config.window_ms)
        past = [
            PastBlock(start_ms=start, sums=total(layout, by_start[start])) for start in sorted(by_start) if start < start_ms
        ]
        in_view = _together({start: by_slice for start, by_slice in by_start.items() if start >= view_from_ms})
        told = judge(subject, state, harm, start_ms, in_block, in_view, past)
        changes.harm[state.model] = msgspec.msgpack.encode(harm)
        changes.blocks[state.model, version, start_ms] = msgspec.msgpack.encode(told.block)
        draft.tell(told.signals, str(start_ms))
        draft.decide(told.decision)
        self._incidents.see(told, state, draft)
        if told.request is not None:
            order(told.request, memory, draft, self._clock.now_ms())
        if told.block.alarms:
            draft.alarms.append(Alarm(told, state, run))


def _together(by_start: Mapping[int, BySlice]) -> BySlice:
    """Sums by slice."""
    in_view: dict[int, Any] = {}
    for by_slice in by_start.values():
        for index, sums in by_slice.items():
            in_view[index] = in_view[index] + sums if index in in_view else sums
    return in_view
