"""An approval: what was asked of people, what it is bound to, who looked, and what was answered."""

import hashlib
from typing import Literal

import msgspec

from clipdrift_contract.events import RetrainOutcome, RetrainRequest

ApprovalKind = Literal["promotion", "retrain"]
ApprovalState = Literal["waiting", "approved", "rejected", "void", "expired"]
Expectation = Literal["", "better", "same", "worse"]


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What an approval is about. It is void when any of these is another one by the time of the answer."""

    generation: int
    """Of the champion in service."""
    candidate_digest: str
    """SHA-256 of the candidate's artifact; "" where a retrain is asked for, which has no candidate yet."""
    evidence_digest: str
    """SHA-256 of what it rests on: the retrain's outcome (with its gate's checks and its model card's digest), or the block
    that a retrain is proposed for."""
    policy_version: str
    """Of the policy in force."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody opened the evidence."""

    actor: str
    at_ms: int
    expectation: Expectation = ""
    """Of live accuracy, said before the machine's findings were shown."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided."""

    is_approved: bool
    actor: str
    reason: str
    at_ms: int
    evidence_digest: str
    """As the person's own request named it."""
    seconds: float | None = None
    """Since they opened the evidence; None where they did not (a rejection, or an emergency)."""
    expectation: Expectation = ""
    is_break_glass: bool = False
    is_by_key: bool = False
    """Whether an API key says who it was; otherwise the name is as it was given."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What another person found of an emergency, afterwards."""

    actor: str
    reason: str
    at_ms: int


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One question to people, from its asking to its end."""

    approval_id: str
    model: str
    kind: ApprovalKind
    key: str
    """Of the retrain."""
    version: str
    """The candidate; "" where a retrain is asked for."""
    binding: Binding
    requesters: tuple[str, ...]
    """Who ordered the retrain, in small letters: they may not approve. Empty: the monitor itself did."""
    asked_at_ms: int
    expires_at_ms: int
    asks_expectation: bool
    words: str
    """What is asked, in a sentence that says nothing of what was found."""
    state: ApprovalState = "waiting"
    opened: tuple[Opened, ...] = ()
    answer: Answer | None = None
    ended_at_ms: int | None = None
    why_over: str = ""
    """Of one that is void or has expired."""
    review: Review | None = None

    @property
    def needs_review(self) -> bool:
        """Whether an emergency was answered that nobody has reviewed yet."""
        return self.answer is not None and self.answer.is_break_glass and self.review is None

    def opened_by(self, actor: str) -> Opened | None:
        """When this person first opened the evidence, with what they expected; None: they did not."""
        return next((one for one in self.opened if one.actor == actor), None)


class WaitingApproval(msgspec.Struct, frozen=True, kw_only=True):
    """An approval with what is done once it is given."""

    approval: Approval
    request: RetrainRequest
    outcome: RetrainOutcome | None = None
    """Of the candidate; None where a retrain is asked for."""
    block: tuple[str, int] | None = None
    """Version and start of the block that a retrain is proposed for; None where a person ordered it."""


def encoded(approval: Approval) -> tuple[bytes, str]:
    """An approval as the store keeps it, and the SHA-256 of that, which the audit log names."""
    body = msgspec.msgpack.encode(approval)
    return body, hashlib.sha256(body).hexdigest()
