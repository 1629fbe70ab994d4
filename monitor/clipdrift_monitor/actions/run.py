"""A retrain as its CI runs it: one value, that is kept with every step."""

from typing import Literal

import msgspec

RunState = Literal["requested", "dispatching", "dispatched", "running", "succeeded", "failed", "lost", "cancelled"]
"""requested: the CI was not asked yet, or has surely not begun. dispatching: it is being asked, or was, and nobody knows
whether it took the order. dispatched: it has it. running: somebody works on it. succeeded: its outcome came. failed: it ended
so often without one that it is given up. lost: nobody saw it any more. cancelled: by a person, here or in the CI."""

ENDS = frozenset({"succeeded", "failed", "lost", "cancelled"})
CiVerdict = Literal["", "succeeded", "failed", "cancelled"]


class PastAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """A try that is over, and was followed by another."""

    attempt: int
    state: RunState
    run_id: str
    url: str
    reason: str
    ended_at_ms: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How far the CI is with a retrain. Times are of the wall clock, in milliseconds."""

    key: str
    model: str
    backend: str = ""  # that was asked last
    ordered_at_ms: int  # of this attempt
    state: RunState = "requested"
    since_ms: int = 0  # in this state; of "dispatching": since the CI was last asked
    attempt: int = 1  # grows when a run has ended without an outcome
    num_dispatches: int = 0  # how often the CI was asked to begin this attempt
    run_id: str = ""  # of the CI; empty: it did not say, or was not asked
    url: str = ""  # where the CI shows the run
    owner: str = ""  # the job that claimed the key
    owner_url: str = ""  # where it says that it runs
    beat_ms: int = 0  # last sign of the owner
    seen_ms: int = 0  # last sign of anybody: of the owner, or the CI showing the run
    missed_ms: int = 0  # when the CI last said that it has no such run
    verdict: CiVerdict = ""  # of the CI on a run that has ended; its outcome may be on its way still
    ended_ms: int = 0  # when that was seen
    is_settled: bool = False  # the retrain has its outcome
    cancelled_by: str = ""  # who does not want it any more
    not_before_ms: int = 0  # the CI is not asked to begin before
    reason: str = ""  # why it is where it is, in words
    past: tuple[PastAttempt, ...] = ()

    @property
    def has_ended(self) -> bool:
        return self.state in ENDS

    @property
    def num_begun(self) -> int:
        """Attempts that the CI was asked to begin."""
        return self.attempt - (self.state == "requested" and not self.num_dispatches)

    @property
    def is_wanted(self) -> bool:
        """Whether an outcome is still waited for."""
        return not self.is_settled and not self.cancelled_by and not self.has_ended

    @property
    def link(self) -> str:
        """Where people can see it; empty where nothing can be seen."""
        return self.owner_url or self.url
