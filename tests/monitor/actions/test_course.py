"""What follows from what was seen of a run, and from what was not."""

import msgspec
import pytest

from clipdrift_monitor.actions import course
from clipdrift_monitor.actions.backends.backend import CiRun
from clipdrift_monitor.actions.course import Limits, NoAnswer, NotBegun, NotSeen, Seen
from clipdrift_monitor.actions.run import Run

NOW_MS = 1_800_000_000_000
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
LIMITS = Limits(
    visible_ms=90 * SECOND, unseen_ms=15 * MINUTE, outcome_ms=5 * MINUTE, run_ms=24 * HOUR, dispatch_ms=24 * HOUR,
    poll_ms=10 * SECOND, max_poll_ms=60 * SECOND, max_attempts=2,
)  # fmt: skip


def run_of(state="requested", **changed):
    return Run(**{"key": "k1", "model": "pump", "ordered_at_ms": NOW_MS, "since_ms": NOW_MS, "state": state, **changed})


def seen(state, run_id="7", log_tail=""):
    return Seen(run=CiRun(run_id=run_id, url=f"https://ci/{run_id}", state=state), log_tail=log_tail)


def errand(run, minutes=0.0):
    return course.errand_of(run, NOW_MS + round(minutes * MINUTE), LIMITS)


def after(run, what, minutes=0.0):
    return course.after(run, what, NOW_MS + round(minutes * MINUTE), LIMITS)


def lapse(run, minutes, watching=0.0, may_outcome_wait=False):
    now_ms, since_ms = NOW_MS + round(minutes * MINUTE), NOW_MS + round(watching * MINUTE)
    return course.lapse(run, now_ms, since_ms, LIMITS, may_outcome_wait=may_outcome_wait)


def test_a_run_goes_from_requested_to_succeeded():
    run = run_of()
    asked = course.begin(run, NOW_MS)
    taken = after(asked, seen("queued"))
    at_work = course.claimed(taken, "job-7", "https://ci/7", NOW_MS)
    ended = after(msgspec.structs.replace(at_work, is_settled=True), seen("succeeded"))

    assert [one.state for one in (run, asked, taken, at_work)] == ["requested", "dispatching", "dispatched", "running"]
    assert lapse(ended, 0).state == "succeeded"


def test_a_dispatch_without_an_answer_is_looked_for_only_once_the_ci_must_show_it():
    silent = after(course.begin(run_of(), NOW_MS), NoAnswer(reason="time-out", was_dispatched=True))

    assert errand(silent, 1.4) is None
    assert errand(silent, 1.6) == "start"  # which looks for it first


def test_each_silence_doubles_the_wait_before_the_next_dispatch():
    waits, run, now_ms = [], run_of(), NOW_MS
    for _ in range(3):
        run = course.after(course.begin(run, now_ms), NoAnswer(reason="", was_dispatched=True), now_ms, LIMITS)
        waits.append((run.not_before_ms - now_ms) // SECOND)
        now_ms = run.not_before_ms

    assert waits == [90, 180, 360]


def test_what_surely_was_not_begun_is_asked_for_again_when_the_ci_wants_it():
    busy = after(course.begin(run_of(), NOW_MS), NotBegun(reason="slow down", retry_at_ms=NOW_MS + 10 * MINUTE))

    assert (busy.state, busy.reason) == ("requested", "slow down")
    assert (errand(busy, 9.9), errand(busy, 10)) == (None, "start")


def test_a_refusal_is_not_hurried():
    refused = after(course.begin(run_of(), NOW_MS), NotBegun(reason="bad token", is_refused=True))

    assert (errand(refused, 4.9), errand(refused, 5.1)) == (None, "start")


def test_a_retrain_that_no_ci_takes_in_a_day_has_failed():
    refused = after(course.begin(run_of(), NOW_MS), NotBegun(reason="bad token", is_refused=True))
    given_up = lapse(refused, 24 * 60 + 1)

    assert given_up.state == "failed"
    assert given_up.reason == "the CI did not take it within 24 h: bad token"


def test_silence_after_somebody_has_claimed_says_nothing():
    at_work = course.claimed(course.begin(run_of(), NOW_MS), "job-7", "", NOW_MS)

    assert after(at_work, NoAnswer(reason="time-out", was_dispatched=True)) == at_work
    assert after(at_work, NotBegun(reason="refused", is_refused=True)) == at_work


def test_a_run_that_nobody_sees_is_lost_and_tried_again():
    gone = after(run_of("dispatched", run_id="7", url="https://ci/7", seen_ms=NOW_MS), NotSeen(), 16)
    again = lapse(gone, 16)

    assert (again.state, again.attempt, again.run_id) == ("requested", 2, "")
    assert [(one.state, one.url, one.reason) for one in again.past] == [
        ("lost", "https://ci/7", "nobody has seen it for 16 minutes")
    ]


def test_a_ci_that_does_not_answer_has_not_lost_a_run():
    silent = after(run_of("running", run_id="7", seen_ms=NOW_MS), NoAnswer(reason="status 500"), 30)

    assert lapse(silent, 30).state == "running"
    assert lapse(silent, 25 * 60).state == "requested"  # for a day: then it has


def test_a_run_whose_job_beats_is_not_lost():
    run = run_of("running", run_id="7", owner="job-7", beat_ms=NOW_MS + 14 * MINUTE, seen_ms=NOW_MS + 14 * MINUTE)

    assert lapse(after(run, NotSeen(), 16), 16).state == "running"


def test_what_a_monitor_could_not_see_is_no_evidence():
    gone = after(run_of("running", run_id="7", seen_ms=NOW_MS), NotSeen(), 61)

    assert lapse(gone, 61, watching=60).state == "running"
    assert lapse(after(gone, NotSeen(), 76), 76, watching=60).state == "requested"


def test_a_run_that_ended_without_an_outcome_is_given_its_minutes_and_tried_again():
    ended = after(run_of("running", run_id="7"), seen("failed", log_tail="out of memory"))

    assert lapse(ended, 4).state == "running"
    assert lapse(ended, 6, may_outcome_wait=True).state == "running"
    assert [one.reason for one in lapse(ended, 6).past] == ["out of memory"]


def test_the_last_attempt_that_fails_is_the_end():
    ended = after(run_of("running", run_id="9", attempt=2), seen("failed", log_tail="out of memory"))
    given_up = lapse(ended, 6)

    assert (given_up.state, given_up.reason) == ("failed", "out of memory")


def test_a_duplicate_that_ended_says_nothing_of_the_job_that_has_the_key():
    run = course.claimed(run_of("dispatched", run_id="8", url="https://ci/8"), "job-7", "https://ci/7", NOW_MS)
    ended = after(run, seen("succeeded", "8"))

    assert lapse(ended, 10).state == "running"
    assert lapse(ended, 16).attempt == 2  # it did not beat for a quarter of an hour


def test_a_run_that_takes_too_long_is_cancelled_and_tried_again():
    run = run_of("running", run_id="7", seen_ms=NOW_MS + 24 * HOUR)
    cancelled = after(run, seen("cancelled"), 24 * 60 + 1)

    assert (errand(run, 24 * 60 - 1), errand(run, 24 * 60 + 1)) == ("look", "cancel")
    assert lapse(cancelled, 24 * 60 + 1).past[0].reason == "it ran longer than 24 h"


def test_a_run_that_has_told_its_outcome_and_hangs_is_ended_too():
    hanging = run_of("running", run_id="7", is_settled=True, seen_ms=NOW_MS + 24 * HOUR)

    assert errand(hanging, 24 * 60 + 1) == "cancel"
    assert lapse(after(hanging, seen("cancelled"), 24 * 60 + 1), 24 * 60 + 1).state == "succeeded"


def test_a_run_that_the_ci_shows_for_ever_and_does_not_end_is_given_up():
    run = after(run_of("running", run_id="7"), seen("running"), 24 * 60 + 16)

    assert lapse(run, 24 * 60 + 16, watching=24 * 60 + 5) == run  # it is to be asked first, by who watches now
    assert lapse(run, 24 * 60 + 16).past[0].reason == "it ran longer than 24 h, and the CI did not end it"


def test_a_run_cancelled_in_the_ci_is_not_begun_again():
    ended = lapse(after(run_of("running", run_id="7"), seen("cancelled")), 0)

    assert (ended.state, ended.attempt, ended.reason) == ("cancelled", 1, "it was cancelled in the CI")


@pytest.mark.parametrize("state", ["requested", "dispatching", "dispatched", "running"])
def test_a_retrain_that_a_person_cancelled_begins_nothing_more(state):
    run = run_of(state, cancelled_by="ann: the sensor is broken", run_id="7" if state in ("dispatched", "running") else "")

    assert errand(run, 60) == {"requested": None, "dispatching": "look", "dispatched": "cancel", "running": "cancel"}[state]


def test_a_cancelled_retrain_ends_as_such_however_its_run_ends():
    run = run_of("running", run_id="7", cancelled_by="ann: the sensor is broken")
    ends = [lapse(after(run, seen(state)), 0) for state in ("succeeded", "failed", "cancelled")]

    assert {one.state for one in ends} == {"cancelled"}
    assert after(run, NotSeen()).reason == "cancelled by ann: the sensor is broken"


def test_signs_of_life_are_saved_once_in_a_while():
    run = run_of("running", run_id="7", url="https://ci/7", seen_ms=NOW_MS)

    assert not course.is_news(run, after(run, seen("running"), 1), LIMITS)
    assert course.is_news(run, after(run, seen("running"), 2), LIMITS)
    assert course.is_news(run, after(run, seen("failed")), LIMITS)
