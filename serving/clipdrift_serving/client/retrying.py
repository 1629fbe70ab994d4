"""When a call is tried again, and after how long: decided here, without a clock or a connection."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random

import msgspec


class RetryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often a call is tried, and how long it waits in between."""

    max_tries: int = 5
    """Tries in all, the first included; 1: never again."""
    first_delay_seconds: float = 0.1
    """Most that the second try waits; doubled for each further one."""
    max_delay_seconds: float = 5.0
    """Most that one try waits, unless the server asks for more by `Retry-After`."""

    def __post_init__(self) -> None:
        if self.max_tries < 1:
            raise ValueError(f"max_tries must be >= 1, got {self.max_tries}")
        if not 0 <= self.first_delay_seconds <= self.max_delay_seconds:
            raise ValueError(
                f"delays must be 0 <= first <= max seconds, got {self.first_delay_seconds} and {self.max_delay_seconds}"
            )


def delay_seconds(config: RetryConfig, num_tries: int, retry_after_seconds: float | None, random: Random) -> float:
    """How long to wait before the next try.

    Drawn evenly between half of the bound and the bound, so that clients that failed together do not come back together. What
    the server asks for comes on top, uncut.

    Args:
        num_tries: Tries that have failed, >= 1.
        retry_after_seconds: What the server asked for; None: nothing.

    Source: exponential backoff with equal jitter.

    Example:
        >>> round(delay_seconds(RetryConfig(), 3, None, Random(7)), 3)
        0.265
    """
    bound = min(config.first_delay_seconds * 2.0 ** (num_tries - 1), config.max_delay_seconds)
    return (retry_after_seconds or 0.0) + bound * (0.5 + 0.5 * random.random())


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """What a `Retry-After` header asks for: seconds, or a date; None where it says nothing that can be read.

    Example:
        >>> now = datetime(2026, 11, 25, 12, tzinfo=UTC)
        >>> [retry_after_seconds(header, now) for header in ("3", "Wed, 25 Nov 2026 12:00:02 GMT", "soon")]
        [3.0, 2.0, None]
    """
    if header is None:
        return None
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return max(0.0, (when - now).total_seconds())
