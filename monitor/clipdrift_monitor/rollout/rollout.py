"""Steps from one deployment to the next. The state is changed; the deployment is what serving is told."""

from typing import NamedTuple

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import (
    Action,
    Decision,
    Deployment,
    RetrainOutcome,
    RetrainRequest,
    RunEnd,
    ServedVersion,
    Signal,
)
from clipdrift_monitor.clipping.association import associate
from clipdrift_monitor.clipping.evidence import evidence_of
from clipdrift_monitor.clipping.seen import with_probe
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.verdict import diagnose
from clipdrift_monitor.state import ModelState, counted


class RolloutError(ClipdriftError):
    """The step is not possible; the message says why."""


class Step(NamedTuple):
    """A new deployment, and the signals that ended with the version before it, each told closed."""

    deployment: Deployment
    closed: tuple[Signal, ...]


def served_version(run: RunEnd) -> ServedVersion:
    return ServedVersion(version=run.version, uri=run.artifact_uri, digest=run.artifact_digest)


def first_deployment(state: ModelState, run: RunEnd) -> Step:
    """The first version of a model goes into service by itself: there is nothing to compare it with."""
    return _deploy(state, served_version(run), run.as_of_ms, "the first version of this model", "")


def conclude(
    state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, run: RunEnd, policy: Policy
) -> Decision | None:
    """Take up the outcome of a retrain that was ordered for the version in service; the decision to hold it, or None where its
    candidate has passed and nothing stands against it.

    Args:
        state: Of the model; changed.
        request: The order.
        outcome: What the job found.
        run: Of the version in service.
        policy: In force.
    """
    if outcome.arms and request.generation == state.generation:  # of the version in service, and of no other
        state.tried = outcome
    state.num_retrains = counted(state.num_retrains, outcome.verdict)
    obstacle = _obstacle(state, request, outcome)
    has_failed = outcome.verdict != "pass"
    state.history = msgspec.structs.replace(
        state.history,
        running_key="" if state.history.running_key == outcome.key else state.history.running_key,
        num_failures_in_a_row=state.history.num_failures_in_a_row + 1 if has_failed else 0,
        last_failed_cause=outcome.key if has_failed else "",
        num_timed=state.history.num_timed + (outcome.cpu_seconds > 0),
        cpu_seconds=state.history.cpu_seconds + max(0.0, outcome.cpu_seconds),
    )
    if outcome.probe is not None:
        state.seen_versions = with_probe(state.seen_versions, outcome.probe)
    clipping = evidence_of(run, state.tried)
    if state.seen_versions:
        state.association = associate(state.seen_versions, clipping, policy.clipping_margin)
    if state.facts is not None:
        state.facts = msgspec.structs.replace(state.facts, clipping=clipping, association=state.association)
        state.diagnosis = diagnose(state.facts)
    if not has_failed and not obstacle:
        return None
    return _decision(state, request, outcome, policy, "hold", (obstacle,) if obstacle else ())


def accepted(state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, policy: Policy) -> Decision:
    """The decision to put a candidate that has passed into service; the state counts it."""
    return _decision(state, request, outcome, policy, "promote")


def promote(state: ModelState, outcome: RetrainOutcome, at_ms: int, decision_id: str) -> Step:
    """Put a candidate that has passed the gate into service."""
    candidate = ServedVersion(version=outcome.candidate_version, uri=outcome.candidate_uri, digest=outcome.candidate_digest)
    return _deploy(state, candidate, at_ms, f"retrained with arm {outcome.winner}: {'; '.join(outcome.reasons)}", decision_id)


def roll_back(state: ModelState, at_ms: int, reason: str, decision_id: str) -> Step:
    """Put the version before the present one back into service, and keep the present one out.

    Raises:
        RolloutError: There is none.
    """
    if state.in_service is None or not state.served_before:
        raise RolloutError(f"{state.model} has no earlier version to go back to")
    *before, last = state.served_before
    gone = state.in_service
    step = _deploy(state, last, at_ms, reason, decision_id)
    state.history = msgspec.structs.replace(state.history, last_rollback_ms=at_ms)
    state.served_before = before
    state.quarantine = [*state.quarantine, gone.digest]
    return step


def adopt(state: ModelState, deployment: Deployment) -> Step:
    """Take over a deployment that is newer than what this store knows: of a store that was lost, say."""
    state.generation = deployment.generation
    return Step(deployment, _put_into_service(state, deployment.champion, deployment.decided_at_ms))


def _decision(
    state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, policy: Policy, action: Action,
    more: tuple[str, ...] = (),
) -> Decision:  # fmt: skip
    """On an outcome."""
    assert state.in_service is not None
    state.num_decisions = counted(state.num_decisions, action)
    return Decision(
        decision_id=f"{state.model}-outcome-{outcome.key}",
        model=state.model,
        version=state.in_service.version,
        at_ms=request.as_of_ms,
        action=action,
        reasons=(*outcome.reasons, *more),
        policy_version=policy.version,
        evidence_digest=digest_of(outcome),
        cause_key=outcome.key,
        diagnosis=state.diagnosis,
    )


def _obstacle(state: ModelState, request: RetrainRequest, outcome: RetrainOutcome) -> str:
    if outcome.verdict != "pass":
        return ""
    if outcome.candidate_digest in state.quarantine:
        return f"Version {outcome.candidate_version} was rolled back before and stays out."
    if request.generation != state.generation:
        return "It was compared with a version that is no longer in service."
    return ""


def _deploy(state: ModelState, champion: ServedVersion, at_ms: int, reason: str, decision_id: str) -> Step:
    state.generation += 1
    closed = _put_into_service(state, champion, at_ms)
    deployment = Deployment(
        model=state.model,
        generation=state.generation,
        champion=champion,
        decided_at_ms=at_ms,
        reason=reason,
        decision_id=decision_id,
    )
    return Step(deployment, closed)


def _put_into_service(state: ModelState, champion: ServedVersion, at_ms: int) -> tuple[Signal, ...]:
    """Everything that was said of the version before ends with it."""
    closed = tuple(msgspec.structs.replace(signal, is_open=False) for signal in state.open_signals)
    if state.in_service is not None:
        state.served_before = [*state.served_before, state.in_service][-10:]
    state.in_service = champion
    state.in_service_since_ms = at_ms
    state.num_version_labels = 0
    state.open_blocks = {}
    state.open_signals = []
    state.levels = {}
    state.live = {}
    state.repair_worth = 0.0
    state.drift = DriftReport()
    state.last_view = None
    state.tried = None
    state.history = msgspec.structs.replace(state.history, recent=[])
    state.association = None
    state.diagnosis = None
    state.facts = None
    return closed
