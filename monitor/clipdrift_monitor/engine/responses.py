"""What people say of incidents."""

from collections.abc import Callable
from typing import Any

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import FeedbackVerdict, Incident
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.incidents import response
from clipdrift_monitor.incidents.history import remember
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.store import Store


class Responses:
    """Each is to be carried out by the engine's thread: see `Engine.command`. What was said before, said again, changes nothing
    and leaves no second row in the audit log.

    Args:
        config: Of the monitor.
        memory: Whose states hold the incidents that are open, or were not long ago.
        store: Holds the others.
        clock: For when it was said.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, store: Store, clock: Clock) -> None:
        self._config = config
        self._memory = memory
        self._store = store
        self._clock = clock

    def acknowledge(self, draft: Draft, incident_id: str, reason: str, actor: str, until_ms: int) -> Incident:
        """Somebody sees to it until a time; when that has passed and it is open still, it is news again.

        Raises:
            CommandError: There is no such incident, it is over, or the time is past or too far.
        """

        def say(incident: Incident) -> Incident:
            return response.acknowledge(
                incident, actor=actor, reason=reason, at_ms=self._clock.now_ms(), until_ms=until_ms,
                config=self._config.incidents,
            )  # fmt: skip

        return self._respond(draft, incident_id, say, actor, {"reason": reason, "until_ms": until_ms})

    def silence(self, draft: Draft, incident_id: str, reason: str, actor: str, until_ms: int) -> Incident:
        """Not to be heard until a time, unless it grows worse. Raises as `acknowledge`."""

        def say(incident: Incident) -> Incident:
            return response.silence(
                incident, actor=actor, reason=reason, at_ms=self._clock.now_ms(), until_ms=until_ms,
                config=self._config.incidents,
            )  # fmt: skip

        return self._respond(draft, incident_id, say, actor, {"reason": reason, "until_ms": until_ms})

    def give_feedback(self, draft: Draft, incident_id: str, reason: str, actor: str, verdict: FeedbackVerdict) -> Incident:
        """Whether it was true, false, or true and known before; also when it is over.

        Raises:
            CommandError: There is no such incident.
        """

        def say(incident: Incident) -> Incident:
            return response.give_feedback(incident, verdict=verdict, actor=actor, reason=reason, at_ms=self._clock.now_ms())

        return self._respond(draft, incident_id, say, actor, {"reason": reason, "verdict": verdict})

    def _respond(
        self, draft: Draft, incident_id: str, say: Callable[[Incident], Incident], actor: str, body: dict[str, Any]
    ) -> Incident:
        before = self._find(draft, incident_id)
        try:
            after = say(before)
        except response.ResponseError as error:
            raise CommandError(str(error)) from error
        if after == before:
            return before
        state = self._memory.states[before.model]
        state.incidents = [after if one.incident_id == incident_id else one for one in state.incidents]
        state.past_incidents = remember(state.past_incidents, [after])
        _count(state, before, after)
        draft.tell_incident(after)
        draft.audit(f"incident {after.change}", incident_id, body, actor)
        return after

    def _find(self, draft: Draft, incident_id: str) -> Incident:
        newer = [one for state in self._memory.states.values() for one in state.incidents] + draft.changes.incidents
        known = {one.incident_id: one for one in newer}  # what is in the draft is not in the store yet
        found = known.get(incident_id) or self._store.incident(incident_id)
        if found is None or found.model not in self._memory.states:
            raise CommandError(f"there is no incident {incident_id[:100]!r}; `clipdrift incidents list` names those there are")
        return found


def _count(state: ModelState, before: Incident, after: Incident) -> None:
    """One verdict an incident counts: the newest."""
    old, new = response.verdict_of(before), response.verdict_of(after)
    if old != new:
        counts = dict(state.num_feedback)
        for verdict, change in ((old, -1), (new, 1)):
            if verdict is not None:
                counts[verdict] = counts.get(verdict, 0) + change
        state.num_feedback = counts
