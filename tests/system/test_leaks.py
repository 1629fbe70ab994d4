"""Nothing is sent anywhere but to this machine: ONNX Runtime, MLflow and Evidently each know how to phone home."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_loop import PROGRAM, Loop, wait_until

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs Debian's strace"),
]
CALLS = (  # to an address that nobody has (RFC 5737), and to a port of this machine that nobody listens on
    "import socket; one = socket.socket(type=socket.SOCK_DGRAM); one.connect(('192.0.2.1', 9)); "
    "two = socket.socket(); two.connect_ex(('127.0.0.1', 9))"
)


def tracing(log: Path) -> tuple[str, ...]:
    """A prefix that writes each connection that a command and all its children ask for into `log`."""
    return ("strace", "-D", "-f", "-qq", "-e", "trace=connect", "-e", "signal=none", "-o", str(log))


def called(log: Path) -> set[str]:
    """Addresses, and names of sockets that are files."""
    lines = log.read_text().splitlines()
    found = [re.search(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"|sun_path=@?"([^"]+)"', line) for line in lines]
    return {next(word for word in match.groups() if word) for match in found if match}


def outside(addresses: set[str]) -> set[str]:
    return {one for one in addresses if not one.startswith(("127.", "/")) and one != "::1"}


def test_the_trace_sees_who_is_called(tmp_path: Path) -> None:
    log = tmp_path / "calls"

    subprocess.run([*tracing(log), sys.executable, "-c", CALLS], check=True)

    assert wait_until(lambda: called(log) >= {"127.0.0.1", "192.0.2.1"})
    assert outside(called(log)) == {"192.0.2.1"}


def test_a_whole_loop_calls_nobody_outside(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORT_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    base, log = tmp_path / "base", tmp_path / "calls"
    shutil.copytree(trained, base)
    settings = base / "clipdrift.toml"
    changed = settings.read_text().replace('registry_url = "none"', "")
    settings.write_text(re.sub('evidence_for = "nothing".*', 'evidence_for = "retrains"', changed))

    loop = Loop(base, tmp_path / "loop", ("valve",), program=(*tracing(log), *PROGRAM))
    try:
        loop.run()
        wait_until(lambda: list((loop.project.state / "evidence").glob("*.html")), 150.0)
        verdicts = list(loop.outcome("valve").retrains.values())
    finally:
        loop.close()

    assert verdicts == ["pass"]
    assert (loop.project.state / "mlflow.db").exists(), "the job has told the registry"
    assert outside(called(log)) == set()
