"""Tampering with a project that serves, by the real processes: what is not what was made does not serve, and is named."""

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from small_loop import REPLAY_DAY, SOURCE, wait_until

pytest.importorskip("model_signing")

from clipdrift_contract.version_files import sha256_of
from clipdrift_deploy import up
from clipdrift_deploy.project import Environment, Project, open_project

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "valve"
KEYS = (
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signing.key",
    "openssl pkey -in signing.key -pubout -out signing.pub",
)


def command(project: Project, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "clipdrift_deploy", *words, "--project", str(project.folder)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[up.Running]:
    """A signed version in service, of a project that serves nothing else."""
    folder = tmp_path_factory.mktemp("tampered") / "project"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    settings = (folder / "clipdrift.toml").read_text().replace("[training]\n", '[training]\nsigning_key_file = "signing.key"\n')
    settings += '\n[serving.admission]\npublic_key_files = ["signing.pub"]\nis_signature_required = true\n'
    (folder / "clipdrift.toml").write_text(settings)
    for words in KEYS:
        subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    project = open_project(folder, Environment())
    trained = command(project, "train", MODEL, "--from", "2025-01-01", "--until", str(np.datetime64(REPLAY_DAY, "D")))
    assert trained.returncode == 0, trained.stderr
    with up.start(project) as found:
        wait_until(lambda: is_ready(found))
        yield found


@pytest.fixture
def folder(running: up.Running) -> Path:
    (path,) = (running.project.artifacts / MODEL).iterdir()
    return path


def is_ready(running: up.Running) -> bool:
    answer = httpx.get(f"{running.serving_url}/v2/models/{MODEL}/ready", trust_env=False)
    return answer.status_code == 200


def refused(running: up.Running) -> str:
    """What the server's log says after a restart with which nothing comes into service."""
    log = running.log_path("serving")
    before = log.stat().st_size
    running.kill("serving")
    running.start("serving")
    wait_until(lambda: "is refused" in log.read_text()[before:])
    assert not is_ready(running)
    return log.read_text()[before:]


def comes_back(running: up.Running) -> None:
    running.kill("serving")
    running.start("serving")
    wait_until(lambda: is_ready(running))


def test_a_changed_model_file_does_not_serve_and_the_log_and_verify_name_both_digests(
    running: up.Running, folder: Path
) -> None:
    path = folder / "model.onnx"
    content, before = path.read_bytes(), sha256_of(path)
    path.write_bytes(content + b"\0")
    try:
        said, verified = refused(running), command(running.project, "verify", MODEL)
    finally:
        path.write_bytes(content)

    found = hashlib.sha256(content + b"\0").hexdigest()
    assert f"was changed: its digest is sha256:{found}, the deployment says sha256:{before}" in said
    assert verified.returncode == 3
    assert f"model.onnx was changed: expected sha256 {before}" in verified.stdout
    assert f"found {found}" in verified.stdout
    comes_back(running)


def test_a_version_whose_signature_was_taken_away_does_not_serve(running: up.Running, folder: Path) -> None:
    path = folder / "model.sig"
    content = path.read_bytes()
    path.unlink()
    try:
        said, verified = refused(running), command(running.project, "verify", MODEL)
    finally:
        path.write_bytes(content)

    assert f"{folder.name} is not signed" in said
    assert (verified.returncode, "it is not signed; the monitor's record says that it was" in verified.stdout) == (3, True)
    comes_back(running)


def test_a_changed_card_is_named_while_all_goes_on(running: up.Running, folder: Path) -> None:
    path = folder / "card.json"
    content, before = path.read_bytes(), sha256_of(path)
    path.write_bytes(content.replace(b'"brier_sum"', b'"brier_sam"'))
    try:
        verified = command(running.project, "verify", MODEL)
    finally:
        path.write_bytes(content)

    assert verified.returncode == 3
    assert f"card.json was changed: expected sha256 {before}" in verified.stdout
    assert is_ready(running)
    assert command(running.project, "verify", MODEL).returncode == 0


def test_a_changed_row_of_the_monitors_audit_log_is_named(running: up.Running) -> None:
    assert "nothing is wrong" in command(running.project, "verify").stdout
    running.kill("monitor")
    with sqlite3.connect(running.project.state / "store.db") as connection:
        (seq,) = connection.execute("SELECT max(seq) FROM audit").fetchone()
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = ?", (seq,))

    verified = command(running.project, "verify")

    assert verified.returncode == 3
    assert f"the audit log is broken at row {seq}: row {seq} was changed" in verified.stdout
