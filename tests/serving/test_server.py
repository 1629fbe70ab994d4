"""The real process: listeners, deployments from the bus, hot swaps under load, crashes."""

import concurrent.futures
import json
import signal
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from serving_process import Process, wait_until
from toy_service import write_model, yes

from clipdrift_contract.events import LABELS, PREDICTIONS

pytestmark = pytest.mark.system


@pytest.fixture
def server(tmp_path):
    made = Process(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        made.end(signal.SIGKILL)


def test_from_deployment_to_label_and_a_clean_end(server, tmp_path):
    assert not server.is_ready()
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    answers = [server.infer() for _ in range(20)]
    assert {status for status, _ in answers} == {200}
    assert answers[0][1]["outputs"][0]["data"][1] == pytest.approx(yes(0.5, 0.25, 1.0, 0.0), rel=1e-6)
    receipts = [answer["parameters"]["receipts"][0] for _, answer in answers]
    assert server.label(receipts) == (200, {"accepted": 20, "rejected": []})
    assert server.admin("/v1/recording/flush", "POST")[0] == 200
    assert len(server.recorded(PREDICTIONS)) == len(server.recorded(LABELS)) == 20
    assert json.loads(server.admin("/v1/models")[1])["toy"]["live_accuracy"] == 1.0
    assert b"clipdrift_serving_labels_total" in server.get("/metrics", port=server.admin_port)[1]
    for path, method in (("/v1/models", "GET"), ("/v1/recording/flush", "POST"), ("/v2/repository/models/toy/unload", "POST")):
        assert server.get(path, method, port=server.admin_port)[0] == 401
    assert server.end(signal.SIGTERM) == 0
    assert not list(server.home.rglob("*")), "ONNX Runtime wrote something into the home folder"


def test_ten_hot_swaps_under_load_lose_no_request_and_each_answer_is_its_versions(server, tmp_path):
    versions = {f"v{n}": n * 0.5 for n in range(11)}
    served = [write_model(tmp_path, name, bias) for name, bias in versions.items()]
    server.deploy(served[0], 1)
    wait_until(server.is_ready)
    is_done = threading.Event()
    answers = []

    def ask():
        while not is_done.is_set():
            answers.append(server.infer())

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for generation, one in enumerate(served[1:], start=2):
            server.deploy(one, generation)
            wait_until(lambda wanted=one.version: server.infer()[1].get("model_version") == wanted)
            wait_until(lambda many=40 * generation: len(answers) >= many or asking[0].done())
        is_done.set()
        for future in asking:
            future.result()
    assert len(answers) >= 400
    assert {status for status, _ in answers} == {200}
    for _, answer in answers:
        expected = yes(0.5, 0.25, 1.0, versions[answer["model_version"]])
        assert answer["outputs"][0]["data"][1] == pytest.approx(expected, rel=1e-5)


def test_a_corrupt_artifact_leaves_the_old_version_serving_also_after_a_restart(server, tmp_path):
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    broken = write_model(tmp_path, "v2", 1.0)
    (tmp_path / "v2.onnx").write_bytes(b"broken")
    server.deploy(broken, 2)
    refused = b'clipdrift_serving_swaps_total{model="toy",outcome="refused"} 1.0'
    wait_until(lambda: refused in server.get("/metrics", port=server.admin_port)[1])
    assert server.infer()[1]["model_version"] == "v1"
    assert server.end(signal.SIGTERM) == 0
    server.start()
    wait_until(server.is_ready)
    assert server.infer()[1]["model_version"] == "v1"


def test_kill_9_loses_no_label_that_was_accepted_though_the_bus_was_locked(server, tmp_path):
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    lock = sqlite3.connect(tmp_path / "bus.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    receipts = [server.infer()[1]["parameters"]["receipts"][0] for _ in range(30)]
    assert server.label(receipts[:10])[1]["accepted"] == 10
    server.end(signal.SIGKILL)
    lock.execute("ROLLBACK")
    lock.close()
    server.start()
    wait_until(server.is_ready)
    assert server.label(receipts[10:])[1]["accepted"] == 20  # receipts outlive the process that gave them
    assert server.admin("/v1/recording/flush", "POST")[0] == 200
    assert len(server.recorded(LABELS)) == 30


def test_nothing_is_sent_anywhere_but_to_loopback(server, tmp_path):
    server.deploy(write_model(tmp_path, "v1", 0.0), 1)
    wait_until(server.is_ready)
    for _ in range(20):
        server.infer()
    remote = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{server.process.pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            remote.add((fields[9], fields[2]))
    own = {str(link.readlink()) for link in Path(f"/proc/{server.process.pid}/fd").iterdir() if link.is_symlink()}
    away = {
        address for inode, address in remote if f"socket:[{inode}]" in own and not address.startswith(("00000000", "0100007F"))
    }
    assert not away


def test_two_requests_in_one_by_conflicting_lengths_are_refused(server):
    raw = (
        b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(raw)
        answer = connection.recv(65536)
    assert b" 200 " not in answer
