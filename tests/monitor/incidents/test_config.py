"""Settings of incidents."""

import pytest

from clipdrift_monitor.incidents.config import IncidentConfig, link


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quiet_windows": 0}, "quiet_windows must be >= 1"),
        ({"reopen_days": -1.0}, "reopen_days must be in 0..3650"),
        ({"same_cause_days": float("nan")}, "same_cause_days must be in 0..3650"),
        ({"max_hold_days": float("inf")}, "max_hold_days must be in 0..3650"),
        ({"dashboard_url": "https://grafana.example/{modle}"}, "may hold {model}, {root}, {incident}"),
        ({"runbook_url": "https://wiki.example/{model.__class__}"}, "may hold {model}"),
        ({"runbook_url": "https://wiki.example/{model!r}"}, "may hold {model}"),
        ({"runbook_url": "https://wiki.example/{"}, "a brace too few"),
        ({"runbook_url": "javascript:alert(1)"}, "must begin with https:// or http://"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        IncidentConfig(**settings)


def test_names_are_written_as_addresses_need_them():
    assert (
        link("https://g.example/?m={model}", model="a b&c/d", root="data", incident="i") == "https://g.example/?m=a%20b%26c%2Fd"
    )
