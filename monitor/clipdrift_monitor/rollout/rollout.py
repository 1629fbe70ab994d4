"""Steps from one deployment to the next. The state is changed; the deployment is what serving is told."""

from collections.abc import Sequence
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
from clipdrift_monitor.rollout.accounting import MAX_KEPT, RetrainWorth, came_to_nothing, settled
from clipdrift_monitor.rollout.course import End, Rollout, Stage, ended, entered
from clipdrift_monitor.rollout.finding import Finding
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
    if outcome.arms and request.generation >= state.champion_generation:  # of the version in service, and of no other
        state.tried = outcome
    state.num_retrains = counted(state.num_retrains, outcome.verdict)
    obstacle = obstacle_to(state, request, outcome)
    has_failed = outcome.verdict != "pass"
    state.history = msgspec.structs.replace(
        state.history,
        running_key="" if state.history.running_key == outcome.key else state.history.running_key,
        num_failures_in_a_row=state.history.num_failures_in_a_row + has_failed,  # ends with a promotion
        last_failed_cause=outcome.key if has_failed else "",
        num_timed=state.history.num_timed + (outcome.cpu_seconds > 0),
        cpu_seconds=state.history.cpu_seconds + max(0.0, outcome.cpu_seconds),
        wall_seconds=state.history.wall_seconds + max(0.0, outcome.wall_seconds),
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
    worth = account_of(outcome, request.as_of_ms)
    words = obstacle or f"Nothing went into service: the gate said {outcome.verdict}."
    state.worths = kept([*state.worths, came_to_nothing(worth, words, is_known=outcome.verdict == "fail")])
    return decided(state, request, outcome, policy, "hold", obstacle)


def candidate_of(outcome: RetrainOutcome) -> ServedVersion:
    """The version that a retrain brought."""
    return ServedVersion(version=outcome.candidate_version, uri=outcome.candidate_uri, digest=outcome.candidate_digest)


def account_of(outcome: RetrainOutcome, at_ms: int) -> RetrainWorth:
    """What a retrain cost; what it was worth is still open."""
    wall, cpu = max(0.0, outcome.wall_seconds), max(0.0, outcome.cpu_seconds)
    return RetrainWorth(key=outcome.key, version=outcome.candidate_version, at_ms=at_ms, wall_seconds=wall, cpu_seconds=cpu)


def kept(worths: Sequence[RetrainWorth]) -> list[RetrainWorth]:
    """The newest accounts."""
    return list(worths)[-MAX_KEPT:]


def promote(state: ModelState, candidate: ServedVersion, at_ms: int, reason: str, decision_id: str) -> Step:
    """Put a candidate into service. What follows measures what its retrain was worth, where the caller says so."""
    step = _deploy(state, candidate, at_ms, reason, decision_id)
    state.history = msgspec.structs.replace(state.history, num_failures_in_a_row=0, last_failed_cause="")
    return step


def enter(state: ModelState, rollout: Rollout, at_ms: int, reason: str, decision_id: str) -> Deployment:
    """The next stage of a rollout, which the state has from now on: the candidate answers beside the model in service."""
    state.generation += 1
    state.rollout = entered(rollout, generation=state.generation, at_ms=at_ms, is_next=bool(rollout.generations))
    stage = state.rollout.stage
    return _beside(state, at_ms, reason, decision_id, rollout_id=rollout.rollout_id, stage=stage)


def beside_champion(
    state: ModelState, other: ServedVersion | None, at_ms: int, reason: str, decision_id: str, rollout_id: str = ""
) -> Deployment:
    """The model in service goes on by itself, or with another one as its shadow."""
    state.generation += 1
    assert state.in_service is not None
    return Deployment(
        model=state.model, generation=state.generation, champion=state.in_service, decided_at_ms=at_ms, shadow=other,
        reason=reason, decision_id=decision_id, rollout_id=rollout_id,
    )  # fmt: skip


def end_rollout(state: ModelState, end: End, at_ms: int, reasons: tuple[str, ...]) -> None:
    """The rollout that runs, if any, is over and remembered."""
    if state.rollout is None:
        return
    finding = state.finding or Finding()
    past = ended(state.rollout, end, at_ms=at_ms, finding=finding, reasons=reasons)
    state.past_rollouts = [*state.past_rollouts, past][-MAX_KEPT:]
    state.num_rollouts = counted(state.num_rollouts, end)
    state.rollout, state.comparison, state.evidence, state.finding = None, None, None, None
    state.history = msgspec.structs.replace(state.history, rollout_id="")


def keep_out(state: ModelState, digest: str, at_ms: int, key: str) -> None:
    """A version that was rolled back for cause: it stays out, and the next retrain waits twice as long, from now on."""
    state.quarantine = [*state.quarantine, digest]
    state.history = msgspec.structs.replace(
        state.history,
        num_failures_in_a_row=state.history.num_failures_in_a_row + 1,
        last_failed_cause=key,
        last_retrain_ms=at_ms,
    )


def _known_good(state: ModelState, num_versions: int) -> list[ServedVersion]:
    """The newest versions that served before and were not rolled back, the newest last."""
    return [one for one in state.served_before if one.digest not in state.quarantine][-num_versions:]


def roll_back(state: ModelState, at_ms: int, reason: str, decision_id: str, *, version: str = "", known_good: int = 10) -> Step:
    """Put an earlier version back into service, and keep the present one out.

    Args:
        state: Of the model; changed.
        at_ms: Event time.
        reason: Why.
        decision_id: Of the decision to do so.
        version: Which one; "": the newest.
        known_good: So many of the earlier ones are at hand.

    Raises:
        RolloutError: There is none.
    """
    at_hand = _known_good(state, known_good)
    found = [one for one in at_hand if version in ("", one.version)]
    if state.in_service is None or not at_hand:
        raise RolloutError(f"{state.model} has no earlier version to go back to")
    if not found:
        names = ", ".join(one.version for one in at_hand)
        raise RolloutError(f"{state.model} cannot go back to version {version[:100]!r}; at hand are: {names}")
    last = found[-1]
    before = state.served_before[: state.served_before.index(last)]
    gone = state.in_service
    key = state.worth_open.key if state.worth_open is not None else ""
    step = _deploy(state, last, at_ms, reason, decision_id)
    state.served_before = before
    if state.worths and state.worths[-1].version == gone.version:
        words = f"It was rolled back: {reason}"
        state.worths = [*state.worths[:-1], came_to_nothing(state.worths[-1], words)]
    keep_out(state, gone.digest, at_ms, key)
    state.history = msgspec.structs.replace(state.history, last_rollback_ms=at_ms)
    return step


def adopt(state: ModelState, deployment: Deployment) -> Step:
    """Take over a deployment that is newer than what this store knows: of a store that was lost, say."""
    state.generation = deployment.generation
    state.has_stray = deployment.canary is not None or deployment.shadow is not None
    return Step(deployment, _put_into_service(state, deployment.champion, deployment.decided_at_ms))


def decided(
    state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, policy: Policy, action: Action, more: str = ""
) -> Decision:
    """The decision on an outcome; the state counts it."""
    assert state.in_service is not None
    state.num_decisions = counted(state.num_decisions, action)
    return Decision(
        decision_id=f"{state.model}-outcome-{outcome.key}",
        model=state.model,
        version=state.in_service.version,
        at_ms=request.as_of_ms,
        action=action,
        reasons=(*outcome.reasons, *((more,) if more else ())),
        policy_version=policy.version,
        evidence_digest=digest_of(outcome),
        cause_key=outcome.key,
        diagnosis=state.diagnosis,
    )


def obstacle_to(state: ModelState, request: RetrainRequest, outcome: RetrainOutcome) -> str:
    """Why a candidate that has passed the gate may not go on; "" where nothing stands against it."""
    if outcome.verdict != "pass":
        return ""
    assert state.in_service is not None
    if outcome.candidate_digest in state.quarantine:
        return f"Version {outcome.candidate_version} was rolled back before and stays out."
    is_same = request.champion_digest == state.in_service.digest and request.generation >= state.champion_generation
    if not is_same:
        return "It was compared with a version that is no longer in service."
    if state.rollout is not None:
        return f"Version {state.rollout.candidate.version} is on its way into service; one goes at a time."
    return ""


def _beside(state: ModelState, at_ms: int, reason: str, decision_id: str, *, rollout_id: str, stage: Stage) -> Deployment:
    assert state.rollout is not None
    candidate = state.rollout.candidate
    return Deployment(
        model=state.model, generation=state.generation, champion=state.rollout.champion, decided_at_ms=at_ms,
        canary=candidate if stage.weight else None, canary_weight=stage.weight, shadow=None if stage.weight else candidate,
        reason=reason, decision_id=decision_id, rollout_id=rollout_id, stage=stage.name,
    )  # fmt: skip


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
    is_candidate = state.rollout is not None and state.rollout.candidate.digest == champion.digest
    end_rollout(state, "promoted" if is_candidate else "replaced", at_ms, (f"{champion.version} went into service.",))
    state.comparison = None
    state.champion_generation = state.generation
    if state.worth_open is not None:
        state.worths = kept([*state.worths, settled(state.worth_open, 0.0)])
        state.worth_open = None
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
