"""Receipts: a prediction's identity and what was predicted, signed, so that a label that comes back months later scores itself.

Layout (little endian): format u8, key u8, role u8, number of scores u8, generation u32, epoch 8 bytes, sequence u64, event time
i64, slice i16, number of classes u16, predicted f64, then the scores (u16 each; above 16 classes 16 pairs of class u16, score
u16), then model and version (length u8 and UTF-8 each), then the first 12 bytes of a keyed BLAKE2b over all before. Written in
URL-safe base64 without padding.
"""

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.events import Role

_FORMAT = 1
_MAC_BYTES = 12
_MAX_SCORES = 16
_SCALE = 65_535
_HEAD = Struct("<BBBBI8sQqhHd")
_ROLES: tuple[Role, ...] = ("champion", "canary", "shadow")


class ReceiptError(ClipdriftError):
    """A receipt that does not count; `reason` is one word for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a receipt says."""

    model: str
    version: str
    role: Role
    generation: int
    epoch: str
    sequence: int
    event_time_ms: int
    slice_index: int
    predicted: float
    scores: tuple[float, ...]


class ReceiptBook:
    """Issues and verifies receipts. Thread-safe: it keeps nothing.

    Args:
        keys: Secrets as hex digits, at least 16 bytes each; the first signs, all of them verify.
        epoch: Identity of this process's life, 16 hex digits.

    Example:
        >>> book = ReceiptBook(["00" * 32], epoch="0123456789abcdef")
        >>> token = book.issue("m", "7", "champion", 1, np.array([5]), np.array([1000]), np.array([0], "i2"),
        ...                    np.array([1.0]), np.array([[0.25, 0.75]], "f4"))[0]
        >>> receipt = book.verify(token)
        >>> receipt.sequence, receipt.predicted, [round(p, 4) for p in receipt.scores]
        (5, 1.0, [0.25, 0.75])
    """

    def __init__(self, keys: Sequence[str], epoch: str) -> None:
        if not keys:
            raise ConfigError("receipts need a key: set CLIPDRIFT_RECEIPT_KEY to 64 hex digits")
        try:
            self._keys = [bytes.fromhex(key) for key in keys]
        except ValueError as error:
            raise ConfigError("a receipt key is written in hex digits") from error
        if any(not 16 <= len(key) <= 64 for key in self._keys):
            raise ConfigError("a receipt key has 16 to 64 bytes (32 to 128 hex digits)")
        self.epoch = epoch
        self._epoch_bytes = bytes.fromhex(epoch)

    def issue(
        self,
        model: str,
        version: str,
        role: Role,
        generation: int,
        sequence_N: npt.NDArray[Any],
        event_time_N: npt.NDArray[Any],
        slice_N: npt.NDArray[Any],
        predicted_N: npt.NDArray[Any],
        scores_NK: npt.NDArray[Any],
    ) -> list[str]:
        """One token a row."""
        num_classes = scores_NK.shape[1]
        packed_N = _pack_scores(scores_NK)
        num_scores = min(num_classes, _MAX_SCORES)
        name, number = model.encode(), version.encode()
        tail = bytes((len(name),)) + name + bytes((len(number),)) + number
        key, role_code, epoch = self._keys[0], _ROLES.index(role), self._epoch_bytes
        tokens = []
        for sequence, time_ms, slice_index, predicted, scores in zip(
            sequence_N.tolist(), event_time_N.tolist(), slice_N.tolist(), predicted_N.tolist(), packed_N, strict=True
        ):
            head = _HEAD.pack(
                _FORMAT, 0, role_code, num_scores, generation, epoch, sequence, time_ms, slice_index, num_classes, predicted
            )
            body = head + scores + tail
            mac = blake2b(body, digest_size=_MAC_BYTES, key=key).digest()
            tokens.append(urlsafe_b64encode(body + mac).rstrip(b"=").decode())
        return tokens

    def verify(self, token: str) -> Receipt:
        """What the token says.

        Raises:
            ReceiptError: It is no receipt, cut off, or not signed by one of the keys (reason "forged").
        """
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError, TypeError) as error:
            raise ReceiptError("forged", "not a receipt: it is no URL-safe base64") from error
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) < _HEAD.size or body[0] != _FORMAT:
            raise ReceiptError("forged", "not a receipt: too short, or of an unknown format")
        if not any(hmac.compare_digest(blake2b(body, digest_size=_MAC_BYTES, key=key).digest(), mac) for key in self._keys):
            raise ReceiptError("forged", "the receipt was not signed by this service, or was changed")
        return _unpack(body)


def _pack_scores(scores_NK: npt.NDArray[Any]) -> list[bytes]:
    codes_NK = np.rint(np.clip(scores_NK, 0.0, 1.0) * _SCALE).astype("<u2")
    if codes_NK.shape[1] > _MAX_SCORES:
        top_NK = np.argsort(-codes_NK.astype(np.int64), axis=1, kind="stable")[:, :_MAX_SCORES]
        pairs = np.stack([top_NK.astype("<u2"), np.take_along_axis(codes_NK, top_NK, axis=1)], axis=2)
        return [row.tobytes() for row in pairs]
    return [row.tobytes() for row in codes_NK]


def _unpack(body: bytes) -> Receipt:
    """Read a body whose signature holds, so its lengths can be trusted."""
    _, _, role, num_scores, generation, epoch, sequence, time_ms, slice_index, num_classes, predicted = _HEAD.unpack_from(body)
    is_top = num_classes > _MAX_SCORES
    end = _HEAD.size + num_scores * (4 if is_top else 2)
    codes = np.frombuffer(body[_HEAD.size : end], "<u2").astype(np.float64)
    scores = _spread(codes.reshape(-1, 2), num_classes) if is_top else codes / _SCALE
    name_end = end + 1 + body[end]
    version_end = name_end + 1 + body[name_end]
    return Receipt(
        model=body[end + 1 : name_end].decode(),
        version=body[name_end + 1 : version_end].decode(),
        role=_ROLES[role],
        generation=generation,
        epoch=epoch.hex(),
        sequence=sequence,
        event_time_ms=time_ms,
        slice_index=slice_index,
        predicted=predicted,
        scores=tuple(scores.tolist()),
    )


def _spread(pairs: npt.NDArray[np.float64], num_classes: int) -> npt.NDArray[np.float64]:
    """All classes' scores from the top ones: what is left is spread evenly over the others."""
    top = pairs[:, 0].astype(int)
    left = max(0.0, 1.0 - pairs[:, 1].sum() / _SCALE)
    scores = np.full(num_classes, left / (num_classes - len(top)))
    scores[top] = pairs[:, 1] / _SCALE
    return scores
