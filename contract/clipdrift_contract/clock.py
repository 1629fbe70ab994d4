"""Time as a value that is handed in, so that a module which decides never reads a clock."""

import time
from datetime import UTC, datetime
from typing import Protocol

MS_PER_SECOND = 1_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000
LATEST_MS = 4_102_444_800_000
"""The year 2100: a later time in an event is a mistake in units."""


def format_moment(time_ms: int) -> str:
    """Date and minute in UTC.

    Example:
        >>> format_moment(1362096000000)
        '2013-03-01 00:00'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


class Clock(Protocol):
    """Two readings: wall time for events, monotonic time for durations. Both are cheap and never block."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Seconds from an arbitrary origin, never going back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_seconds(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that a test or a replay moves by hand.

    Example:
        >>> clock = ManualClock(now_ms=1_000)
        >>> clock.advance_ms(500)
        >>> clock.now_ms(), clock.monotonic_seconds()
        (1500, 0.5)
    """

    def __init__(self, now_ms: int = 0) -> None:
        self._start_ms = self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_seconds(self) -> float:
        return (self._now_ms - self._start_ms) / MS_PER_SECOND

    def advance_ms(self, by_ms: int) -> None:
        """Move on by `by_ms` milliseconds; raises ValueError when negative."""
        if by_ms < 0:
            raise ValueError(f"a clock never goes back: by_ms must be >= 0, got {by_ms!r}")
        self._now_ms += by_ms
