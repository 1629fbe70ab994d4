"""What append returned for reaches the bus, in order, whatever happens in between."""

import os
import shutil
import threading

import pytest

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.columns import Column
from clipdrift_contract.envelope import decode
from clipdrift_contract.errors import ConfigError, RetryableError
from clipdrift_contract.events import PredictionBatch
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.recording import spool as module
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
    import numpy as np

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
