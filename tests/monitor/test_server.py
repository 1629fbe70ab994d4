"""The process: ends when told to, saves before it does, and is alone."""

import fcntl
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from dialogue import Dialogue, day_of, run_end

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.server import run
from clipdrift_monitor.store.store import Changes, Store

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


def config_of(folder, port=0):
    return {
        "port": port or free_port(),
        "bus_url": f"sqlite:///{folder / 'bus.db'}", "store_url": f"sqlite:///{folder / 'store.db'}",
        "jobs_dir": str(folder / "jobs"), "evidence_dir": str(folder / "evidence"), "evidence_for": "nothing",
    }  # fmt: skip


def config_struct(folder, port=0):
    given = config_of(folder, port)
    return MonitorConfig(**given | {"jobs_dir": folder / "jobs", "evidence_dir": folder / "evidence"})


class Process:
    """A monitor in a process of its own."""

    def __init__(self, folder):
        self.config = config_of(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, json.dumps(self.config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def progress(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.config['port']}/api/v1/progress", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return {"is_idle": False, "models": {}}

    def until(self, is_so, seconds=60.0):
        deadline = time.monotonic() + seconds
        while not is_so(found := self.progress()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                pytest.fail(self.process.communicate()[0])
        return found

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        log = self.process.communicate(timeout=60)[0]
        return self.process.returncode, log


@pytest.mark.system
def test_a_monitor_that_is_told_to_end_in_the_middle_of_its_work_saves_returns_and_goes_on_in_its_next_life(tmp_path):
    with Dialogue(tmp_path) as teller:
        teller.tell(run_end(), *(batch for day in range(2, 60) for batch in day_of(day)))
        first = Process(tmp_path)
        first.until(lambda found: found["models"])
        teller.tell(*(batch for day in range(60, 120) for batch in day_of(day)))
        ended = first.end()
        second = Process(tmp_path)
        found = second.until(lambda found: found["is_idle"])
        interrupted = second.end(signal.SIGINT)

        assert ended[0] == interrupted[0] == 0
        assert "Traceback" not in ended[1] + interrupted[1]
        assert found["models"]["pump"] == {"num_predictions": 118 * 200, "num_labels": 118 * 200}
        assert teller.store.verify_audit().is_intact
        assert len(teller.store.blocks("pump")) == 117


@pytest.mark.system
@pytest.mark.slow
def test_a_monitor_that_is_killed_in_the_middle_of_its_work_counts_the_same_in_its_next_life(tmp_path):
    with Dialogue(tmp_path) as teller:
        teller.tell(run_end())
        first = Process(tmp_path)
        first.until(lambda found: found["models"])
        teller.tell(*(batch for day in range(2, 150) for batch in day_of(day)))
        first.until(lambda found: found["models"]["pump"]["num_labels"])
        first.end(signal.SIGKILL)
        teller.tell(*(batch for day in range(150, 200) for batch in day_of(day)))
        second = Process(tmp_path)
        found = second.until(lambda found: found["is_idle"])
        second.end()

        assert found["models"]["pump"] == {"num_predictions": 198 * 200, "num_labels": 198 * 200}
        assert len(teller.store.blocks("pump")) == 197
        assert len(teller.store.listed("decisions", "pump", 500, 0)) == 197
        assert teller.store.verify_audit().is_intact


def test_a_second_monitor_of_a_project_is_refused(tmp_path):
    (tmp_path / "jobs").mkdir()
    with (tmp_path / "jobs" / ".monitor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(ConfigError, match="another monitor of this project is running"):
            run(config_struct(tmp_path))


def test_a_taken_port_ends_the_engine_too_and_lets_the_next_one_start(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for _ in range(2):  # the lock is free again
            with pytest.raises(SystemExit):
                run(config_struct(tmp_path, taken.getsockname()[1]))


def test_a_fault_of_the_engine_ends_the_process_with_its_story(tmp_path, caplog):
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.commit(Changes(models={"pump": b"no state of a model"}))
    store.close()

    with pytest.raises(ClipdriftError, match=r"the monitor's engine ended by (DecodeError|ValidationError)"):
        run(config_struct(tmp_path))
    assert "the process ends with it" in caplog.text
