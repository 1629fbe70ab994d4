"""A monitor in a process of its own, as the command starts it, on a bus and a store that the test can reach too."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

SCRIPT = """
import logging, sys, msgspec
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.server import run
logging.basicConfig(level="INFO")
run(msgspec.json.decode(sys.argv[1], type=MonitorConfig, dec_hook=lambda kind, value: kind(value)))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config_of(folder, port=0, **changed):
    known = {
        "port": port or free_port(),
        "bus_url": f"sqlite:///{folder / 'bus.db'}", "store_url": f"sqlite:///{folder / 'store.db'}",
        "jobs_dir": str(folder / "jobs"), "evidence_dir": str(folder / "evidence"), "evidence_for": "nothing",
    }  # fmt: skip
    return known | changed


class MonitorProcess:
    """`script` runs the config that is its first argument; what stands below `changed` replaces the config's own."""

    def __init__(self, folder, *, script=SCRIPT, words=(), environment=None, **changed):
        self.config = config_of(folder, **changed)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(self.config), *words], env=os.environ | (environment or {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def get(self, path):
        """Status and body of a page; (0, "") where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.config['port']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def progress(self):
        status, body = self.get("/api/v1/progress")
        return json.loads(body) if status == 200 else {"is_idle": False, "models": {}}

    def until(self, is_so, seconds=60.0, ask=None):
        """What `ask` (default: the progress) says once it is so."""
        deadline = time.monotonic() + seconds
        while not is_so(found := (ask or self.progress)()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(self.process.communicate()[0])
        return found

    def end(self, how=signal.SIGTERM):
        """Exit status and log."""
        self.process.send_signal(how)
        log = self.process.communicate(timeout=60)[0]
        return self.process.returncode, log
