"""Labels over the bus are scored once they are there, and their place is passed only once they are kept."""

import contextlib
import queue
import sqlite3
import threading
import time

import numpy as np
import pytest
from toy_service import Service, deploy, write_model

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import FEEDBACK, POISON, FeedbackBatch
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.labels import Feedback
from clipdrift_serving.recording.inbox import FeedbackInbox
from clipdrift_serving.recording.spool import SpoolFullError

_PATIENCE_SECONDS = 20.0


class Loop:
    """An event loop's thread without the loop: runs what others schedule while somebody waits for something."""

    def __init__(self):
        self.todo = queue.SimpleQueue()
        self.is_closed = False

    def schedule(self, call):
        if self.is_closed:
            raise RuntimeError("Event loop is closed")
        self.todo.put(call)

    def run_until(self, is_done):
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_done():
            assert time.monotonic() < deadline, "it did not happen in time"
            try:
                self.todo.get(timeout=0.02)()
            except queue.Empty:
                continue


class Desk:
    """Accepts everything and keeps what it was given, after the errors that it was told to raise."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.given = []
        self.threads = set()

    def accept(self, model, given):
        self.threads.add(threading.current_thread())
        if self.errors:
            raise self.errors.pop(0)
        self.given.append((model, given))
        return Feedback(len(given.labels), [])

    def num_labels(self):
        return sum(len(given.labels) for _, given in self.given)


class World:
    def __init__(self, folder, accept, is_ready=lambda: True):
        self._file = folder / "bus.db"
        self.bus = SqliteBus(self._file)
        self.loop = Loop()
        self.metrics = MetricSet()
        self.clock = ManualClock()
        self.publisher = EventPublisher(self.bus.publisher(), source="test", clock=self.clock)
        self._accept, self._is_ready = accept, is_ready
        self.inbox = self.life()

    def life(self):
        inbox = FeedbackInbox(self.bus, self._accept, self.loop.schedule, self._is_ready, self.metrics, self.clock)
        inbox.start()
        return inbox

    def send(self, **batch):
        self.publisher.publish(FeedbackBatch(**{"model": "toy", **batch}))
        self.publisher.flush(10)

    def num_uncommitted(self):
        """Records of feedback behind the place that the group has committed."""
        reader = self.bus.consumer(None, [FEEDBACK])
        records = reader.poll(1000, 0.0)
        reader.close()
        # read from the file: a further member of the group would make it share out its partitions anew
        with contextlib.closing(sqlite3.connect(self._file)) as connection:
            rows = connection.execute("SELECT topic, part, off FROM offsets WHERE grp = 'serving-feedback'").fetchall()
        committed = {(topic, part): offset for topic, part, offset in rows}
        return sum(record.offset >= committed.get(record.place, 0) for record in records)

    def poison(self):
        return [record.headers["poison_reason"].decode() for record in self.bus.consumer(None, [POISON]).poll(100, 0.0)]


@pytest.fixture
def world(tmp_path):
    made = []

    def make(accept, **more):
        made.append(World(tmp_path, accept, **more))
        return made[-1]

    yield make
    for one in made:
        one.inbox.stop()


def test_labels_over_the_bus_are_kept_like_those_over_http(world, tmp_path):
    service = Service()
    service.repository.apply(deploy(write_model(tmp_path, "v1", 0.0)))
    inputs = {"x": np.zeros(3, "f4"), "y": np.zeros(3, "f4"), "carrier": np.array(["AA"] * 3, object)}
    receipts = service.infer("toy", inputs).receipts
    there = world(service.plane.feedback)
    there.send(labels=("yes", 0, True), receipts=tuple(receipts), label_times_ms=(2_000_000,) * 3)
    there.loop.run_until(lambda: service.spool.events)
    (batch,) = service.spool.events
    assert batch.label.array().tolist() == [1.0, 0.0, 1.0]
    assert batch.sequence.array().tolist() == [0, 1, 2]
    assert batch.label_time_ms.array().tolist() == [2_000_000] * 3


def test_they_are_scored_on_the_loops_thread_in_pieces_of_512_in_order(world):
    desk = Desk()
    there = world(desk.accept)
    labels = tuple(range(1300))
    there.send(labels=labels, request_ids=tuple(map(str, labels)), rows=labels)
    there.loop.run_until(lambda: desk.num_labels() == 1300)
    assert desk.threads == {threading.current_thread()}
    assert [len(given.labels) for _, given in desk.given] == [512, 512, 276]
    assert [row for _, given in desk.given for row in given.rows] == list(labels)
    assert [name for _, given in desk.given for name in given.request_ids] == list(map(str, labels))
    assert all(given.receipts is None and given.label_times_ms is None for _, given in desk.given)


def test_while_they_cannot_be_kept_they_are_tried_again_and_their_place_is_not_passed(world):
    desk = Desk(SpoolFullError("full"), SpoolFullError("full"))
    there = world(desk.accept)
    there.send(labels=(1,), receipts=("r",))
    there.loop.run_until(lambda: not desk.errors)
    assert there.num_uncommitted() == 1
    there.loop.run_until(lambda: desk.given)
    there.loop.run_until(lambda: there.num_uncommitted() == 0)
    assert (desk.num_labels(), there.poison()) == (1, [])


def test_a_life_that_ends_before_they_are_kept_leaves_them_to_the_next(world):
    desk = Desk(*[SpoolFullError("full")] * 1000)
    there = world(desk.accept)
    there.send(labels=(1,), receipts=("r",))
    there.loop.run_until(lambda: len(desk.errors) < 1000)
    there.inbox.stop()
    desk.errors.clear()
    assert desk.given == []
    there.inbox = there.life()
    there.loop.run_until(lambda: desk.given)


def test_a_loop_that_is_gone_ends_it_and_loses_nothing(world):
    desk = Desk()
    there = world(desk.accept)
    there.loop.is_closed = True
    there.send(labels=(1,), receipts=("r",))
    there.loop.run_until(lambda: not there.inbox._thread.is_alive())
    assert there.num_uncommitted() == 1


@pytest.mark.parametrize("error", [ClipdriftError("unknown model 'toy'"), ZeroDivisionError("unknown model 'toy'")])
def test_a_batch_that_can_never_be_scored_is_parked_with_its_reason_and_the_next_is_kept(world, error):
    desk = Desk(error)
    there = world(desk.accept)
    there.send(labels=(1,), receipts=("first",))
    there.loop.run_until(lambda: there.num_uncommitted() == 0)
    there.send(labels=(1,), receipts=("second",))
    there.loop.run_until(lambda: desk.given)
    assert [given.receipts for _, given in desk.given] == [("second",)]
    (reason,) = there.poison()
    assert "unknown model 'toy'" in reason
    assert there.metrics.registry.get_sample_value("clipdrift_bus_poison_total", {"topic": FEEDBACK}) == 1


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"receipts": ("a", "b")}, "receipts must be as many as labels"),
        ({"receipts": ("a",), "label_times_ms": (1, 2)}, "label_times_ms must be as many"),
        ({}, "neither"),
    ],
)
def test_lists_that_do_not_fit_each_other_are_parked(world, batch, words):
    desk = Desk()
    there = world(desk.accept)
    there.send(labels=("yes",), **batch)
    there.loop.run_until(lambda: there.num_uncommitted() == 0)
    (reason,) = there.poison()
    assert words in reason
    assert desk.given == []


def test_what_is_no_feedback_is_parked(world):
    desk = Desk()
    there = world(desk.accept)
    raw = there.bus.publisher()
    raw.publish(FEEDBACK, b"toy", {"ce_type": b"nonsense"}, b"??", timestamp_ms=1)
    raw.flush(10)
    raw.close()
    there.send(labels=(1,), receipts=("r",))
    there.loop.run_until(lambda: desk.given)
    there.loop.run_until(there.poison)
    assert len(there.poison()) == 1


def test_nothing_is_read_before_the_models_are_in_service(world):
    desk, ready, asked = Desk(), [], []

    def is_ready():
        asked.append(1)
        return bool(ready)

    there = world(desk.accept, is_ready=is_ready)
    there.send(labels=(1,), receipts=("r",))
    there.loop.run_until(lambda: len(asked) >= 2)
    assert there.loop.todo.empty()
    ready.append(1)
    there.loop.run_until(lambda: desk.given)
