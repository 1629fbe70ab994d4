"""Moments as people write them, and as the events hold them."""

from datetime import UTC, datetime, timedelta

from clipdrift_contract.errors import ConfigError


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


def format_moment(time_ms: int) -> str:
    """Date and minute in UTC.

    Example:
        >>> format_moment(1362096000000)
        '2013-03-01 00:00'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


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
