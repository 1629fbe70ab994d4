"""What a place for telemetry has to be, and what identifies an event there."""

from collections.abc import Sequence
from typing import Protocol

from clipdrift_contract.events import GradWindow, RunEnd

Telemetry = GradWindow | RunEnd


class Sink(Protocol):
    """A place that windows go to. One conformance suite holds every sink to this (tests/conformance/sinks).

    One thread of its own calls it, never the thread that trains; so it may block, and should give up by a time-out of its own.
    """

    name: str
    """Short and stable: a label of metrics and part of a file's name."""
    target: str
    """Which place of its kind, the same at each start: what waits for one file or server never goes to another. Without
    passwords; empty where the name says it all."""
    needs_every_window: bool
    """False: only the newest state counts (a push of gauges), so nothing is kept for it."""

    def send(self, events: Sequence[Telemetry]) -> None:
        """Deliver `events`, in order; when it returns, they are where they should be.

        The same event (by `event_id`) may come again: after an error here, and after a crash. It must count once.

        Raises:
            RetryableError: The place is away; all of `events` come again, later.
            Exception: Anything else says that they can never be delivered. They then come one by one, and the one that raises
                again is dropped and counted.
        """
        ...

    def close(self) -> None:
        """Let go of the place at the end of the run, after the last `send`; idempotent. What it raises is logged."""
        ...


def event_id(event: Telemetry) -> str:
    """The same for the same event, however often it is made or sent: it comes from run and steps.

    A window that an exception cut short and the whole one of the run that went on have the same first step and are two events:
    who reads both takes the longer, which holds the steps of the other.

    Example:
        >>> event_id(GradWindow(run_id="r", model="m", started_at_ms=0, ended_at_ms=0, step_first=50, num_steps=50,
        ...                     num_clipped=0))
        'window-r-0-50-50'
    """
    if isinstance(event, RunEnd):
        return f"run-end-{event.run_id}"
    return f"window-{event.run_id}-{event.rank}-{event.step_first}-{event.num_steps}"
