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
    monitor.says("POST", "/api/v1/retrains/k%2F1/cancel", {"key": "k/1"})

    with MonitorClient(monitor.url, "secret") as client:
        assert client.order_retrain("pump", "new sensor")["key"] == "k"
        assert client.rollback("pump", "complaints")["generation"] == 4
        assert client.cancel_retrain("k/1", "too slow")["key"] == "k/1"

    assert [(token, body["reason"]) for _, _, token, body in monitor.asked] == [
        ("Bearer secret", "new sensor"),
        ("Bearer secret", "complaints"),
        ("Bearer secret", "too slow"),
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


# --- incidents ---

BROKEN = {
    "incident_id": "pump-data-3f9a2c10", "model": "pump", "severity": "ticket", "worst_severity": "page", "is_open": True,
    "first_window_ms": 86_400_000, "last_window_ms": 259_200_000, "num_windows": 2, "num_reopened": 1, "num_signals": 3,
    "open_signal_ids": ["s1"], "summary": "pump: the data look broken", "plain": "What the model is fed looks broken.",
    "words": "vibration is constant.", "features": ["vibration"], "decision_id": "pump-7-86400000",
    "diagnosis": {"would_change": "a day with values"}, "evidence_uri": "/evidence/s1.html",
    "silence": {"actor": "Ada", "reason": "planned", "at_ms": 0, "until_ms": 86_400_000},
    "feedback": [{"verdict": "true", "actor": "Bob", "reason": "it was unplugged", "at_ms": 0}],
}  # fmt: skip
PRECISION = {"num_true": 9, "num_false": 1, "num_known": 1, "value": 0.9, "low": 0.596, "high": 0.982}
EVERY = "/api/v1/incidents?state=all&limit=500"


@pytest.fixture
def watched(monitor: SmallMonitor, make_project):
    """A project whose monitor is the small one."""
    project = make_project()
    project.state.mkdir(parents=True, exist_ok=True)
    (project.state / "addresses.json").write_text(json.dumps({"monitor": monitor.url}))
    return project


def test_incidents_are_listed_with_how_often_they_were_right(clipdrift, watched, monitor: SmallMonitor) -> None:
    monitor.says("GET", "/api/v1/incidents?model=pump&state=all&limit=50", {"items": [BROKEN], "precision": PRECISION})
    result = clipdrift("incidents", "list", "-p", watched.folder, "--model", "pump", "--all")

    assert "pump-data-3f9a2c10" in result.stdout
    assert "silenced" in result.stdout
    assert "90 % (95 % interval 60 to 98 %), by 9 true and 1 false; 1 was known before" in result.stdout


def test_no_incident_is_said_in_words(clipdrift, watched, monitor: SmallMonitor) -> None:
    monitor.says("GET", "/api/v1/incidents?state=open&limit=50", {"items": [], "precision": {}})
    result = clipdrift("incidents", "list", "-p", watched.folder)

    assert result.stdout.startswith("no incident is open\nprecision so far: not known; `clipdrift incidents feedback` says")


def test_an_incident_is_shown_by_a_part_of_its_id_with_all_that_was_said(clipdrift, watched, monitor: SmallMonitor) -> None:
    monitor.says("GET", EVERY, {"items": [BROKEN]})
    monitor.says("GET", "/api/v1/incidents/pump-data-3f9a2c10", BROKEN)
    lines = clipdrift("incidents", "show", "3f9a", "-p", watched.folder).stdout.splitlines()

    assert lines[0] == "pump-data-3f9a2c10: pump: the data look broken"
    assert lines[1].startswith(
        "silenced; ticket, page at its worst; seen from 1970-01-02 00:00 to 1970-01-04 00:00 UTC in 2 wi"
    )
    assert "come back once" in lines[1]
    assert "What would change this: a day with values" in lines
    assert "silenced by Ada until 1970-01-02 00:00 UTC: planned" in lines
    assert "true, says Bob (1970-01-01 00:00 UTC): it was unplugged" in lines


@pytest.mark.parametrize(("command", "path"), [("ack", "acknowledge"), ("silence", "silence")])
def test_a_person_holds_an_incident_for_a_while_by_name(clipdrift, watched, monitor: SmallMonitor, command, path) -> None:
    monitor.says("GET", EVERY, {"items": [BROKEN]})
    monitor.says("POST", f"/api/v1/incidents/pump-data-3f9a2c10/{path}", BROKEN)
    result = clipdrift("incidents", command, "3f9a2c10", "-p", watched.folder, "--why", "mending", "--by", "Ada", "--for", "2d")

    assert result.exit_code == 0, result.output
    body = monitor.asked[-1][3]
    assert (body["reason"], body["actor"]) == ("mending", "Ada")
    assert f": {'acknowledged' if command == 'ack' else 'silenced'} until 20" in result.stdout


def test_feedback_is_sent_with_who_and_why(clipdrift, watched, monitor: SmallMonitor) -> None:
    monitor.says("GET", EVERY, {"items": [BROKEN]})
    monitor.says("POST", "/api/v1/incidents/pump-data-3f9a2c10/feedback", BROKEN)
    result = clipdrift(
        "incidents", "feedback", "pump-data-3f9a2c10", "false", "-p", watched.folder, "--why", "a drill", "--by", "Ada"
    )

    assert monitor.asked[-1][3] == {"verdict": "false", "reason": "a drill", "actor": "Ada"}
    assert result.stdout == "pump-data-3f9a2c10: kept as false\n"


def test_a_part_that_could_mean_several_names_them_unless_one_alone_is_open(monitor: SmallMonitor) -> None:
    other = {**BROKEN, "incident_id": "pump-harm-00000000"}
    monitor.says("GET", EVERY, {"items": [BROKEN, other]})
    monitor.says("GET", "/api/v1/incidents?state=open&limit=500", {"items": [BROKEN, other]})
    monitor.says("GET", "/api/v1/incidents/pump-data-3f9a2c10", BROKEN)

    with MonitorClient(monitor.url, "t") as client:
        with pytest.raises(MonitorError, match="any of pump-data-3f9a2c10, pump-harm-00000000; give more"):
            client.incident("pump")
        monitor.says("GET", "/api/v1/incidents?state=open&limit=500", {"items": [BROKEN]})
        assert client.incident("pump") == BROKEN


@pytest.mark.parametrize("lasting", ["0h", "2w", "-1d", "soon", ""])
def test_a_length_of_time_that_is_none_is_said(clipdrift, watched, lasting: str) -> None:
    result = clipdrift("incidents", "silence", "x", "-p", watched.folder, "--why", "w", f"--for={lasting}")

    assert result.exit_code == 2
    assert "a length of time is written like 45m, 8h or 2d" in result.stderr


# --- approvals ---

ASKED = {
    "approval_id": "pump-promotion-3f9a2c10", "model": "pump", "kind": "promotion", "state": "waiting", "asked_at_ms": 0,
    "expires_at_ms": 86_400_000, "asks_expectation": False, "words": "Put version 8 of pump into service?",
    "requesters": ["ann"], "answer": None, "review": None,
    "binding": {"generation": 3, "candidate_digest": "c" * 64, "evidence_digest": "e" * 64, "policy_version": "p1"},
}  # fmt: skip
TOLD = {
    "approval": ASKED, "cause": "drift", "champion_version": "7", "as_of_ms": 0, "arms": ["same", "q90"], "run_url": "https://ci/1",
    "wall_seconds": 61.0, "cpu_seconds": 100.0, "card_digest": "", "is_signed": False, "next": "Open the evidence.",
    "findings": {
        "verdict": "pass", "reasons": ["it is better"], "winner": "q90", "against_champion": [],
        "checks": [{"name": "loss", "slice": "north", "outcome": "pass", "words": "well", "value": -0.02, "bound": 0.001}],
    },
}  # fmt: skip
ALL = "/api/v1/approvals?limit=500"
PLACE = "/api/v1/approvals/pump-promotion-3f9a2c10"
ANSWERED = {**ASKED, "state": "approved", "answer": {"is_approved": True, "actor": "bob", "reason": "r", "at_ms": 0}}


@pytest.fixture
def asked(monitor: SmallMonitor) -> SmallMonitor:
    monitor.says("GET", ALL, {"items": [ASKED]})
    monitor.says("GET", PLACE, TOLD)
    monitor.says("POST", f"{PLACE}/look", TOLD)
    for what in ("approve", "reject"):
        monitor.says("POST", f"{PLACE}/{what}", ANSWERED)
    return monitor


def test_what_waits_is_listed_with_how_people_answered(clipdrift, watched, monitor: SmallMonitor) -> None:
    share = {"num": 1, "of": 20, "value": 0.05, "low": 0.009, "high": 0.236}
    figures = {
        "num_answered": 20, "median_seconds": 75.0, "warnings": ["people may agree by habit"],
        **dict.fromkeys(("override", "override_told", "override_untold", "rubber_stamps"), share),
    }  # fmt: skip
    monitor.says("GET", "/api/v1/approvals?model=pump&state=waiting&limit=20", {"items": [ASKED], "figures": figures})
    result = clipdrift("approvals", "-p", watched.folder, "--model", "pump", "--waiting")

    assert "pump-promotion-3f9a2c10" in result.stdout
    assert "override rate (rejections among answers): 1 of 20 (1 to 24 %)" in result.stdout
    assert "median 75 s from opening to answer" in result.stdout
    assert "! people may agree by habit" in result.stdout


def test_nothing_asked_is_said_in_words(clipdrift, watched, monitor: SmallMonitor) -> None:
    monitor.says("GET", "/api/v1/approvals?limit=20", {"items": [], "figures": {"num_answered": 0}})
    result = clipdrift("approvals", "-p", watched.folder)

    assert result.stdout == "nothing was asked yet; [policy.approval] says what is\nnobody has answered yet\n"


def test_to_show_an_approval_opens_its_evidence_on_record(clipdrift, watched, asked: SmallMonitor) -> None:
    result = clipdrift("approvals", "show", "3f9a", "-p", watched.folder, "--by", "bob")

    assert asked.asked[-1][1:] == (
        f"{PLACE}/look",
        f"Bearer {watched.secrets().api_token}",
        {"expectation": "", "actor": "bob"},
    )
    assert "  pass         loss of north: -0.02, bound 0.001. well" in result.stdout
    assert "evidence: eeeeeeeeeeee" in result.stdout
    assert "ordered by ann, who may not approve it" in result.stdout


def test_an_answer_comes_with_the_key_of_the_environment_and_then_names_nobody(
    clipdrift, watched, asked: SmallMonitor, monkeypatch
) -> None:
    monkeypatch.setenv("CLIPDRIFT_APPROVAL_KEY", "clipdrift_bob")
    result = clipdrift("approvals", "approve", "3f9a", "-p", watched.folder, "--evidence", "eeeeeeee", "--why", "seen")

    body = {"reason": "seen", "evidence_digest": "e" * 64, "is_break_glass": False}
    assert asked.asked[-1][1:] == (f"{PLACE}/approve", "Bearer clipdrift_bob", body)
    assert result.stdout == "pump-promotion-3f9a2c10: approved by bob\n"


@pytest.mark.parametrize("evidence", ["ffffffff", "eeee", ""])
def test_an_answer_that_names_other_evidence_is_not_sent(clipdrift, watched, asked: SmallMonitor, evidence: str) -> None:
    result = clipdrift("approvals", "reject", "3f9a", "-p", watched.folder, f"--evidence={evidence}", "--why", "no")

    assert result.exit_code == 2
    assert "first 8 digits at least" in result.stderr
    assert all(one[0] == "GET" for one in asked.asked)


def test_an_emergency_says_that_it_is_reviewed(clipdrift, watched, asked: SmallMonitor) -> None:
    named = ("--evidence", "e" * 64, "--why", "it burns", "--by", "bob", "--emergency")
    result = clipdrift("approvals", "approve", "3f9a", "-p", watched.folder, *named)

    assert asked.asked[-1][3]["is_break_glass"] is True
    assert "another person reviews it" in result.stdout


def test_the_status_says_what_waits_and_what_is_on_its_way() -> None:
    rollout = {"version": "8", "stage": "canary 0.1", "words": "410 of 900 labels"}
    assert status_words({"model": "pump", "approval": "pump-promotion-3f9a2c10", "rollout": rollout}) == [
        "pump: version 8 is on its way (canary 0.1): 410 of 900 labels",
        "pump: waits for a person: `clipdrift approvals show pump-promotion-3f9a2c10`",
    ]


def test_an_order_that_another_person_must_agree_to_says_so(clipdrift, watched, monitor: SmallMonitor) -> None:
    model = next(iter(watched.file.models))
    monitor.says("POST", f"/api/v1/models/{model}/retrain", {"key": "k1", "approval": "pump-retrain-k1"}, status=202)
    result = clipdrift("retrain", model, "-p", watched.folder, "--why", "a new sensor")

    assert result.stdout == "asked for: k1; another person agrees first: `clipdrift approvals show pump-retrain-k1`\n"
