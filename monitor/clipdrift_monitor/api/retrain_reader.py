"""Reads what the monitor knows of retrains, rollouts and approvals, as plain values."""

from collections.abc import Sequence

import msgspec

from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import RetrainOutcome, RetrainRequest
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.api.retrain_answers import Accounts, ApprovalTold, Findings, RetrainPage
from clipdrift_monitor.approvals.approval import Approval
from clipdrift_monitor.approvals.figures import ApprovalFigures, by_person, figures_of
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.rollout.accounting import RetrainWorth, false_retrain_ratio
from clipdrift_monitor.rollout.course import PastRollout
from clipdrift_monitor.rollout.gate_history import (
    GateRecord,
    Promise,
    gate_record,
    promise_of,
    with_before_and_after,
    with_worth,
)
from clipdrift_monitor.rollout.trace import RolloutTrace
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import RetrainRow, Store

_MOST = 1_000  # approvals that figures are counted over: years of them
_BLOCKS_AROUND = 14  # of a deployment, before and after it


class UnknownApprovalError(LookupError):
    """There is no such approval."""


class UnknownRetrainError(LookupError):
    """The model has no such retrain, or no such rollout."""


class RetrainReader:
    """Thread-safe: reads the engine's snapshot and the store.

    Args:
        config: Of the monitor; `config` to whoever shows what was read.
        store: Where everything is kept.
        reader: Of what the monitor knows of models.
    """

    def __init__(self, config: MonitorConfig, store: Store, reader: Reader) -> None:
        self.config = config
        self._store = store
        self._reader = reader

    # --- approvals ---

    def approvals(self, model: str | None = None, state: str | None = None, limit: int = 50, offset: int = 0) -> list[Approval]:
        """The last asked first."""
        return self._store.approvals(model, state=state, limit=limit, offset=offset)

    def waiting(self, model: str | None = None) -> list[Approval]:
        """What people are asked now, the first asked first."""
        states = self._reader.snapshot.models
        found = [one.waiting_approval.approval for one in states.values() if one.waiting_approval is not None]
        return sorted((one for one in found if model in (None, one.model)), key=lambda one: (one.asked_at_ms, one.model))

    def approval(self, approval_id: str) -> Approval:
        """Raises UnknownApprovalError when there is none."""
        found = self._store.approval(approval_id)
        if found is None:
            raise UnknownApprovalError(
                f"there is no approval {approval_id[:100]!r}; GET /api/v1/approvals names those there are"
            )
        return found

    def is_withheld(self, approval: Approval) -> bool:
        """Whether its findings are shown only to who has said what they expect."""
        return approval.asks_expectation and approval.state == "waiting"

    def withheld_keys(self, model: str) -> frozenset[str]:
        """Retrains whose findings are not shown yet."""
        return frozenset(one.key for one in self.waiting(model) if self.is_withheld(one))

    def told(self, approval: Approval, *, is_shown: bool | None = None) -> ApprovalTold:
        """An approval with what it rests on.

        Args:
            approval: Of which.
            is_shown: Whether the findings are in it; None: unless they are withheld.
        """
        request, outcome = self._of(approval)
        shows = not self.is_withheld(approval) if is_shown is None else is_shown
        return ApprovalTold(
            approval=approval,
            cause=request.cause if request is not None else "",
            champion_version=request.champion_version if request is not None else "",
            as_of_ms=request.as_of_ms if request is not None else 0,
            arms=tuple(one.name for one in request.arms) if request is not None else (),
            run_url=outcome.run_url if outcome is not None else "",
            wall_seconds=outcome.wall_seconds if outcome is not None else None,
            cpu_seconds=outcome.cpu_seconds if outcome is not None else None,
            card_digest=outcome.card_digest if outcome is not None else "",
            is_signed=outcome.is_signed if outcome is not None else False,
            findings=self._findings(approval, request, outcome) if shows else None,
            next=self._next(approval),
        )

    def figures(self, model: str | None = None) -> ApprovalFigures:
        """How people answered."""
        return figures_of(self.approvals(model, limit=_MOST), self.config.policy.approval)

    def people(self) -> dict[str, ApprovalFigures]:
        """How each person answered."""
        return by_person(self.approvals(limit=_MOST), self.config.policy.approval)

    def _of(self, approval: Approval) -> tuple[RetrainRequest | None, RetrainOutcome | None]:
        waiting = getattr(self._reader.snapshot.models.get(approval.model), "waiting_approval", None)
        if waiting is not None and waiting.approval.approval_id == approval.approval_id:
            return waiting.request, waiting.outcome
        row = self._store.retrain(approval.key)
        if row is None:  # a retrain that nobody agreed to
            return None, None
        return row.request, row.outcome if approval.kind == "promotion" else None

    def _findings(self, approval: Approval, request: RetrainRequest | None, outcome: RetrainOutcome | None) -> Findings | None:
        if outcome is not None:
            best = next((one for one in outcome.arms if one.arm.name == outcome.winner), None)
            return Findings(
                verdict=outcome.verdict, reasons=outcome.reasons, winner=outcome.winner, checks=outcome.checks,
                against_champion=best.against_champion if best is not None else (),
            )  # fmt: skip
        if request is None:
            return None
        decisions = self._reader.decisions(approval.model, 500)
        made = next((one for one in decisions if one.decision_id == request.decision_id), None)
        return Findings(verdict="", reasons=made.reasons if made is not None else ())

    def _next(self, approval: Approval) -> str:
        config = self.config.policy.approval
        if approval.state == "waiting":
            first = " Say first what you expect: the findings are shown after that." if approval.asks_expectation else ""
            return (
                f"Open the evidence, look at it for at least {config.min_dwell_seconds:g} s, then approve or reject, before "
                f"{format_moment(approval.expires_at_ms)} UTC.{first}"
            )
        if approval.needs_review:
            return "It was approved as an emergency: another person reviews it now."
        if approval.state in ("void", "expired"):
            return f"It is over: {approval.why_over}. Order a retrain where one is still wanted: `clipdrift retrain MODEL`."
        return "Nothing: it is answered."

    # --- retrains ---

    def retrains(self, model: str) -> list[RetrainRow]:
        """The newest first.

        Raises:
            UnknownModelError: There is no such model.
        """
        self._reader.state(model)
        return self._reader.retrains(model)

    def retrain(self, model: str, key: str) -> RetrainRow:
        """One retrain, by its key or how it begins.

        Raises:
            UnknownModelError: There is no such model.
            UnknownRetrainError: It has no such retrain, or several that begin so.
        """
        found = [one for one in self.retrains(model) if one.key.startswith(key)] if key else []
        if len(found) != 1:
            raise UnknownRetrainError(
                f"{model} has {len(found) or 'no'} retrains of which the key begins with {key[:64]!r}; /models/MODEL/retrains "
                "names them"
            )
        return found[0]

    def of_retrain(self, row: RetrainRow) -> Sequence[Approval]:
        """What people were asked about a retrain, the first asked first."""
        return [one for one in reversed(self.approvals(row.model, limit=_MOST)) if one.key == row.key]

    def worths(self, model: str) -> dict[str, RetrainWorth]:
        """What each retrain was worth, by its key."""
        state = self._reader.state(model)
        return {one.key: one for one in state.all_worths}

    def page(self, model: str) -> RetrainPage:
        """All retrains of a model, with what they cost and were worth.

        Raises:
            UnknownModelError: There is no such model.
        """
        worths, history = self.worths(model), self._reader.state(model).history
        verdicts = [one.verdict for one in worths.values()]
        accounts = Accounts(
            wall_seconds=history.wall_seconds, cpu_seconds=history.cpu_seconds, num_worth_it=verdicts.count("worth it"),
            num_not_worth_it=verdicts.count("not worth it"), num_measuring=verdicts.count("measuring"),
            num_unknown=verdicts.count("unknown"), false_retrain_ratio=false_retrain_ratio(list(worths.values())),
        )  # fmt: skip
        told = {key: msgspec.structs.replace(one, blocks=()) for key, one in worths.items()}
        rows, rollouts = tuple(self._reader.retrains(model)), tuple(self.past_rollouts(model))
        return RetrainPage(items=rows, accounts=accounts, worths=told, rollouts=rollouts)

    # --- rollouts ---

    def past_rollouts(self, model: str) -> list[PastRollout]:
        """The newest first."""
        return list(reversed(self._reader.state(model).past_rollouts))

    def trace(self, model: str, rollout_id: str) -> tuple[RolloutTrace, PastRollout | None]:
        """How a rollout went, and how it ended, where it has.

        Raises:
            UnknownModelError: There is no such model.
            UnknownRetrainError: It has no such rollout, or it is not kept any more.
        """
        state = self._reader.state(model)
        past = next((one for one in state.past_rollouts if one.rollout_id == rollout_id), None)
        is_running = state.rollout is not None and state.rollout.rollout_id == rollout_id
        if past is None and not is_running:
            raise UnknownRetrainError(f"{model} has no rollout {rollout_id[:100]!r}; /models/MODEL/retrains names them")
        found = next((one for one in state.rollout_traces if one.rollout_id == rollout_id), None)
        return found or RolloutTrace(rollout_id=rollout_id), past

    # --- the gate's record ---

    def promises(self, model: str) -> list[Promise]:
        """What the gate promised of each candidate that went into service, beside what came, the oldest first."""
        state = self._reader.state(model)
        worths, blocks = self.worths(model), self._reader.blocks(model)
        since = {one.champion.version: one.decided_at_ms for one in self._reader.deployments(model, 500)}  # the first of each
        found = []
        for row in reversed(self.retrains(model)):
            outcome = row.outcome
            if outcome is None or outcome.verdict != "pass" or outcome.candidate_version not in since:
                continue
            at_ms = since[outcome.candidate_version]
            num_classes = self._num_classes(state, outcome.candidate_version)
            promise = promise_of(outcome, at_ms, num_classes)
            if promise is not None:
                scale = 1.0 if num_classes <= 2 else 0.5
                found.append(_measured(promise, worths.get(row.key), blocks, row.request.champion_version, scale))
        return found

    def record(self, model: str) -> GateRecord:
        """How the gate's promises came true."""
        return gate_record(self.promises(model))

    def _num_classes(self, state: ModelState, version: str) -> int:
        run = self._store.run(state.model, version)
        return len(run.profile.classes) if run is not None and run.profile is not None else 2


def _measured(
    promise: Promise, worth: RetrainWorth | None, blocks: Sequence[JudgedBlock], champion: str, scale: float
) -> Promise:
    """With what was measured on the same rows; before that is known, with the blocks before and after."""
    if worth is not None and worth.gain is not None:
        return with_worth(promise, worth)
    briers = [(one.version, one.start_ms, one.view.brier * scale) for one in blocks if one.view.brier is not None]
    before = [brier for version, start_ms, brier in briers if version == champion and start_ms < promise.at_ms]
    after = [brier for version, start_ms, brier in briers if version == promise.version and start_ms >= promise.at_ms]
    return with_before_and_after(promise, before[-_BLOCKS_AROUND:], after[:_BLOCKS_AROUND])
