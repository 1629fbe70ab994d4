"""Retrains under way: ordered, claimed by the job that carries one out, and watched until both outcome and run have come."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ClipdriftError, PoisonError
from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_monitor.actions import course
from clipdrift_monitor.actions.backends.backend import Attempt
from clipdrift_monitor.actions.course import NoAnswer, NotBegun, Observation
from clipdrift_monitor.actions.errands import Errand
from clipdrift_monitor.actions.run import Run
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.digest import digest_of
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.store.store import Store

_log = logging.getLogger(__name__)


class JobError(ClipdriftError):
    """What a job asks for cannot be done, and nothing was changed."""


class NoSuchRetrainError(JobError):
    """No such retrain was ever ordered."""


class NotYoursError(JobError):
    """The retrain is another run's, or nobody's any more: whoever asks is to stop, and has done nothing wrong."""


class Claim(NamedTuple):
    """What a job that has the key goes by."""

    request: RetrainRequest
    attempt: int


class Taken(NamedTuple):
    """Whether an outcome counts, and why not."""

    is_taken: bool
    words: str


def order(request: RetrainRequest, memory: Memory, draft: Draft, now_ms: int) -> None:
    """Have a retrain published after the commit, and started after that."""
    draft.changes.requests.append(request)
    draft.publish(request, f"retrain-request-{request.key}")
    run = Run(key=request.key, model=request.model, ordered_at_ms=now_ms, since_ms=now_ms)
    draft.changes.ci_runs[request.key] = run
    memory.unfinished[request.key] = request
    memory.ci_runs[request.key] = run
    memory.ci_requests[request.key] = request
    memory.started[request.model] = now_ms / 1000


class Runs:
    """The runs of retrains, and what is to be asked of the CI about them.

    Args:
        config: Names the backend, and how patient to be with it.
        memory: Holds the runs that have not ended, and the retrains that are not finished.
        store: Knows those that have.
        clock: Of the wall.
        check_run: Raises PoisonError for a `RunEnd` that cannot be taken.
        conclude: Takes the outcome of a retrain that comes to no other.
    """

    def __init__(
        self,
        config: MonitorConfig,
        memory: Memory,
        store: Store,
        clock: Clock,
        check_run: Callable[[RunEnd], None],
        conclude: Callable[[RetrainOutcome, Draft], object],
    ) -> None:
        self._backend = config.ci.backend
        self._limits = config.ci.limits(config.max_job_attempts)
        self._memory = memory
        self._store = store
        self._clock = clock
        self._check_run = check_run
        self._conclude = conclude
        self.epoch = 0
        self.forget()

    def forget(self) -> None:
        """What is being asked now is not ours any more, and what was seen until now says nothing."""
        self.epoch += 1
        self._watching_since_ms = self._clock.now_ms()
        self._in_flight: set[str] = set()
        self._saved: dict[str, Run] = {}
        self._next_look_ms: dict[str, int] = {}
        self._num_looks: dict[str, int] = {}

    def is_current(self, errand: Errand) -> bool:
        """Whether an errand is still to be done. Any thread."""
        return errand.epoch == self.epoch

    # --- turn by turn ---

    def advance(self, draft: Draft, lag: int) -> list[Errand]:
        """What is to be asked of the CI once `draft` is saved.

        Args:
            draft: Takes what has become of the runs.
            lag: Records that wait on the bus; an outcome may be among them.
        """
        now_ms, errands = self._clock.now_ms(), []
        for key, run in list(self._memory.ci_runs.items()):
            if key not in self._memory.unfinished and not run.cancelled_by:
                run = msgspec.structs.replace(run, is_settled=True)
            run = course.lapse(run, now_ms, self._watching_since_ms, self._limits, may_outcome_wait=lag > 0)
            kind = course.errand_of(run, now_ms, self._limits) if key not in self._in_flight else None
            if kind == "start":
                run = course.begin(msgspec.structs.replace(run, backend=self._backend), now_ms)
            elif kind is not None and now_ms < self._next_look_ms.get(key, 0):
                kind = None
            if kind is not None:
                self._in_flight.add(key)
                attempt = Attempt(
                    request=self._memory.ci_requests[key], number=run.attempt, ordered_at_ms=run.ordered_at_ms
                )  # fmt: skip
                errands.append(Errand(kind=kind, attempt=attempt, run_id=run.run_id, epoch=self.epoch))
            self._keep(run, draft)
        return errands

    def observe(self, draft: Draft, errand: Errand, seen: Observation) -> None:
        """Take what came of an errand; nothing where it was of an attempt that is over."""
        key = errand.attempt.request.key
        if errand.epoch == self.epoch:
            self._in_flight.discard(key)
        before = self._memory.ci_runs.get(key)
        if before is None or before.attempt != errand.attempt.number:
            return
        now_ms = self._clock.now_ms()
        run = course.after(before, seen, now_ms, self._limits)
        self._num_looks[key] = self._num_looks.get(key, 0) + 1 if run.state == before.state else 0
        self._next_look_ms[key] = now_ms + course.poll_ms(key, self._num_looks[key], self._limits)
        if isinstance(seen, NotBegun | NoAnswer) and run.reason != before.reason:
            _log.warning("retrain %s of %s is %s: %s", key, run.model, run.state, run.reason)
        self._keep(run, draft)

    def wake(self, names: set[str]) -> int:
        """Look at once at the runs with one of these ids, keys or links, and at those whose id is not known; how many."""
        woken = []
        for key, run in self._memory.ci_runs.items():
            if not run.run_id or names & {run.run_id, key, run.url, run.owner_url}:
                woken.append(key)
        for key in woken:
            self._next_look_ms.pop(key, None)
            self._num_looks.pop(key, None)
        return len(woken)

    # --- what jobs say ---

    def claim(self, draft: Draft, key: str, owner: str, url: str) -> Claim:
        """Give the key to one run; the same run may ask again.

        Raises:
            NoSuchRetrainError: There is no such retrain.
            NotYoursError: Another run has it, or nobody waits for it any more.
        """
        run, now_ms = self._wanted(key), self._clock.now_ms()
        is_held = course.is_owner_alive(run, now_ms, self._watching_since_ms, self._limits)
        if run.owner != owner:
            if is_held:
                raise NotYoursError(f"retrain {key} is being carried out by {run.owner}")
            draft.audit("claim", key, {"owner": owner, "url": url, "attempt": run.attempt}, owner)
        self._save(course.claimed(run, owner, url, now_ms), draft)
        return Claim(self._memory.unfinished[key], run.attempt)

    def beat(self, draft: Draft, key: str, owner: str) -> None:
        """A job says that it lives.

        Raises:
            NoSuchRetrainError: There is no such retrain.
            NotYoursError: It is to stop.
        """
        run = self._owned(key, owner)
        now_ms = self._clock.now_ms()
        self._save(msgspec.structs.replace(run, beat_ms=now_ms, seen_ms=now_ms), draft)

    def report(self, draft: Draft, key: str, owner: str, outcome: RetrainOutcome, run_end: RunEnd | None) -> Taken:
        """Publish what a job found. Saying it twice says it once. What comes too late is kept as a version, no more.

        Raises:
            NoSuchRetrainError: There is no such retrain.
            JobError: What was told does not fit the order, or the winner's run cannot be taken.
        """
        self._check(key, outcome, run_end)
        try:
            run = self._owned(key, owner)
        except NotYoursError as error:
            return self._take_late(draft, key, owner, outcome, run_end, str(error))
        told = msgspec.structs.replace(outcome, run_url=outcome.run_url or run.link)
        if run_end is not None:
            draft.publish(run_end, f"run-end-{key}")
        draft.publish(told, f"retrain-outcome-{key}")
        now_ms = self._clock.now_ms()
        self._save(msgspec.structs.replace(run, beat_ms=now_ms, seen_ms=now_ms), draft)
        return Taken(True, "it decides")

    def cancel(self, draft: Draft, key: str, reason: str, actor: str) -> Run:
        """Nobody waits for the retrain from now on; its run is ended as soon as the CI can be asked.

        Raises:
            NoSuchRetrainError: There is no such retrain.
            NotYoursError: It is over already.
        """
        run = self._wanted(key)
        who = f"{actor}: {reason}"
        draft.audit("cancel", key, {"reason": reason, "attempt": run.attempt, "run": run.link}, actor)
        run = msgspec.structs.replace(run, cancelled_by=who, not_before_ms=0)
        self._next_look_ms.pop(key, None)
        self._save(run, draft)
        self._give_up(run, f"it was cancelled by {who}", draft)
        return run

    def _check(self, key: str, outcome: RetrainOutcome, run_end: RunEnd | None) -> None:
        if outcome.key != key:
            raise JobError(f"the outcome is of {outcome.key!r}, and was told for {key!r}")
        is_passed = outcome.verdict == "pass"
        if is_passed and (run_end is None or run_end.version != outcome.candidate_version):
            raise JobError(f"an outcome that has passed needs the run_end of version {outcome.candidate_version!r} with it")
        if run_end is None:
            return
        if run_end.model != outcome.model or run_end.retrain_key != key:
            raise JobError(
                f"the run_end is of {run_end.model!r}, retrain {run_end.retrain_key!r}; this is {outcome.model!r}, {key!r}"
            )
        try:
            self._check_run(run_end)
        except PoisonError as error:
            raise JobError(f"the run_end cannot be taken: {error}") from error

    def _wanted(self, key: str) -> Run:
        """The run of a retrain that is waited for."""
        run = self._memory.ci_runs.get(key)
        if run is not None and key in self._memory.unfinished and not run.cancelled_by:
            return run
        row = self._store.retrain(key)
        if row is None:
            raise NoSuchRetrainError(f"no retrain {key!r} was ordered here")
        told = row.run
        over = f"was cancelled by {told.cancelled_by}" if told is not None and told.cancelled_by else "is over"
        raise NotYoursError(f"retrain {key} of {row.model} {over}")

    def _owned(self, key: str, owner: str) -> Run:
        run = self._wanted(key)
        if run.owner != owner:
            raise NotYoursError(f"retrain {key} is {f'being carried out by {run.owner}' if run.owner else 'claimed by nobody'}")
        return run

    def _take_late(
        self, draft: Draft, key: str, owner: str, outcome: RetrainOutcome, run_end: RunEnd | None, why: str
    ) -> Taken:
        row = self._store.retrain(key)
        assert row is not None, key
        before = next((one for one in draft.changes.outcomes if one.key == key), row.outcome)  # read in this very turn
        if before is not None and msgspec.structs.replace(outcome, run_url=outcome.run_url or before.run_url) == before:
            return Taken(True, "it was told before")
        if run_end is not None:
            draft.publish(run_end, f"run-end-{key}-late-{digest_of(run_end)[:16]}")
        draft.audit("late outcome", key, {"verdict": outcome.verdict, "candidate": outcome.candidate_version}, owner)
        return Taken(False, f"{why}: what was found is kept and decides nothing")

    # --- keeping ---

    def _keep(self, run: Run, draft: Draft) -> None:
        """The run as it is now, saved where there is news, and let go when it has ended."""
        key = run.key
        known = self._saved.setdefault(key, self._memory.ci_runs[key])
        if course.is_news(known, run, self._limits):
            self._save(run, draft)
        else:
            self._memory.ci_runs[key] = run
        if run.has_ended:
            del self._memory.ci_runs[key], self._memory.ci_requests[key]
            self._in_flight.discard(key)
            if key in self._memory.unfinished:
                self._give_up(run, _why(run), draft)

    def _save(self, run: Run, draft: Draft) -> None:
        self._memory.ci_runs[run.key] = self._saved[run.key] = run
        draft.changes.ci_runs[run.key] = run

    def _give_up(self, run: Run, reason: str, draft: Draft) -> None:
        outcome = RetrainOutcome(
            key=run.key, model=run.model, finished_at_ms=self._clock.now_ms(), verdict="inconclusive", reasons=(reason,),
            attempt=run.attempt, run_url=run.link,
        )  # fmt: skip
        self._conclude(outcome, draft)


def _why(run: Run) -> str:
    if run.state == "failed" and run.num_dispatches:
        return f"the job ended {run.attempt} times without an outcome; {run.reason}"
    return f"the job is {run.state}: {run.reason}"
