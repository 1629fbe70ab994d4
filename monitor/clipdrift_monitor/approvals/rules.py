"""The rules by which people are asked and answer. Values in, values out; times are milliseconds of the wall clock."""

import hashlib
from typing import get_args

import msgspec

from clipdrift_contract.clock import MS_PER_DAY, format_moment
from clipdrift_contract.errors import ClipdriftError
from clipdrift_monitor.approvals.approval import Answer, Approval, ApprovalKind, Binding, Expectation, Opened, Review
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.approvals.people import people_in

_MAX_OPENED = 50
_SHOWN_DIGITS = 12


class ApprovalError(ClipdriftError):
    """An answer that cannot be taken; the message says why, and what to do."""


def is_needed(kind: ApprovalKind, config: ApprovalConfig) -> bool:
    """Whether a person must agree.

    Example:
        >>> is_needed("promotion", ApprovalConfig(needed="promotions")), is_needed("retrain", ApprovalConfig())
        (True, False)
    """
    return config.needed == "both" or config.needed == f"{kind}s"


def ask(
    kind: ApprovalKind, *, model: str, key: str, version: str, binding: Binding, requester: str, words: str, at_ms: int,
    config: ApprovalConfig,
) -> Approval:  # fmt: skip
    """A question to people. The same retrain gives the same id, so it is asked once."""
    approval_id = approval_id_of(model, kind, key)
    return Approval(
        approval_id=approval_id, model=model, kind=kind, key=key, version=version, binding=binding,
        requesters=tuple(sorted(people_in(requester))), asked_at_ms=at_ms,
        expires_at_ms=at_ms + round(config.expiry_days * MS_PER_DAY),
        asks_expectation=draw(approval_id) < config.expectation_share, words=words,
    )  # fmt: skip


def approval_id_of(model: str, kind: ApprovalKind, key: str) -> str:
    return f"{model}-{kind}-{key[:16]}"


def draw(approval_id: str) -> float:
    """A number in [0, 1) that follows from the id alone, so that nobody can draw again.

    Example:
        >>> round(draw("pump-promotion-3f9a2c10"), 3), draw("a") == draw("a")
        (0.635, True)
    """
    return int.from_bytes(hashlib.sha256(b"expectation\0" + approval_id.encode()).digest()[:8], "big") / 2**64


def what_changed(asked: Binding, now: Binding) -> str:
    """Why an approval is void, in words; "" where it stands.

    Example:
        >>> asked = Binding(generation=3, candidate_digest="c", evidence_digest="e", policy_version="p")
        >>> what_changed(asked, msgspec.structs.replace(asked, generation=4))
        'another version is in service (generation 4, it was 3)'
    """
    if now.generation != asked.generation:
        return f"another version is in service (generation {now.generation}, it was {asked.generation})"
    if now.policy_version != asked.policy_version:
        return f"the policy is another one ({now.policy_version}, it was {asked.policy_version})"
    if now.candidate_digest != asked.candidate_digest:
        return f"the candidate's file is another one ({_short(now.candidate_digest)}, it was {_short(asked.candidate_digest)})"
    if now.evidence_digest != asked.evidence_digest:
        return f"what it rests on has changed ({_short(now.evidence_digest)}, it was {_short(asked.evidence_digest)})"
    return ""


def look(approval: Approval, *, actor: str, expectation: Expectation, at_ms: int) -> Approval:
    """Somebody opens the evidence. The first time counts; to look again changes nothing.

    Raises:
        ApprovalError: It is over; or what is expected must be said first, or is no expectation.
    """
    _check_waiting(approval)
    if approval.opened_by(actor) is not None:
        return approval
    if expectation not in get_args(Expectation):
        raise ApprovalError(f"expectation must be better, same or worse, got {expectation!r}")
    if approval.asks_expectation and not expectation:
        raise ApprovalError(
            "say first what you expect of live accuracy if this is done (better, same or worse): of this approval the findings "
            "are shown after that"
        )
    opened = Opened(actor=actor, at_ms=at_ms, expectation=expectation)
    return msgspec.structs.replace(approval, opened=(*approval.opened, opened)[-_MAX_OPENED:])


def answer(approval: Approval, given: Answer, config: ApprovalConfig) -> Approval:
    """A person decides, once.

    Args:
        approval: That waits, and is not void: see `what_changed`.
        given: The answer; what it says of looking (`seconds`, `expectation`) is filled in here.
        config: In force.

    Raises:
        ApprovalError: It is over; this person may not, has not looked long enough, or speaks of other evidence; or a reason is
            missing.
    """
    _check_waiting(approval)
    if given.at_ms >= approval.expires_at_ms:
        raise ApprovalError(f"it has expired at {format_moment(approval.expires_at_ms)} UTC")
    if config.is_key_needed and not given.is_by_key:
        raise ApprovalError(
            "this policy wants to know who answers: come with an API key of the scope `approve` "
            "(`clipdrift key NAME --scope approve`)"
        )
    if not given.reason.strip() and (config.is_reason_needed or not given.is_approved or given.is_break_glass):
        raise ApprovalError("a reason is needed: it is kept in the record")
    if given.evidence_digest != approval.binding.evidence_digest:
        raise ApprovalError(
            f"you speak of evidence {_short(given.evidence_digest)!r}, and this rests on "
            f"{_short(approval.binding.evidence_digest)}: open it again"
        )
    opened = approval.opened_by(given.actor)
    seconds = None if opened is None else max(0.0, (given.at_ms - opened.at_ms) / 1000)
    if given.is_approved and given.is_break_glass and not config.may_break_glass:
        raise ApprovalError("the policy has no emergencies (policy.approval.may_break_glass is off)")
    if given.is_approved and not given.is_break_glass:
        _check_person(approval, given.actor)
        _check_looked(seconds, config)
    whole = msgspec.structs.replace(
        given, seconds=seconds, expectation=opened.expectation if opened is not None else "",
        is_break_glass=given.is_break_glass and given.is_approved,
    )  # fmt: skip
    state = "approved" if given.is_approved else "rejected"
    return msgspec.structs.replace(approval, state=state, answer=whole, ended_at_ms=given.at_ms)


def void(approval: Approval, why: str, at_ms: int) -> Approval:
    """One whose subject has changed: it can be answered no more."""
    return msgspec.structs.replace(approval, state="void", why_over=why, ended_at_ms=at_ms)


def expire(approval: Approval, at_ms: int) -> Approval | None:
    """The approval as over where nobody answered in time; None while there is time."""
    if approval.state != "waiting" or at_ms < approval.expires_at_ms:
        return None
    days = (approval.expires_at_ms - approval.asked_at_ms) / MS_PER_DAY
    return msgspec.structs.replace(
        approval, state="expired", why_over=f"nobody answered within {days:g} days", ended_at_ms=at_ms
    )


def review(approval: Approval, given: Review) -> Approval:
    """What another person found of an emergency.

    Raises:
        ApprovalError: It was none, was reviewed before, or by the person who answered it; or a reason is missing.
    """
    if approval.answer is None or not approval.answer.is_break_glass:
        raise ApprovalError("only what was approved as an emergency is reviewed")
    if approval.review is not None:
        raise ApprovalError(f"it was reviewed already, by {approval.review.actor}")
    if people_in(given.actor) & people_in(approval.answer.actor) or not people_in(given.actor):
        raise ApprovalError(f"{given.actor} approved it; another person reviews it")
    if not given.reason.strip():
        raise ApprovalError("a reason is needed: it is kept in the record")
    return msgspec.structs.replace(approval, review=given)


def _check_waiting(approval: Approval) -> None:
    if approval.state != "waiting":
        why = approval.why_over or (f"by {approval.answer.actor}" if approval.answer is not None else "")
        raise ApprovalError(f"{approval.approval_id} is {approval.state} already{f': {why}' if why else ''}")


def _check_person(approval: Approval, actor: str) -> None:
    people = people_in(actor)
    if not people:
        raise ApprovalError(f"an approval names a person, got {actor!r}: say who you are")
    if people & set(approval.requesters):
        raise ApprovalError(f"{actor} ordered this retrain; another person approves it")


def _check_looked(seconds: float | None, config: ApprovalConfig) -> None:
    if seconds is None:
        raise ApprovalError("open the evidence first: `clipdrift approvals show ID`, or its page")
    if seconds < config.min_dwell_seconds:
        raise ApprovalError(
            f"you opened the evidence {seconds:.0f} s ago; the policy wants {config.min_dwell_seconds:g} s before an approval"
        )


def _short(digest: str) -> str:
    return digest[:_SHOWN_DIGITS] or "none"
