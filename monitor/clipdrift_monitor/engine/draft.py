"""What one turn is about to save."""

from collections.abc import Collection
from typing import Any, NamedTuple

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import Decision, Event, Incident, RunEnd, Signal
from clipdrift_monitor.actions.outbox import to_publish
from clipdrift_monitor.decisions.judging import Judgement
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.store import AuditEntry, Changes

ACTOR = "monitor"


class Alarm(NamedTuple):
    """A judgement that raised an alarm, with the model's state and the run of the version that it is of."""

    told: Judgement
    state: ModelState
    run: RunEnd


class Draft:
    """Changes for the store, the models whose states they touch, and the alarms to be told once they are saved.

    Args:
        clock: For the audit's times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.changes = Changes()
        self.touched: set[str] = set()
        self.alarms: list[Alarm] = []

    def take(self, other: "Draft") -> None:
        """Save what `other` would save, too, after what is drafted here."""
        for name in other.changes.__struct_fields__:
            mine, more = getattr(self.changes, name), getattr(other.changes, name)
            setattr(self.changes, name, mine | more if isinstance(mine, dict) else mine + more)
        self.touched |= other.touched
        self.alarms += other.alarms

    def publish(self, event: Event, event_id: str) -> None:
        """Have an event published after the commit, under an id that is the same however often it is tried."""
        self.changes.outbox.append(to_publish(event, event_id))

    def tell(self, signals: Collection[Signal], when: str) -> None:
        """Keep and publish signals as they are at this moment."""
        self.changes.signals += signals
        for signal in signals:
            self.publish(signal, f"signal-{signal.signal_id}-{'open' if signal.is_open else 'closed'}-{when}")

    def tell_incident(self, incident: Incident) -> None:
        """Keep and publish an incident as it is at this revision."""
        self.changes.incidents.append(incident)
        self.publish(incident, f"incident-{incident.incident_id}-{incident.revision}")

    def decide(self, decision: Decision, actor: str = ACTOR) -> None:
        """Keep, publish and audit a decision."""
        self.changes.decisions.append(decision)
        self.publish(decision, f"decision-{decision.decision_id}")
        body: dict[str, Any] = {
            "action": decision.action, "reasons": list(decision.reasons), "evidence": decision.evidence_digest
        }  # fmt: skip
        if decision.terms:
            body["terms"] = decision.terms
        is_dry = decision.would != "none"
        self.audit(
            f"{'would' if is_dry else 'decide'} {decision.would if is_dry else decision.action}",
            decision.decision_id,
            body,
            actor,
        )

    def audit(self, action: str, subject: str, body: dict[str, Any], actor: str = ACTOR) -> None:
        """Append a row to the audit log."""
        at_ms = self._clock.now_ms()
        self.changes.audit.append(AuditEntry(at_ms=at_ms, actor=actor, action=action, subject=subject, body=body))
