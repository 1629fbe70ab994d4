"""The dead man's switch: it tells once that alerts stopped, once that they come again, and keeps trying where telling fails."""

import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from clipdrift_contract.clock import ManualClock
from clipdrift_deploy.watchdog import Switch, listen

FIRING = {"alerts": [{"status": "firing", "labels": {"alertname": "ClipdriftWatchdog"}}]}


@pytest.fixture
def clock():
    return ManualClock(now_ms=0)


class Room:
    """A switch of a minute, and what it told."""

    def __init__(self, clock):
        self.clock, self.switch, self.told, self.is_reached = clock, Switch(60.0, clock), [], True

    def pass_seconds(self, seconds):
        for _ in range(seconds):
            self.clock.advance_ms(1_000)
            self.switch.look(self._tell)

    def _tell(self, words):
        self.told.append(words)
        return self.is_reached


@pytest.fixture
def room(clock):
    return Room(clock)


def test_it_is_quiet_while_the_alert_comes(room):
    for _ in range(20):
        room.pass_seconds(55)
        assert room.switch.hear(FIRING)
    assert room.told == []


def test_it_tells_once_that_nothing_comes_and_once_that_it_comes_again(room):
    room.pass_seconds(500)
    assert [words[:36] for words in room.told] == ["Alerts of Clipdrift do not reach you"]
    room.switch.hear(FIRING)
    room.pass_seconds(30)
    assert room.told[1:] == ["Alerts of Clipdrift reach you again."]


def test_it_tells_again_until_somebody_was_reached(room):
    room.is_reached = False
    room.pass_seconds(65)
    assert len(room.told) == 5
    room.is_reached = True
    room.pass_seconds(20)
    assert len(room.told) == 6


@pytest.mark.parametrize(
    "message",
    [
        {}, [], None, {"alerts": [{}]}, {"alerts": ["x"]},
        {"alerts": [{"status": "resolved", "labels": {"alertname": "ClipdriftWatchdog"}}]},
        {"alerts": [{"status": "firing", "labels": {"alertname": "ClipdriftModelHarmed"}}]},
    ],
)  # fmt: skip
def test_nothing_but_the_firing_alert_counts(room, message):
    room.pass_seconds(40)
    assert not room.switch.hear(message)
    room.pass_seconds(40)
    assert len(room.told) == 1


def test_it_listens_refuses_what_is_no_message_and_says_how_it_is(clock):
    switch = Switch(60.0, clock)
    server = listen("127.0.0.1", 0, switch)
    url = f"http://127.0.0.1:{server.server_port}"
    clock.advance_ms(90_000)
    assert httpx.get(url).status_code == 503
    assert httpx.post(url, content=b"{").status_code == 400
    assert httpx.post(url, content=b"").status_code == 400
    assert httpx.post(url, content=b" " * 1_000_001).status_code == 400
    assert httpx.get(url).status_code == 503
    assert httpx.post(url, json=FIRING).text == "heard\n"
    assert httpx.get(url).text == "last heard 0 s ago\n"
    server.shutdown()
    server.server_close()


def test_a_limit_of_nothing_is_refused(clock):
    with pytest.raises(ValueError, match="must be > 0"):
        Switch(0.0, clock)


def test_the_command_tells_an_address_and_ends_when_told():
    told, is_told = [], threading.Event()

    class Slack(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            is_told.set()

        def log_message(self, *_):
            pass

    slack = ThreadingHTTPServer(("127.0.0.1", 0), Slack)
    threading.Thread(target=slack.serve_forever, daemon=True).start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "clipdrift_deploy", "watchdog", "--within", "0.02m", "--port", str(port)]
    environment = os.environ | {"WATCHDOG_URL": f"http://127.0.0.1:{slack.server_port}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert is_told.wait(60), "nobody was told"
            process.send_signal(signal.SIGTERM)
            log = process.communicate(timeout=30)[0]
        finally:
            process.kill()
            slack.shutdown()
            slack.server_close()
    assert process.returncode == 0, log
    assert b"do not reach you" in told[0]
    assert "waiting for ClipdriftWatchdog" in log
