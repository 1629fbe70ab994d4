"""What every CI is asked, and how each answers when it cannot."""

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_contract.events import RetrainRequest

CiState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
MAX_TAIL_CHARACTERS = 500
_RANKS = ("running", "queued", "succeeded", "cancelled", "failed")
_NUM_LINES = 3


class AwayError(RetryableError):
    """The CI was not reached, or asks for patience: nothing was done.

    Args:
        words: What happened; holds no secret.
        retry_at_ms: Wall time before which it is not to be asked again; 0: it did not say.
    """

    def __init__(self, words: str, retry_at_ms: int = 0) -> None:
        super().__init__(words)
        self.retry_at_ms = retry_at_ms


class UnsureError(RetryableError):
    """No answer, or none that says whether it was done: a time-out, a connection that was cut, a status of 500 or more."""


class RefusedError(ClipdriftError):
    """Nothing was done, and nothing will be before a person changes something: the token, the settings, the workflow's file.

    Args:
        words: What was refused, and how; holds no secret.
        status: Of the HTTP answer; 0: there was none.
    """

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at a retrain. Model, key and number name it in every CI, so that it can be found again."""

    request: RetrainRequest
    number: int
    ordered_at_ms: int  # wall time

    @property
    def title(self) -> str:
        """What the CI shows its run as, where names are free text."""
        return f"retrain {self.request.model} {self.request.key} {self.number}"

    @property
    def inputs(self) -> dict[str, str]:
        """What every job is told; all else comes with its claim."""
        return {"model": self.request.model, "key": self.request.key, "attempt": str(self.number)}


class CiRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the CI shows it."""

    run_id: str  # empty: it was accepted, and the CI did not say as what
    url: str
    state: CiState


class Backend(Protocol):
    """Called by the dispatcher's thread alone, and may wait for the network as long as its time-outs allow. Every call may
    raise `AwayError` and `RefusedError`; none repeats by itself what it asks.

    A run that was dispatched is found by `find` within `[monitor.ci] visible_within_seconds`.
    """

    def find(self, attempt: Attempt) -> CiRun | None:
        """The run of this attempt, whoever began it; None where the CI has none, or cannot be asked for one.

        Of several, one that is at work comes first, then the one that was begun first.
        """
        ...

    def dispatch(self, attempt: Attempt) -> CiRun:
        """Have a run begun. Asked once, even where it fails.

        Raises:
            UnsureError: It may have been begun.
        """
        ...

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        """The run as it is now; None where the CI has it no more."""
        ...

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        """Have a run ended; nothing where it has ended already.

        Raises:
            UnsureError: It may have been told.
        """
        ...

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        """How the run's log ends, in at most some 500 characters; empty where the CI does not give it."""
        ...

    def close(self) -> None:
        """Let go of connections. Runs go on."""
        ...


def first_of(runs: Iterable[CiRun]) -> CiRun | None:
    """Of an attempt's runs, told in the order in which they were begun, the one to follow; None of none.

    Example:
        >>> runs = [CiRun(run_id="7", url="", state="failed"), CiRun(run_id="9", url="", state="queued")]
        >>> first_of(runs).run_id
        '9'
    """
    return min(runs, key=lambda run: _RANKS.index(run.state), default=None)


def tail_of(log: str) -> str:
    """The last lines of a log as one short line.

    Example:
        >>> tail_of("one\\ntwo\\n\\nthree\\nfour\\n")
        'two / three / four'
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return " / ".join(lines[-_NUM_LINES:])[-MAX_TAIL_CHARACTERS:]
