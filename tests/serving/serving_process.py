"""The real serving process on a SQLite bus in a folder, which can be asked, killed and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from toy_service import KEY, deploy

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.metrics import MetricSet

TOKEN = "admin-secret"
_START = (
    "import json, pathlib, sys; from clipdrift_serving.config import ServingConfig; from clipdrift_serving.server import run;"
    "given = json.loads(sys.argv[1]); given['spool_dir'] = pathlib.Path(given['spool_dir']); run(ServingConfig(**given))"
)
INPUTS = [
    {"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]},
    {"name": "y", "shape": [1], "datatype": "FP32", "data": [0.25]},
    {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["UA"]},
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_until(claim, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, f"not in {seconds} s"
        threading.Event().wait(0.02)


class Process:
    """A serving process of a folder, which can be killed and started again."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.folder = folder
        self.port, self.admin_port, self.grpc_port = free_port(), free_port(), free_port()
        self.config = config
        self.bus_url = f"sqlite:///{folder}/bus.db"
        self.bus = connect(self.bus_url)
        self.events = EventPublisher(self.bus.publisher(), source="test", clock=SystemClock())
        self.home = folder / "home"
        self.home.mkdir()
        self.process: subprocess.Popen | None = None

    def start(self, *, wait: bool = True) -> None:
        config = {
            "port": self.port, "admin_port": self.admin_port, "admin_token": TOKEN, "receipt_keys": [KEY],
            "bus_url": self.bus_url, "spool_dir": str(self.folder / "spool"), **self.config,
        }  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
        environment |= {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-c", _START, json.dumps(config)], env=environment)
        if wait:
            wait_until(lambda: self.process.poll() is not None or self.get("/v2/health/live")[0] == 200)
        assert self.process.poll() is None, "serving ended at start"

    def deploy(self, served, generation, **others) -> None:
        self.events.publish(deploy(served, generation, **others))
        self.events.flush(5)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def get(self, path, method="GET", body=None, port=None, headers=None):
        url = f"http://127.0.0.1:{port or self.port}{path}"
        request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def admin(self, path, method="GET"):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return self.get(path, method, b"" if method == "POST" else None, self.admin_port, headers)

    def infer(self):
        status, body = self.get("/v2/models/toy/infer", "POST", json.dumps({"inputs": INPUTS}).encode())
        return status, json.loads(body or b"{}")

    def label(self, receipts):
        body = json.dumps({"receipts": receipts, "labels": [1] * len(receipts)}).encode()
        status, answer = self.get("/v2/models/toy/feedback", "POST", body)
        return status, json.loads(answer or b"{}")

    def is_ready(self) -> bool:
        return self.get("/v2/health/ready")[0] == 200

    def metric(self, name: str) -> float:
        """Sum of the series whose line begins so."""
        lines = self.get("/metrics", port=self.admin_port)[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)

    def events_of(self, topic):
        """Every event on a topic."""
        reader = EventReader(
            self.bus.consumer(None, [topic]), publisher=self.bus.publisher(), metrics=MetricSet(), clock=SystemClock()
        )
        events = []
        while found := reader.poll(500, 0.2):
            events += [event for _, _, event in found]
        return events

    def recorded(self, topic):
        """(epoch, sequence) of each row on the bus, without duplicates."""
        return {(event.epoch, int(number)) for event in self.events_of(topic) for number in event.sequence.array()}
