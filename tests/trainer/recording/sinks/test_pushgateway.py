"""The Pushgateway: the strict fake of the conformance suite, and Debian's."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from sink_fakes import window

from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.recording.sinks import WindowSink
from clipdrift_trainer.recording.sinks.counts import WindowCounts
from clipdrift_trainer.recording.sinks.pushgateway import PushgatewaySink

sys.path.insert(0, str(Path(__file__).parents[3] / "conformance" / "sinks"))
from sink_gateway import gateway


def test_a_run_is_one_group_by_model_and_run_and_is_gone_at_the_end():
    metrics = MetricSet()
    with gateway() as server:
        with WindowSink(None, metrics, 100, sinks=[PushgatewaySink(server.address, metrics)]) as sink:
            sink(window(0))
            assert sink.drain(5)
            assert set(server.groups) == {(("job", "clipdrift_trainer"), ("model", "m"), ("run", "r"))}
            assert server.value("clipdrift_trainer_progress_ratio") == 0.5
        assert server.groups == {}


def test_series_of_another_model_are_not_pushed_under_this_one():
    metrics = MetricSet()
    WindowCounts(metrics, 100).add(window(0))
    metrics.counter(next(iter(metrics._made))).labels("other").inc()
    with gateway() as server:
        PushgatewaySink(server.address, metrics).send([window(0)])
        assert server.num_pushes == 1


def test_a_gateway_that_hangs_is_left_alone_after_the_time_out():
    metrics = MetricSet()
    with gateway() as server:
        server.hangs.set()
        sink = WindowSink(None, metrics, 100, sinks=[PushgatewaySink(server.address, metrics, 0.1)], close_seconds=0.3)
        began = time.monotonic()
        sink(window(0))
        sink(window(50))
        assert time.monotonic() - began < 0.1
        sink.close()
        assert server.num_pushes == 0
        failures = [s for f in metrics.registry.collect() for s in f.samples if s.name.endswith("sink_failures_total")]
        assert failures[0].value >= 1


@pytest.mark.prometheus
def test_debians_pushgateway_takes_replaces_and_forgets_a_run(tmp_path):
    if shutil.which("prometheus-pushgateway") is None:
        pytest.skip("needs Debian's prometheus-pushgateway")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["prometheus-pushgateway", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address, metrics = f"http://127.0.0.1:{port}", MetricSet()
    try:
        wait_for(address)
        with WindowSink(None, metrics, 100, sinks=[PushgatewaySink(address, metrics)]) as sink:
            for step in (0, 50):
                sink(window(step, num_clipped=7))
                assert sink.drain(10)
            shown = fetch(address)
        after = fetch(address)
    finally:
        server.terminate()
        server.wait()
    labels = '{instance="",job="clipdrift_trainer",model="m",run="r"}'
    assert f"clipdrift_trainer_clipped_steps_total{labels} 14" in shown
    assert f"push_failure_time_seconds{labels} 0" in shown
    assert "clipdrift_trainer" not in after


def wait_for(address):
    for _ in range(200):
        try:
            fetch(address)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the Pushgateway does not start")


def fetch(address):
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
        return answer.read().decode()
