"""What is put into service: told to the servers, and what was open about the version before is closed."""

from typing import Any

import msgspec

from clipdrift_contract.clock import LATEST_MS
from clipdrift_contract.events import Deployment, RunEnd
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
        self.announce(step.deployment, draft, actor)
        self.replace(state, step, run, draft)

    def announce(self, deployment: Deployment, draft: Draft, actor: str = ACTOR) -> None:
        """Tell the servers; of a step that leaves the version in service where it is, that is all."""
        draft.changes.deployments.append(deployment)
        draft.publish(deployment, f"deployment-{deployment.model}-{deployment.generation}")
        body: dict[str, Any] = {
            "generation": deployment.generation, "version": deployment.champion.version, "reason": deployment.reason
        }  # fmt: skip
        beside = deployment.canary or deployment.shadow
        if beside is not None:
            body |= {"beside": beside.version, "weight": deployment.canary_weight, "stage": deployment.stage}
        draft.audit("deploy", deployment.model, body, actor)

    def replace(self, state: ModelState, step: rollout.Step, run: RunEnd, draft: Draft) -> None:
        """What was open about the version before is closed, and the tests begin again."""
        self._memory.pairs.let_go(state.model, LATEST_MS)  # what waited to be compared was of another pair of versions
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
