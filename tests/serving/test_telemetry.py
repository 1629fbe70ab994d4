"""ONNX Runtime sends usage data to its maker by default; in a process of ours it does not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from toy_service import write_model

_PROGRAM = """
import sys, time
import numpy as np
from clipdrift_contract.events import ServedVersion
from clipdrift_serving.dataplane.model import AdmissionPolicy, LoadedModel
model = LoadedModel("toy", ServedVersion(version="v1", uri=sys.argv[1], digest=sys.argv[2]), AdmissionPolicy())
row = {"x": np.ones(1, "f4"), "y": np.ones(1, "f4"), "carrier": np.array(["UA"], object)}
try:  # what is wrong with an input is what the runtime reports, too
    model.infer({**row, "x": np.ones((1, 2), "f4")})
except Exception as error:
    print(type(error).__name__)
print(model.infer(row)["probabilities"].shape)
"""
_CALL = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(.*")
_HERE = re.compile(r'AF_UNIX|AF_NETLINK|inet_addr\("127\.|inet_pton\(AF_INET6, "::1"')


def goes_out(line: str) -> bool:
    """Whether a line of strace is a call to another machine."""
    return _CALL.search(line) is not None and _HERE.search(line) is None


def run(home: Path, served_folder: Path, *before: str) -> None:
    """Load and run a model in a new process, trial included, with an empty home and nothing else set."""
    served = write_model(served_folder, "v1", 0.0)
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH") if name in os.environ}
    ended = subprocess.run(
        [*before, sys.executable, "-c", _PROGRAM, served.uri, served.digest],
        env={**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "TMPDIR": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.split("\n")[:2] == ["RequestError", "(1, 2)"], ended.stderr[-2000:]


def test_the_runtime_keeps_no_device_id_and_no_queue(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    run(home, tmp_path)
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('7 connect(5, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("20.42.65.91")}, 16) = 0', True),
        ('7 connect(5, {sa_family=AF_INET6, sin6_port=htons(443), inet_pton(AF_INET6, "2a01::1", &sin6_addr)}, 28) = 0', True),
        ('7 sendto(5, "...", 40, 0, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("9.9.9.9")}, 16) = 40', True),
        ('7 connect(5, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0', False),
        ('7 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT', False),
        ('7 execve("/usr/bin/python", ["python"], 0x7ffd /* 3 vars */) = 0', False),
    ],
)
def test_a_call_to_another_machine_is_told_from_one_to_this(call: str, expected: bool) -> None:
    assert goes_out(call) is expected


@pytest.mark.system
def test_no_process_of_ours_speaks_to_another_machine(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "calls"
    home.mkdir()
    run(
        home, tmp_path, "strace", "-f", "-qq", "-s", "300", "-e", "trace=connect,sendto,sendmsg,sendmmsg,execve", "-o", str(log)
    )
    lines = log.read_text().splitlines()
    assert any("clipdrift_serving.dataplane.trial" in line for line in lines), "strace saw the trial's process too"
    assert [line for line in lines if goes_out(line)] == []
