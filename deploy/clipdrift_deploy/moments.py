"""Moments as people write them, and as the events hold them."""

import re
from datetime import UTC, datetime, timedelta

from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR, format_moment
from clipdrift_contract.errors import ConfigError

_MS_PER = {"m": MS_PER_HOUR // 60, "h": MS_PER_HOUR, "d": MS_PER_DAY}


def parse_moment(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 date or time; without a zone it is UTC.

    Raises:
        ConfigError: `text` is no ISO 8601 moment.

    Example:
        >>> parse_moment("2013-03-01"), parse_moment("2013-03-01T00:00:01+01:00")
        (1362096000000, 1362092401000)
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"a moment is written like 2013-03-01 or 2013-03-01T12:30:00Z, got {text!r}") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def parse_duration(text: str) -> int:
    """Milliseconds of a length of time in minutes, hours or days.

    Raises:
        ConfigError: `text` is none, or no more than 0.

    Example:
        >>> parse_duration("45m"), parse_duration("8h"), parse_duration("1.5d")
        (2700000, 28800000, 129600000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    length_ms = round(float(found[1]) * _MS_PER[found[2]]) if found else 0
    if length_ms <= 0:
        raise ConfigError(f"a length of time is written like 45m, 8h or 2d, got {text!r}")
    return length_ms


def require_span(start_ms: int, end_ms: int) -> None:
    """Data begin before they end.

    Raises:
        ConfigError: They do not.
    """
    if start_ms >= end_ms:
        raise ConfigError(f"data must begin before they end, got {format_moment(start_ms)} to {format_moment(end_ms)}")


def exact_moment(time_ms: int) -> str:
    """Date, and time where it is not midnight, in UTC to the millisecond: `parse_moment` gives the same moment again.

    Example:
        >>> exact_moment(1362096000000), exact_moment(1362096000001), parse_moment(exact_moment(1362096000001))
        ('2013-03-01', '2013-03-01T00:00:00.001', 1362096000001)
    """
    moment = datetime(1970, 1, 1) + timedelta(milliseconds=time_ms)  # noqa: DTZ001  written without the zone, as it is read
    return moment.isoformat(timespec="milliseconds").removesuffix("T00:00:00.000")
