"""Moments as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_contract.clock import format_moment
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.moments import parse_moment

ZONES = st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours)))
FIRST, LAST = datetime.fromisoformat("1971-01-01"), datetime.fromisoformat("2100-01-01")
MOMENTS = st.datetimes(FIRST, LAST, timezones=ZONES)


@given(MOMENTS)
def test_a_zone_is_heeded_to_the_millisecond(moment: datetime) -> None:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)

    assert abs(parse_moment(moment.isoformat()) - since / timedelta(milliseconds=1)) <= 0.5


def test_without_a_zone_it_is_utc_and_without_a_time_it_is_midnight() -> None:
    assert parse_moment("2013-03-01") == parse_moment("2013-03-01T00:00") == parse_moment("2013-03-01T00:00:00Z")


@given(st.datetimes(FIRST, LAST).map(lambda moment: moment.replace(second=0, microsecond=0)))
def test_what_is_formatted_parses_to_the_same_minute(moment: datetime) -> None:
    time_ms = parse_moment(moment.isoformat())

    assert parse_moment(format_moment(time_ms)) == time_ms


@pytest.mark.parametrize("text", ["", "yesterday", "2013-13-01", "03/01/2013", "1362096000000000000"])
def test_anything_else_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError, match="written like 2013-03-01"):
        parse_moment(text)
