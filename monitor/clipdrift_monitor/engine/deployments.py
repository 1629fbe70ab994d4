"""What is put into service: told to the servers, and what was open about the version before is closed."""

import msgspec

from clipdrift_contract.events import RunEnd
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.draft import ACTOR, Draft
from clipdrift_monitor.engine.incidents import Incidents
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.spending import Spending
from clipdrift_monitor.risk.harm import start
from clipdrift_monitor.risk.reference import Reference, reference_of, references_of_slices
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import ModelState


class Deployments:
    """Carries out steps from one deployment to the next.

    Args:
        config: Of the monitor.
        memory: Whose tests begin again with another version.
        incidents: Those of a version end with it.
        spending: Of the budget of false alarms, which a new model takes a part of.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, incidents: Incidents, spending: Spending) -> None:
        self._config = config
        self._memory = memory
        self._incidents = incidents
        self._spending = spending

    def deploy(self, state: ModelState, step: rollout.Step, run: RunEnd, draft: Draft, actor: str = ACTOR) -> None:
        """Put the version that `run` made into service."""
        deployment = step.deployment
        draft.changes.deployments.append(deployment)
        draft.publish(deployment, f"deployment-{state.model}-{deployment.generation}")
        body = {"generation": deployment.generation, "version": deployment.champion.version, "reason": deployment.reason}
        draft.audit("deploy", state.model, body, actor)
        self.replace(state, step, run, draft)

    def replace(self, state: ModelState, step: rollout.Step, run: RunEnd, draft: Draft) -> None:
        """What was open about the version before is closed, and the tests begin again."""
        draft.tell(step.closed, f"generation-{state.generation}")
        state.judging_fault = None  # it was of the version before
        self._incidents.retire(state, draft)
        harm = start(reference_of(run), self._spending.allotment(), self._references_of_slices(run))
        self._memory.harm[state.model] = harm
        self._spending.share_out(draft)
        draft.changes.harm[state.model] = msgspec.msgpack.encode(harm)

    def _references_of_slices(self, run: RunEnd) -> dict[str, Reference]:
        names = run.profile.slice_names if run.profile is not None else ()
        return references_of_slices(run, names, self._config.policy.harm.max_slices)
