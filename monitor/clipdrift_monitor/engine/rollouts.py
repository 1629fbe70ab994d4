"""How a candidate that the gate has passed comes into service."""

from clipdrift_contract.events import RetrainOutcome, RetrainRequest
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.deployments import Deployments
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import ModelState


class Rollouts:
    """Takes a candidate from its gate into service.

    Args:
        config: Of the monitor.
        memory: Knows the runs of versions.
        deployments: Tells the servers.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, deployments: Deployments) -> None:
        self._config = config
        self._memory = memory
        self._deployments = deployments

    def begin(self, state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, draft: Draft) -> None:
        """Put a candidate that has passed, and that nothing stands against, on its way into service. Its run is known."""
        candidate = self._memory.run(outcome.model, outcome.candidate_version)
        assert candidate is not None, outcome.candidate_version
        decision = rollout.accepted(state, request, outcome, self._config.policy)
        draft.decide(decision)
        step = rollout.promote(state, outcome, request.as_of_ms, decision.decision_id)
        self._deployments.deploy(state, step, candidate, draft)
