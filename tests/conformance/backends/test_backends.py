"""Every backend finds, begins, follows and cancels runs alike, whatever its CI calls them, and tells what may have happened
from what surely has not."""

import logging

import pytest
from backend_places import NAMES, Place, attempt_of
from ci_fakes import TOKEN

from clipdrift_monitor.actions.backends.backend import AwayError, RefusedError, UnsureError
from clipdrift_monitor.actions.config import CiSecrets

pytestmark = pytest.mark.parametrize("place", NAMES, indirect=True)
ATTEMPT = attempt_of()


@pytest.fixture
def place(request):
    made = Place(request.param)
    yield made
    made.backend.close()


def test_a_run_is_begun_and_found_again_by_its_key_alone(place):
    before = place.backend.find(ATTEMPT)
    begun = place.backend.dispatch(ATTEMPT)
    found = place.backend.find(ATTEMPT)

    assert before is None
    assert [(run.model, run.key, run.attempt) for run in place.ci.runs] == [("pump", "k1", "1")]
    assert begun == found
    assert found.state == "queued"
    assert str(place.ci.runs[0].number) in found.url or place.name == "kubernetes"


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
def test_a_run_is_followed_to_its_end(place, end):
    run_id = place.backend.dispatch(ATTEMPT).run_id
    (run,) = place.ci.runs
    states = [place.backend.look(ATTEMPT, run_id).state]
    place.ci.work(run)
    states.append(place.backend.look(ATTEMPT, run_id).state)
    if end == "cancelled":
        place.backend.cancel(ATTEMPT, run_id)
    else:
        place.ci.end(run, end)
    last = place.backend.look(ATTEMPT, run_id)

    assert states == ["queued", "running"]
    assert last is None if place.name == "kubernetes" and end == "cancelled" else last.state == end


def test_other_attempts_keys_and_models_are_other_runs(place):
    others = [attempt_of(2), attempt_of(key="k11"), attempt_of(key="k")]
    begun = [place.backend.dispatch(one) for one in (ATTEMPT, *others)]

    assert len({run.run_id for run in begun}) == len(place.ci.runs) == 4
    assert [place.backend.find(one).run_id for one in (ATTEMPT, *others)] == [run.run_id for run in begun]
    assert place.backend.find(attempt_of(3)) is None


def test_a_cancelled_run_stays_so_and_cancelling_what_has_ended_is_nothing(place):
    first, second = (place.backend.dispatch(attempt_of(number)) for number in (1, 2))
    place.ci.end(place.ci.runs[1], "succeeded")
    for _ in range(2):
        place.backend.cancel(attempt_of(1), first.run_id)
        place.backend.cancel(attempt_of(2), second.run_id)

    assert [run.state for run in place.ci.runs] == ["cancelled", "succeeded"]


def test_what_the_ci_has_no_more_is_none(place):
    run_id = place.backend.dispatch(ATTEMPT).run_id
    place.ci.runs[0].is_deleted = True

    assert place.backend.look(ATTEMPT, run_id) is None
    assert place.backend.find(ATTEMPT) is None
    place.backend.cancel(ATTEMPT, run_id)


def test_a_log_is_told_by_its_end(place):
    run_id = place.backend.dispatch(ATTEMPT).run_id
    place.ci.end(place.ci.runs[0], "failed", "".join(f"line {n}\n" for n in range(40)) + "ValueError: no rows\n")

    tail = place.backend.log_tail(ATTEMPT, run_id)

    assert tail == ("" if place.name == "webhook" else "line 38 / line 39 / ValueError: no rows")


# --- what can go wrong ---


@pytest.mark.parametrize(
    ("fault", "num_runs"), [("lost request", 0), ("500 before", 0), ("timeout after", 1), ("500 after", 1)]
)  # fmt: skip
def test_no_answer_to_an_order_is_no_knowledge_and_the_order_is_not_repeated(place, fault, num_runs):
    place.ci.changes.append(fault)
    with pytest.raises(UnsureError):
        place.backend.dispatch(ATTEMPT)

    assert len(place.ci.runs) == num_runs
    assert (place.backend.find(ATTEMPT) is not None) == bool(num_runs)


@pytest.mark.parametrize("fault", ["connect", "429"])
def test_an_order_that_was_not_taken_is_known_not_to_be(place, fault):
    place.ci.changes.append(fault)
    with pytest.raises(AwayError):
        place.backend.dispatch(ATTEMPT)

    assert place.ci.runs == []


@pytest.mark.parametrize(("fault", "seconds"), [("429", 30), ("403", 30), ("reset", 40)])
def test_a_ci_that_asks_for_patience_is_left_in_peace_so_long(place, fault, seconds):
    place.backend.find(ATTEMPT)  # logs in, where that is needed
    place.ci.changes.append(fault)
    with pytest.raises(AwayError) as told:
        place.backend.dispatch(ATTEMPT)
    num_asked = len(place.ci.asked)
    with pytest.raises(AwayError):
        place.backend.find(ATTEMPT)
    place.clock.advance_ms(seconds * 1_000)
    begun = place.backend.dispatch(ATTEMPT)

    assert told.value.retry_at_ms == place.clock.now_ms()
    assert len(place.ci.asked) == num_asked + 1
    assert begun.state == "queued"


@pytest.mark.parametrize("fault", ["connect", "lost request", "500 before", "429", "html"])
def test_a_question_without_an_answer_says_nothing_of_the_run(place, fault):
    run_id = place.backend.dispatch(ATTEMPT).run_id
    place.ci.reads.append(fault)
    with pytest.raises(AwayError):
        place.backend.look(ATTEMPT, run_id)


def test_an_order_that_was_taken_with_an_answer_nobody_can_read_is_found(place):
    place.ci.changes.append("html")
    begun = place.backend.dispatch(ATTEMPT)

    assert begun.run_id in ("", place.backend.find(ATTEMPT).run_id)
    assert len(place.ci.runs) == 1


def test_of_two_runs_of_one_attempt_the_one_at_work_is_followed_else_the_first(place):
    place.backend.dispatch(ATTEMPT)
    (first,) = place.ci.runs
    second = place.ci.begin("pump", "k1", "1", **first.extra)
    both_queued = place.backend.find(ATTEMPT)
    place.ci.end(first, "succeeded")
    place.ci.work(second)
    later = place.backend.find(ATTEMPT)

    if place.name in ("kubernetes", "webhook"):  # these begin no second run
        return
    assert (both_queued.run_id, later.run_id) == (str(first.number), str(second.number))


@pytest.mark.parametrize("call", ["find", "dispatch"])
def test_a_wrong_secret_is_refused_in_words_that_do_not_hold_it(place, call, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = "wrong-secret-of-the-ci"
    stranger = Place(place.name, place.clock, place.ci, CiSecrets(token=wrong, trigger_token=wrong))
    with pytest.raises(RefusedError) as told:
        getattr(stranger.backend, call)(ATTEMPT)

    assert "status 401" in str(told.value)
    assert wrong not in str(told.value) + caplog.text
    assert place.ci.runs == []


@pytest.mark.parametrize("fault", ["connect", "500 before", "lost request"])
def test_no_error_shows_the_secret(place, fault, caplog):
    caplog.set_level(logging.DEBUG)
    place.ci.changes.append(fault)
    with pytest.raises((AwayError, UnsureError)) as told:
        place.backend.dispatch(ATTEMPT)

    shown = f"{told.value} {told.value.__cause__!r} {caplog.text}"
    assert TOKEN not in shown
