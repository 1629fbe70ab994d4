import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from sink_fakes import FakeSink, window
from toy_task import Toy

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import ClipSpec
from clipdrift_contract.metrics import (
    TRAINER_SINK_FAILURES,
    TRAINER_WINDOWS_LOST,
    TRAINER_WINDOWS_UNSENT,
    MetricSet,
)
from clipdrift_trainer.recording.scraping import scrape_endpoint
from clipdrift_trainer.recording.sinks import WindowSink
from clipdrift_trainer.recording.sinks.delivery import Backoff
from clipdrift_trainer.recording.sinks.lines import LinesReader, LinesSink
from clipdrift_trainer.tasks.fitting import fit
from clipdrift_trainer.tasks.task import vocabularies_of

AT_ONCE = Backoff(first_seconds=0.001, most_seconds=0.002)
LATER = Backoff(first_seconds=60.0, most_seconds=60.0)


class FakePublisher:
    """The bus's publisher; `errors` are raised by `flush`, one a call."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.sent = []

    def publish(self, event, *, event_id=None):
        self.sent.append((event_id, event.step_first))

    def flush(self, timeout_seconds):
        if self.errors:
            raise self.errors.pop(0)


def counted(metrics, metric, sink="fake"):
    return metrics.counter(metric).labels("m", sink)._value.get()


def away(times):
    return [RetryableError("away")] * times


def test_windows_wait_while_the_bus_is_away_and_each_is_published_once_in_order():
    publisher, metrics = FakePublisher(*away(5)), MetricSet()
    with WindowSink(publisher, metrics, 150, backoff=AT_ONCE) as sink:
        for step in (0, 50, 100):
            sink(window(step))
        assert sink.drain(5)
    assert [step for _, step in publisher.sent] == [0, 50, 100]
    assert counted(metrics, TRAINER_SINK_FAILURES, "bus") == 5
    assert metrics.gauge(TRAINER_WINDOWS_UNSENT).labels("m")._value.get() == 0


def test_windows_that_wait_for_the_bus_are_shown():
    publisher, metrics = FakePublisher(*away(99)), MetricSet()
    sink = WindowSink(publisher, metrics, 150, backoff=LATER, close_seconds=0.0)
    sink(window(0))
    sink(window(50))
    assert not sink.drain(0.2)
    assert metrics.gauge(TRAINER_WINDOWS_UNSENT).labels("m")._value.get() == 2
    sink.close()


def test_the_same_window_has_the_same_id_however_often_it_is_sent():
    publisher = FakePublisher()
    for _ in range(2):
        with WindowSink(publisher, MetricSet(), 100) as sink:
            sink(window(50))
    assert len(publisher.sent) == 2
    assert len({event_id for event_id, _ in publisher.sent}) == 1


def test_an_event_that_a_sink_refuses_is_lost_alone_and_counted():
    class Picky(FakeSink):
        def send(self, events):
            if any(event.step_first == 50 for event in events):
                raise TypeError("no number for step 50")
            super().send(events)

    picky, metrics = Picky(), MetricSet()
    picky.goes_on.clear()
    with WindowSink(None, metrics, 200, sinks=[picky], backoff=AT_ONCE) as sink:
        sink(window(0))
        assert picky.is_called.wait(5)
        for step in (50, 100, 150):
            sink(window(step))
        picky.goes_on.set()
    assert picky.steps == [0, 100, 150]
    assert counted(metrics, TRAINER_WINDOWS_LOST) == 1


def test_a_sink_that_hangs_holds_up_neither_the_training_nor_the_others_nor_the_end():
    hanging, quick, metrics = FakeSink(name="hanging"), FakeSink(name="quick"), MetricSet()
    hanging.goes_on.clear()
    sink = WindowSink(None, metrics, 100, sinks=[hanging, quick], close_seconds=0.3)
    sink(window(0))
    assert hanging.is_called.wait(5)
    sink(window(50))  # returns, or the test hangs
    sink.close()
    assert quick.steps == [0, 50]
    assert quick.num_closed == 1
    assert hanging.steps == []
    assert counted(metrics, TRAINER_WINDOWS_LOST, "hanging") == 2
    hanging.goes_on.set()


def test_what_one_run_could_not_send_the_next_one_sends_first(tmp_path):
    unlucky, lucky = FakeSink(*away(999)), FakeSink()
    with WindowSink(None, MetricSet(), 100, sinks=[unlucky], spool=tmp_path, backoff=LATER, close_seconds=0.2) as sink:
        sink(window(0, "first"))
        sink(window(50, "first"))
    assert len(list(tmp_path.iterdir())) == 1
    with WindowSink(None, MetricSet(), 100, sinks=[lucky], spool=tmp_path) as sink:
        sink(window(100, "second"))
    assert lucky.steps == [0, 50, 100]
    assert list(tmp_path.iterdir()) == []


def test_each_sink_has_its_own_backlog(tmp_path):
    ill, well = FakeSink(*away(999), name="ill"), FakeSink(name="well")
    with WindowSink(None, MetricSet(), 100, sinks=[ill, well], spool=tmp_path, backoff=LATER, close_seconds=0.2) as sink:
        sink(window(0))
    assert well.steps == [0]
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["ill"]


def test_windows_of_a_process_that_lives_are_left_to_it(tmp_path):
    busy, other = FakeSink(), FakeSink()
    busy.goes_on.clear()
    living = WindowSink(None, MetricSet(), 100, sinks=[busy], spool=tmp_path)
    living(window(0))
    assert busy.is_called.wait(5)
    with WindowSink(None, MetricSet(), 100, sinks=[other], spool=tmp_path):
        pass
    busy.goes_on.set()
    living.close()
    assert (busy.steps, other.steps) == ([0], [])


KILLED = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from sink_fakes import FakeSink, window
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.recording.sinks import WindowSink
hanging = FakeSink()
hanging.goes_on.clear()
sink = WindowSink(None, MetricSet(), 500, sinks=[hanging], spool=Path(sys.argv[1]))
for step in range(0, 500, 50):
    sink(window(step))
sink.drain(0.5)
print("told", flush=True)
threading.Event().wait()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_run_that_is_killed_loses_no_window(tmp_path):
    from pathlib import Path

    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout.readline() == "told\n"
    killed.kill()
    killed.wait()
    killed.stdout.close()
    following = FakeSink()
    with WindowSink(None, MetricSet(), 500, sinks=[following], spool=tmp_path):
        pass
    assert following.steps == list(range(0, 500, 50))


def test_windows_beyond_the_bound_of_the_disk_are_lost_and_counted(tmp_path):
    sink_away, metrics = FakeSink(), MetricSet()
    sink_away.goes_on.clear()
    sink = WindowSink(None, metrics, 100, sinks=[sink_away], spool=tmp_path, max_spool_bytes=2_000)
    for step in range(0, 1000, 50):
        sink(window(step))
    sink.drain(0.2)
    lost = counted(metrics, TRAINER_WINDOWS_LOST)
    sink_away.goes_on.set()
    sink.close()
    assert 0 < lost < 20
    assert sink_away.steps == [50 * i for i in range(20 - int(lost))]


def test_a_spool_folder_that_is_removed_costs_nothing(tmp_path):
    sink_away, spool = FakeSink(), tmp_path / "spool"
    sink_away.goes_on.clear()
    sink = WindowSink(None, MetricSet(), 100, sinks=[sink_away], spool=spool)
    sink(window(0))
    sink.drain(0.1)
    shutil.rmtree(spool)
    sink(window(50))
    sink.drain(0.1)
    assert len(list(spool.iterdir())) == 1
    sink_away.goes_on.set()
    sink.close()
    assert sink_away.steps == [0, 50]


def test_a_spool_folder_that_cannot_be_made_lets_windows_wait_in_memory(tmp_path):
    (tmp_path / "file").write_text("in the way")
    patient = FakeSink(*away(3))
    with WindowSink(None, MetricSet(), 100, sinks=[patient], spool=tmp_path / "file" / "spool", backoff=AT_ONCE) as sink:
        sink(window(0))
        sink(window(50))
    assert patient.steps == [0, 50]


def test_windows_that_wait_in_memory_at_the_end_are_lost_and_counted_whatever_the_spool(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    gone, metrics = FakeSink(*away(999)), MetricSet()
    with WindowSink(
        None, metrics, 100, sinks=[gone], spool=tmp_path / "file" / "spool", backoff=LATER, close_seconds=0.2
    ) as sink:
        sink(window(0))
        sink(window(50))
    assert counted(metrics, TRAINER_WINDOWS_LOST) == 2
    assert "2 windows could not be sent to fake and are lost" in caplog.text


def test_windows_for_the_file_of_one_run_do_not_come_into_that_of_the_next(tmp_path):
    (tmp_path / "block").write_text("in the way")
    first, second, spool = tmp_path / "block" / "run1.jsonl", tmp_path / "run2.jsonl", tmp_path / "spool"
    with WindowSink(None, MetricSet(), 100, sinks=[LinesSink(first)], spool=spool, backoff=LATER, close_seconds=0.2) as sink:
        sink(window(0, "run1"))
    with WindowSink(None, MetricSet(), 100, sinks=[LinesSink(second)], spool=spool) as sink:
        sink(window(0, "run2"))
    assert [one.run_id for one in LinesReader(second).read()] == ["run2"]
    (tmp_path / "block").unlink()
    with WindowSink(None, MetricSet(), 100, sinks=[LinesSink(tmp_path / "run3.jsonl")], spool=spool) as sink:
        sink(window(0, "run3"))
        assert sink._of_dead_runs[0].drain(time.monotonic() + 5)
    assert [one.run_id for one in LinesReader(first).read()] == ["run1"]
    assert [one.run_id for one in LinesReader(tmp_path / "run3.jsonl").read()] == ["run3"]
    assert list(spool.iterdir()) == []


def test_a_place_whose_address_is_too_long_for_a_files_name_keeps_its_windows_too(tmp_path):
    long = "x" * 300
    unlucky, lucky = FakeSink(*away(999), target=long), FakeSink(target=long)
    with WindowSink(None, MetricSet(), 100, sinks=[unlucky], spool=tmp_path, backoff=LATER, close_seconds=0.2) as sink:
        sink(window(0))
    with WindowSink(None, MetricSet(), 100, sinks=[lucky], spool=tmp_path):
        pass
    assert lucky.steps == [0]


def test_the_window_of_a_run_that_was_cut_short_and_the_whole_one_after_it_both_arrive(tmp_path):
    publisher, path = FakePublisher(), tmp_path / "run.jsonl"
    for num_steps in (38, 50):
        with WindowSink(publisher, MetricSet(), 100, sinks=[LinesSink(path)]) as sink:
            sink(window(0, num_steps=num_steps))
    assert [one.num_steps for one in LinesReader(path).read()] == [38, 50]
    assert len({event_id for event_id, _ in publisher.sent}) == 2


def test_sinks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="different names, got fake, fake"):
        WindowSink(None, MetricSet(), 100, sinks=[FakeSink(), FakeSink()])


def test_a_window_after_the_end_is_counted_as_lost_and_raises_nothing():
    metrics, late = MetricSet(), FakeSink()
    sink = WindowSink(None, metrics, 100, sinks=[late])
    sink.close()
    sink.close()
    sink(window(0))
    assert counted(metrics, TRAINER_WINDOWS_LOST) == 1


def test_threads_end_with_the_sink():
    before = threading.active_count()
    with WindowSink(None, MetricSet(), 100, sinks=[FakeSink()]) as sink:
        sink(window(0))
    assert threading.active_count() == before


def test_a_run_is_scraped_while_it_lasts_and_written_to_a_file(tmp_path):
    metrics, task, seen = MetricSet(), Toy(), []
    task.num_steps = 120
    rows = task.make(3)
    clip = ClipSpec(kind="global_norm", max_norm=0.1)
    with (
        scrape_endpoint(metrics, 0) as port,
        WindowSink(None, metrics, task.num_steps, sinks=[LinesSink(tmp_path / "run.jsonl")]) as sink,
    ):

        def on_window(finished):
            sink(finished)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                seen.append(answer.read().decode())

        fit(task, rows, vocabularies_of(task, rows), clip, 0, run_id="r", model="m", on_window=on_window, clock=ManualClock())
    assert 'clipdrift_trainer_optimizer_steps_total{model="m"} 50.0' in seen[0]
    assert 'clipdrift_trainer_optimizer_steps_total{model="m"} 120.0' in seen[-1]
    assert [one.num_steps for one in LinesReader(tmp_path / "run.jsonl").read()] == [50, 50, 20]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1)
