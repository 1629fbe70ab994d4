"""An approval as the command line tells it."""

from collections.abc import Iterator, Mapping
from typing import Any

from clipdrift_contract.clock import format_moment

COLUMNS = ("approval", "state", "asked", "until", "what")
_SHOWN_DIGITS = 12


def row_of(approval: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of one approval in the table of `clipdrift approvals`.

    Example:
        >>> row_of({"approval_id": "pump-promotion-3f9a2c10", "state": "waiting", "asked_at_ms": 1362096000000,
        ...         "expires_at_ms": 1362700800000, "words": "Put version 8 of pump into service?"})[:4]
        ('pump-promotion-3f9a2c10', 'waiting', '2013-03-01 00:00', '2013-03-08 00:00')
    """
    is_waiting = approval.get("state") == "waiting"
    return (
        str(approval.get("approval_id")),
        str(approval.get("state")),
        format_moment(int(approval.get("asked_at_ms", 0))),
        format_moment(int(approval.get("expires_at_ms", 0))) if is_waiting else "",
        str(approval.get("words", "")),
    )


def figures_words(figures: Mapping[str, Any]) -> Iterator[str]:
    """How people answered so far, a line for each thing.

    Example:
        >>> list(figures_words({"num_answered": 0}))
        ['nobody has answered yet']
    """
    if not figures.get("num_answered"):
        yield "nobody has answered yet"
    else:
        yield f"override rate (rejections among answers): {_share(figures['override'])}"
        yield (
            f"  findings shown at once: {_share(figures['override_told'])}; after an expectation: "
            f"{_share(figures['override_untold'])}"
        )
        median = figures.get("median_seconds")
        looked = "nobody opened the evidence" if median is None else f"median {median:,.0f} s from opening to answer"
        yield f"{looked}; rubber stamps: {_share(figures['rubber_stamps'])}"
    yield from (f"! {words}" for words in figures.get("warnings", ()))


def paragraphs(told: Mapping[str, Any]) -> Iterator[str]:
    """Everything that a person needs of one approval, line by line."""
    approval, findings = told["approval"], told.get("findings")
    yield f"{approval['approval_id']}: {approval['words']}"
    yield f"{approval['state']}; {told.get('next', '')}"
    yield ""
    if told.get("cause"):
        yield f"cause: {told['cause']}; data until {format_moment(int(told['as_of_ms']))} UTC; arms: {', '.join(told['arms'])}"
    if told.get("wall_seconds"):
        yield f"the retrain took {told['wall_seconds']:,.0f} s ({told['cpu_seconds']:,.0f} s of CPU)"
    if told.get("run_url"):
        yield f"run: {told['run_url']}"
    if told.get("card_digest"):
        yield f"model card: sha256 {told['card_digest'][:_SHOWN_DIGITS]}; {'signed' if told.get('is_signed') else 'not signed'}"
    if findings is None:
        yield "Findings are not shown: say first what you expect of live accuracy with --expect better, same or worse."
    else:
        yield from _findings(findings)
    yield ""
    yield from _bound(approval["binding"])
    yield from _answer(approval)


def _findings(findings: Mapping[str, Any]) -> Iterator[str]:
    if findings.get("verdict"):
        yield f"the gate says {findings['verdict']}; best arm: {findings.get('winner') or '-'}"
    yield from (f"  {reason}" for reason in findings.get("reasons", ()))
    for one in findings.get("checks", ()):
        name = f"{one['name']} of {one['slice']}" if one.get("slice") else one["name"]
        yield f"  {one['outcome']:<12} {name}: {_value(one)}{one['words']}"
    for one in findings.get("against_champion", ()):
        where = f" in {one['slice']}" if one.get("slice") else ""
        yield f"  {one['metric']}{where}: {one['difference']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f}), below 0 is better"


def _value(check: Mapping[str, Any]) -> str:
    if check.get("value") is None:
        return ""
    bound = f", bound {check['bound']:.4g}" if check.get("bound") is not None else ""
    return f"{check['value']:.4g}{bound}. "


def _bound(binding: Mapping[str, Any]) -> Iterator[str]:
    yield f"evidence: {binding['evidence_digest'][:_SHOWN_DIGITS]}  (your answer repeats it: --evidence)"
    candidate = f"candidate {binding['candidate_digest'][:_SHOWN_DIGITS]}, " if binding.get("candidate_digest") else ""
    yield f"bound to {candidate}policy {binding['policy_version']}, generation {binding['generation']}; void when one changes"


def _answer(approval: Mapping[str, Any]) -> Iterator[str]:
    if approval.get("requesters"):
        yield f"ordered by {', '.join(approval['requesters'])}, who may not approve it"
    answer, review = approval.get("answer"), approval.get("review")
    if answer:
        how = "approved" if answer["is_approved"] else "rejected"
        emergency = ", as an emergency" if answer.get("is_break_glass") else ""
        yield f"{how} by {answer['actor']} ({format_moment(answer['at_ms'])} UTC{emergency}): {answer['reason']}"
    if review:
        yield f"reviewed by {review['actor']} ({format_moment(review['at_ms'])} UTC): {review['reason']}"


def _share(share: Mapping[str, Any]) -> str:
    if share.get("value") is None:
        return "none"
    low, high = 100 * float(share["low"]), 100 * float(share["high"])
    return f"{share['num']} of {share['of']} ({low:.0f} to {high:.0f} %)"
