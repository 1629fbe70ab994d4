"""Whose signature it is, over what: our check and the library's agree, and what was changed is named."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("model_signing")
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import verifying

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.signatures import (
    SignatureError,
    UnsignedError,
    check_model,
    read_public_keys,
    read_signature,
    sign_version,
)
from clipdrift_contract.version_files import sha256_of

sys.path.insert(0, str(Path(__file__).parent))
from signing_keys import KeyFiles, make_keys

FILES = {"model.onnx": b"graph", "weights.pt": b"weights", "card.json": b"{}"}


@pytest.fixture
def keys(tmp_path: Path) -> KeyFiles:
    return make_keys(tmp_path)


@pytest.fixture
def version(tmp_path: Path, keys: KeyFiles) -> Path:
    folder = tmp_path / "20261101-abc123"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "validation.json.partial-7").write_bytes(b"half")
    sign_version(folder, keys.private)
    return folder


def checked(version: Path, *public: Path):
    path = version / "model.onnx"
    return check_model(path, version.name, sha256_of(path), read_public_keys(public))


def is_accepted_by_the_library(version: Path, public: Path) -> bool:
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(version, version / "model.sig")
    except Exception:  # noqa: BLE001  whatever the library raises is its refusal
        return False
    return True


def changed_signature(version: Path, change: Callable[[dict], None]) -> None:
    path = version / "model.sig"
    bundle = json.loads(path.read_text())
    change(bundle)
    path.write_text(json.dumps(bundle))


def changed_payload(bundle: dict) -> None:
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0]["digest"] = "00" * 32
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_is_signed_is_accepted_here_and_by_the_library(version: Path, tmp_path: Path, curve) -> None:
    keys = make_keys(tmp_path, "other", curve)
    sign_version(version, keys.private)

    signed = checked(version, keys.public)

    assert signed.version == version.name
    assert signed.files == {name: sha256_of(version / name) for name in FILES}
    (version / "validation.json.partial-7").unlink()  # the library would call it an extra file
    assert is_accepted_by_the_library(version, keys.public)


def test_a_version_signed_with_the_librarys_defaults_is_accepted(version: Path, keys: KeyFiles) -> None:
    from model_signing import hashing, signing

    path = version / "model.sig"
    hashed = hashing.Config().set_ignored_paths(paths=[path])
    signing.Config().use_elliptic_key_signer(private_key=keys.private).set_hashing_config(hashed).sign(version, path)

    assert checked(version, keys.public).version == version.name


def test_a_changed_model_is_refused_with_both_digests(version: Path, keys: KeyFiles) -> None:
    before = sha256_of(version / "model.onnx")
    (version / "model.onnx").write_bytes(b"another")

    with pytest.raises(SignatureError, match=f"signed was sha256 {before}, found is {sha256_of(version / 'model.onnx')}"):
        checked(version, keys.public)


@pytest.mark.parametrize(
    "change",
    [
        changed_payload,
        lambda bundle: bundle["dsseEnvelope"]["signatures"].clear(),
        lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
        lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
        lambda bundle: bundle["dsseEnvelope"].update(payload="%"),
        lambda bundle: bundle.pop("dsseEnvelope"),
    ],
    ids=["payload", "no signature", "other signature", "payload type", "no base64", "no envelope"],
)
def test_a_changed_signature_is_refused_as_by_the_library(version: Path, keys: KeyFiles, change) -> None:
    changed_signature(version, change)
    (version / "validation.json.partial-7").unlink()

    with pytest.raises(SignatureError):
        checked(version, keys.public)
    assert not is_accepted_by_the_library(version, keys.public)


def test_another_key_is_refused_and_one_of_several_is_enough(version: Path, keys: KeyFiles, tmp_path: Path) -> None:
    other = make_keys(tmp_path, "other")

    with pytest.raises(SignatureError, match=r"other\.pub"):
        checked(version, other.public)
    assert checked(version, other.public, keys.public).key == keys.public


def test_a_signature_of_another_version_is_refused(version: Path, keys: KeyFiles) -> None:
    moved = version.rename(version.with_name("20261102-def456"))

    with pytest.raises(SignatureError, match="signed as '20261101-abc123'"):
        checked(moved, keys.public)


def test_an_unsigned_version_is_told_apart(version: Path, keys: KeyFiles) -> None:
    (version / "model.sig").unlink()

    with pytest.raises(UnsignedError, match="20261101-abc123 is not signed"):
        checked(version, keys.public)


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_keys_that_cannot_be_used_are_named(version: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"wrong\.pem"):
        read_public_keys([path])
    with pytest.raises(ConfigError, match=r"wrong\.pem"):
        sign_version(version, path)


def test_an_rsa_key_is_refused_by_its_kind(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    path = tmp_path / "rsa.pub"
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))

    with pytest.raises(ConfigError, match="another kind"):
        read_public_keys([path])


def test_a_statement_about_something_else_is_refused_though_its_signature_holds(version: Path, keys: KeyFiles) -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    payload = json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicateType": "x", "predicate": {}})
    key = serialization.load_pem_private_key(keys.private.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    kind = "application/vnd.in-toto+json"
    signature = key.sign(f"DSSEv1 {len(kind)} {kind} {len(payload)} {payload}".encode(), ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload.encode()).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    (version / "model.sig").write_text(json.dumps({"dsseEnvelope": envelope}))

    with pytest.raises(SignatureError, match="statement"):
        read_signature(version / "model.sig", read_public_keys([keys.public]))
