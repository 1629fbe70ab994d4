"""The monitor's client against a small real HTTP server."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.monitor_client import STATUS_COLUMNS, MonitorClient, MonitorError, connect, status_row, status_words

PUMP = {
    "model": "pump", "version": "7", "state": "harmed", "accuracy": {"value": 0.8, "low": 0.79, "high": 0.81, "n": 12_345},
    "clipping": "not_implicated", "diagnosis": {"words": "vibration drifted", "would_tell": "a shadow retrain"},
    "retrain": {"state": "running", "key": "pump-3"}, "open_signals": [],
}  # fmt: skip


class SmallMonitor:
    """Answers what it was told to answer, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.answers: dict[tuple[str, str], tuple[int, str]] = {}
        monitor = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                monitor.asked.append(
                    (self.command, self.path, self.headers["authorization"], json.loads(body) if body else None)
                )
                status, text = monitor.answers.get((self.command, self.path), (404, '{"error": "no such thing"}'))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = _answer

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def says(self, method: str, path: str, answer: Any, status: int = 200) -> None:
        self.answers[method, path] = (status, answer if isinstance(answer, str) else json.dumps(answer))


@pytest.fixture
def monitor() -> Iterator[SmallMonitor]:
    small = SmallMonitor()
    thread = threading.Thread(target=small.server.serve_forever, args=(0.01,))
    thread.start()
    yield small
    small.server.shutdown()
    small.server.server_close()
    thread.join()


def test_each_model_is_asked_for_in_full(monitor: SmallMonitor) -> None:
    monitor.says("GET", "/api/v1/models", {"items": [{"model": "pump"}]})
    monitor.says("GET", "/api/v1/models/pump", PUMP)

    with MonitorClient(monitor.url, "t") as client:
        assert client.models() == [PUMP]


def test_orders_carry_the_token_and_the_reason(monitor: SmallMonitor) -> None:
    monitor.says("POST", "/api/v1/models/pump/retrain", {"key": "k"})
    monitor.says("POST", "/api/v1/models/pump/rollback", {"version": "6", "generation": 4})

    with MonitorClient(monitor.url, "secret") as client:
        assert client.order_retrain("pump", "new sensor")["key"] == "k"
        assert client.rollback("pump", "complaints")["generation"] == 4

    assert [(token, body["reason"]) for _, _, token, body in monitor.asked] == [
        ("Bearer secret", "new sensor"),
        ("Bearer secret", "complaints"),
    ]


def test_a_refusal_is_told_in_the_monitors_own_words(monitor: SmallMonitor) -> None:
    monitor.says("POST", "/api/v1/models/pump/rollback", {"error": "pump has no earlier version"}, status=409)

    with MonitorClient(monitor.url, "t") as client, pytest.raises(MonitorError, match=r"no earlier version \(status 409\)"):
        client.rollback("pump", "complaints")


def test_another_programs_answer_is_seen_for_what_it_is(monitor: SmallMonitor) -> None:
    monitor.says("GET", "/api/v1/models", "<html>a printer</html>")

    with MonitorClient(monitor.url, "t") as client, pytest.raises(MonitorError, match="no Clipdrift monitor: '<html>a printer"):
        client.models()


def test_nobody_there_says_what_to_start() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"

    with MonitorClient(url, "hush") as client, pytest.raises(MonitorError, match="is `clipdrift up` running") as caught:
        client.models()
    assert "hush" not in str(caught.value)


def test_a_proxy_is_not_asked_for_this_machine(monitor: SmallMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monitor.says("GET", "/api/v1/models", [])

    with MonitorClient(monitor.url, "t") as client:
        assert client.models() == []


def test_the_address_is_the_one_left_behind_else_the_configured_one(make_project) -> None:
    project = make_project("[monitor]\nport = 9123\n")

    with connect(project) as client:
        assert client.url == "http://127.0.0.1:9123"
    project.state.mkdir(exist_ok=True)
    (project.state / "addresses.json").write_text('{"monitor": "http://127.0.0.1:5"}')
    with connect(project) as client:
        assert client.url == "http://127.0.0.1:5"


def test_a_damaged_address_file_says_what_to_do(make_project) -> None:
    project = make_project()
    project.state.mkdir(exist_ok=True)
    (project.state / "addresses.json").write_text("{")

    with pytest.raises(ConfigError, match="delete it"):
        connect(project)


def test_the_report_holds_every_page_in_one_file(monitor: SmallMonitor, tmp_path: Path) -> None:
    monitor.says("GET", "/api/v1/models", [{"model": "pump"}])
    monitor.says("GET", "/api/v1/models/pump", PUMP)
    monitor.says("GET", "/", '<body><h1>All models</h1><a href="/models/pump">pump</a></body>')
    monitor.says("GET", "/models/pump", "<body><h1>The pump model</h1></body>")

    with MonitorClient(monitor.url, "t") as client:
        assert client.save_report(tmp_path / "new/report.html", "Pumps") == 1

    html = (tmp_path / "new/report.html").read_text()
    assert "All models" in html
    assert "The pump model" in html
    assert 'href="#page-1"' in html


def test_a_report_that_cannot_be_written_says_so(monitor: SmallMonitor, tmp_path: Path) -> None:
    monitor.says("GET", "/api/v1/models", [])
    monitor.says("GET", "/", "<body></body>")

    with MonitorClient(monitor.url, "t") as client, pytest.raises(MonitorError, match="name another file with --out"):
        client.save_report(tmp_path, "Pumps")


def test_a_row_has_a_cell_for_every_column_whatever_is_missing() -> None:
    bare: list[dict[str, Any]] = [{}, dict.fromkeys(PUMP), PUMP | {"accuracy": {"value": 0.5}}]

    assert {len(status_row(model)) for model in bare} == {len(STATUS_COLUMNS)}
    assert status_row({}) == ("-",) * len(STATUS_COLUMNS)
    assert status_row(PUMP) == (
        "pump", "7", "harmed", "0.800 ± 0.010", "12,345", "not implicated",
    )  # fmt: skip


def test_the_diagnosis_is_told_with_what_would_settle_it() -> None:
    assert status_words(PUMP) == ["pump: vibration drifted; what would tell: a shadow retrain"]
    assert status_words({"model": "pump", "diagnosis": None}) == []
