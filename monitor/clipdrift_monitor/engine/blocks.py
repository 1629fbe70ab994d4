"""Blocks of the version in service that have closed: judged, the oldest first."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import Decision
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.decisions.judging import judge, total
from clipdrift_monitor.decisions.subject import BySlice, Subject
from clipdrift_monitor.decisions.worth import PastRetrains, past_retrains
from clipdrift_monitor.diagnosis.faults import PastBlock, past_from_ms
from clipdrift_monitor.engine.approvals import Approvals, evidence_digest_of
from clipdrift_monitor.engine.deployments import Deployments
from clipdrift_monitor.engine.draft import ACTOR, Alarm, Draft
from clipdrift_monitor.engine.incidents import Incidents
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.retrains import order
from clipdrift_monitor.engine.spending import Spending
from clipdrift_monitor.rollout import rollout
from clipdrift_monitor.state import JudgingFault, ModelState
from clipdrift_monitor.windows.correction import Correction, correct
from clipdrift_monitor.windows.view import view

_log = logging.getLogger(__name__)


class Blocks:
    """Judges what is due. A model whose block cannot be judged stands still; the others go on.

    Args:
        config: Of the monitor.
        memory: Whose states and tests are moved on.
        incidents: Take up what is judged.
        deployments: Puts the version before back into service.
        spending: Of the budget of false alarms.
        approvals: Ask people about retrains, where the policy wants it.
        clock: For when a retrain was started.
    """

    def __init__(
        self,
        config: MonitorConfig,
        memory: Memory,
        incidents: Incidents,
        deployments: Deployments,
        spending: Spending,
        approvals: Approvals,
        clock: Clock,
    ) -> None:
        self._config = config
        self._memory = memory
        self._incidents = incidents
        self._deployments = deployments
        self._spending = spending
        self._approvals = approvals
        self._clock = clock
        self._failed_at_ms: dict[str, int] = {}  # by model: up to where blocks were due when one of them could not be judged

    def forget(self) -> None:
        """What could not be judged is tried again."""
        self._failed_at_ms.clear()

    def judge_closed(self, model: str, draft: Draft) -> None:
        """Judge each block of the version in service whose labels are due, the oldest first.

        Where the monitor itself fails at one, the model's state stays as it was before that block, and the block is tried again
        when the next one is due, and after a restart. Blocks are not left out: the tests of harm need them in order.
        """
        state = self._memory.states[model]
        if state.in_service is None or model not in self._memory.harm:
            return
        window_ms = self._config.window_ms
        due_ms = (state.watermark_ms - self._horizon_ms(state)) // window_ms * window_ms
        first_ms = max(state.judged_until_ms, state.in_service_since_ms // window_ms * window_ms)
        if due_ms <= first_ms or self._failed_at_ms.get(model) == due_ms:
            return
        self._failed_at_ms.pop(model, None)
        try:
            self._judge_each(state, first_ms, due_ms, draft)
        except _NotJudgedError:
            self._failed_at_ms[model] = due_ms

    def _judge_each(self, state: ModelState, first_ms: int, due_ms: int, draft: Draft) -> None:
        assert state.in_service is not None
        model, window_ms = state.model, self._config.window_ms
        with self._noted(state, first_ms, draft):
            by_start = self._memory.version_windows(model, state.in_service.version, first_ms, due_ms)
        for start_ms in sorted(by_start):
            if start_ms + window_ms > due_ms:
                continue
            draft.touched.add(model)
            if self._judge_whole(state, start_ms, by_start[start_ms], draft).action == "rollback":
                return  # what follows is of a version that is no longer in service
        draft.touched.add(model)
        state.judged_until_ms = max(state.judged_until_ms, due_ms)

    def see_again(self, model: str, draft: Draft) -> None:
        """Correct what was said of judged blocks that got labels since, and tell where it changes. No test of harm is fed a
        second time, and nothing is ordered."""
        state = self._memory.states[model]
        if not state.late_blocks:
            return
        for version, start_ms in state.late_blocks:
            try:
                self._correct(state, version, start_ms, draft)
            except RetryableError:
                raise
            except Exception as error:  # noqa: BLE001  a model's boundary: its sums are right, what was said of them stays
                _log.exception("%s version %s: the block from %d on cannot be corrected", model, version, start_ms)
                draft.audit("cannot correct", f"{model}-{version}-{start_ms}", {"error": _words(error)})
        state.late_blocks = []
        draft.touched.add(model)

    def _correct(self, state: ModelState, version: str, start_ms: int, draft: Draft) -> None:
        model, memory = state.model, self._memory
        block = memory.block(model, version, start_ms)
        if block is None or (model, version, start_ms) in draft.changes.blocks:
            return  # its version was not in service then; or it was judged just now, on these labels too
        layout = memory.layout(model, version)
        by_slice = memory.version_windows(model, version, start_ms, block.end_ms).get(start_ms, {})
        seen = view(layout, total(layout, by_slice))
        found = correct(block.view, block.correction, seen, state.watermark_ms, self._config.min_label_share)
        if found is None or found == block.correction:
            return
        draft.changes.blocks[model, version, start_ms] = msgspec.msgpack.encode(
            msgspec.structs.replace(block, correction=found)
        )
        if found.told == seen:
            draft.decide(_told(model, version, start_ms, found, self._config.policy.version))

    def _horizon_ms(self, state: ModelState) -> int:
        """How long after its end a block of the model is judged."""
        return state.delays.horizon_ms(self._config.label_horizon_ms, self._config.max_label_horizon_ms)

    def _judge_whole(self, state: ModelState, start_ms: int, in_block: BySlice, draft: Draft) -> Decision:
        """Judge one block whole, or change nothing but the note that it fails.

        Raises:
            _NotJudgedError: It fails.
        """
        trial, put_back = Draft(self._clock), self._memory.as_it_is(state.model)
        with self._noted(state, start_ms, draft, put_back):
            decision = self._judge(state, start_ms, in_block, trial)
        draft.take(trial)
        if state.judging_fault is not None:
            draft.audit("judges again", decision.decision_id, {"error before": state.judging_fault.error})
            state.judging_fault = None
        return decision

    @contextmanager
    def _noted(
        self, state: ModelState, start_ms: int, draft: Draft, put_back: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """A model's boundary: an error within is logged, kept with the model and audited; the other models go on.

        Raises:
            _NotJudgedError: There was one.
            RetryableError: The store is away: all is read anew.
        """
        try:
            yield
        except RetryableError:
            raise
        except Exception as error:
            put_back()
            assert state.in_service is not None
            fault = JudgingFault(version=state.in_service.version, start_ms=start_ms, error=_words(error))
            subject = f"{state.model}-{fault.version}-{start_ms}"
            _log.exception(
                "%s cannot be judged: from this block on %s is not watched; other models are. It is tried again with the next "
                "block and after a restart; where that does not help, report this error", subject, state.model,
            )  # fmt: skip
            if fault != state.judging_fault:
                draft.audit("cannot judge", subject, {"error": fault.error})
                state.judging_fault = fault
            draft.touched.add(state.model)
            raise _NotJudgedError from error

    def _judge(self, state: ModelState, start_ms: int, in_block: BySlice, draft: Draft) -> Decision:
        assert state.in_service is not None
        memory, changes, version = self._memory, draft.changes, state.in_service.version
        run, layout = memory.run(state.model, version), memory.layout(state.model, version)
        assert run is not None, version
        subject = Subject(
            run=run, layout=layout, window_ms=self._config.window_ms, label_horizon_ms=self._horizon_ms(state),
            min_label_share=self._config.min_label_share, policy=self._config.policy, past=self._past_retrains(),
            allotment=self._spending.allotment(),
        )  # fmt: skip
        harm = memory.harm[state.model]
        view_ms = self._config.view_windows * self._config.window_ms
        view_from_ms = start_ms + self._config.window_ms - view_ms
        past_from = past_from_ms(state.faults, view_from_ms, view_ms)
        by_start = memory.version_windows(state.model, version, past_from, start_ms + self._config.window_ms)
        past = [
            PastBlock(start_ms=start, sums=total(layout, by_start[start])) for start in sorted(by_start) if start < start_ms
        ]
        in_view = _together({start: by_slice for start, by_slice in by_start.items() if start >= view_from_ms})
        told = judge(subject, state, harm, start_ms, in_block, in_view, past)
        changes.harm[state.model] = msgspec.msgpack.encode(harm)
        changes.blocks[state.model, version, start_ms] = msgspec.msgpack.encode(told.block)
        draft.tell(told.signals, str(start_ms))
        draft.decide(told.decision)
        self._incidents.see(told, state, draft)
        if told.request is not None and told.decision.action == "ask":
            digest, place = evidence_digest_of(told.block), (version, start_ms)
            self._approvals.ask_retrain(state, told.request, digest, ACTOR, draft, place)
        elif told.request is not None:
            order(told.request, memory, draft, self._clock.now_ms())
        if told.decision.action == "rollback":
            self._roll_back(told.decision, state, draft)
        if told.block.alarms:
            draft.alarms.append(Alarm(told, state, run))
        return told.decision

    def _roll_back(self, decision: Decision, state: ModelState, draft: Draft) -> None:
        """Once: the version that goes is kept out from then on."""
        step = rollout.roll_back(
            state, decision.at_ms, f"rolled back by itself: {decision.reasons[0]}", decision.decision_id,
            known_good=self._config.policy.rollout.known_good_versions,
        )  # fmt: skip
        run = self._memory.run(state.model, step.deployment.champion.version)
        assert run is not None, step.deployment.champion
        self._deployments.deploy(state, step, run, draft)

    def _past_retrains(self) -> PastRetrains:
        """Of all models together."""
        num_by_verdict: Counter[str] = Counter()
        states = self._memory.states.values()
        for state in states:
            num_by_verdict.update(state.num_retrains)
        num_timed, seconds = sum(one.history.num_timed for one in states), sum(one.history.cpu_seconds for one in states)
        return past_retrains(num_by_verdict, num_timed, seconds)


class _NotJudgedError(Exception):
    """The model is not judged beyond this block."""


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _told(model: str, version: str, start_ms: int, correction: Correction, policy_version: str) -> Decision:
    """Nothing is done, but what was said is put right."""
    return Decision(
        decision_id=f"{model}-{version}-{start_ms}-corrected-{correction.after.num_labels}",
        model=model,
        version=version,
        at_ms=correction.corrected_at_ms,
        action="none",
        reasons=(f"Corrected: {correction.words}",),
        policy_version=policy_version,
        evidence_digest=digest_of(correction),
        cause_key="corrected",
    )


def _together(by_start: Mapping[int, BySlice]) -> BySlice:
    """Sums by slice."""
    in_view: dict[int, Any] = {}
    for by_slice in by_start.values():
        for index, sums in by_slice.items():
            in_view[index] = in_view[index] + sums if index in in_view else sums
    return in_view
