"""Orders of retrains."""

import msgspec

from clipdrift_contract.events import RetrainRequest, RunEnd
from clipdrift_monitor.decisions.decide import cause_key
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.state import ModelState

_MAX_TIMES = 50  # of retrains that are remembered


def order_retrain(
    run: RunEnd, state: ModelState, policy: Policy, *, cause: str, decision_id: str, as_of_ms: int
) -> RetrainRequest:
    """An order for the version in service, with a key that the same cause at the same moment gives again."""
    assert state.in_service is not None
    return RetrainRequest(
        key=cause_key(state.model, state.in_service.digest, cause, as_of_ms, policy),
        model=state.model,
        cause=cause,
        decision_id=decision_id,
        requested_at_ms=as_of_ms,
        as_of_ms=as_of_ms,
        data_start_ms=run.data_start_ms,
        champion_version=state.in_service.version,
        champion_uri=state.in_service.uri,
        champion_digest=state.in_service.digest,
        champion_clip=run.clip,
        generation=state.generation,
        arms=run.candidates,
        seeds=policy.seeds,
    )


def note_order(state: ModelState, request: RetrainRequest) -> None:
    """Remember that a retrain was ordered."""
    state.history = msgspec.structs.replace(
        state.history,
        running_key=request.key,
        last_retrain_ms=request.requested_at_ms,
        retrain_times_ms=[*state.history.retrain_times_ms, request.requested_at_ms][-_MAX_TIMES:],
    )
