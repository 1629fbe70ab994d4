"""What happened to each model, read off the bus: alarms, decisions, retrains, deployments, and the runs' gradient norms."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from clipdrift_contract.bus.log import Bus
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import Clock
from clipdrift_contract.events import (
    DECISIONS,
    DEPLOYMENTS,
    RETRAINING,
    SIGNALS,
    TRAINING,
    ClippingVerdict,
    Decision,
    Deployment,
    Event,
    GradWindow,
    Incident,
    RetrainOutcome,
    RetrainRequest,
    RunEnd,
    Signal,
)
from clipdrift_contract.metrics import MetricSet

TOPICS = (TRAINING, SIGNALS, DECISIONS, RETRAINING, DEPLOYMENTS)
_STRENGTH: tuple[ClippingVerdict, ...] = ("unknown", "not_implicated", "associated", "implicated")


class Retrain(msgspec.Struct, frozen=True, kw_only=True):
    """One order, what it found, and the deployment that it led to, if any."""

    request: RetrainRequest
    outcome: RetrainOutcome | None
    deployment: Deployment | None


class Story:
    """All that the bus has said about one model, each statement once, in the order of its first appearance."""

    def __init__(self) -> None:
        self.signals: dict[str, Signal] = {}
        self.incidents: dict[str, Incident] = {}
        self.decisions: dict[str, Decision] = {}
        self.requests: dict[str, RetrainRequest] = {}
        self.outcomes: dict[str, RetrainOutcome] = {}
        self.deployments: dict[int, Deployment] = {}
        self.runs: dict[str, RunEnd] = {}
        self.windows: dict[str, list[GradWindow]] = defaultdict(list)

    def add(self, event: Event) -> bool:
        """Take up one event; whether it was new (a signal that was only updated is not)."""
        if isinstance(event, GradWindow):
            self.windows[event.run_id].append(event)
            return False
        kept, key = self._place(event)
        is_new = key not in kept
        kept[key] = event
        return is_new

    def _place(self, event: Event) -> tuple[dict[Any, Any], Any]:
        places: dict[type[Any], tuple[dict[Any, Any], str]] = {
            Signal: (self.signals, "signal_id"),
            Incident: (self.incidents, "incident_id"),
            Decision: (self.decisions, "decision_id"),
            RetrainRequest: (self.requests, "key"),
            RetrainOutcome: (self.outcomes, "key"),
            Deployment: (self.deployments, "generation"),
            RunEnd: (self.runs, "version"),
        }
        kept, name = places[type(event)]
        return kept, getattr(event, name)

    @property
    def alarms(self) -> list[Signal]:
        """Statements that a person is told about."""
        return [signal for signal in self.signals.values() if signal.severity != "note"]

    @property
    def retrains(self) -> list[Retrain]:
        by_version = {one.champion.version: one for one in reversed(self.came_into_service)}
        found = []
        for key, request in self.requests.items():
            outcome = self.outcomes.get(key)
            promoted = by_version.get(outcome.candidate_version) if outcome and outcome.candidate_version else None
            found.append(Retrain(request=request, outcome=outcome, deployment=promoted))
        return found

    @property
    def in_order(self) -> list[Deployment]:
        """All deployments, the first first: also those that leave the version in service where it is."""
        return [one for _, one in sorted(self.deployments.items())]

    @property
    def came_into_service(self) -> list[Deployment]:
        """Of each version in service the deployment that brought it there, in order."""
        champions = [""] + [one.champion.version for one in self.in_order]
        return [one for one, before in zip(self.in_order, champions, strict=False) if one.champion.version != before]

    def clipping_verdict(self) -> ClippingVerdict:
        """The strongest of the verdicts that a retrain could decide; "unknown" where there was none."""
        told = {decision.diagnosis.clipping for decision in self.decisions.values() if decision.diagnosis is not None}
        return max(told, key=_STRENGTH.index, default="unknown")


class Listener:
    """Follows the bus from its beginning and sorts what it says by model. Reads alone; commits nothing."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._publisher = bus.publisher()
        consumer = bus.consumer(None, TOPICS)
        self._reader = EventReader(consumer, publisher=self._publisher, metrics=MetricSet(), clock=clock)
        self.stories: dict[str, Story] = defaultdict(Story)

    def poll(self) -> Sequence[Event]:
        """What is new since the last call."""
        return [event for event in self._read() if self.stories[event.model].add(event)]

    def close(self) -> None:
        self._reader.consumer.close()
        self._publisher.close()

    def _read(self) -> Iterator[Event]:
        while batch := self._reader.poll(max_records=500, timeout_seconds=0.0):
            for read in batch:
                yield read.event
