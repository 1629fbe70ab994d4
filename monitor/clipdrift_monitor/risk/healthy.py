"""Which days of a version were healthy, as far as is known: those that its false alarms are rehearsed on."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple


class JudgedDay(NamedTuple):
    """What was said of a day."""

    start_ms: int
    alarms: Collection[str]
    levels: Mapping[str, float]
    """Evidence by test: 0 is what chance gives by now, 1 an alarm."""


def healthy_days(days: Sequence[JudgedDay], excused: Collection[int] = ()) -> list[int]:
    """Starts of the healthy days: those before the first alarm that nobody called false, less those on which its evidence
    gathered.

    A day of a false alarm counts as healthy, or else the alarms that are looked for would be left out. An alarm that nobody
    judged may be true, and then the days from its beginning on are no healthy ones.

    Args:
        days: Of one version, in the order of time.
        excused: Starts of days whose alarms people called false.

    Example:
        >>> quiet, rising, alarm = {"repairable": 0.0}, {"repairable": 0.6}, {"repairable": 1.0}
        >>> days = [JudgedDay(0, (), quiet), JudgedDay(1, (), rising), JudgedDay(2, ("repairable",), alarm)]
        >>> healthy_days(days), healthy_days(days, excused={2})
        ([0], [0, 1, 2])
    """
    at = next((i for i, day in enumerate(days) if day.alarms and day.start_ms not in excused), None)
    if at is None:
        return [day.start_ms for day in days]
    first = at
    while first and any(days[first - 1].levels.get(test, 0.0) > 0 for test in days[at].alarms):
        first -= 1
    return [day.start_ms for day in days[:first]]
