"""Incidents: kept, published and audited as they open, change and end."""

from collections.abc import Mapping

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import Incident, Signal
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.judging import Judgement
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.evidence.order import paths_of
from clipdrift_monitor.incidents.course import Course, Sighting, follow, retire
from clipdrift_monitor.incidents.history import remember
from clipdrift_monitor.incidents.response import lapse
from clipdrift_monitor.state import ModelState, counted

_WORDS = {"opened": "open incident", "reopened": "reopen incident", "resolved": "resolve incident"}


class Incidents:
    """Follows the incidents of every model.

    Args:
        config: Of the monitor.
        memory: Whose states hold the incidents that are open, or were not long ago.
        clock: Of the wall, by which people's silences end.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, clock: Clock) -> None:
        self._config = config
        self._memory = memory
        self._clock = clock

    def see(self, told: Judgement, state: ModelState, draft: Draft) -> None:
        """Take up what a judged block shows. One without predictions shows nothing."""
        if not told.block.view.num_predictions:
            return
        assert told.decision.diagnosis is not None
        seen = Sighting(
            model=state.model, version=told.block.version, start_ms=told.block.start_ms, end_ms=told.block.end_ms,
            at_ms=told.decision.at_ms, now_ms=self._clock.now_ms(), signals=tuple(state.open_signals),
            diagnosis=told.decision.diagnosis, decision_id=told.decision.decision_id, moved=_moved(told),
            evidence=self._evidence(told),
        )  # fmt: skip
        self._take(follow(state.incidents, seen, self._config.incidents), state, draft)

    def retire(self, state: ModelState, draft: Draft) -> None:
        """Another version has come into service."""
        assert state.in_service is not None
        self._take(retire(state.incidents, state.in_service.version, state.in_service_since_ms), state, draft)

    def lapse(self, draft: Draft) -> None:
        """End acknowledgements and silences whose time has passed."""
        now_ms = self._clock.now_ms()
        for state in self._memory.states.values():
            lapsed = {one.incident_id: after for one in state.incidents if (after := lapse(one, now_ms)) is not None}
            if lapsed:
                incidents = [lapsed.get(one.incident_id, one) for one in state.incidents]
                self._take(Course(incidents, list(lapsed.values())), state, draft)
                draft.touched.add(state.model)

    def _take(self, course: Course, state: ModelState, draft: Draft) -> None:
        told = {one.incident_id for one in course.told}
        draft.changes.incidents += [
            one for one in course.incidents if one.incident_id not in told and one not in state.incidents
        ]
        state.incidents = course.incidents
        state.past_incidents = remember(state.past_incidents, [*course.incidents, *course.told])
        for one in course.told:
            draft.tell_incident(one)
            if one.change == "opened":
                state.num_incidents = counted(state.num_incidents, f"{one.root}/{one.severity}")
            if one.change in _WORDS:
                draft.audit(_WORDS[one.change], one.incident_id, _record(one))

    def _evidence(self, told: Judgement) -> Mapping[str, str]:
        """Where the reports lie that are made for the alarms of this block."""
        wanted = self._config.evidence_for
        if wanted == "nothing" or (wanted == "retrains" and told.request is None):
            return {}
        return {signal.signal_id: self._uri(signal) for signal in told.signals if signal.kind in told.block.alarms}

    def _uri(self, signal: Signal) -> str:
        return f"/evidence/{paths_of(self._config.evidence_dir, signal.signal_id).html.name}"


def _moved(told: Judgement) -> tuple[str, ...]:
    drift = told.block.drift
    features = [name for name in drift.drifted if name in drift.features]
    return tuple(sorted(features, key=lambda name: -drift.features[name]))


def _record(one: Incident) -> dict[str, object]:
    return {"root": one.root, "severity": one.severity, "summary": one.summary, "resolution": one.resolution}
