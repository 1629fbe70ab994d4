"""The course of a retrain through its CI: what is to be done next, and what follows from what was seen. Values in, values out.

A CI that was asked to begin may have begun although no answer came. So the rule is: write down that it is asked, ask whether
it has the run, ask it to begin once; where the answer is no answer, wait until the CI must show the run if it has it, and go
through the same again. Two runs of one attempt are still possible, and cost nothing: the second finds the key claimed.
"""

import zlib
from typing import Literal

import msgspec

from clipdrift_contract.clock import MS_PER_HOUR, MS_PER_SECOND
from clipdrift_monitor.actions.backends.backend import CiRun
from clipdrift_monitor.actions.run import PastAttempt, Run, RunState

Errand = Literal["start", "look", "cancel"]
_REFUSED_MS = 300 * MS_PER_SECOND
_MAX_WAIT_MS = MS_PER_HOUR
_JITTER = 0.2


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long what may take; milliseconds."""

    visible_ms: int  # a run that was begun is shown by its CI
    unseen_ms: int  # without a sign of life a run is lost
    outcome_ms: int  # an outcome may come so long after its run has ended
    run_ms: int  # a run is ended
    dispatch_ms: int  # a retrain that no CI took is given up
    poll_ms: int  # between two looks, at first
    max_poll_ms: int  # and at last
    max_attempts: int


# --- what was seen ---


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The CI shows a run, or has just begun it."""

    run: CiRun
    log_tail: str = ""


class NotSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The CI answers, and shows no such run."""


class NotBegun(msgspec.Struct, frozen=True, kw_only=True):
    """It was asked to begin, and surely did not."""

    reason: str
    retry_at_ms: int = 0
    is_refused: bool = False


class NoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody knows."""

    reason: str
    retry_at_ms: int = 0
    was_dispatched: bool = False  # the silence is about a request to begin


Observation = Seen | NotSeen | NotBegun | NoAnswer


# --- what is to be done ---


def errand_of(run: Run, now_ms: int, limits: Limits) -> Errand | None:
    """What is to be done now; None: nothing. How often a run is looked at is for the caller."""
    if run.has_ended or now_ms < run.not_before_ms:
        return None
    if run.state == "requested":
        return "start" if run.is_wanted else None
    if run.state == "dispatching":
        if now_ms < run.since_ms + limits.visible_ms:
            return None
        return "start" if run.is_wanted else "look"
    if run.verdict:
        return None
    is_too_long = now_ms > run.ordered_at_ms + limits.run_ms  # also of one that has told its outcome and hangs
    return "cancel" if run.cancelled_by or is_too_long else "look"


def begin(run: Run, now_ms: int) -> Run:
    """The CI is about to be asked to begin: to be saved before that."""
    return msgspec.structs.replace(run, state="dispatching", since_ms=now_ms, num_dispatches=run.num_dispatches + 1)


def poll_ms(key: str, num_looks: int, limits: Limits) -> int:
    """Until the next look: longer each time that nothing has changed, and not at the same moment for every run.

    Example:
        >>> limits = Limits(visible_ms=1, unseen_ms=1, outcome_ms=1, run_ms=1, dispatch_ms=1, max_attempts=3,
        ...                 poll_ms=10_000, max_poll_ms=60_000)
        >>> [poll_ms("a", looks, limits) // 1000 for looks in (0, 2, 9)]
        [9, 19, 57]
    """
    plain = min(limits.max_poll_ms, limits.poll_ms * 1.5 ** min(num_looks, 20))
    share = zlib.crc32(f"{key}-{num_looks}".encode()) / 2**32  # the same in every life
    return round(plain * (1 - _JITTER + _JITTER * share))


# --- what follows ---


def after(run: Run, seen: Observation, now_ms: int, limits: Limits) -> Run:
    """The run after an observation of its present attempt."""
    if run.has_ended:
        return run
    if isinstance(seen, Seen):
        return _after_seen(run, seen, now_ms)
    return _after_not_seen(run, now_ms) if isinstance(seen, NotSeen) else _after_silence(run, seen, now_ms, limits)


def _after_silence(run: Run, seen: NotBegun | NoAnswer, now_ms: int, limits: Limits) -> Run:
    if run.state != "dispatching":  # somebody has been seen since
        return run if isinstance(seen, NotBegun) or seen.was_dispatched else _put_off(run, seen, now_ms, limits)
    if isinstance(seen, NotBegun):
        again_ms = max(seen.retry_at_ms, now_ms + _pause(run, seen, limits))
        return _moved(run, "requested", now_ms, reason=seen.reason, not_before_ms=again_ms)
    if seen.was_dispatched:  # from the moment of silence on
        again_ms = now_ms + _doubled(limits.visible_ms, run.num_dispatches)
        return _moved(run, "dispatching", now_ms, reason=seen.reason, not_before_ms=again_ms)
    return _put_off(run, seen, now_ms, limits)


def is_news(before: Run, after: Run, limits: Limits) -> bool:
    """Whether the change is worth a write: signs of life alone are, once in a while."""
    signs = ("seen_ms", "missed_ms", "beat_ms", "not_before_ms")
    like = msgspec.structs.replace(after, **{name: getattr(before, name) for name in signs})
    return like != before or after.seen_ms - before.seen_ms > limits.unseen_ms // 10


def claimed(run: Run, owner: str, url: str, now_ms: int) -> Run:
    """A job has the key from now on."""
    state: RunState = "running"
    since_ms = run.since_ms if run.state == "running" else now_ms
    return msgspec.structs.replace(
        run, state=state, since_ms=since_ms, owner=owner, owner_url=url or (run.owner_url if owner == run.owner else ""),
        beat_ms=now_ms, seen_ms=now_ms, reason="",
    )  # fmt: skip


def is_owner_alive(run: Run, now_ms: int, watching_since_ms: int, limits: Limits) -> bool:
    """Whether a job has claimed the key and was heard of lately; while nobody watches, silence says nothing."""
    return bool(run.owner) and now_ms - max(run.beat_ms, watching_since_ms) <= limits.unseen_ms


def lapse(run: Run, now_ms: int, watching_since_ms: int, limits: Limits, *, may_outcome_wait: bool) -> Run:
    """The run after what time alone brings.

    Args:
        run: As it is.
        now_ms: Wall time.
        watching_since_ms: Since when this monitor watches: what it could not see before is no evidence.
        limits: How long what may take.
        may_outcome_wait: Records wait on the bus; an outcome may be among them.
    """
    if run.has_ended:
        return run
    if run.state in ("requested", "dispatching"):
        return _lapse_unstarted(run, now_ms, limits)
    if run.verdict:
        # a run that found the key claimed ends at once, and says nothing of the one that has it
        is_other = is_owner_alive(run, now_ms, watching_since_ms, limits) and (not run.owner_url or run.owner_url != run.url)
        return _lapse_ended(run, now_ms, limits, may_outcome_wait=may_outcome_wait or is_other)
    last_ms = max(run.seen_ms, run.since_ms, watching_since_ms)
    is_missed = run.missed_ms > last_ms and now_ms - last_ms > limits.unseen_ms
    if is_missed or now_ms - max(last_ms, run.ordered_at_ms) > limits.run_ms:  # a CI that does not answer has not lost it
        minutes = round((now_ms - last_ms) / 60_000)
        return _end_attempt(run, "lost", now_ms, f"nobody has seen it for {minutes} minutes", limits)
    if now_ms - max(run.ordered_at_ms + limits.run_ms, watching_since_ms) > limits.unseen_ms:  # it was to be cancelled then
        reason = f"it ran longer than {limits.run_ms / MS_PER_HOUR:g} h, and the CI did not end it"
        return _end_attempt(run, "failed", now_ms, f"{reason}: {run.reason}" if run.reason else reason, limits)
    return run


def _lapse_unstarted(run: Run, now_ms: int, limits: Limits) -> Run:
    if run.state == "requested" and not run.is_wanted:
        return _end(run, "succeeded", now_ms)
    if run.is_wanted and now_ms - run.ordered_at_ms > limits.dispatch_ms:
        hours = limits.dispatch_ms / MS_PER_HOUR
        return _end(run, "failed", now_ms, f"the CI did not take it within {hours:g} h: {run.reason or 'no answer'}")
    return run


def _lapse_ended(run: Run, now_ms: int, limits: Limits, *, may_outcome_wait: bool) -> Run:
    """A run that has ended in the CI, and whose outcome has not come."""
    if not run.is_wanted:
        return _end(run, "succeeded", now_ms)
    if run.verdict == "cancelled":
        too_long = now_ms > run.ordered_at_ms + limits.run_ms
        if too_long:
            return _end_attempt(run, "failed", now_ms, f"it ran longer than {limits.run_ms / MS_PER_HOUR:g} h", limits)
        return _end(run, "cancelled", now_ms, "it was cancelled in the CI")
    if may_outcome_wait or now_ms - run.ended_ms < limits.outcome_ms:
        return run
    return _end_attempt(run, "failed", now_ms, run.reason or "no log is known", limits)


def _after_seen(run: Run, seen: Seen, now_ms: int) -> Run:
    found = seen.run
    known = msgspec.structs.replace(
        run, run_id=found.run_id or run.run_id, url=found.url or run.url, seen_ms=now_ms, not_before_ms=0
    )
    if found.state in ("queued", "running"):
        state: RunState = "running" if found.state == "running" or run.owner else "dispatched"
        return _moved(known, state, now_ms, reason="")
    moved = _moved(known, "running", now_ms, reason=seen.log_tail)
    if moved.verdict:
        return moved
    return msgspec.structs.replace(moved, verdict=found.state, ended_ms=now_ms)


def _put_off(run: Run, seen: NoAnswer, now_ms: int, limits: Limits) -> Run:
    return msgspec.structs.replace(run, reason=seen.reason, not_before_ms=max(seen.retry_at_ms, now_ms + limits.poll_ms))


def _after_not_seen(run: Run, now_ms: int) -> Run:
    is_gone = bool(run.run_id) or run.state == "dispatching"
    if is_gone and not run.is_wanted:
        return _end(run, "succeeded", now_ms)
    return msgspec.structs.replace(run, missed_ms=now_ms)  # it may not be shown yet; time says when it is lost


def _pause(run: Run, seen: NotBegun, limits: Limits) -> int:
    return _doubled(_REFUSED_MS if seen.is_refused else limits.poll_ms, run.num_dispatches)


def _doubled(ms: int, times: int) -> int:
    doubled = ms << min(20, max(0, times - 1))
    return min(max(ms, _MAX_WAIT_MS), doubled)


def _moved(run: Run, state: RunState, now_ms: int, **changed: object) -> Run:
    since_ms = run.since_ms if state == run.state and state != "dispatching" else now_ms
    return msgspec.structs.replace(run, state=state, since_ms=since_ms, **changed)


def _end_attempt(run: Run, state: RunState, now_ms: int, reason: str, limits: Limits) -> Run:
    """Over; another try begins where there are any left."""
    if not run.is_wanted or run.attempt >= limits.max_attempts:
        return _end(run, state, now_ms, reason)
    gone = PastAttempt(
        attempt=run.attempt, state=state, run_id=run.run_id, url=run.link, reason=reason, ended_at_ms=now_ms
    )  # fmt: skip
    return Run(
        key=run.key, model=run.model, backend=run.backend, ordered_at_ms=now_ms, since_ms=now_ms, attempt=run.attempt + 1,
        reason=reason, past=(*run.past, gone),
    )  # fmt: skip


def _end(run: Run, state: RunState, now_ms: int, reason: str = "") -> Run:
    """For good. What has its outcome has succeeded, and what nobody wants is cancelled, however its run came to its end."""
    if run.is_settled:
        state = "succeeded"
    elif run.cancelled_by:
        state, reason = "cancelled", f"cancelled by {run.cancelled_by}"
    return msgspec.structs.replace(run, state=state, since_ms=now_ms, reason=reason or run.reason)
