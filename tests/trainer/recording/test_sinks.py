import urllib.error
import urllib.request

import pytest
from toy_task import Toy

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_contract.metrics import TRAINER_WINDOWS_UNSENT, MetricSet
from clipdrift_trainer.recording.scraping import scrape_endpoint
from clipdrift_trainer.recording.sinks import WindowSink
from clipdrift_trainer.tasks.fitting import fit
from clipdrift_trainer.tasks.task import vocabularies_of


class FakePublisher:
    def __init__(self, *errors):
        self.errors = list(errors)
        self.sent = []

    def publish(self, event, *, event_id=None):
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((event_id, event.step_first))


def window(step):
    return GradWindow(
        run_id="r",
        model="m",
        started_at_ms=0,
        ended_at_ms=0,
        step_first=step,
        num_steps=50,
        num_clipped=0,
        norm_histogram={0: 50},
    )


def unsent(metrics):
    return metrics.gauge(TRAINER_WINDOWS_UNSENT).labels("m")._value.get()


def test_windows_wait_while_the_bus_is_away_and_follow_in_order():
    publisher, metrics = FakePublisher(RetryableError("away"), RetryableError("away")), MetricSet()
    sink = WindowSink(publisher, metrics, 150)
    sink(window(0))
    sink(window(50))
    assert unsent(metrics) == 2
    sink(window(100))
    assert [step for _, step in publisher.sent] == [0, 50, 100]
    assert unsent(metrics) == 0


def test_a_sink_that_breaks_never_ends_the_training_nor_holds_up_the_rest():
    publisher = FakePublisher(TypeError("broken"))
    sink = WindowSink(publisher, MetricSet(), 100)
    sink(window(0))
    sink(window(50))
    assert [step for _, step in publisher.sent] == [50]


def test_the_same_window_has_the_same_id_however_often_it_is_sent():
    publisher = FakePublisher()
    for _ in range(2):
        WindowSink(publisher, MetricSet(), 100)(window(50))
    assert len({event_id for event_id, _ in publisher.sent}) == 1


def test_a_run_is_scraped_while_it_lasts():
    metrics, task, seen = MetricSet(), Toy(), []
    task.num_steps = 120
    rows = task.make(3)
    with scrape_endpoint(metrics, 0) as port:
        sink = WindowSink(None, metrics, task.num_steps)

        def on_window(finished):
            sink(finished)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                seen.append(answer.read().decode())

        clip = ClipSpec(kind="global_norm", max_norm=0.1)
        fit(task, rows, vocabularies_of(task, rows), clip, 0, run_id="r", model="m", on_window=on_window, clock=ManualClock())
    assert 'clipdrift_trainer_optimizer_steps_total{model="m"} 50.0' in seen[0]
    assert 'clipdrift_trainer_optimizer_steps_total{model="m"} 120.0' in seen[-1]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1)
