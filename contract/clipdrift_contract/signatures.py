"""Signatures over a version's files, as OpenSSF Model Signing makes them: a Sigstore bundle with a DSSE envelope around an
in-toto statement that names each file with its SHA-256.

Signing is `model-signing`'s, by an elliptic-curve key. Checking is done here, with `cryptography` alone: a server holds the
bytes that it will load, and they are what must be compared, not a file that may be another one a moment later. What one accepts
the other accepts, and a test says so.

Source: https://github.com/ossf/model-signing-spec, https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md
"""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.version_files import SIGNATURE_NAME, is_of_version

EXTRA = "pip install 'clipdrift[signing]'"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512(),
}  # fmt: skip
_MOST_BYTES = 4 << 20  # of a signature; a version has some ten files


class SignatureError(ClipdriftError):
    """There is no signature, it is by none of the keys, or what was signed is something else; the message names the file."""


class UnsignedError(SignatureError):
    """There is no signature."""


class PublicKey(NamedTuple):
    """A key that signatures are checked with, and where it came from."""

    path: Path
    key: ec.EllipticCurvePublicKey


class Signed(NamedTuple):
    """What a signature that holds says: the version's name, the SHA-256 of each file, and whose key it was."""

    version: str
    files: dict[str, str]
    key: Path


class _Key(msgspec.Struct, frozen=True):
    hint: str = ""


class _Material(msgspec.Struct, frozen=True):
    public_key: _Key = msgspec.field(name="publicKey", default=_Key())


class _OneSignature(msgspec.Struct, frozen=True):
    sig: str


class _Envelope(msgspec.Struct, frozen=True):
    payload: str
    payload_type: str = msgspec.field(name="payloadType")
    signatures: tuple[_OneSignature, ...]


class _Bundle(msgspec.Struct, frozen=True):
    envelope: _Envelope = msgspec.field(name="dsseEnvelope")
    material: _Material = msgspec.field(name="verificationMaterial", default=_Material())


class _Subject(msgspec.Struct, frozen=True):
    name: str


class _Resource(msgspec.Struct, frozen=True):
    name: str
    algorithm: str
    digest: str


class _Predicate(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...]


class _Statement(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="_type")
    predicate_type: str = msgspec.field(name="predicateType")
    subject: tuple[_Subject, ...]
    predicate: _Predicate


def sign_version(folder: Path, key_file: Path) -> Path:
    """Sign every file of a version as it is now; the signature lies beside them and replaces an older one.

    Args:
        folder: Of the version; its name is signed too.
        key_file: PEM file of an elliptic-curve private key (P-256, P-384 or P-521) without a password.

    Raises:
        ConfigError: `model-signing` is not installed, or the key cannot be used.
        OSError: The files cannot be read, or the signature cannot be written.
    """
    try:
        from model_signing import hashing, signing  # noqa: PLC0415  95 MB that only who signs has
    except ModuleNotFoundError as error:
        raise ConfigError(f"signing needs {error.name}: {EXTRA}") from error
    path, partial = folder / SIGNATURE_NAME, folder / f"{SIGNATURE_NAME}.partial"
    left_out = [one for one in folder.iterdir() if not is_of_version(one.name)]
    require_private_key(key_file)
    signer = signing.Config().use_elliptic_key_signer(private_key=key_file)
    hashed = hashing.Config().set_ignored_paths(paths=[path, partial, *left_out], ignore_git_paths=False)
    signer.set_hashing_config(hashed).sign(folder, partial)
    partial.replace(path)
    return path


def require_private_key(path: Path) -> None:
    """Look whether a file can sign.

    Raises:
        ConfigError: `model-signing` is not installed, or the file holds no elliptic-curve private key, or one with a password.
    """
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path} cannot sign: it must be a PEM file of an elliptic-curve private key (P-256, say) without a password "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or found.curve.name not in _HASHES:
        raise ConfigError(f"{path} holds a key of another kind; sign with an elliptic curve: P-256, P-384 or P-521")
    if find_spec("model_signing") is None:
        raise ConfigError(f"signing needs model_signing: {EXTRA}")


def read_public_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """The keys that signatures are checked with.

    Raises:
        ConfigError: A file is missing, or holds no elliptic-curve public key.
    """
    return tuple(PublicKey(path, _public_key(path)) for path in paths)


def _public_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no PEM file of a public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ConfigError(f"{path} holds a key of another kind; signatures are made with elliptic curves P-256, P-384, P-521")
    return key


def read_signature(path: Path, keys: Sequence[PublicKey]) -> Signed:
    """What the signature at `path` says, if it is by one of `keys`.

    Raises:
        SignatureError: There is none, it cannot be read, or it is by none of the keys.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise UnsignedError(f"{path.parent.name} is not signed: there is no {path.name}") from error
    except OSError as error:
        raise SignatureError(f"the signature {path} cannot be read: {error}") from error
    if len(content) > _MOST_BYTES:
        raise SignatureError(f"the signature {path} is larger than {_MOST_BYTES} bytes")
    try:
        bundle = msgspec.json.decode(content, type=_Bundle)
        payload = base64.b64decode(bundle.envelope.payload, validate=True)
        found = [base64.b64decode(one.sig, validate=True) for one in bundle.envelope.signatures]
    except ValueError as error:  # msgspec's and binascii's are both
        raise SignatureError(f"{path} is no signature: {error}") from error
    if bundle.envelope.payload_type != _PAYLOAD_TYPE:
        raise SignatureError(f"{path} is around {bundle.envelope.payload_type[:100]!r} and not around {_PAYLOAD_TYPE!r}")
    key = next((key for key in keys for one in found if _is_by(key.key, one, payload)), None)
    if key is None:
        known = ", ".join(str(one.path) for one in keys) or "none"
        raise SignatureError(f"the signature {path} was changed, or is by another key than these: {known}")
    return _stated(payload, path, key.path)


def _is_by(key: ec.EllipticCurvePublicKey, signature: bytes, payload: bytes) -> bool:
    """Whether the key's holder signed the payload. The encoding before it is DSSE's, so that nothing else can be passed off."""
    encoded = f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload
    try:
        key.verify(signature, encoded, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _stated(payload: bytes, path: Path, key: Path) -> Signed:
    try:
        said = msgspec.json.decode(payload, type=_Statement)
    except msgspec.DecodeError as error:
        raise SignatureError(f"{path} holds no statement about files: {error}") from error
    if (said.type, said.predicate_type) != (_STATEMENT_TYPE, _PREDICATE_TYPE) or len(said.subject) != 1:
        raise SignatureError(f"{path} is a statement of another kind: {said.type[:100]!r}, {said.predicate_type[:100]!r}")
    if any(one.algorithm != "sha256" for one in said.predicate.resources):
        raise SignatureError(f"{path} names digests of another kind than sha256; sign the version with `clipdrift`")
    return Signed(said.subject[0].name, {one.name: one.digest for one in said.predicate.resources}, key)


def check_model(path: Path, version: str, sha256: str, keys: Sequence[PublicKey]) -> Signed:
    """Check that bytes in hand are the model that was signed, for who is about to load them.

    Args:
        path: Where they were read; the signature lies beside it.
        version: What they are to serve as.
        sha256: Their digest, as hexadecimal digits.
        keys: One of them signed.

    Raises:
        SignatureError: There is no signature, it is by none of the keys, or it is of other bytes or another version.
    """
    signed = read_signature(path.parent / SIGNATURE_NAME, keys)
    if signed.version != version:
        raise SignatureError(f"{path} is to serve as {version!r}, and was signed as {signed.version[:100]!r}")
    expected = signed.files.get(path.name)
    if expected is None:
        raise SignatureError(f"{path} was not signed: the signature names {', '.join(sorted(signed.files))[:300]}")
    if expected != sha256:
        raise SignatureError(f"{path} was changed after it was signed: signed was sha256 {expected}, found is {sha256}")
    return signed
