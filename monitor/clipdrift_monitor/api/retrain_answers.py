"""What the HTTP interface answers about retrains and approvals, and what it is asked with."""

import msgspec

from clipdrift_contract.events import Contrast, GateCheck
from clipdrift_monitor.approvals.approval import Approval, Expectation
from clipdrift_monitor.approvals.figures import ApprovalFigures
from clipdrift_monitor.rollout.accounting import RetrainWorth
from clipdrift_monitor.rollout.course import PastRollout
from clipdrift_monitor.store.store import RetrainRow


class Look(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who opens the evidence, and what they expect of live accuracy if it is done: needed where the approval asks for it."""

    actor: str = "api"
    expectation: Expectation = ""


class Agreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's answer. `evidence_digest` is that of the evidence they opened; an emergency passes over dwell, expectation and
    who ordered the retrain, and is reviewed by another person afterwards."""

    reason: str
    evidence_digest: str
    actor: str = "api"
    is_break_glass: bool = False


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine found. Differences are the candidate's loss minus the champion's: negative is better."""

    verdict: str
    """Of the gate; "" where a retrain is asked for."""
    reasons: tuple[str, ...]
    winner: str = ""
    checks: tuple[GateCheck, ...] = ()
    against_champion: tuple[Contrast, ...] = ()


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's retrains cost, and what the last 50 were worth."""

    wall_seconds: float
    """Of all that have finished."""
    cpu_seconds: float
    num_worth_it: int
    num_not_worth_it: int
    num_measuring: int
    num_unknown: int
    false_retrain_ratio: float | None
    """Not worth it, of those with a verdict; null where there is none."""


class RetrainPage(msgspec.Struct, frozen=True, kw_only=True):
    """Retrains, the newest first; what they cost and were worth; and the last rollouts that are over, the newest first."""

    items: tuple[RetrainRow, ...]
    accounts: Accounts
    worths: dict[str, RetrainWorth]
    """By the retrain's key."""
    rollouts: tuple[PastRollout, ...]
    next: str | None = None


class ApprovalTold(msgspec.Struct, frozen=True, kw_only=True):
    """An approval with what it rests on. `findings` is null while an expectation is to be said first."""

    approval: Approval
    cause: str
    champion_version: str
    as_of_ms: int
    arms: tuple[str, ...] = ()
    run_url: str = ""
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    card_digest: str = ""
    is_signed: bool = False
    findings: Findings | None = None
    next: str = ""
    """What to do now, in words."""


class ApprovalPage(msgspec.Struct, frozen=True, kw_only=True):
    """Approvals, the last asked first, and how people answered all of them."""

    items: tuple[Approval, ...]
    figures: ApprovalFigures
    next: str | None = None
