"""The way of an alert: a real monitor, a real Prometheus with the real rules, a real Alertmanager with the real routes, and
a server that takes the webhooks and holds what the links lead to."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml
from monitor_process import MonitorProcess, free_port

from clipdrift_dashboards.build import build
from clipdrift_dashboards.links import Links

ROOT = Path(__file__).parents[3]
ALERTMANAGER_FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
BOARDS = {f"/d/clipdrift-{path.stem}" for path in (ROOT / "dashboards" / "generated").glob("*.json")}
WAIT_SECONDS = 60.0


def until(is_so, what):
    """Wait for what must come."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := is_so()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {WAIT_SECONDS:.0f} s for {what}")
        time.sleep(0.1)
    return found


class Receiver:
    """Takes webhooks; `/runbooks/` and `/d/` stand for your wiki and for Grafana."""

    def __init__(self):
        told = self.told = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.extend((self.path, one) for one in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def do_GET(self):
                path, _, query = self.path.partition("?")
                page = RUNBOOKS / path.removeprefix("/runbooks/")
                is_there = (path in BOARDS and "var-model=pump" in query) or (path.startswith("/runbooks/") and page.is_file())
                self.send_response(200 if is_there else 404)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def messages(self, status=None, path=None):
        """Alerts in messages to people, as (status, name)."""
        return [
            one
            for place, one in self.told
            if place != "/dead-mans-switch" and status in (None, one["status"]) and path in (None, place)
        ]

    @property
    def names(self):
        return [(one["status"], one["labels"]["alertname"], one["labels"]["severity"]) for one in self.messages()]

    @property
    def num_watchdog(self):
        return sum(place == "/dead-mans-switch" for place, _ in self.told)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Server:
    """A program that can be ended and started again on the same data and port."""

    def __init__(self, command, ready_url, log):
        self._command, self._ready_url, self._log = command, ready_url, log

    def start(self):
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(lambda: self.process.poll() is None and answers(self._ready_url), f"{self._command[0]}, see {self._log}")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)

    def restart(self):
        self.end()
        self.start()


def answers(url):
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class AlertPath:
    """All of it, with seconds in place of minutes. `folder` holds the bus and store that the test tells events to."""

    def __init__(self, folder, policy):
        self.folder, self._policy = folder, policy
        self.receiver = Receiver()
        self.ports = {name: free_port() for name in ("monitor", "prometheus", "alertmanager")}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        self.prometheus, self.alertmanager = self._prometheus(), self._alertmanager()
        self.monitor = None

    def start_monitor(self, **alerting):
        known = {
            "urls": [self.urls["alertmanager"]], "repeat_seconds": 1, "resolve_after_seconds": 5,
            "monitor_url": self.urls["monitor"], "grafana_url": self.receiver.url,
            "runbooks_url": f"{self.receiver.url}/runbooks",
        }  # fmt: skip
        self.monitor = MonitorProcess(
            self.folder, port=self.ports["monitor"], policy=self._policy, api_token="t", alerting=known | alerting
        )

    def until_idle(self):
        self.monitor.until(lambda found: found["is_idle"] and found["models"])

    def value(self, query):
        """The value of the one series of a query; None where there is none."""
        answer = httpx.get(f"{self.urls['prometheus']}/api/v1/query", params={"query": query}, timeout=5).json()
        return next((float(one["value"][1]) for one in answer["data"]["result"]), None)

    def firing(self):
        answer = httpx.get(f"{self.urls['alertmanager']}/api/v2/alerts", timeout=5).json()
        return {one["labels"]["alertname"]: one for one in answer}

    def close(self):
        if self.monitor is not None:
            self.monitor.process.kill()
            self.monitor.process.communicate()
        for server in (self.prometheus, self.alertmanager):
            if hasattr(server, "process") and server.process.poll() is None:
                server.end()
        self.receiver.close()

    def _prometheus(self):
        links = Links(
            grafana_url=self.receiver.url, monitor_url=self.urls["monitor"], runbooks_url=f"{self.receiver.url}/runbooks"
        )
        build(self.folder / "rules", links)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self.folder / "rules" / "clipdrift-rules.yml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self.ports['alertmanager']}"]}]}]},
            "scrape_configs": [{"job_name": "m", "static_configs": [{"targets": [f"127.0.0.1:{self.ports['monitor']}"]}]}],
        }
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        command = [
            "prometheus", f"--config.file={path}", f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}", "--rules.alert.resend-delay=1s",
        ]  # fmt: skip
        return Server(command, f"{self.urls['prometheus']}/-/ready", self.folder / "prometheus.log")

    def _alertmanager(self):
        config = yaml.safe_load(ALERTMANAGER_FILE.read_text())
        for route in (config["route"], *config["route"]["routes"]):
            route |= {"group_wait": "1s", "group_interval": "1s"}
        config["route"]["routes"][0]["repeat_interval"] = "1s"  # the watchdog's
        for receiver in config["receivers"]:
            receiver["webhook_configs"][0]["url"] = f"{self.receiver.url}/{receiver['name']}"
        config["templates"] = [str(ALERTMANAGER_FILE.parent / name) for name in config["templates"]]
        path = self.folder / "alertmanager.yml"
        path.write_text(yaml.safe_dump(config))
        command = [
            "prometheus-alertmanager", f"--config.file={path}", f"--storage.path={self.folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.ports['alertmanager']}", "--cluster.listen-address=",
        ]  # fmt: skip
        return Server(command, f"{self.urls['alertmanager']}/-/ready", self.folder / "alertmanager.log")


@contextmanager
def alert_path(folder, policy) -> Iterator[AlertPath]:
    """Starts nothing by itself, and ends whatever was started."""
    path = AlertPath(folder, policy)
    try:
        yield path
    finally:
        path.close()
