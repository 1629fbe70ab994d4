"""Starting, killing and ending components, with a small program in their place that behaves as each test says."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy import up

PROGRAM = """
import os, pathlib, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

command, folder, port = sys.argv[1], pathlib.Path(sys.argv[3]), int(sys.argv[5])
(folder / f"{command}.arguments").write_text(" ".join(sys.argv[1:]))
behaviour = (folder / f"{command}.behaviour")
behaviour = behaviour.read_text() if behaviour.exists() else ""
print(f"{command} begins", flush=True)
if behaviour == "ends":
    print("cannot read the model: it is made of cheese", flush=True)
    sys.exit(3)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == ("/v2/health/live" if command == "serve" else "/healthz")
        self.send_response(503 if behaviour == "never ready" or not known else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", port), Handler)


def end(*_):
    (folder / f"{command}.drained").write_text("")
    threading.Thread(target=server.shutdown).start()


if behaviour == "crashes":  # some moments after it was ready
    threading.Timer(0.05, os._exit, (7,)).start()
signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "deaf" else end)
server.serve_forever(0.01)
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_both_components_answer_when_start_returns_and_have_drained_when_stop_returns(make_project, program) -> None:
    project = make_project()

    running = up.start(project, program=program)
    answered = [up.answers(f"{running.serving_url}/v2/health/live"), up.answers(f"{running.monitor_url}/healthz")]
    pids = [running.pid("serving"), running.pid("monitor")]
    running.stop()

    assert answered == [True, True]
    assert [is_alive(pid) for pid in pids] == [False, False]
    assert (project.folder / "serve.drained").exists()
    assert (project.folder / "monitor.drained").exists()
    assert "serve begins" in (project.logs / "serving.log").read_text()


def test_the_commands_name_the_project_and_its_ports(make_project, program) -> None:
    project = make_project()

    with up.start(project, program=program) as running:
        serving, admin, monitor = (
            url.rpartition(":")[2] for url in (running.serving_url, running.serving_admin_url, running.monitor_url)
        )

    assert (project.folder / "serve.arguments").read_text() == (
        f"serve --project {project.folder} --port {serving} --admin-port {admin}"
    )
    assert (project.folder / "monitor.arguments").read_text() == f"monitor --project {project.folder} --port {monitor}"


def test_the_addresses_are_left_where_other_commands_find_them_for_as_long_as_it_runs(make_project, program) -> None:
    project = make_project()
    left = project.state / "addresses.json"

    with up.start(project, program=program) as running:
        assert json.loads(left.read_text())["monitor"] == running.monitor_url

    assert not left.exists()


def test_a_component_that_ends_at_start_is_told_with_the_end_of_its_log_and_the_other_is_ended(make_project, program) -> None:
    project = make_project()
    (project.folder / "monitor.behaviour").write_text("ends")

    with pytest.raises(up.StartError, match=r"(?s)monitor ended with status 3; the end of .*monitor\.log:.*made of cheese"):
        up.start(project, program=program)
    assert (project.folder / "serve.drained").exists()
    assert not (project.state / "addresses.json").exists()


def test_a_component_that_does_not_get_ready_is_told(make_project, program) -> None:
    project = make_project()
    (project.folder / "serve.behaviour").write_text("never ready")
    listeners = {name: up.Listener("127.0.0.1", up.free_port("127.0.0.1")) for name in ("serving", "admin", "monitor")}

    with up.Running(project, listeners, program) as running, pytest.raises(up.StartError, match="was not ready in 0 s"):
        running.start("serving", ready_seconds=0.3)


def test_a_killed_component_is_gone_at_once_and_can_be_started_again(make_project, program) -> None:
    with up.start(make_project(), program=program) as running:
        pid = running.pid("serving")
        running.kill("serving")

        assert not is_alive(pid)
        assert running.ended() == {"serving": -signal.SIGKILL}
        running.start("serving")
        assert running.ended() == {}
        assert running.pid("serving") != pid


def test_one_that_does_not_listen_to_sigterm_is_ended_by_force(make_project, program) -> None:
    project = make_project()
    (project.folder / "serve.behaviour").write_text("deaf")

    running = up.start(project, program=program)
    running.stop(timeout_seconds=0.2)
    running.stop()

    assert running.ended()["serving"] == -signal.SIGKILL


def test_a_port_that_was_asked_for_and_is_taken_is_told_with_the_setting_that_changes_it(make_project, program) -> None:
    project = make_project()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError, match=rf"port {port} of 127\.0\.0\.1 is taken .* \[monitor\] port"):
            up.start(project, ports={"monitor": port}, program=program)
    assert not (project.folder / "serve.arguments").exists(), "nothing was started"


def test_the_configured_ports_are_the_ones_in_the_file(make_project) -> None:
    project = make_project("[serving]\nport = 9001\nadmin_port = 9002\n[monitor]\nport = 9003\n")

    assert up.configured_ports(project) == {"serving": 9001, "admin": 9002, "monitor": 9003}


def test_a_listener_on_all_addresses_is_reached_by_the_local_one(make_project) -> None:
    project = make_project("[serving]\nhost = '0.0.0.0'\n")
    listeners = up.listeners(project)

    with up.Running(project, listeners) as running:
        assert running.serving_url == "http://127.0.0.1:8080"


def test_what_ends_by_itself_is_started_again_until_it_is_given_up(make_project, program) -> None:
    project = make_project()
    told: list[str] = []

    with up.start(project, program=program) as running:
        pid = running.pid("serving")
        (project.folder / "monitor.behaviour").write_text("crashes")
        running.kill("monitor")
        with pytest.raises(up.StartError, match=r"monitor ended by itself .* it was started again 2 times and is given up"):
            up.keep_running(running, told.append, max_restarts=2, poll_seconds=0.01)

        assert running.pid("serving") == pid, "the other one goes on"
    assert [line.partition(", see")[0] for line in told] == [
        "monitor ended by itself with status -9",
        "monitor ended by itself with status 7",
    ]
