"""kill -9 of a running ablation, again and again: no trial is made twice, and the end is the same to the byte."""

import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]
SHARED = ("--until", "1970-01-16", "--threshold", "0.1", "--seeds", "4", "--workers", "2")


def start(project: Path, out: Path) -> subprocess.Popen[str]:
    words = (sys.executable, "-m", "clipdrift_deploy", "ablate", "pump", "--project", str(project), "--out", str(out), *SHARED)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def live(running: subprocess.Popen[str], num_lines: int | None) -> list[str]:
    """What it said; killed after so many trials of its own."""
    assert running.stdout is not None
    said: list[str] = []
    for line in running.stdout:
        said.append(line)
        if num_lines is not None and sum(bool(re.search(r"; \d+\.\d s", each)) for each in said) >= num_lines:
            running.send_signal(signal.SIGKILL)
            break
    said += running.stdout.readlines()
    running.wait()
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("trials/*.msgpack")}


def test_an_ablation_that_is_killed_goes_on_and_repeats_nothing(make_project, tmp_path: Path) -> None:
    project = make_project().folder
    whole = live(start(project, tmp_path / "undisturbed"), None)
    assert (tmp_path / "undisturbed/result.json").exists(), whole

    out, generator, kept = tmp_path / "killed", random.Random(7), dict[Path, int]()
    for _ in range(3):
        live(start(project, out), generator.randint(1, 4))
        now = made(out)
        assert kept.items() <= now.items(), "a finished trial was made again"
        assert len(now) > len(kept)
        kept = now
    assert not (out / "result.json").exists()
    said = live(start(project, out), None)

    assert (out / "result.json").exists(), said
    assert kept.items() <= made(out).items(), "a finished trial was made again"
    assert sum("made by an earlier start" in line for line in said) == len(kept)
    assert contents(out) == contents(tmp_path / "undisturbed")
