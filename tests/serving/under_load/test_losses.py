"""The bus away, the disk full, the process killed, under load: every prediction is answered, every one is accounted for."""

import os
import resource
import signal
import sqlite3
import threading
import time

import pytest
from serving_process import INPUTS, Process, wait_until
from toy_service import KEY, write_model

from clipdrift_contract.events import PREDICTIONS
from clipdrift_serving.dataplane.receipts import ReceiptBook
from under_load.load import Load

pytestmark = [pytest.mark.system, pytest.mark.slow]
AWAY_SECONDS = float(os.environ.get("CLIPDRIFT_TEST_AWAY_SECONDS", "6"))
LOST_SECONDS = 0.3
BOOK = ReceiptBook([KEY], "00" * 8)


def _server(folder, **config) -> Process:
    made = Process(folder, **config)
    made.start()
    made.deploy(write_model(folder, "v1", 0.0), 1)
    wait_until(made.is_ready)
    return made


def _identities(answers) -> set[tuple[str, int]]:
    receipts = [BOOK.verify(one.receipt) for one in answers]
    return {(receipt.epoch, receipt.sequence) for receipt in receipts}


def test_while_the_bus_is_away_everything_is_answered_and_afterwards_everything_is_on_it(tmp_path):
    server = _server(tmp_path)
    try:
        lock = sqlite3.connect(tmp_path / "bus.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        load = Load(server.port, {"inputs": INPUTS}).start()
        threading.Event().wait(AWAY_SECONDS)
        answers = load.stop()
        lock.execute("ROLLBACK")
        lock.close()
        assert {one.status for one in answers} == {200}
        assert load.num_cut_off == 0
        assert server.admin("/v1/recording/flush", "POST")[0] == 200
        assert server.recorded(PREDICTIONS) == _identities(answers)
        assert server.metric("clipdrift_serving_unrecorded_total") == 0
    finally:
        server.close()


@pytest.mark.parametrize("full", ["budget", "disk"])
def test_when_the_spool_is_full_everything_is_answered_and_what_was_dropped_is_counted_exactly(tmp_path, full):
    server = _server(tmp_path, **({"max_spool_bytes": 300_000} if full == "budget" else {}))
    try:
        if full == "disk":  # the kernel writes up to there and then refuses, in the midst of a record, as a full disk does
            _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (300_000, most))
        lock = sqlite3.connect(tmp_path / "bus.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        load = Load(server.port, {"inputs": INPUTS}).start()
        dropped = 'clipdrift_serving_unrecorded_total{model="toy",reason="spool_full"}'
        wait_until(lambda: server.metric(dropped) > 1000, 60)
        answers = load.stop()
        if full == "disk":
            assert server.metric("clipdrift_serving_spool_bytes") <= 300_000
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (most, most))
        lock.execute("ROLLBACK")
        lock.close()
        assert {one.status for one in answers} == {200}
        assert server.admin("/v1/recording/flush", "POST")[0] == 200
        recorded = server.recorded(PREDICTIONS)
        assert recorded < _identities(answers)
        assert len(answers) - len(recorded) == server.metric("clipdrift_serving_unrecorded_total")
    finally:
        server.close()


@pytest.mark.parametrize("record_before_answer", [False, True])
def test_kill_9_under_load_loses_what_its_page_says_and_no_more(tmp_path, record_before_answer):
    server = _server(tmp_path, record_before_answer=record_before_answer)
    try:
        # one connection: too few rows for a full batch within 100 ms, so that the clock decides what is written
        load = Load(server.port, {"inputs": INPUTS}, num_connections=1).start()
        wait_until(lambda: len(load.answers) > 5_000, 60)
        killed_at = time.monotonic()
        server.end(signal.SIGKILL)
        answers = load.stop()
        server.start()
        wait_until(server.is_ready)
        assert server.admin("/v1/recording/flush", "POST")[0] == 200
        lost = _identities(answers) - server.recorded(PREDICTIONS)
        if record_before_answer:
            assert not lost
        else:  # the newest ones only, and of them those of the last 100 ms; the rest of the bound is for a busy machine
            newest = sorted(_identities(answers))[-len(lost) :] if lost else []
            assert lost == set(newest)
            first_lost = len(answers) - len(lost)
            assert all(killed_at - one.at < LOST_SECONDS for one in answers[first_lost:])
            assert killed_at - answers[0].at > 2 * LOST_SECONDS, "the load was too short to show anything"
    finally:
        server.close()
