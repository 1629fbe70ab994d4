"""What waits for a person: asked, answered, and over when its subject has changed or its time is up."""

from collections.abc import Callable
from typing import Any

import msgspec

from clipdrift_contract.clock import Clock, format_moment
from clipdrift_contract.events import Decision, RetrainOutcome, RetrainRequest
from clipdrift_monitor.approvals import rules
from clipdrift_monitor.approvals.approval import (
    Answer,
    Approval,
    ApprovalKind,
    Binding,
    Expectation,
    Review,
    WaitingApproval,
    encoded,
)
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.decisions.orders import note_order
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.engine.draft import ACTOR, Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.engine.retrains import order
from clipdrift_monitor.state import JudgedBlock, ModelState, counted
from clipdrift_monitor.store.store import Store

_MAX_SECONDS = 50
Begin = Callable[[ModelState, RetrainRequest, RetrainOutcome, Draft], None]


class Approvals:
    """Asks people, and does what they agree to. One question a model at a time.

    Args:
        config: Of the monitor.
        memory: Whose states hold what waits.
        store: Holds what is over, and the audit log that all of it is held against.
        clock: Of the wall, by which approvals are answered and expire.
        begin: Puts a candidate on its way into service.
    """

    def __init__(self, config: MonitorConfig, memory: Memory, store: Store, clock: Clock, begin: Begin) -> None:
        self._config = config
        self._memory = memory
        self._store = store
        self._clock = clock
        self._begin = begin

    def asks(self, kind: ApprovalKind) -> bool:
        """Whether a person must agree to it."""
        return rules.is_needed(kind, self._config.policy.approval)

    # --- asking ---

    def ask_promotion(self, state: ModelState, request: RetrainRequest, outcome: RetrainOutcome, draft: Draft) -> None:
        """Have a person decide on a candidate that has passed the gate."""
        binding = Binding(
            generation=state.champion_generation, candidate_digest=outcome.candidate_digest, evidence_digest=digest_of(outcome),
            policy_version=self._config.policy.version,
        )  # fmt: skip
        words = f"Put version {outcome.candidate_version} of {state.model} into service in place of {request.champion_version}?"
        waiting = WaitingApproval(
            approval=self._question("promotion", request, outcome.candidate_version, binding, state, words), request=request,
            outcome=outcome,
        )  # fmt: skip
        self._wait(state, waiting, draft)
        self._decide(state, waiting.approval, "ask", (asked_words(waiting.approval),), ACTOR, draft, "asked")

    def ask_retrain(
        self, state: ModelState, request: RetrainRequest, evidence_digest: str, actor: str, draft: Draft,
        block: tuple[str, int] | None = None,
    ) -> Approval:  # fmt: skip
        """Have a person decide on a retrain; one that was asked for before is not asked for again. The decision to ask is the
        caller's to keep."""
        known = self._store.approval(rules.approval_id_of(state.model, "retrain", request.key))
        if known is not None:
            return known
        binding = Binding(
            generation=state.champion_generation, candidate_digest="", evidence_digest=evidence_digest,
            policy_version=self._config.policy.version,
        )  # fmt: skip
        words = f"Retrain {state.model}, of which version {request.champion_version} is in service (cause: {request.cause})?"
        if actor != ACTOR:
            state.orderers = {**state.orderers, request.key: actor}
        waiting = WaitingApproval(
            approval=self._question("retrain", request, "", binding, state, words), request=request, block=block
        )
        self._wait(state, waiting, draft)
        return waiting.approval

    def _question(
        self, kind: ApprovalKind, request: RetrainRequest, version: str, binding: Binding, state: ModelState, words: str
    ) -> Approval:
        return rules.ask(
            kind, model=state.model, key=request.key, version=version, binding=binding,
            requester=state.orderers.get(request.key, ACTOR), words=words, at_ms=self._clock.now_ms(),
            config=self._config.policy.approval,
        )  # fmt: skip

    def _wait(self, state: ModelState, waiting: WaitingApproval, draft: Draft) -> None:
        state.waiting_approval = waiting
        state.history = msgspec.structs.replace(state.history, asked_key=waiting.request.key)
        approval = waiting.approval
        body = {
            "kind": approval.kind, "version": approval.version, "bound to": msgspec.to_builtins(approval.binding),
            "requesters": list(approval.requesters), "expires at": format_moment(approval.expires_at_ms),
        }  # fmt: skip
        self._keep(approval, "ask", body, ACTOR, draft)

    # --- what people say ---

    def look(self, draft: Draft, approval_id: str, actor: str, expectation: Expectation) -> Approval:
        """A person opens the evidence, saying what they expect where that is asked first. Again, it changes nothing.

        Raises:
            CommandError: There is no such approval, it is over, or an expectation is missing.
        """
        state, waiting = self._waiting(draft, approval_id)
        self._check_stands(state, waiting, draft)
        before = waiting.approval
        after = _by_rule(lambda: rules.look(before, actor=actor, expectation=expectation, at_ms=self._clock.now_ms()))
        if after != before:
            state.waiting_approval = msgspec.structs.replace(waiting, approval=after)
            body = {"evidence": after.binding.evidence_digest, "expectation": expectation}
            self._keep(after, "open evidence", body, actor, draft)
        return after

    def answer(
        self, draft: Draft, approval_id: str, *, is_approved: bool, reason: str, actor: str, evidence_digest: str,
        is_break_glass: bool = False, is_by_key: bool = False,
    ) -> Approval:  # fmt: skip
        """A person decides; what they agree to is done.

        Raises:
            CommandError: There is no such approval, it is over or void, this person may not, or has not looked.
        """
        state, waiting = self._waiting(draft, approval_id)
        self._check_stands(state, waiting, draft)
        given = Answer(
            is_approved=is_approved, actor=actor, reason=reason, at_ms=self._clock.now_ms(), evidence_digest=evidence_digest,
            is_break_glass=is_break_glass, is_by_key=is_by_key,
        )  # fmt: skip
        after = _by_rule(lambda: rules.answer(waiting.approval, given, self._config.policy.approval))
        assert after.answer is not None
        body = {
            "bound to": msgspec.to_builtins(after.binding), "evidence named": evidence_digest, "reason": reason,
            "seconds": after.answer.seconds, "expectation": after.answer.expectation, "emergency": after.answer.is_break_glass,
            "by key": is_by_key,
        }  # fmt: skip
        self._over(state, after, after.state, body, actor, draft)
        self._note_time(state, after.answer)
        if not is_approved:
            self._reject(state, after, waiting, draft)
        elif waiting.outcome is not None:
            state.num_decisions = counted(state.num_decisions, "approve")
            self._begin(state, waiting.request, waiting.outcome, draft)
        else:
            note_order(state, waiting.request)
            self._decide(state, after, "retrain", (f"Approved by {actor}: {reason}",), actor, draft, "approved")
            order(waiting.request, self._memory, draft, self._clock.now_ms())
        return after

    def review(self, draft: Draft, approval_id: str, reason: str, actor: str) -> Approval:
        """Another person says what they found of an emergency.

        Raises:
            CommandError: There is no such approval, it was no emergency, or this person approved it.
        """
        known = self._known(draft, approval_id)
        given = Review(actor=actor, reason=reason, at_ms=self._clock.now_ms())
        after = _by_rule(lambda: rules.review(known, given))
        self._keep(after, "review", {"reason": reason}, actor, draft)
        return after

    def lapse(self, draft: Draft) -> None:
        """End what nobody answered in time, and what is about something that is no longer so."""
        now_ms = self._clock.now_ms()
        for state in self._memory.states.values():
            waiting = state.waiting_approval
            if waiting is None:
                continue
            binding = msgspec.structs.replace(
                waiting.approval.binding, generation=state.champion_generation, policy_version=self._config.policy.version
            )
            why = rules.what_changed(waiting.approval.binding, binding)
            over = rules.void(waiting.approval, why, now_ms) if why else rules.expire(waiting.approval, now_ms)
            if over is not None:
                self._end(state, over, draft)

    # --- what follows ---

    def _check_stands(self, state: ModelState, waiting: WaitingApproval, draft: Draft) -> None:
        """Raises CommandError where it is void, which is kept all the same; or was changed by somebody else's hand."""
        approval = waiting.approval
        if self._record(draft, approval.approval_id) != encoded(approval)[1]:
            raise CommandError(
                f"{approval.approval_id} is not what the audit log says of it: somebody changed the store; see `clipdrift "
                "store check`, and order the retrain anew"
            )
        why = rules.what_changed(approval.binding, self._binding_now(state, waiting))
        if why:
            self._end(state, rules.void(approval, why, self._clock.now_ms()), draft)
            raise CommandError(f"{approval.approval_id} is void: {why}")

    def _binding_now(self, state: ModelState, waiting: WaitingApproval) -> Binding:
        """What the approval would be bound to if it were asked now."""
        asked, outcome = waiting.approval.binding, waiting.outcome
        candidate = self._memory.run(state.model, outcome.candidate_version) if outcome is not None else None
        return Binding(
            generation=state.champion_generation,
            candidate_digest=candidate.artifact_digest if candidate is not None else "",
            evidence_digest=self._evidence_now(state, waiting, asked.evidence_digest),
            policy_version=self._config.policy.version,
        )

    def _evidence_now(self, state: ModelState, waiting: WaitingApproval, asked: str) -> str:
        if waiting.outcome is not None:
            row = self._store.retrain(waiting.request.key)
            return digest_of(waiting.outcome if row is None or row.outcome is None else row.outcome)
        if waiting.block is None:  # a person's own words, which nothing changes
            return asked
        block = self._memory.block(state.model, *waiting.block)
        return "" if block is None else evidence_digest_of(block)

    def _note_time(self, state: ModelState, given: Answer) -> None:
        if given.seconds is not None:
            state.answer_seconds = [*state.answer_seconds, given.seconds][-_MAX_SECONDS:]
            is_stamp = given.is_approved and not given.is_break_glass
            state.num_rubber_stamps += is_stamp and given.seconds < self._config.policy.approval.rubber_stamp_seconds

    def _reject(self, state: ModelState, approval: Approval, waiting: WaitingApproval, draft: Draft) -> None:
        """The cause is not taken up again, and the next retrain is as far away as after one that did not pass."""
        assert approval.answer is not None
        history = state.history
        state.history = msgspec.structs.replace(
            history,
            num_failures_in_a_row=history.num_failures_in_a_row + 1,
            last_failed_cause=approval.key,
            last_retrain_ms=max(history.last_retrain_ms or 0, waiting.request.requested_at_ms),
        )
        words = f"Rejected by {approval.answer.actor}: {approval.answer.reason}"
        self._decide(state, approval, "hold", (words,), approval.answer.actor, draft, "rejected")

    def _end(self, state: ModelState, over: Approval, draft: Draft) -> None:
        """It is void or has expired."""
        self._over(state, over, over.state, {"why": over.why_over, "bound to": msgspec.to_builtins(over.binding)}, ACTOR, draft)
        words = f"Approval {over.approval_id} is {over.state}: {over.why_over}."
        self._decide(state, over, "hold", (words,), ACTOR, draft, over.state)

    def _over(self, state: ModelState, over: Approval, what: str, body: dict[str, Any], actor: str, draft: Draft) -> None:
        state.waiting_approval = None
        state.history = msgspec.structs.replace(state.history, asked_key="")
        state.orderers = {key: actor for key, actor in state.orderers.items() if key != over.key or over.state == "approved"}
        state.num_approvals = counted(state.num_approvals, f"{over.kind}/{over.state}")
        self._keep(over, what, body, actor, draft)

    def _decide(
        self, state: ModelState, approval: Approval, action: Any, reasons: tuple[str, ...], actor: str, draft: Draft, how: str
    ) -> None:
        assert state.in_service is not None
        state.num_decisions = counted(state.num_decisions, action)
        draft.decide(
            Decision(
                decision_id=f"{approval.approval_id}-{how}", model=state.model, version=state.in_service.version,
                at_ms=state.watermark_ms or self._clock.now_ms(), action=action, reasons=reasons,
                policy_version=self._config.policy.version, evidence_digest=approval.binding.evidence_digest,
                cause_key=approval.key, diagnosis=state.diagnosis,
            ),
            actor,
        )  # fmt: skip

    def _keep(self, approval: Approval, what: str, body: dict[str, Any], actor: str, draft: Draft) -> None:
        """The record names the digest of the whole approval as it is kept, so that a changed one is found."""
        draft.touched.add(approval.model)
        draft.changes.approvals.append(approval)
        draft.audit(f"approval: {what}", approval.approval_id, {**body, "record": encoded(approval)[1]}, actor)

    # --- finding ---

    def _waiting(self, draft: Draft, approval_id: str) -> tuple[ModelState, WaitingApproval]:
        for state in self._memory.states.values():
            waiting = state.waiting_approval
            if waiting is not None and waiting.approval.approval_id == approval_id:
                return state, waiting
        known = self._known(draft, approval_id)
        raise CommandError(over_words(known))

    def _known(self, draft: Draft, approval_id: str) -> Approval:
        newer = {one.approval_id: one for one in draft.changes.approvals}  # what is in the draft is not in the store yet
        found = newer.get(approval_id) or self._store.approval(approval_id)
        if found is None:
            raise CommandError(f"there is no approval {approval_id[:100]!r}; `clipdrift approvals` names those there are")
        return found

    def _record(self, draft: Draft, approval_id: str) -> str:
        """The digest that the newest row of the audit log about the approval names."""
        for entry in reversed(draft.changes.audit):
            if entry.subject == approval_id and "record" in entry.body:
                return str(entry.body["record"])
        return self._store.audited_record(approval_id)


def evidence_digest_of(block: JudgedBlock) -> str:
    """What a retrain that a block proposes rests on: the block as it was told. Labels that come later change it only where they
    change what was said."""
    is_same = block.correction is None or not block.correction.words
    return digest_of(msgspec.structs.replace(block, correction=None) if is_same else block)


def asked_words(approval: Approval) -> str:
    return (
        f"A person must agree: approval {approval.approval_id}, until {format_moment(approval.expires_at_ms)} UTC "
        "(`clipdrift approvals`)."
    )


def over_words(approval: Approval) -> str:
    """Why an approval can be answered no more."""
    why = approval.why_over or (f"by {approval.answer.actor}" if approval.answer is not None else "")
    return f"{approval.approval_id} is {approval.state}{f': {why}' if why else ''}; one decision is made, and it stands"


def _by_rule(rule: Callable[[], Approval]) -> Approval:
    try:
        return rule()
    except rules.ApprovalError as error:
        raise CommandError(str(error)) from error
