"""What every sink promises, whichever place it writes to."""

import pytest
from sink_places import PLACES, run_end, window

from clipdrift_contract.errors import RetryableError


# MLflow takes eight seconds to import and to make its tables
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow if name == "mlflow" else ()) for name in PLACES])
def place(request, tmp_path):
    made = PLACES[request.param](tmp_path)
    made.name = request.param
    yield made
    made.end()


def send(place, sink, *events):
    place.prepare(events)
    sink.send(events)


def test_its_name_is_that_of_its_label(place):
    assert place.open().name == place.name


def test_what_is_sent_arrives_in_order(place):
    sink = place.open()
    send(place, sink, window(0), window(50))
    send(place, sink, window(100))
    assert place.last_steps() == [50, 100, 150]
    sink.close()


def test_an_event_that_comes_again_counts_once(place):
    sink = place.open()
    send(place, sink, window(0), window(50))
    sink.send([window(50)])
    assert place.last_steps() == [50, 100]
    sink.close()


def test_a_life_that_begins_where_another_was_killed_counts_nothing_twice(place):
    killed, next_life = place.open(), place.open()
    send(place, killed, window(0), window(50))
    if place.name == "jsonl":  # a dead process holds no lock
        killed.close()
    next_life.send([window(50)])
    send(place, next_life, window(100))
    assert place.last_steps() == [50, 100, 150]
    next_life.close()


def test_a_window_that_was_cut_short_does_not_stand_in_the_way_of_the_whole_one(place):
    if place.name == "pushgateway":
        pytest.skip("each life has counts of its own")
    sink = place.open()
    send(place, sink, window(0), window(50, num_steps=38))
    send(place, sink, window(50), window(100))
    assert place.last_steps() == [50, 88, 100, 150]
    sink.close()


def test_where_it_is_is_the_same_for_the_same_place(place):
    assert place.open().target == place.open().target


def test_the_end_of_a_run_is_taken_too(place):
    sink = place.open()
    send(place, sink, window(0), run_end())
    assert place.last_steps() == [50]
    sink.close()


def test_a_place_that_is_away_is_tried_again_and_nothing_is_missing(place):
    sink = place.open()
    send(place, sink, window(0))
    place.go_away()
    place.prepare([window(50)])
    for _ in range(2):
        with pytest.raises(RetryableError):
            sink.send([window(50)])
    place.come_back()
    sink.send([window(50)])
    assert place.last_steps() == [50, 100]
    sink.close()


def test_it_can_be_made_while_its_place_is_away(place):
    place.go_away()
    sink = place.open()
    with pytest.raises(RetryableError):
        send(place, sink, window(0))
    place.come_back()
    sink.send([window(0)])
    assert place.last_steps() == [50]
    sink.close()


def test_closing_twice_is_closing_once(place):
    sink = place.open()
    send(place, sink, window(0))
    sink.close()
    sink.close()


def test_closing_what_never_sent_does_nothing(place):
    place.open().close()
