"""What the how-to has people type and set works as it says; the library's own command agrees."""

import io
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("model_signing")

from clipdrift_deploy.training import train_model
from clipdrift_deploy.wiring import serving_config
from clipdrift_trainer.registering.card import decode_card

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "sign-and-verify-models.md").read_text()
DAY = 86_400_000


def typed(program: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(rf"^\$ ({program} .*)$", PAGE, re.MULTILINE)]


def test_a_model_signed_by_the_howto_is_verified_by_clipdrift_and_by_the_library(make_project, clipdrift) -> None:
    settings = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    project = make_project(settings)
    for words in typed("openssl"):
        subprocess.run(words, cwd=project.folder, check=True, capture_output=True)

    run = train_model(project, "pump", start_ms=0, end_ms=20 * DAY, as_of_ms=20 * DAY, console=Console(file=io.StringIO()))

    folder = project.artifacts / "pump" / run.version
    card = decode_card((folder / "card.json").read_bytes())
    assert run.is_signed
    assert card.stated.owners == tomllib.loads(settings)["models"]["pump"]["card"]["owners"]
    assert {path.name for path in folder.iterdir()} == {
        "card.json", "card.md", "model.onnx", "model.sig", "sbom.json", "validation.json", "weights.pt"
    }  # fmt: skip
    assert serving_config(project).admission.is_signature_required
    verified = clipdrift("verify", "-p", project.folder)
    assert (verified.exit_code, f"{run.version}: as it was made, 6 files, signed by signing.pub" in verified.stdout) == (
        0,
        True,
    )
    (words,) = typed("model_signing")
    words = [word.replace("20261101-abc123", run.version) for word in words]
    command = [sys.executable, "-m", "model_signing", *words[1:]]
    assert subprocess.run(command, cwd=project.folder, check=False, capture_output=True).returncode == 0
    (folder / "card.md").write_text("# another")
    told = subprocess.run(command, cwd=project.folder, check=False, capture_output=True, text=True)
    assert (told.returncode, "card.md" in told.stdout + told.stderr) == (1, True)


def test_every_command_of_clipdrift_in_the_howto_is_one(clipdrift) -> None:
    lines = typed("clipdrift")
    assert len(lines) == 3
    for words in lines:
        assert clipdrift(words[1], "--help").exit_code == 0


def test_without_the_extra_a_project_that_signs_is_told_which_to_install(make_project, monkeypatch, clipdrift) -> None:
    project = make_project('[training]\nsigning_key_file = "signing.key"\n')
    subprocess.run(typed("openssl")[0], cwd=project.folder, check=True, capture_output=True)
    monkeypatch.setitem(sys.modules, "model_signing", None)  # as if it were not installed

    ended = clipdrift("train", "pump", "-p", project.folder, "--until", "1970-01-20")

    assert ended.exit_code == 2
    assert "signing needs model_signing: pip install 'clipdrift[signing]'" in ended.stderr
