import pytest

from clipdrift_monitor.risk.healthy import JudgedDay, healthy_days


def judged(*words):
    """Days by a word each: "." nothing, "+" evidence of the repairable test, "-" of another, "!" an alarm of the repairable."""
    levels = {".": {}, "+": {"repairable": 0.3}, "-": {"sudden_break": 0.4}, "!": {"repairable": 1.0}}
    return [JudgedDay(i, ("repairable",) if one == "!" else (), levels[one]) for i, one in enumerate("".join(words))]


@pytest.mark.parametrize(
    ("days", "excused", "healthy"),
    [
        ("", (), 0),
        ("....", (), 4),
        ("..+.+", (), 5),  # evidence without an alarm is chance
        ("...!..", (), 3),  # what follows an alarm that nobody judged is not known to be healthy
        ("..+++!..", (), 2),  # the alarm's evidence gathered on days that were harmed by then
        ("..-+!", (), 3),  # another test's evidence takes no days away
        ("+++!", (), 0),
        ("..+!...", (3,), 7),  # called false: all healthy, the alarm's own day too
        ("..!..+!.", (2,), 5),  # the first was false, the second may be true
    ],
)
def test_days_are_healthy_up_to_where_the_first_alarm_that_may_be_true_began(days, excused, healthy):
    assert healthy_days(judged(days), excused) == list(range(healthy))
