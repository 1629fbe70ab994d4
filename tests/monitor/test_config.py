"""Settings are checked when they are made, and a wrong one is named."""

import pytest

from clipdrift_monitor.config import MonitorConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window_ms", 3_599_999),
        ("window_ms", 7 * 3_600_000),
        ("window_ms", 2 * 86_400_000),
        ("label_horizon_ms", -1),
        ("view_windows", 0),
        ("min_label_share", 1.01),
        ("min_label_share", float("nan")),
        ("max_job_attempts", 0),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match=rf"monitor\.{name} must be .*, got {value}"):
        MonitorConfig(**{name: value})


@pytest.mark.parametrize("hours", [1, 2, 3, 4, 6, 8, 12, 24])
def test_a_window_is_an_hour_or_more_and_days_are_whole_numbers_of_it(hours):
    assert MonitorConfig(window_ms=hours * 3_600_000).window_ms == hours * 3_600_000


def test_nothing_about_a_monitor_is_made_by_default_outside_its_machine():
    assert MonitorConfig().host == "127.0.0.1"
    assert MonitorConfig().api_token == ""  # and without one no command is obeyed
