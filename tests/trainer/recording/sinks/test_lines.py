"""The JSON Lines file and its reader."""

import json
import math

import pytest
from sink_fakes import files_end_at, window

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import PoisonError, RetryableError
from clipdrift_trainer.recording.sinks.lines import LinesReader, LinesSink, decode_line, encode_line


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.jsonl"


def write(path, *steps):
    sink = LinesSink(path, clock=ManualClock(now_ms=1_000))
    sink.send([window(step) for step in steps])
    sink.close()


def steps(events):
    return [event.step_first for event in events]


def test_a_line_is_a_cloud_event_that_any_tool_can_read(path):
    write(path, 50)
    line = json.loads(path.read_text())
    assert line["data"]["step_first"] == 50
    assert (line["specversion"], line["type"], line["id"]) == ("1.0", "io.clipdrift.GradWindow", "window-r-0-50-50")
    assert line["time"] == "1970-01-01T00:00:01.000+00:00"


def test_a_line_says_the_event_as_it_was():
    made = window(50, norm_min=0.1, norm_histogram={-80: 1, 7: 49})
    assert decode_line(encode_line(made, 0)) == made


def test_a_last_line_that_was_cut_off_is_healed_and_its_event_may_come_again(path):
    write(path, 0, 50)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    write(path, 50, 100)
    reader = LinesReader(path)
    assert steps(reader.read()) == [0, 50, 100]
    assert reader.num_unreadable == 0


def test_a_file_of_one_cut_off_line_begins_anew(path):
    path.write_bytes(b'{"id": "wind')
    write(path, 0)
    assert steps(LinesReader(path).read()) == [0]


def test_a_reader_leaves_a_line_that_is_being_written_for_later(path):
    write(path, 0, 50)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    reader = LinesReader(path)
    assert steps(reader.read()) == [0]
    path.write_bytes(whole)
    assert steps(reader.read()) == [50]
    assert reader.read() == []


def test_a_reader_skips_and_counts_what_is_no_event(path):
    write(path, 0)
    path.write_bytes(path.read_bytes() + b"no json\n\n[1]\n{}\n\xff\xfe\n" + encode_line(window(50), 0))
    reader = LinesReader(path)
    assert steps(reader.read()) == [0, 50]
    assert reader.num_unreadable == 4


def test_a_reader_begins_again_with_a_file_that_was_begun_anew(path):
    write(path, 0, 50)
    reader = LinesReader(path)
    reader.read()
    path.unlink()
    write(path, 100)
    assert steps(reader.read()) == [100]


def test_a_full_disk_is_an_error_that_may_pass(path):
    sink = LinesSink(path)
    sink.send([window(0)])
    with files_end_at(path.stat().st_size + 100):
        for _ in range(2):
            with pytest.raises(RetryableError, match="cannot be written"):
                sink.send([window(50), window(100)])
    assert steps(LinesReader(path).read()) == [0]
    sink.send([window(50), window(100)])
    sink.close()
    assert steps(LinesReader(path).read()) == [0, 50, 100]


def test_a_file_that_was_deleted_or_moved_away_is_made_anew(path):
    sink = LinesSink(path)
    sink.send([window(0)])
    path.rename(path.with_name("rotated"))
    sink.send([window(50)])
    sink.close()
    assert (steps(LinesReader(path.with_name("rotated")).read()), steps(LinesReader(path).read())) == ([0], [50])


def test_a_second_writer_waits_for_the_first(path):
    first, second = LinesSink(path), LinesSink(path)
    first.send([window(0)])
    with pytest.raises(RetryableError, match="another process writes to"):
        second.send([window(50)])
    first.close()
    second.send([window(50)])
    second.close()
    assert steps(LinesReader(path).read()) == [0, 50]


def test_a_number_that_json_cannot_say_is_refused_and_not_written_wrongly(path):
    sink = LinesSink(path)
    with pytest.raises(ValueError, match="not finite"):
        sink.send([window(0), window(50, norm_max=math.inf)])
    sink.send([window(100)])
    sink.close()
    assert steps(LinesReader(path).read()) == [0, 100]


def test_other_events_are_no_lines_of_a_training(path):
    line = encode_line(window(0), 0).replace(b"io.clipdrift.GradWindow", b"io.clipdrift.Unheard")
    with pytest.raises(PoisonError):
        decode_line(line)


@pytest.mark.parametrize("policy", ["never", "at_the_end", "always"])
def test_each_policy_writes_the_same(path, policy):
    sink = LinesSink(path, fsync=policy)
    sink.send([window(0)])
    assert steps(LinesReader(path).read()) == [0]
    sink.close()
