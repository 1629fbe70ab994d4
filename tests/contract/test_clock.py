"""Clocks: the system's tells the time, a manual one does as it is told and never goes back."""

import time

import pytest

from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR, ManualClock, SystemClock


def test_the_system_clock_lies_between_two_readings_of_the_machine():
    before = time.time()
    now_ms = SystemClock().now_ms()
    assert int(before * 1000) <= now_ms <= time.time() * 1000


def test_the_system_clock_is_monotonic():
    clock = SystemClock()
    readings = [clock.monotonic_seconds() for _ in range(100)]
    assert readings == sorted(readings)


def test_a_manual_clock_moves_both_readings_alike():
    clock = ManualClock(now_ms=MS_PER_DAY)
    clock.advance_ms(MS_PER_HOUR)
    assert clock.now_ms() == 25 * MS_PER_HOUR
    assert clock.monotonic_seconds() == 3600.0


def test_a_clock_never_goes_back():
    with pytest.raises(ValueError, match="never goes back"):
        ManualClock().advance_ms(-1)
