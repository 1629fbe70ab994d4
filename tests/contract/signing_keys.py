"""Elliptic-curve keys for tests, made anew each time."""

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


class KeyFiles(NamedTuple):
    private: Path
    public: Path


def make_keys(folder: Path, name: str = "signing", curve: ec.EllipticCurve | None = None) -> KeyFiles:
    """A key pair as PEM files."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    made = KeyFiles(folder / f"{name}.key", folder / f"{name}.pub")
    made.private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made.public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return made
