"""What jobs tell the monitor, and what it answers."""

import msgspec

from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_monitor.actions.run import RunState

MAX_OUTCOME_BYTES = 16 << 20  # a reference profile of some thousand features
MAX_RUN_CHARACTERS = 200
MAX_URL_CHARACTERS = 2_000


class JobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every job tells: which run it is, by a name that no other run has and that it keeps while it lives."""

    run: str


class JobClaim(JobBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run asks for the key of a retrain."""

    run: str
    url: str = ""
    """Where people can see the run."""
    attempt: int = 1
    """Which it was begun for; kept in the record."""


class JobBeat(JobBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run that has the key lives."""

    run: str


class JobOutcome(JobBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run found, with the training run that made its candidate."""

    run: str
    outcome: RetrainOutcome
    run_end: RunEnd | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The key is this run's, for as long as it says so often that it lives."""

    request: RetrainRequest
    attempt: int
    beat_seconds: int


class Beating(msgspec.Struct, frozen=True, kw_only=True):
    """The key is this run's still; the next beat is due in so many seconds."""

    beat_seconds: int


class OutcomeTaken(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the outcome decides; if not, it came too late, and its version is kept all the same."""

    is_taken: bool
    words: str


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody waits for the retrain any more; its run is being ended from `state` on."""

    key: str
    state: RunState


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """What a CI sends of itself; see its own documentation."""


class Woken(msgspec.Struct, frozen=True, kw_only=True):
    """So many runs are being looked at."""

    num_woken: int
