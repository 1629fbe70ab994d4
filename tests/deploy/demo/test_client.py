"""The demo's client on the wire: what it encodes is what the server's own codec reads, and a proxy is never asked."""

import http.server
import json
import struct
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from clipdrift_deploy.demo.client import AnswerError, ServingClient, decode_answer, encode_request
from clipdrift_deploy.demo.watcher import MonitorWatcher
from clipdrift_trainer.tasks.task import Rows

ROWS = Rows(
    {"site": np.array(["Zürich", ""], object), "pressure": np.array([1.5, np.nan], np.float32)},
    np.zeros(2), np.array([10, 20], np.int64), np.array([11, 21], np.int64),
)  # fmt: skip


def test_texts_travel_with_their_lengths_and_numbers_as_they_are() -> None:
    body, header_length = encode_request(ROWS)
    header, tail = json.loads(body[:header_length]), body[header_length:]

    site, pressure = header["inputs"]
    assert (site["datatype"], site["shape"], site["parameters"]["binary_data_size"]) == ("BYTES", [2], 4 + 7 + 4)
    assert tail[:15] == struct.pack("<I", 7) + "Zürich".encode() + struct.pack("<I", 0)
    assert (pressure["datatype"], pressure["parameters"]["binary_data_size"]) == ("FP32", 8)
    np.testing.assert_array_equal(np.frombuffer(tail[15:], "<f4"), np.array([1.5, np.nan], np.float32))
    assert header["parameters"]["event_time_ms"] == [10, 20]


def test_binary_and_json_answers_are_read_alike() -> None:
    scores = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    output = {"name": "p", "datatype": "FP32", "shape": [2, 2]}
    rest = {"model_version": "v1", "parameters": {"receipts": ["a", "b"]}}
    header = json.dumps({"outputs": [output | {"parameters": {"binary_data_size": 16}}], **rest}).encode()
    as_json = json.dumps({"outputs": [output | {"data": scores.ravel().tolist()}], **rest}).encode()

    for answer in (decode_answer(header + scores.tobytes(), str(len(header))), decode_answer(as_json, None)):
        np.testing.assert_array_equal(answer.scores_NK, scores)
        assert (answer.version, answer.receipts) == ("v1", ["a", "b"])


def test_an_answer_without_receipts_is_told() -> None:
    with pytest.raises(AnswerError, match="no prediction"):
        decode_answer(b'{"outputs": [], "model_version": "v1"}', None)


class Refusing(http.server.BaseHTTPRequestHandler):
    """A server that knows nothing, and says so."""

    def do_GET(self) -> None:
        self._answer(404, b'{"error": "unknown"}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(400, b'{"error": "bad input"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()
    thread.join()


def test_a_refusal_is_counted_and_remembered(server: str) -> None:
    client = ServingClient(server, server, "t")

    assert client.infer("one", ROWS) is None
    assert client.feedback("one", ["a"], [1], [1]) == 0
    assert client.generation("one") == 0
    assert client.num_errors == 2
    assert client.last_error == 'POST /v2/models/one/feedback: 400 {"error": "bad input"}'
    client.close()


def test_no_proxy_is_asked_for_this_machine(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    client, watcher = ServingClient(server, server, "t"), MonitorWatcher(server, "t")

    assert client.generation("one") == 0
    with pytest.raises(Exception, match="refused GET /api/v1/progress: 404"):
        watcher.progress()
    client.close()
    watcher.close()
