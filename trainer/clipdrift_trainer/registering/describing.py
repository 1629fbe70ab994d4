"""Writes what describes a version beside its model: the bill of materials, the card, the signature over all of it."""

import logging
from pathlib import Path

import msgspec

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import RunEnd
from clipdrift_contract.files import write_whole
from clipdrift_contract.version_files import (
    CARD_NAME,
    CARD_PAGE_NAME,
    DESCRIPTIONS,
    SBOM_NAME,
    SIGNATURE_NAME,
    file_at,
    is_of_version,
    sha256_of,
)
from clipdrift_trainer.registering.card import (
    CardGate,
    CardParent,
    StatedSection,
    card_digest,
    decode_card,
    encode_card,
    make_card,
)
from clipdrift_trainer.registering.card_page import card_page
from clipdrift_trainer.registering.sbom import make_sbom

_log = logging.getLogger(__name__)
_EXTRA = "pip install 'clipdrift[signing]'"


class Describing(msgspec.Struct, frozen=True, kw_only=True):
    """How versions are described."""

    stated: StatedSection = StatedSection()
    """What people say of the model."""
    key_file: Path | None = None
    """PEM file of the private key that signs; None: versions are not signed."""


def require_signer(key_file: Path | None) -> None:
    """Look whether a version could be signed, before the hours that a training takes.

    Raises:
        ConfigError: `model-signing` is missing, or the key cannot be used.
    """
    if key_file is None:
        return
    try:
        from clipdrift_contract.signatures import require_private_key  # noqa: PLC0415  only who signs has its packages
    except ModuleNotFoundError as error:
        raise ConfigError(f"signing needs {error.name}: {_EXTRA}") from error
    require_private_key(key_file)


def describe_version(
    run: RunEnd, describing: Describing, *, gate: CardGate | None = None, parent: CardParent | None = None
) -> RunEnd:
    """Write bill, card and signature beside the model that `run` made; the run with the card's digest and whether it is signed.

    A version that was trained by hand before, from the same data and code, keeps the card that it has. Where signing fails the
    version stands there unsigned, as the log and the run say: a server that asks for signatures will refuse it.

    Raises:
        OSError: The files cannot be written.
    """
    folder = file_at(run.artifact_uri).parent
    card = _kept_card(folder, run)
    if card is None:
        card = _write_card(folder, run, describing, gate, parent)
        (folder / SIGNATURE_NAME).unlink(missing_ok=True)  # it was of another card
    is_signed = (folder / SIGNATURE_NAME).exists() or _sign(folder, describing.key_file)
    return msgspec.structs.replace(run, card_digest=card_digest(card), is_signed=is_signed)


def _write_card(folder: Path, run: RunEnd, describing: Describing, gate: CardGate | None, parent: CardParent | None) -> bytes:
    write_whole(folder / SBOM_NAME, make_sbom(run.model, run.version, run.artifact_digest))
    described = ({path.name for path in folder.iterdir()} - set(DESCRIPTIONS)) | {SBOM_NAME}
    files = {name: sha256_of(folder / name) for name in described if is_of_version(name)}
    card = make_card(run, files=files, stated=describing.stated, gate=gate, parent=parent)
    content = encode_card(card)
    write_whole(folder / CARD_PAGE_NAME, card_page(card).encode())
    write_whole(folder / CARD_NAME, content)
    return content


def _kept_card(folder: Path, run: RunEnd) -> bytes | None:
    """The card that is there, where it is of a training by hand and of the files that are there."""
    try:
        content = (folder / CARD_NAME).read_bytes()
        card = decode_card(content)
        is_whole = all(sha256_of(folder / name) == digest for name, digest in card.files.items())
    except (OSError, msgspec.DecodeError):
        return None
    is_same = card.about.artifact_digest == run.artifact_digest and not card.origin.retrain_key and not run.retrain_key
    return content if is_same and is_whole else None


def _sign(folder: Path, key_file: Path | None) -> bool:
    if key_file is None:
        return False
    try:
        from clipdrift_contract.signatures import sign_version  # noqa: PLC0415  as above

        sign_version(folder, key_file)
    except (ConfigError, ModuleNotFoundError, OSError, ValueError) as error:
        _log.error("version %s is not signed: %s", folder.name, error)
        return False
    return True
