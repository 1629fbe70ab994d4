"""Finding a run, in a file and on the bus."""

import pytest
from made_runs import FAULT, rich_end, window

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.clip_report.gathering import from_bus, from_file, pick
from clipdrift_trainer.recording.sinks.lines import LinesSink

OLD = [window(0, run_id="old"), rich_end(run_id="old", version="20130201-aaa")]
NEW = [window(0, run_id="new"), window(50, run_id="new"), rich_end(run_id="new", version="20130301-bbb")]


def test_the_newest_run_that_has_ended_is_taken() -> None:
    running = window(0, run_id="running")
    record = pick([*OLD, *NEW, running], "", "here")
    assert (record.run_id, [one.step_first for one in record.windows], record.end) == ("new", [0, 50], NEW[-1])


def test_a_run_that_goes_on_is_taken_where_none_has_ended() -> None:
    assert pick([window(0, run_id="running")], "", "here").end is None


@pytest.mark.parametrize("name", ["old", "20130201-aaa", "20130201", "ol"])
def test_a_run_is_found_by_version_or_id_or_how_they_begin(name) -> None:
    assert pick([*OLD, *NEW], name, "here").run_id == "old"


def test_a_name_that_fits_two_runs_or_none_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="2 runs fit '2013' in here; there are: 20130201-aaa, 20130301-bbb"):
        pick([*OLD, *NEW], "2013", "here")
    with pytest.raises(ConfigError, match="no run has the version or run id 'x'"):
        pick(OLD, "x", "here")


def test_windows_that_came_twice_out_of_order_or_from_another_rank_count_once() -> None:
    events = [window(50), window(0), window(50), window(0, rank=1), window(100, rank=2)]
    assert [one.step_first for one in pick(events, "", "here").windows] == [0, 50]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_a_window_that_was_cut_short_and_the_whole_one_of_the_run_that_went_on_the_whole_one_counts(order) -> None:
    both = [window(50, num_steps=38), window(50)]
    windows = pick([window(0), *(both[i] for i in order), window(100)], "", "here").windows
    assert [(one.step_first, one.num_steps) for one in windows] == [(0, 50), (50, 50), (100, 50)]


def test_a_window_of_faults_alone_hides_no_step_that_follows_it() -> None:
    windows = pick([window(0), window(50, num_steps=0, faults=(FAULT,)), window(50)], "", "here").windows
    assert [(one.step_first, one.num_steps, len(one.faults)) for one in windows] == [(0, 50, 0), (50, 0, 1), (50, 50, 0)]


def test_a_file_that_was_cut_off_or_spoilt_gives_what_is_whole(tmp_path) -> None:
    path = tmp_path / "run.jsonl"
    sink = LinesSink(path, clock=ManualClock())
    sink.send(NEW)
    sink.close()
    path.write_bytes(b"spoilt\n" + path.read_bytes()[:-20])
    record = from_file(path)
    assert (len(record.windows), record.end, record.num_unreadable) == (2, None, 1)


@pytest.mark.parametrize("content", [b"", b"no json\n", b'{"id": 3'])
def test_a_file_without_a_run_is_refused(tmp_path, content) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="there is no run in"):
        from_file(path)


def test_a_file_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        from_file(tmp_path / "run.jsonl")


def test_the_bus_gives_the_runs_of_one_model(tmp_path) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    publisher = EventPublisher(bus.publisher(), source="trainer", clock=ManualClock())
    for event in (*NEW, window(0, run_id="other", model="other")):
        publisher.publish(event)
    publisher.close()
    record = from_bus(bus, "pump")
    with pytest.raises(ConfigError, match="there is no run in the bus, for nobody"):
        from_bus(bus, "nobody")
    bus.close()
    assert (record.run_id, len(record.windows), record.end.version) == ("new", 2, "20130301-bbb")
