"""Versions of a model: the runs that made them, the outcomes of retrains, and what is put into service."""

import logging

from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import Deployment, RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.approvals import Approvals
from clipdrift_monitor.engine.deployments import Deployments
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.rollouts import Rollouts
from clipdrift_monitor.engine.rows import Rows
from clipdrift_monitor.intake.columns import check_profile, check_times
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import ModelState

_log = logging.getLogger(__name__)


class Versions:
    """Takes runs, outcomes and deployments, in any order.

    Args:
        config: Of the monitor.
        memory: Whose states are changed.
        rows: Places those that waited for their run.
        deployments: Puts versions into service.
        rollouts: Takes a candidate that has passed from there into service.
        approvals: Asks people first, where the policy wants it.
    """

    def __init__(
        self,
        config: MonitorConfig,
        memory: Memory,
        rows: Rows,
        deployments: Deployments,
        rollouts: Rollouts,
        approvals: Approvals,
    ) -> None:
        self._config = config
        self._memory = memory
        self._rows = rows
        self._deployments = deployments
        self._rollouts = rollouts
        self._approvals = approvals

    def take_run(self, run: RunEnd, draft: Draft) -> bool:
        """Keep the run of a version, put the first into service; False where it is poison, which changes nothing."""
        try:
            self.check_run(run)
        except PoisonError as error:
            _log.error("%s version %s is left out: %s", run.model, run.version, error)
            return False
        draft.changes.runs.append(run)
        self._memory.keep_run(run)
        state = self._memory.state(run.model)
        draft.touched.add(run.model)
        if run.profile is None or not run.artifact_uri:
            _log.error("%s version %s has no reference profile or artifact: it is not put into service", run.model, run.version)
        elif state.generation == 0 and not run.retrain_key and state.waiting_deployment is None:
            self._deployments.deploy(state, rollout.first_deployment(state, run), run, draft)
        self._rows.place(run, draft)
        self._take_up_waiting(state, run, draft)
        return True

    def take_outcome(self, outcome: RetrainOutcome, draft: Draft) -> bool:
        """Conclude the retrain that it is of; False where there is no such order."""
        memory = self._memory
        request = memory.unfinished.get(outcome.key)
        if request is None or request.model != outcome.model:
            _log.info("the outcome of %s is known already, or was never ordered here", outcome.key)
            return False
        state = memory.state(outcome.model)
        draft.touched.add(outcome.model)
        if outcome.verdict == "pass" and memory.run(outcome.model, outcome.candidate_version) is None:
            state.waiting_outcome = outcome
            return True
        assert state.in_service is not None, outcome.model
        champion = memory.run(outcome.model, state.in_service.version)
        assert champion is not None, state.in_service
        del memory.unfinished[outcome.key]
        memory.started.pop(outcome.model, None)
        state.waiting_outcome = None
        held = rollout.conclude(state, request, outcome, champion, self._config.policy)
        draft.changes.outcomes.append(outcome)
        if held is None:
            self._accept(state, request, outcome, draft)
        else:
            draft.decide(held)
        state.orderers = {key: actor for key, actor in state.orderers.items() if key != outcome.key}
        return True

    def take_deployment(self, deployment: Deployment, draft: Draft) -> None:
        """Our own, come back to us; or one that this store does not know, since another was lost."""
        state = self._memory.state(deployment.model)
        newest = max(state.generation, state.waiting_deployment.generation if state.waiting_deployment else 0)
        if deployment.generation <= newest:
            return
        draft.touched.add(deployment.model)
        run = self._memory.run(deployment.model, deployment.champion.version)
        if run is None:
            state.waiting_deployment = deployment
            return
        state.waiting_deployment = None
        step = rollout.adopt(state, deployment)
        draft.changes.deployments.append(deployment)
        draft.audit("adopt", deployment.model, {"generation": deployment.generation})
        self._deployments.replace(state, step, run, draft)

    def _accept(self, state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, draft: Draft) -> None:
        """What becomes of a candidate that the gate has passed and that nothing stands against."""
        if self._approvals.asks("promotion"):
            self._approvals.ask_promotion(state, request, outcome, draft)
        else:
            self._rollouts.begin(state, request, outcome, draft)

    def check_run(self, run: RunEnd) -> None:
        """Whether a run can be taken.

        Raises:
            PoisonError: It contradicts what is known, or itself.
        """
        known = self._memory.run(run.model, run.version)
        if known is not None and known.artifact_digest != run.artifact_digest:
            raise PoisonError("another model has this version already")
        if self._memory.model_of_run(run.run_id) not in (None, run.model):
            raise PoisonError(f"its run id, {run.run_id!r}, is that of another model's run")
        check_times(as_of_ms=run.as_of_ms, ended_at_ms=run.ended_at_ms)
        if run.profile is not None:
            check_profile(run.profile)

    def _take_up_waiting(self, state: ModelState, run: RunEnd, draft: Draft) -> None:
        """What came before the run that it speaks of."""
        deployment, outcome = state.waiting_deployment, state.waiting_outcome
        if deployment is not None and deployment.champion.version == run.version:
            state.waiting_deployment = None
            self.take_deployment(deployment, draft)
        if outcome is not None and outcome.candidate_version == run.version:
            state.waiting_outcome = None
            self.take_outcome(outcome, draft)
