"""What append returned for reaches the bus, in order, whatever happens in between."""

import contextlib
import itertools
import multiprocessing
import os
import resource
import shutil
import threading

import numpy as np
import pytest

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.columns import Column
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ConfigError, RetryableError
from clipdrift_contract.events import PredictionBatch
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.recording import spool as module
from clipdrift_serving.recording.recorder import Predicted, Recorder
from clipdrift_serving.recording.spool import Spool, SpoolFullError


class FakePublisher:
    """A bus that can be away: then flush raises."""

    def __init__(self) -> None:
        self.records: list = []
        self._queued: list = []
        self.is_away = False

    def publish(self, topic, key, headers, value, *, timestamp_ms):
        self._queued.append((headers, value))

    def flush(self, timeout_seconds):
        if self.is_away:
            self._queued.clear()
            raise RetryableError("away")
        self.records += self._queued
        self._queued.clear()


def _batch(number, size=1):
    rows = np.full(size, number)
    column = Column.of(rows)
    return PredictionBatch(
        model="m",
        version="v",
        epoch="e",
        sequence=column,
        event_time_ms=column,
        slice_index=column,
        predicted=column,
        scores=column,
    )


def _spool(folder, publisher, max_bytes=10**9, epoch="aa"):
    return Spool(
        folder, publisher, source="serving", epoch=epoch, clock=ManualClock(), metrics=MetricSet(), max_bytes=max_bytes
    )


def _numbers(publisher):
    return [int(decode(headers, value)[1].sequence.array()[0]) for headers, value in publisher.records]


def test_events_reach_the_bus_in_order_and_the_file_ends_empty(tmp_path):
    publisher = FakePublisher()
    spool = _spool(tmp_path, publisher)
    for number in range(500):
        spool.append(_batch(number))
    spool.drain(10)
    spool.close()
    assert _numbers(publisher) == list(range(500))
    assert (tmp_path / "events.spool").stat().st_size == 0


def test_what_waited_while_the_bus_was_away_is_sent_by_the_next_life_under_the_same_ids(tmp_path):
    away = FakePublisher()
    away.is_away = True
    spool = _spool(tmp_path, away)
    for number in range(10):
        spool.append(_batch(number))
    with pytest.raises(RetryableError):
        spool.drain(0.05)
    spool.close(0.05)
    first, second = FakePublisher(), FakePublisher()
    content = (tmp_path / "events.spool").read_bytes()
    for publisher in (first, second):  # a crash after the first delivery: the file is sent again
        (tmp_path / "events.spool").write_bytes(content)
        spool = _spool(tmp_path, publisher, epoch="bb")
        spool.drain(10)
        spool.close()
    assert _numbers(first) == list(range(10))
    assert [headers for headers, _ in first.records] == [headers for headers, _ in second.records]


@pytest.mark.parametrize("cut", [1, 3, 5, 40])
def test_half_a_record_left_by_a_crash_is_cut_off_and_all_whole_ones_are_sent(tmp_path, cut):
    away = FakePublisher()
    away.is_away = True
    spool = _spool(tmp_path, away)
    for number in range(3):
        spool.append(_batch(number))
    spool.close(0.05)
    content = (tmp_path / "events.spool").read_bytes()
    (tmp_path / "events.spool").write_bytes(content[:-cut])
    publisher = FakePublisher()
    spool = _spool(tmp_path, publisher)
    spool.append(_batch(9))
    spool.drain(10)
    spool.close()
    assert _numbers(publisher) == [0, 1, 9]


def test_beyond_its_budget_nothing_is_taken(tmp_path):
    away = FakePublisher()
    away.is_away = True
    spool = _spool(tmp_path, away, max_bytes=2000)
    for _ in range(3):
        spool.append(_batch(0))
    with pytest.raises(SpoolFullError):
        spool.append(_batch(0, 500))
    spool.close(0.05)
    assert (tmp_path / "events.spool").stat().st_size <= 2000


def test_under_steady_load_the_file_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_COMPACT_BYTES", 20_000)
    publisher = FakePublisher()
    spool = _spool(tmp_path, publisher)
    writers = [threading.Thread(target=lambda: [spool.append(_batch(1, 50)) for _ in range(1000)]) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    spool.drain(20)
    spool.close()
    assert len(publisher.records) == 2000


def test_damage_from_outside_costs_what_waited_and_nothing_that_comes_later(tmp_path, caplog):
    publisher = FakePublisher()
    publisher.is_away = True
    spool = _spool(tmp_path, publisher)
    spool.append(_batch(1))
    os.truncate(tmp_path / "events.spool", 2)
    publisher.is_away = False
    spool.drain(10)
    spool.append(_batch(2))
    spool.drain(10)
    spool.close()
    assert _numbers(publisher)[-1] == 2
    assert "damaged from outside" in caplog.text


def test_a_fault_of_the_bus_that_nobody_foresaw_ends_no_forwarding(tmp_path, caplog):
    publisher, flush = FakePublisher(), FakePublisher.flush
    failures = [OSError("odd"), ValueError("odd")]

    def failing(timeout_seconds):
        if failures:
            publisher._queued.clear()
            raise failures.pop()
        flush(publisher, timeout_seconds)

    publisher.flush = failing
    spool = _spool(tmp_path, publisher)
    spool.append(_batch(1))
    spool.drain(10)
    spool.close()
    assert (_numbers(publisher), failures) == ([1], [])
    assert "odd" in caplog.text


def test_what_is_appended_after_the_folder_was_deleted_survives_a_crash(tmp_path):
    publisher = FakePublisher()
    publisher.is_away = True
    spool = _spool(tmp_path / "spool", publisher)
    spool.append(_batch(1))
    shutil.rmtree(tmp_path / "spool")
    spool.append(_batch(2))
    shutil.copytree(tmp_path / "spool", tmp_path / "left")  # what a crash would leave
    spool.close(0.1)
    later = FakePublisher()
    next_life = _spool(tmp_path / "left", later, epoch="bb")
    next_life.drain(10)
    next_life.close()
    assert _numbers(later) == [1, 2]


def test_bytes_that_are_no_record_are_dropped_at_the_start_and_the_log_says_how_many(tmp_path, caplog):
    (tmp_path / "events.spool").write_bytes(b"\xff" * 5000)
    _spool(tmp_path, FakePublisher()).close()
    assert "the last 5000 bytes" in caplog.text


def test_a_spool_folder_that_is_a_file_is_told_as_a_fault_of_the_settings(tmp_path):
    (tmp_path / "spool").write_text("")
    with pytest.raises(ConfigError, match="needs a folder"):
        _spool(tmp_path / "spool", FakePublisher())


@pytest.mark.parametrize("read_bytes", [4, 700, 5_000, 10**6])
def test_records_of_any_size_reach_the_bus_in_order_whatever_one_read_brings(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr(module, "_READ_BYTES", read_bytes)
    publisher = FakePublisher()
    spool = _spool(tmp_path, publisher)
    for number in range(60):
        spool.append(_batch(number, 1 + number * 37 % 101))
    spool.drain(10)
    spool.close()
    assert _numbers(publisher) == list(range(60))


def test_a_file_that_is_deleted_while_it_is_forwarded_loses_nothing(tmp_path):
    publisher, flush = FakePublisher(), FakePublisher.flush
    deletions = [True]

    def deleting(timeout_seconds):
        if deletions:
            deletions.pop()
            (tmp_path / "events.spool").unlink()
            spool.append(_batch(100))  # written anew, shorter than what was read: no place in the old file means anything
        flush(publisher, timeout_seconds)

    publisher.flush = deleting
    publisher.is_away = True
    spool = _spool(tmp_path, publisher)
    for number in range(5):
        spool.append(_batch(number))
    publisher.is_away = False
    spool.drain(10)
    spool.append(_batch(200))
    spool.drain(10)
    spool.close()
    assert set(_numbers(publisher)) == {0, 1, 2, 3, 4, 100, 200}
    ids = [headers["ce_id"] for headers, _ in publisher.records]
    assert len(set(ids)) == 7, "what is sent twice has one id"


def _on_a_small_disk(folder, pipe):
    """Append while the bus is away and files may hold 20,000 bytes; then there is room again and the bus is back."""
    publisher = FakePublisher()
    publisher.is_away = True
    spool, metrics = _spool(folder, publisher), MetricSet()
    recorder = Recorder(spool, "aa" * 8, metrics, 10_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    kept = []
    for number in range(100):
        try:
            spool.append(_batch(number, 40))
        except SpoolFullError:
            continue
        kept.append(number)
    recorder.add(_predicted(1_000_000, 700))
    recorder.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    spool.append(_batch(5000))
    recorder.add(_predicted(2_000_000, 3))
    recorder.flush()
    publisher.is_away = False
    spool.drain(10)
    spool.close()
    dropped = metrics.registry.get_sample_value("clipdrift_serving_unrecorded_total", {"model": "m", "reason": "spool_full"})
    events = [decode(headers, value)[1] for headers, value in publisher.records]
    told = [event.num_unrecorded for event in events if event.sequence.array()[0] == 2_000_000]
    pipe.send((kept, _numbers(publisher), dropped, told))


def _predicted(first, num_rows):
    rows = np.arange(first, first + num_rows)
    return Predicted(
        "m", "v", "champion", 1, rows.astype("u8"), rows, rows.astype("i2") * 0, rows * 0.0, np.zeros((num_rows, 2), "f4"), {}
    )


def test_on_a_full_disk_what_was_taken_arrives_and_what_was_not_is_counted(tmp_path):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_on_a_small_disk, args=(tmp_path, there))  # limits of file sizes hold for a process
    child.start()
    assert here.poll(60)
    kept, arrived, dropped, told = here.recv()
    child.join(60)
    assert 5 < len(kept) < 100
    assert arrived == [*kept, 5000, 2_000_000]
    assert (dropped, told) == (700, [700])


def _append_for_ever(folder, pipe):
    publisher = FakePublisher()
    publisher.is_away = True
    spool = _spool(folder, publisher)
    for number in itertools.count():
        spool.append(_batch(number, 300))
        pipe.send(number)


def test_what_was_taken_before_a_kill_is_sent_by_the_next_life_in_order(tmp_path):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_append_for_ever, args=(tmp_path, there))
    child.start()
    there.close()
    taken = [here.recv() for _ in range(200)]
    child.kill()
    child.join(60)
    with contextlib.suppress(EOFError):
        while True:
            taken.append(here.recv())
    publisher = FakePublisher()
    spool = _spool(tmp_path, publisher, epoch="bb")
    spool.drain(20)
    spool.close()
    arrived = _numbers(publisher)
    assert arrived == list(range(len(arrived)))
    assert len(taken) <= len(arrived) <= len(taken) + 1  # the last may have been written and not yet told


def test_while_the_bus_is_away_the_budget_holds_and_each_row_arrives_or_is_counted(tmp_path):
    publisher = FakePublisher()
    publisher.is_away = True
    metrics = MetricSet()
    spool = _spool(tmp_path, publisher, max_bytes=100_000)
    recorder = Recorder(spool, "aa" * 8, metrics, 2_000)
    for first in range(0, 30_000, 100):
        recorder.add(_predicted(first, 100))
        if first % 1_500 == 0:
            recorder.flush()
        assert (tmp_path / "events.spool").stat().st_size <= 100_000
    recorder.flush()
    publisher.is_away = False
    spool.drain(10)
    recorder.add(_predicted(30_000, 1))
    recorder.flush()
    spool.drain(10)
    spool.close()
    events = [decode(headers, value)[1] for headers, value in publisher.records]
    arrived = np.concatenate([event.sequence.array() for event in events]).tolist()
    counted = metrics.registry.get_sample_value("clipdrift_serving_unrecorded_total", {"model": "m", "reason": "spool_full"})
    assert arrived == sorted(set(arrived))
    assert len(arrived) + counted == 30_001
    assert sum(event.num_unrecorded for event in events) == counted
    assert 0 < counted < 30_000
