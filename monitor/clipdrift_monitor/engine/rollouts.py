"""How a candidate that the gate has passed comes into service: step by step, watched, and out again where it is worse."""

import logging

import msgspec

from clipdrift_contract.clock import LATEST_MS
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import Action, Decision, Deployment, RetrainOutcome, RetrainRequest, ServedVersion
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.engine.deployments import Deployments
from clipdrift_monitor.engine.draft import ACTOR, Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.rollout import accounting, evidence, rollout
from clipdrift_monitor.rollout.compared import ComparedBlock, ServedBlock
from clipdrift_monitor.rollout.comparison import Comparison, blocks_until, served_block
from clipdrift_monitor.rollout.course import SHADOW, Move, Rollout, held, stages_of, weigh
from clipdrift_monitor.rollout.finding import Finding
from clipdrift_monitor.rollout.trace import traced
from clipdrift_monitor.state import ModelState, counted

_DAY_MS = 86_400_000
_log = logging.getLogger(__name__)


class Rollouts:
    """Takes a candidate from its gate into service, and measures afterwards what that was worth.

    Args:
        config: Of the monitor.
        memory: Knows the runs of versions, and holds rows that are compared.
        deployments: Tells the servers.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, deployments: Deployments) -> None:
        self._config = config
        self._policy = config.policy.rollout
        self._memory = memory
        self._deployments = deployments

    def begin(self, state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, draft: Draft) -> None:
        """Put a candidate that has passed on its way into service, where nothing stands against it now. Its run is known."""
        policy, at_ms = self._config.policy, request.as_of_ms
        obstacle = rollout.obstacle_to(state, request, outcome)
        if obstacle:
            account = accounting.came_to_nothing(rollout.account_of(outcome, at_ms), obstacle, is_known=False)
            state.worths = rollout.kept([*state.worths, account])
            draft.decide(rollout.decided(state, request, outcome, policy, "hold", obstacle))
            return
        account = rollout.account_of(outcome, max(at_ms, state.judged_until_ms))
        candidate, stages = rollout.candidate_of(outcome), stages_of(self._policy)
        if not stages:
            decision = rollout.decided(state, request, outcome, policy, "promote")
            draft.decide(decision)
            reason = f"retrained with arm {outcome.winner}: {'; '.join(outcome.reasons)}"
            self._promote(state, candidate, account, at_ms, reason, decision.decision_id, draft)
            return
        assert state.in_service is not None
        words = f"It takes traffic step by step: {', '.join(stage.name for stage in stages)}."
        decision = rollout.decided(state, request, outcome, policy, "canary", words)
        draft.decide(decision)
        self._close_account(state)
        state.worth_open = None
        began = Rollout(
            rollout_id=f"{state.model}-{outcome.key[:12]}", key=outcome.key, candidate=candidate, champion=state.in_service,
            stages=stages, began_ms=account.at_ms, wall_seconds=account.wall_seconds, cpu_seconds=account.cpu_seconds,
        )  # fmt: skip
        state.history = msgspec.structs.replace(state.history, rollout_id=began.rollout_id)
        state.evidence, state.finding = evidence.Memory(), Finding()
        self._memory.pairs.let_go(state.model, LATEST_MS)
        state.comparison = None
        self._enter(state, began, account.at_ms, f"retrained with arm {outcome.winner}", decision.decision_id, draft)

    def look(self, model: str, draft: Draft) -> None:
        """Weigh what has become mature, and how requests fared; go on, back or wait.

        Where the monitor itself fails at it, the model in service takes all traffic again: nobody would watch the candidate.
        """
        state = self._memory.states[model]
        if state.has_stray and state.in_service is not None:
            self._leave_alone(state, "its rollout is not known to this store", f"{model}-stray-{state.generation}", draft)
            state.has_stray = False
        if state.comparison is None:
            return
        try:
            self._weigh(state, draft)
        except RetryableError:
            raise
        except Exception as error:  # a model's boundary: other models go on
            if state.rollout is None:
                raise
            _log.exception("the rollout of %s cannot be weighed: it is ended", model)
            words = f"It cannot be weighed: {type(error).__name__}: {error}"
            self._move(state, Move("hold", (words,)), state.watermark_ms, draft, may_wait=False)

    def withdraw(self, state: ModelState, reason: str, actor: str, draft: Draft) -> Deployment:
        """End the rollout that runs at once, on a person's order, and keep the candidate out."""
        assert state.rollout is not None
        move = Move("roll_back", (f"Ordered by {actor}: {reason}",))
        deployment = self._move(state, move, state.watermark_ms, draft, actor=actor)
        assert deployment is not None
        return deployment

    # --- weighing ---

    def _weigh(self, state: ModelState, draft: Draft) -> None:
        comparison = state.comparison
        assert comparison is not None
        window_ms = self._config.window_ms
        horizon_ms = state.delays.horizon_ms(self._config.label_horizon_ms, self._config.max_label_horizon_ms)
        due_ms = (state.watermark_ms - horizon_ms) // window_ms * window_ms
        if due_ms > comparison.weighed_until_ms:
            has_errors = self._memory.layout(state.model, comparison.champion).profile.task != "regression"
            state.comparison, blocks = blocks_until(comparison, due_ms, window_ms, has_errors=has_errors)
            self._memory.pairs.let_go(state.model, due_ms)
            draft.touched.add(state.model)
            if state.rollout is None:
                self._measure(state, [block for _, block in blocks], due_ms, draft)
                return
            for generation, block in blocks:
                if state.rollout is not None:
                    self._step(state, generation, block, due_ms, draft)
            if state.rollout is not None and state.finding is not None:  # also where no row came: time may be over
                generation = state.rollout.generation
                move = weigh(state.rollout, state.finding, self._policy, generation=generation, at_ms=due_ms)
                self._move(state, move, due_ms, draft)
        self._weigh_served(state, draft)

    def _weigh_served(self, state: ModelState, draft: Draft) -> None:
        if state.rollout is None or state.comparison is None:
            return
        generation, least = state.rollout.generation, self._policy.evidence.min_served
        comparison, block = served_block(state.comparison, generation, state.watermark_ms, least)
        if block is not None:
            state.comparison = comparison
            self._step(state, generation, block, state.watermark_ms, draft)

    def _step(self, state: ModelState, generation: int, block: ComparedBlock | ServedBlock, at_ms: int, draft: Draft) -> None:
        assert state.rollout is not None
        state.evidence, state.finding = evidence.step(state.evidence or evidence.Memory(), block, self._policy.evidence)
        state.rollout_traces = traced(state.rollout_traces, state.rollout, state.finding, at_ms)
        move = weigh(state.rollout, state.finding, self._policy, generation=generation, at_ms=at_ms)
        draft.touched.add(state.model)
        self._move(state, move, at_ms, draft)

    def _move(
        self, state: ModelState, move: Move, at_ms: int, draft: Draft, *, actor: str = ACTOR, may_wait: bool = True
    ) -> Deployment | None:
        """Carry out what follows, and have it told; the new deployment, where there is one."""
        running = state.rollout
        if move.turn == "stay" or running is None:
            return None
        is_waiting = move.turn == "hold" and may_wait and self._policy.on_hold == "wait"
        decision = self._decision(state, running, move, at_ms)
        draft.decide(decision, actor)
        if is_waiting:
            state.rollout = held(running)
            return None
        reason = "; ".join(move.reasons) or move.turn
        if move.turn == "step":
            return self._enter(state, running, at_ms, reason, decision.decision_id, draft)
        if move.turn == "promote":
            account = accounting.RetrainWorth(
                key=running.key, version=running.candidate.version, at_ms=at_ms, wall_seconds=running.wall_seconds,
                cpu_seconds=running.cpu_seconds,
            )  # fmt: skip
            return self._promote(state, running.candidate, account, at_ms, reason, decision.decision_id, draft)
        is_back = move.turn == "roll_back"
        rollout.end_rollout(state, "withdrawn" if actor != ACTOR else "rolled back" if is_back else "held", at_ms, move.reasons)
        account = accounting.RetrainWorth(
            key=running.key, version=running.candidate.version, at_ms=at_ms, wall_seconds=running.wall_seconds,
            cpu_seconds=running.cpu_seconds,
        )  # fmt: skip
        words = f"It did not come into service: {reason}"
        state.worths = rollout.kept([*state.worths, accounting.came_to_nothing(account, words, is_known=is_back)])
        if is_back:
            rollout.keep_out(state, running.candidate.digest, at_ms, running.key)
        return self._leave_alone(state, reason, decision.decision_id, draft, actor, running.rollout_id)

    def _decision(self, state: ModelState, running: Rollout, move: Move, at_ms: int) -> Decision:
        actions: dict[str, Action] = {"step": "canary", "promote": "promote", "roll_back": "rollback", "hold": "hold"}
        action = actions[move.turn]
        state.num_decisions = counted(state.num_decisions, action)
        finding = state.finding or Finding()
        return Decision(
            decision_id=f"{running.rollout_id}-{state.generation + 1}-{action}", model=state.model,
            version=running.candidate.version, at_ms=at_ms, action=action, reasons=move.reasons,
            policy_version=self._config.policy.version, evidence_digest=digest_of(finding), cause_key=running.key,
            diagnosis=None, terms=_terms(finding),
        )  # fmt: skip

    # --- steps ---

    def _enter(
        self, state: ModelState, running: Rollout, at_ms: int, reason: str, decision_id: str, draft: Draft
    ) -> Deployment:
        deployment = rollout.enter(state, running, at_ms, reason, decision_id)
        names = self._memory.layout(state.model, running.champion.version).profile.slice_names
        known = state.comparison or Comparison(
            champion=running.champion.version, other=running.candidate.version, slice_names=tuple(names), stages={}
        )
        stages = {**known.stages, deployment.generation: deployment.stage}
        state.comparison = msgspec.structs.replace(known, stages=stages, served={}, served_since_ms=at_ms)
        draft.touched.add(state.model)
        self._deployments.announce(deployment, draft)
        return deployment

    def _promote(
        self, state: ModelState, candidate: ServedVersion, account: accounting.RetrainWorth, at_ms: int, reason: str,
        decision_id: str, draft: Draft,
    ) -> Deployment:  # fmt: skip
        run = self._memory.run(state.model, candidate.version)
        assert run is not None, candidate.version
        before, rollout_id = state.in_service, state.history.rollout_id
        assert before is not None
        step = rollout.promote(state, candidate, at_ms, reason, decision_id)
        deployment = msgspec.structs.replace(step.deployment, rollout_id=rollout_id)
        if self._policy.predecessor_days:
            deployment = msgspec.structs.replace(deployment, shadow=before)
        self._deployments.deploy(state, step._replace(deployment=deployment), run, draft)
        # what it answers from now on is measured: evidence of mature labels is older by their delay
        account = msgspec.structs.replace(account, predecessor=before.version, at_ms=max(at_ms, state.watermark_ms))
        if self._policy.predecessor_days and run.profile is not None:
            state.worth_open = account
            state.comparison = Comparison(
                champion=candidate.version, other=before.version, slice_names=tuple(run.profile.slice_names),
                stages={deployment.generation: SHADOW},
            )  # fmt: skip
        else:
            nobody = "Nobody measures it: predecessor_days is 0."
            state.worths = rollout.kept([*state.worths, accounting.came_to_nothing(account, nobody, is_known=False)])
        draft.touched.add(state.model)
        return deployment

    def _leave_alone(
        self, state: ModelState, reason: str, decision_id: str, draft: Draft, actor: str = ACTOR, rollout_id: str = ""
    ) -> Deployment:
        """The model in service answers all, and nothing beside it."""
        deployment = rollout.beside_champion(state, None, state.watermark_ms, reason, decision_id, rollout_id)
        state.comparison = None
        self._memory.pairs.let_go(state.model, LATEST_MS)
        draft.touched.add(state.model)
        self._deployments.announce(deployment, draft, actor)
        return deployment

    # --- what it was worth ---

    def _measure(self, state: ModelState, blocks: list[ComparedBlock], due_ms: int, draft: Draft) -> None:
        """One more look at the version in service beside the one that it replaced."""
        account = state.worth_open
        if account is None:
            return
        state.worth_open = accounting.with_blocks(account, blocks)
        if due_ms - account.at_ms >= self._policy.predecessor_days * _DAY_MS:
            self._close_account(state)
            told = state.worths[-1]
            body = {"verdict": told.verdict, "words": told.words, "key": told.key}
            draft.audit("account retrain", f"{state.model}-{told.version}", body)
            words = f"{account.predecessor} need not answer beside it any more: {told.verdict}"
            self._leave_alone(state, words, f"{state.model}-worth-{account.key}", draft)

    def _close_account(self, state: ModelState) -> None:
        if state.worth_open is not None:
            told = accounting.settled(state.worth_open, self._policy.min_gain)
            state.worths = rollout.kept([*state.worths, told])
            state.worth_open = None


def _terms(finding: Finding) -> dict[str, float]:
    """The numbers that were weighed, under the names of docs/reference/decisions.md."""
    terms = {
        "labels": float(finding.num_labels), "labels_of_stage": float(finding.labels_of_stage), "progress": finding.progress,
        "harm": finding.harm_level,
    }  # fmt: skip
    for one in finding.shown:
        if one.slice == "" and one.watched in ("error", "loss"):
            terms |= {f"{one.watched}_difference": one.estimate}
            if one.low is not None and one.high is not None:
                terms |= {f"{one.watched}_difference_low": one.low, f"{one.watched}_difference_high": one.high}
    return terms
