"""Several workers on one port: real processes, killed and restarted."""

import base64
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import serving_process
from serving_process import Process, wait_until
from toy_service import write_model

pytestmark = pytest.mark.system

_START = (
    "import json, pathlib, sys; from clipdrift_serving.config import ServingConfig;"
    "from clipdrift_serving.operations.supervisor import supervise;"
    "given = json.loads(sys.argv[1]); given['spool_dir'] = pathlib.Path(given['spool_dir']);"
    "supervise(ServingConfig(**given), 2)"
)
ANSWERED = 'clipdrift_serving_requests_total{code="ok",model="toy"}'


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_process, "_START", _START)
    made = Process(tmp_path)
    made.start()
    made.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(lambda: set(in_service(made)) == {1}, 60)
    yield made
    made.close()


def in_service(server) -> list[float]:
    """Generation of each worker's deployment, when both have one; asked of both, since the index is the worst answer."""
    status, body = server.admin("/v1/models")
    told = json.loads(body) if status == 200 else {}
    sockets = list((server.folder / "spool").glob("worker-*/admin.sock"))
    ready = [path for path in sockets if b'"toy"' in ask_worker(path)]
    return [told["toy"]["generation"]] if len(ready) == 2 and "toy" in told else []


def ask_worker(path: Path) -> bytes:
    command = ["curl", "-s", "-m", "5", "-H", f"Authorization: Bearer {serving_process.TOKEN}", "--unix-socket", str(path)]
    return subprocess.run([*command, "http://worker/v1/models"], capture_output=True, check=False).stdout


def epoch_of(answer) -> bytes:
    """Its place is in the layout of dataplane/receipts.py."""
    receipt = answer["parameters"]["receipts"][0]
    return base64.urlsafe_b64decode(receipt + "=" * (-len(receipt) % 4))[8:16]


def test_both_workers_answer_on_one_port_and_their_figures_are_summed(server):
    answers = [server.infer() for _ in range(60)]
    assert {status for status, _ in answers} == {200}
    assert len({epoch_of(answer) for _, answer in answers}) == 2
    assert server.metric("clipdrift_serving_rows_total") == 60
    assert server.metric("clipdrift_serving_request_duration_seconds_count") == 60
    assert server.metric("clipdrift_serving_generation") == 1
    assert json.loads(server.admin("/v1/models")[1])["toy"]["requests"] == 60
    each = [json.loads(ask_worker(path))["toy"]["requests"] for path in (server.folder / "spool").glob("worker-*/admin.sock")]
    assert sum(each) == 60
    assert min(each) > 0, "one worker answered everything"
    assert server.get("/v1/models", port=server.admin_port)[0] == 401
    assert server.admin("/v1/models", "HEAD")[0] == 200
    assert server.admin("/v1/models%20HTTP/1.1%0D%0Ax:%20")[0] == 404, "a line end in the path began a header"
    assert server.admin("/v1/recording/flush", "POST")[0] == 200
    workers = children(server.process.pid)
    assert server.end(signal.SIGTERM) == 0
    assert not any(is_alive(pid) for pid in workers)


def test_a_killed_worker_is_replaced_and_counters_do_not_fall(server):
    for _ in range(30):
        server.infer()
    assert server.metric("clipdrift_serving_rows_total") == 30
    before = children(server.process.pid)
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(children(server.process.pid)) == 2 and before[0] not in children(server.process.pid))
    wait_until(lambda: in_service(server) == [1])
    assert server.metric("clipdrift_serving_rows_total") == 30
    assert server.metric("clipdrift_serving_worker_restarts_total") == 1
    assert {server.infer()[0] for _ in range(20)} == {200}
    assert server.metric("clipdrift_serving_rows_total") == 50


def test_no_worker_outlives_a_killed_supervisor(server):
    workers = children(server.process.pid)
    assert len(workers) == 2
    server.end(signal.SIGKILL)
    wait_until(lambda: not any(is_alive(pid) for pid in workers))


def test_a_rolling_restart_under_load_loses_no_answer(server):
    is_done = threading.Event()
    statuses = []

    def ask():
        while not is_done.is_set():
            statuses.append(server.infer()[0])

    asking = [threading.Thread(target=ask) for _ in range(2)]
    before = set(children(server.process.pid))
    for thread in asking:
        thread.start()
    os.kill(server.process.pid, signal.SIGHUP)
    wait_until(lambda: len(set(children(server.process.pid)) - before) == 2, 60)
    wait_until(lambda: in_service(server) == [1], 60)
    is_done.set()
    for thread in asking:
        thread.join()
    assert set(statuses) == {200}
    assert server.metric(ANSWERED) == len(statuses)
    assert server.metric("clipdrift_serving_worker_restarts_total") == 0


def test_no_secret_is_on_a_command_line_or_in_the_environment(server):
    for pid in children(server.process.pid):
        seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert serving_process.TOKEN.encode() not in seen
        assert serving_process.KEY.encode() not in seen
