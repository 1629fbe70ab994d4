"""Retrains under way: ordered, and watched until their outcome comes."""

import logging
from collections.abc import Callable

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import RetrainOutcome, RetrainRequest
from clipdrift_monitor.actions.jobs import Jobs
from clipdrift_monitor.actions.outbox import to_start
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.store.store import Store

_WATCH_SECONDS = 0.25
_log = logging.getLogger(__name__)


def order(request: RetrainRequest, memory: Memory, draft: Draft, now_ms: int) -> None:
    """Have a retrain published and started after the commit."""
    draft.changes.requests.append(request)
    draft.publish(request, f"retrain-request-{request.key}")
    draft.changes.outbox.append(to_start(request))
    memory.unfinished[request.key] = request
    memory.started[request.model] = now_ms / 1000


class JobWatch:
    """Starts again what died, gives up what keeps dying.

    Args:
        memory: Holds the retrains that are not finished.
        store: Holds how often each was started.
        jobs: Knows their states.
        clock: For how often to look, and for the outcome of what is given up.
        max_attempts: After so many starts a job is given up.
        conclude: Takes the outcome of a job that is given up.
    """

    def __init__(
        self,
        memory: Memory,
        store: Store,
        jobs: Jobs,
        clock: Clock,
        max_attempts: int,
        conclude: Callable[[RetrainOutcome, Draft], object],
    ) -> None:
        self._memory = memory
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._max_attempts = max_attempts
        self._conclude = conclude
        self._finished_before: set[str] = set()
        self._last_look = float("-inf")

    def forget(self) -> None:
        """What was seen of jobs until now says nothing."""
        self._finished_before = set()

    def look(self, draft: Draft, lag: int) -> None:
        """See to every job. A finished one whose outcome never came publishes it once more. Does nothing where it has just
        been done.

        Args:
            draft: Takes what comes of it.
            lag: Records that wait on the bus; an outcome may be among them.
        """
        now = self._clock.monotonic_seconds()
        if now - self._last_look < _WATCH_SECONDS:
            return
        self._last_look = now
        for key, request in list(self._memory.unfinished.items()):
            if not self._is_dead(key, lag):
                continue
            row = self._store.retrain(key)
            attempts = row.attempts if row is not None else 0
            if attempts >= self._max_attempts:
                self._conclude(self._lost(request, attempts), draft)
                continue
            _log.warning("nobody works on retraining job %s: started again", key)
            self._jobs.order(request)
            self._store.note_attempt(key, attempts + 1)
            self._jobs.start(key)

    def _is_dead(self, key: str, lag: int) -> bool:
        """Nobody works on the job, and its outcome is not on its way either."""
        state = self._jobs.state(key)
        was_finished = key in self._finished_before
        self._finished_before = self._finished_before | {key} if state == "finished" else self._finished_before - {key}
        return (was_finished and not lag) if state == "finished" else state != "running"

    def _lost(self, request: RetrainRequest, attempts: int) -> RetrainOutcome:
        reason = f"the job ended {attempts} times without an outcome; {self._jobs.log_words(request.key)}"
        return RetrainOutcome(
            key=request.key, model=request.model, finished_at_ms=self._clock.now_ms(), verdict="inconclusive",
            reasons=(reason,), attempt=attempts,
        )  # fmt: skip
