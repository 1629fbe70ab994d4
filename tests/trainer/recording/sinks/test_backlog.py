import math

from sink_fakes import FakeSink, files_end_at, window

from clipdrift_trainer.recording.sinks import backlog as module
from clipdrift_trainer.recording.sinks.backlog import Backlog, left_behind, spool_path

X = FakeSink(name="x")


def steps(backlog, limit=100):
    return [event.step_first for event in backlog.first(limit)]


def filled(path, num_windows, **settings):
    backlog = Backlog(path, **settings)
    for step in range(num_windows):
        assert backlog.append(window(step))
    return backlog


def test_what_is_forgotten_is_the_front_and_the_rest_keeps_its_order(tmp_path):
    backlog = filled(tmp_path / "a.x.spool", 5)
    assert steps(backlog, 2) == [0, 1]
    backlog.forget(2)
    assert (steps(backlog), len(backlog)) == ([2, 3, 4], 3)


def test_an_empty_backlog_leaves_no_file(tmp_path):
    backlog = filled(tmp_path / "a.x.spool", 3)
    backlog.forget(3)
    assert (tmp_path / "a.x.spool").stat().st_size == 0
    backlog.close()
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_json_could_not_say_survive(tmp_path):
    backlog = filled(tmp_path / "a.x.spool", 0)
    backlog.append(window(7, norm_after_max=math.inf))
    backlog.close()
    (left,) = left_behind(tmp_path, X)
    assert left.first(1)[0].norm_after_max == math.inf


def test_a_record_that_a_crash_cut_off_is_dropped_and_what_follows_is_whole(tmp_path):
    path = tmp_path / "a.x.spool"
    filled(path, 3).close()
    with path.open("ab") as file:
        file.write(path.read_bytes()[:20])
    (left,) = left_behind(tmp_path, X)
    left.append(window(3))
    assert steps(left) == [0, 1, 2, 3]


def test_a_record_that_was_damaged_is_lost_alone(tmp_path):
    path = tmp_path / "a.x.spool"
    backlog = filled(path, 3)
    size = path.stat().st_size // 3
    with path.open("r+b") as file:
        file.seek(size + 8)
        file.write(b"\xff" * 40)
    assert steps(backlog) == [0]
    backlog.forget(1)
    assert steps(backlog) == [2]


def test_a_file_that_is_no_spool_at_all_is_emptied(tmp_path):
    (tmp_path / "a.x.spool").write_bytes(b"hello world, I am no spool at all")
    (left,) = left_behind(tmp_path, X)
    assert len(left) == 0


def test_a_full_disk_sends_windows_to_memory_and_keeps_their_order(tmp_path):
    path = tmp_path / "a.x.spool"
    backlog = filled(path, 2, max_in_memory=2)
    with files_end_at(path.stat().st_size + 100):
        assert [backlog.append(window(step)) for step in (2, 3, 4)] == [True, True, False]
    assert (backlog.num_in_file(), steps(backlog)) == (2, [0, 1, 2, 3])
    backlog.forget(4)
    assert backlog.append(window(5))
    assert (backlog.num_in_file(), steps(backlog)) == (1, [5])


def test_what_waits_on_disk_goes_before_what_waits_in_memory(tmp_path):
    backlog = filled(tmp_path / "a.x.spool", 2, max_bytes=10_000)
    backlog._path = tmp_path / "file" / "a.x.spool"
    (tmp_path / "file").write_text("in the way")
    backlog.append(window(2))
    assert (backlog.num_in_file(), steps(backlog)) == (2, [0, 1, 2])


def test_a_file_of_which_most_is_delivered_is_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_COMPACT_BYTES", 1_000)
    path = tmp_path / "a.x.spool"
    backlog = filled(path, 50)
    size = path.stat().st_size
    backlog.forget(45)
    assert path.stat().st_size == size // 10
    backlog.append(window(50))
    assert steps(backlog) == [45, 46, 47, 48, 49, 50]
    assert left_behind(tmp_path, X) == []  # it is still locked


def test_files_of_other_sinks_are_left_alone(tmp_path):
    filled(tmp_path / "a.bus.spool", 1)
    assert left_behind(tmp_path, FakeSink(name="jsonl")) == []


def test_what_waits_for_one_place_is_not_sent_to_another_of_its_kind(tmp_path):
    one, other = FakeSink(name="x", target="/runs/1"), FakeSink(name="x", target="/runs/2")
    filled(spool_path(tmp_path, "life", one), 1).close()
    assert (left_behind(tmp_path, other), left_behind(tmp_path, X)) == ([], [])
    (left,) = left_behind(tmp_path, one)
    assert steps(left) == [0]


def test_a_disk_that_does_not_empty_the_file_costs_no_window_and_no_error(tmp_path, monkeypatch):
    backlog = filled(tmp_path / "a.x.spool", 2)

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "ftruncate", fail)
    backlog.forget(2)
    monkeypatch.undo()
    assert backlog.append(window(2))
    assert (len(backlog), steps(backlog)) == (1, [2])
    backlog.forget(1)
    assert (tmp_path / "a.x.spool").stat().st_size == 0
