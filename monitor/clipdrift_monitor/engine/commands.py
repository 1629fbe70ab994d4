"""What people may order."""

from typing import Literal, Protocol

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Decision, Deployment, RetrainRequest
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.decisions.orders import note_order, order_retrain
from clipdrift_monitor.engine.deployments import Deployments
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.retrains import order
from clipdrift_monitor.engine.rollouts import Rollouts
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import ModelState, counted
from clipdrift_monitor.store.store import Store


class CommandError(ClipdriftError):
    """A command of a person that cannot be carried out; the message says why."""


class RetrainApprovals(Protocol):
    """What asks people about a retrain."""

    def asks(self, kind: Literal["promotion", "retrain"]) -> bool: ...
    def ask_retrain(
        self, state: ModelState, request: RetrainRequest, evidence_digest: str, actor: str, draft: Draft
    ) -> object: ...


class Commands:
    """Each is to be carried out by the engine's thread: see `Engine.command`.

    Args:
        config: Of the monitor.
        memory: Whose states are changed.
        store: Knows what was ordered before.
        deployments: Puts a version into service.
        rollouts: Ends one that runs.
        clock: For the times of what people order.
        approvals: Ask another person first, where the policy wants it.
    """

    def __init__(
        self,
        config: MonitorConfig,
        memory: Memory,
        store: Store,
        deployments: Deployments,
        rollouts: Rollouts,
        clock: Clock,
        approvals: RetrainApprovals,
    ) -> None:
        self._config = config
        self._memory = memory
        self._store = store
        self._deployments = deployments
        self._rollouts = rollouts
        self._clock = clock
        self._approvals = approvals

    def roll_back(self, draft: Draft, model: str, reason: str, actor: str, version: str = "") -> Deployment:
        """A candidate that is on its way makes place for the model in service; where none is, the version before the present
        one goes back into service, or the earlier one that is named. At once, and without any check.

        Raises:
            CommandError: There is no such model, or no such version among those that are known good.
        """
        state = self._known(model)
        if state.rollout is not None and version in ("", state.rollout.champion.version):
            return self._rollouts.withdraw(state, reason, actor, draft)
        decision_id = f"{model}-rollback-{state.generation + 1}"
        at_ms = self._event_now_ms(state)
        try:
            known_good = self._config.policy.rollout.known_good_versions
            words = f"rolled back by {actor}: {reason}"
            step = rollout.roll_back(state, at_ms, words, decision_id, version=version, known_good=known_good)
        except rollout.RolloutError as error:
            raise CommandError(str(error)) from error
        deployment = step.deployment
        run = self._memory.run(model, deployment.champion.version)
        assert run is not None, deployment.champion
        state.num_decisions = counted(state.num_decisions, "rollback")
        draft.decide(
            Decision(
                decision_id=decision_id, model=model, version=deployment.champion.version, at_ms=at_ms, action="rollback",
                reasons=(f"Ordered by {actor}: {reason}",), policy_version=self._config.policy.version,
                evidence_digest=digest_of({"reason": reason, "actor": actor}),
            ),
            actor,
        )  # fmt: skip
        self._deployments.deploy(state, step, run, draft, actor)
        return deployment

    def order(self, draft: Draft, model: str, reason: str, actor: str) -> RetrainRequest:
        """A retrain of the version in service; where the policy wants it, another person is asked first.

        Raises:
            CommandError: There is no such model, a retrain of it is running, or a person is asked about one.
        """
        state = self._known(model)
        if state.history.running_key:
            raise CommandError(f"a retrain of {model} is running already: {state.history.running_key}")
        if state.history.asked_key:
            raise CommandError(f"a person is asked about {model} already: answer that first (`clipdrift approvals`)")
        assert state.in_service is not None
        run = self._memory.run(model, state.in_service.version)
        assert run is not None, state.in_service
        at_ms = self._event_now_ms(state)
        decision_id = f"{model}-order-{state.generation}-{self._clock.now_ms()}"
        request = order_retrain(
            run, state, self._config.policy, cause=f"ordered: {reason}", decision_id=decision_id, as_of_ms=at_ms
        )
        if self._store.retrain(request.key) is not None:
            raise CommandError(f"the same retrain was ordered before: {request.key}; it would find the same again")
        is_asked, digest = self._approvals.asks("retrain"), digest_of({"reason": reason, "actor": actor})
        state.orderers = {**state.orderers, request.key: actor}
        state.num_decisions = counted(state.num_decisions, "ask" if is_asked else "retrain")
        draft.decide(
            Decision(
                decision_id=decision_id, model=model, version=state.in_service.version, at_ms=at_ms,
                action="ask" if is_asked else "retrain", reasons=(f"Ordered by {actor}: {reason}",),
                policy_version=self._config.policy.version, evidence_digest=digest, diagnosis=state.diagnosis,
            ),
            actor,
        )  # fmt: skip
        if is_asked:
            self._approvals.ask_retrain(state, request, digest, actor, draft)
        else:
            note_order(state, request)
            order(request, self._memory, draft, self._clock.now_ms())
        return request

    def _event_now_ms(self, state: ModelState) -> int:
        return state.watermark_ms or self._clock.now_ms()

    def _known(self, model: str) -> ModelState:
        states = self._memory.states
        state = states.get(model)
        if state is None or state.in_service is None:
            raise CommandError(f"no model {model!r} is in service; there are: {', '.join(sorted(states)) or 'none'}")
        return state
