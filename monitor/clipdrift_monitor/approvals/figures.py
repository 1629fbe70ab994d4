"""Whether people really look: how often they differ from the machine, how long they take, and what they expected."""

from collections.abc import Sequence
from statistics import median

import msgspec

from clipdrift_monitor.approvals.approval import Answer, Approval
from clipdrift_monitor.approvals.config import ApprovalConfig
from clipdrift_monitor.windows.view import wilson_interval

MIN_ANSWERS = 20
LOW_OVERRIDE = 0.05
"""Fewer rejections than this are taken for agreement by habit: the figure that reviews of human oversight use as a red flag."""
MANY_STAMPS = 0.2


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a number, with Wilson's 95 % interval; None where there is nothing to divide by."""

    num: int
    of: int
    value: float | None
    low: float | None
    high: float | None


class ApprovalFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of all approvals, or of one person's answers."""

    num_answered: int
    num_waiting: int
    num_void: int
    num_expired: int
    num_break_glass: int
    num_unreviewed: int
    """Emergencies that nobody has reviewed yet."""
    override: Share
    """Rejections among answers: each contradicts the machine, which asks only where it would go on."""
    override_told: Share
    """Of those whose findings were shown at once."""
    override_untold: Share
    """Of those where an expectation had to be said first. Which is which was drawn, so a difference between the two is the pull
    of the machine's word."""
    expected_better: Share
    """Of expectations that were said before anything was shown, those that said "better", which is what the machine says."""
    median_seconds: float | None
    """From opening the evidence to the answer; None before somebody has."""
    median_waiting_seconds: float | None
    """From the question to the answer."""
    rubber_stamps: Share
    """Approvals that came sooner after opening than the policy's `rubber_stamp_seconds`."""
    warnings: tuple[str, ...]


def figures_of(approvals: Sequence[Approval], config: ApprovalConfig) -> ApprovalFigures:
    """How approvals went.

    Example:
        >>> figures_of([], ApprovalConfig()).override.value is None
        True
    """
    answered = [(one, one.answer) for one in approvals if one.answer is not None]
    told, untold = ([pair for pair in answered if pair[0].asks_expectation is is_untold] for is_untold in (False, True))
    expected = [given.expectation for _, given in untold if given.expectation]
    looked = [given.seconds for _, given in answered if given.seconds is not None]
    approved = [given for _, given in answered if given.is_approved and not given.is_break_glass]
    stamped = [given for given in approved if given.seconds is not None and given.seconds < config.rubber_stamp_seconds]
    found = ApprovalFigures(
        num_answered=len(answered),
        num_waiting=sum(one.state == "waiting" for one in approvals),
        num_void=sum(one.state == "void" for one in approvals),
        num_expired=sum(one.state == "expired" for one in approvals),
        num_break_glass=sum(given.is_break_glass for _, given in answered),
        num_unreviewed=sum(one.needs_review for one in approvals),
        override=_rejections(answered),
        override_told=_rejections(told),
        override_untold=_rejections(untold),
        expected_better=share_of(sum(one == "better" for one in expected), len(expected)),
        median_seconds=median(looked) if looked else None,
        median_waiting_seconds=median((given.at_ms - one.asked_at_ms) / 1000 for one, given in answered) if answered else None,
        rubber_stamps=share_of(len(stamped), len(approved)),
        warnings=(),
    )
    return msgspec.structs.replace(found, warnings=_warnings(found, config))


def by_person(approvals: Sequence[Approval], config: ApprovalConfig) -> dict[str, ApprovalFigures]:
    """The same of each person who answered, by name."""
    answered: dict[str, list[Approval]] = {}
    for one in approvals:
        if one.answer is not None:
            answered.setdefault(one.answer.actor, []).append(one)
    return {actor: figures_of(found, config) for actor, found in sorted(answered.items())}


def share_of(num: int, of: int) -> Share:
    """A part with its interval.

    Example:
        >>> found = share_of(1, 10)
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.1, 0.018, 0.404)
    """
    low, high = wilson_interval(num, of) if of else (None, None)
    return Share(num=num, of=of, value=num / of if of else None, low=low, high=high)


def _rejections(answered: Sequence[tuple[Approval, Answer]]) -> Share:
    return share_of(sum(not given.is_approved for _, given in answered), len(answered))


def _warnings(found: ApprovalFigures, config: ApprovalConfig) -> tuple[str, ...]:
    told = []
    override, stamps = found.override, found.rubber_stamps
    if override.of >= MIN_ANSWERS and override.value is not None and override.value < LOW_OVERRIDE:
        told.append(
            f"{override.num} of {override.of} answers were rejections: below {LOW_OVERRIDE:.0%}, people may agree by habit. "
            "Either the gate is as good as that, and approvals could go, or they are not looked at."
        )
    if stamps.num >= 3 and stamps.value is not None and stamps.value > MANY_STAMPS:
        told.append(
            f"{stamps.num} of {stamps.of} approvals came within {config.rubber_stamp_seconds:g} s of opening the evidence."
        )
    if found.num_unreviewed:
        told.append(
            f"{found.num_unreviewed} {'emergency waits' if found.num_unreviewed == 1 else 'emergencies wait'} for another "
            "person's review."
        )
    return tuple(told)
