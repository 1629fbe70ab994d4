"""What a decision was based on, in one word."""

import hashlib

import msgspec


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of a value.

    Example:
        >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
        True
    """
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()
