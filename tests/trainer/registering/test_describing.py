"""What lies beside a model after a training, and what happens where it cannot."""

import logging
import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("model_signing")

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import RunEnd
from clipdrift_contract.signatures import read_public_keys, read_signature
from clipdrift_contract.version_files import sha256_of
from clipdrift_trainer.registering.card import CardGate, CardParent, StatedSection, decode_card
from clipdrift_trainer.registering.card_page import card_page
from clipdrift_trainer.registering.describing import Describing, describe_version, require_signer

sys.path.insert(0, str(Path(__file__).parents[2] / "contract"))
from signing_keys import KeyFiles, make_keys


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    return make_keys(tmp_path)


@pytest.fixture
def made(run: RunEnd, tmp_path: Path) -> RunEnd:
    """A run whose files are there."""
    folder = tmp_path / run.version
    folder.mkdir()
    for name in ("model.onnx", "weights.pt", "validation.json"):
        (folder / name).write_bytes(name.encode())
    return msgspec.structs.replace(
        run, artifact_uri=(folder / "model.onnx").as_uri(), artifact_digest=f"sha256:{sha256_of(folder / 'model.onnx')}",
        retrain_key="", arm="",
    )  # fmt: skip


def folder_of(run: RunEnd) -> Path:
    return Path(run.artifact_uri.removeprefix("file://")).parent


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.name != "model.sig"}


def test_the_card_names_every_other_file_and_the_run_names_the_card(made: RunEnd) -> None:
    told = describe_version(made, Describing(stated=StatedSection(owners="Plant team")))

    folder = folder_of(made)
    card = decode_card((folder / "card.json").read_bytes())
    assert card.files == {
        name: sha256_of(folder / name) for name in ("model.onnx", "sbom.json", "validation.json", "weights.pt")
    }
    assert (folder / "card.md").read_text() == card_page(card)
    assert card.stated.owners == "Plant team"
    assert (told.card_digest, told.is_signed) == (sha256_of(folder / "card.json"), False)


def test_with_a_key_every_file_is_signed(made: RunEnd, keys: KeyFiles) -> None:
    told = describe_version(made, Describing(key_file=keys.private))

    folder = folder_of(made)
    signed = read_signature(folder / "model.sig", read_public_keys([keys.public]))
    assert told.is_signed
    assert signed.files == files_in(folder)
    assert {"card.json", "card.md", "sbom.json", "model.onnx"} <= set(signed.files)


def test_what_was_trained_by_hand_again_keeps_its_card_and_signature(made: RunEnd, keys: KeyFiles) -> None:
    first = describe_version(made, Describing(key_file=keys.private))
    before = {path.name: path.read_bytes() for path in folder_of(made).iterdir()}

    later = msgspec.structs.replace(made, run_id="run-2", ended_at_ms=made.ended_at_ms + 1)
    again = describe_version(later, Describing(key_file=keys.private))

    assert {path.name: path.read_bytes() for path in folder_of(made).iterdir()} == before
    assert (again.card_digest, again.is_signed) == (first.card_digest, True)


def test_a_version_that_was_unsigned_is_signed_when_there_is_a_key(made: RunEnd, keys: KeyFiles) -> None:
    first = describe_version(made, Describing())

    again = describe_version(made, Describing(key_file=keys.private))

    assert (first.is_signed, again.is_signed) == (False, True)
    assert first.card_digest == again.card_digest


def test_a_card_of_other_files_is_written_anew(made: RunEnd, keys: KeyFiles) -> None:
    first = describe_version(made, Describing(key_file=keys.private))
    (folder_of(made) / "weights.pt").write_bytes(b"others")

    again = describe_version(made, Describing(key_file=keys.private))

    assert again.card_digest != first.card_digest
    signed = read_signature(folder_of(made) / "model.sig", read_public_keys([keys.public]))
    assert signed.files == files_in(folder_of(made))


def test_a_retrain_that_is_carried_out_again_gets_the_card_of_its_own_gate(
    made: RunEnd, gate: CardGate, keys: KeyFiles
) -> None:
    ordered = msgspec.structs.replace(made, retrain_key="key-1")
    parent = CardParent(version="v0", digest="sha256:0")
    describe_version(ordered, Describing(key_file=keys.private), gate=gate, parent=parent)

    failed = msgspec.structs.replace(gate, verdict="fail")
    told = describe_version(ordered, Describing(key_file=keys.private), gate=failed, parent=parent)

    card = decode_card((folder_of(made) / "card.json").read_bytes())
    assert card.gate == failed
    assert card.origin.parent == parent
    signed = read_signature(folder_of(made) / "model.sig", read_public_keys([keys.public]))
    assert signed.files["card.json"] == told.card_digest


def test_a_key_that_fails_at_the_end_leaves_the_version_unsigned_and_says_so(
    made: RunEnd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        told = describe_version(made, Describing(key_file=tmp_path / "gone.key"))

    assert not told.is_signed
    assert told.card_digest
    assert "is not signed" in caplog.text
    assert "gone.key" in caplog.text


def test_a_key_that_cannot_sign_is_found_before_the_training(tmp_path: Path, keys: KeyFiles) -> None:
    require_signer(None)
    require_signer(keys.private)
    for path in (keys.public, tmp_path / "gone.key"):
        with pytest.raises(ConfigError, match=path.name):
            require_signer(path)
