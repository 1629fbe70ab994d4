"""KServe's own REST client, unchanged, on our server.

Its package pins what ours cannot have beside it, so it gets a virtual environment of its own below `build`, made once.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_service import yes

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
ENVIRONMENT = Path(__file__).parents[3] / "build" / "kserve-client"
EXPECTED = [yes(0.5, 0.25, 1.0, 0.0), yes(-1.0, 2.0, 0.0, 0.0)]
CONSTRAINTS = HERE / "kserve-constraints.txt"


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that can import KServe's client."""
    made, is_done = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "constraints.txt"
    if not is_done.exists() or is_done.read_text() != CONSTRAINTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(CONSTRAINTS), "kserve"]
        subprocess.run([str(made), *install], check=True)
        is_done.write_text(CONSTRAINTS.read_text())
    return made


def test_it_finds_the_server_and_the_model_and_infers_in_both_forms(server, python):
    command = [str(python), str(HERE / "kserve_asks.py"), f"http://127.0.0.1:{server.port}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    for form in ("binary", "json"):
        assert found[form]["probabilities"] == pytest.approx(EXPECTED, rel=1e-6)
        assert (found[form]["id"], found[form]["receipts"]) == ("k1", 2)
