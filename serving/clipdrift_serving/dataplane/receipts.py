"""Receipts: a prediction's identity and what was predicted, signed, so that a label that comes back months later scores itself.

Layout (little endian): format u8, key hint u8, role u8, number of scores u8, generation u32, epoch 8 bytes; sequence u64, event
time i64, slice i16, number of classes u16, predicted f64, then the scores (u16 each; above 16 classes 16 pairs of class u16,
score u16); model and version (length u8 and UTF-8 each), zeros up to a multiple of 3 bytes, then the first 12 bytes of a keyed
BLAKE2b over all before. Written in URL-safe base64 (without padding: older receipts have no zeros there).

What all rows of one version share comes first and last, so its hash is begun once and continued for each row. The key hint is a
byte of the key's own hash: it says which key to try first and decides nothing.

Axes: N rows, K classes.
"""

import binascii
import hmac
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.events import Role

_FORMAT = 1
_MAC_BYTES = 12
_MAX_SCORES = 16
_MAX_NAME_BYTES = 255
_SCALE = 65_535
_PREFIX = Struct("<BBBBI8s")
_ROW = Struct("<QqhHd")
_PREFIX_BYTES = _PREFIX.size
_ROW_END = _PREFIX_BYTES + _ROW.size  # without scores
_unpack_row = _ROW.unpack_from
_ROW_FIELDS: list[Any] = [
    ("sequence", "<u8"), ("event_time_ms", "<i8"), ("slice_index", "<i2"), ("num_classes", "<u2"), ("predicted", "<f8"),
]  # fmt: skip
_LEAST_BYTES = _PREFIX.size + _ROW.size + 2 + _MAC_BYTES
_CODE = np.dtype("<u2")
_ZERO, _ONE, _HALF, _STEPS = (np.array(value, np.float32) for value in (0, 1, 0.5, _SCALE))  # made once: half the time
_FEW_ROWS = 5  # up to so many, packing row by row is quicker than numpy's fixed cost (bench/recording.py)
_MAX_REMEMBERED = 1024
_ROLES: tuple[Role, ...] = ("champion", "canary", "shadow")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_PADDING = (b"", b"===", b"==", b"=")


class ReceiptError(ClipdriftError):
    """A receipt that does not count; `reason` is one word for metrics."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Origin(NamedTuple):
    """What all receipts of one version in one process's life share; the same object for all of them, while it is remembered."""

    model: str
    version: str
    role: Role
    generation: int
    epoch: str


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a receipt says."""

    origin: Origin
    sequence: int
    event_time_ms: int
    slice_index: int
    predicted: float
    num_classes: int  # 0 for a predicted value
    row: bytes  # as it was signed: the four above and the scores

    @property
    def model(self) -> str:
        return self.origin.model

    @property
    def version(self) -> str:
        return self.origin.version

    @property
    def role(self) -> Role:
        return self.origin.role

    @property
    def generation(self) -> int:
        return self.origin.generation

    @property
    def epoch(self) -> str:
        return self.origin.epoch

    @property
    def scores(self) -> tuple[float, ...]:
        """Class probabilities, in steps of 1 / 65,535; beyond 16 classes the rest is spread evenly over those not carried."""
        return tuple(scores_in(rows_of([self]), self.num_classes)[0].tolist())


class Unsigned(NamedTuple):
    """Receipts before they are signed: what may be kept on this machine and signed later. Row i is prefix + rows[i] + tail."""

    prefix: bytes
    rows: list[bytes]
    tail: bytes


class _Shape:
    """How the rows of one version are packed."""

    def __init__(self, prefix: bytes, tail: bytes, num_classes: int) -> None:
        self.prefix = prefix
        self.tail = tail
        self.num_scores = min(num_classes, _MAX_SCORES)
        self.pack = Struct(f"<QqhHd{self.num_scores}H").pack
        self.dtype = _row_dtype(num_classes)


class _Known:
    """A prefix of receipts that were verified: the hash that is continued for each of them, and their origins by tail."""

    __slots__ = ("copy", "origins", "prefix")

    def __init__(self, prefix: bytes, begun: Any) -> None:
        self.prefix = prefix
        self.copy = begun.copy
        self.origins: dict[bytes, Origin] = {}

    def origin(self, tail: bytes) -> Origin:
        _, _, role, _, generation, epoch = _PREFIX.unpack(self.prefix)
        name_end = 1 + tail[0]
        version_end = name_end + 1 + tail[name_end]
        model, version = tail[1:name_end].decode(), tail[name_end + 1 : version_end].decode()
        made: Origin = _remember(self.origins, tail, Origin(model, version, _ROLES[role], generation, epoch.hex()))
        return made


class ReceiptBook:
    """Issues and verifies receipts. Thread-safe: it keeps nothing but what can be worked out again.

    Args:
        keys: Secrets as hex digits, at least 16 bytes each; the first signs, all of them verify. To rotate, put a new key first
            and take the old one away once no label of its receipts is expected any more.
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
        self._hints = [_hint(key) for key in self._keys]
        self._shapes: dict[tuple[Any, ...], _Shape] = {}
        self._signing: dict[bytes, Any] = {}  # by prefix: the hash that is continued for each row
        self._known: dict[bytes, _Known] = {}  # by prefix

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
        """One token a row. Scores are cut off at 0 and 1 and rounded to steps of 1 / 65,535."""
        return self.sign(self.pack(model, version, role, generation, sequence_N, event_time_N, slice_N, predicted_N, scores_NK))

    def pack(
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
    ) -> Unsigned:
        """The same rows, not yet signed.

        Raises:
            ValueError: A name is longer than 255 bytes.
        """
        num_classes = scores_NK.shape[1]
        place = (model, version, role, generation, num_classes)
        shape = self._shapes.get(place) or self._new_shape(place)
        if len(sequence_N) <= _FEW_ROWS and num_classes <= _MAX_SCORES:
            pack = shape.pack
            rows = [
                pack(sequence, time_ms, slice_index, num_classes, predicted, *[_code(score) for score in scores])
                for sequence, time_ms, slice_index, predicted, scores in zip(
                    sequence_N.tolist(), event_time_N.tolist(), slice_N.tolist(), predicted_N.tolist(), scores_NK.tolist(),
                    strict=True,
                )
            ]  # fmt: skip
            return Unsigned(shape.prefix, rows, shape.tail)
        packed_N = np.empty(len(sequence_N), shape.dtype)
        packed_N["sequence"] = sequence_N
        packed_N["event_time_ms"] = event_time_N
        packed_N["slice_index"] = slice_N
        packed_N["num_classes"] = num_classes
        packed_N["predicted"] = predicted_N
        if num_classes:
            packed_N["scores"] = _codes(scores_NK)
        data, width = packed_N.tobytes(), shape.dtype.itemsize
        return Unsigned(shape.prefix, [data[start : start + width] for start in range(0, len(data), width)], shape.tail)

    def sign(self, unsigned: Unsigned) -> list[str]:
        """One token a row, signed with the first key whatever key was the first when the rows were packed."""
        prefix = unsigned.prefix
        if prefix[1] != self._hints[0]:
            prefix = bytes((prefix[0], self._hints[0])) + prefix[2:]
        copy = (self._signing.get(prefix) or self._begin_signing(prefix)).copy
        tail = unsigned.tail
        parts: list[bytes] = []
        for row in unsigned.rows:
            rest = row + tail
            mac = copy()
            mac.update(rest)
            parts += (prefix, rest, mac.digest())
        # each token's length is a multiple of 3, so all are written at once and cut afterwards
        text = binascii.b2a_base64(b"".join(parts), newline=False).translate(_TO_URL).decode("ascii")
        width = len(text) // max(1, len(unsigned.rows))
        return [text[start : start + width] for start in range(0, len(text), width)] if width else []

    def verify(self, token: str) -> Receipt:
        """What the token says.

        Raises:
            ReceiptError: It is no receipt, cut off, or not signed by one of the keys (reason "forged").
        """
        try:
            padded = token.encode("ascii").translate(_FROM_URL) + _PADDING[len(token) & 3]
            raw = binascii.a2b_base64(padded, strict_mode=True)
        except (binascii.Error, ValueError, AttributeError) as error:
            raise ReceiptError("forged", "not a receipt: it is no URL-safe base64") from error
        prefix, end = raw[:_PREFIX_BYTES], len(raw) - _MAC_BYTES
        known = self._known.get(prefix)
        if known is None:
            known = self._verify_slowly(raw, prefix, end)
        else:
            mac = known.copy()
            mac.update(raw[_PREFIX_BYTES:end])
            if not hmac.compare_digest(mac.digest(), raw[end:]):
                known = self._verify_slowly(raw, prefix, end)
        # what was signed can be trusted, its lengths too
        sequence, time_ms, slice_index, num_classes, predicted = _unpack_row(raw, _PREFIX_BYTES)
        row_end = _ROW_END + (2 * num_classes if num_classes <= _MAX_SCORES else 4 * _MAX_SCORES)
        tail = raw[row_end:end]
        origin = known.origins.get(tail) or known.origin(tail)
        return Receipt(origin, sequence, time_ms, slice_index, predicted, num_classes, raw[_PREFIX_BYTES:row_end])

    def _verify_slowly(self, raw: bytes, prefix: bytes, end: int) -> "_Known":
        """Try every key, the hinted ones first; remember the prefix of what holds."""
        if len(raw) < _LEAST_BYTES or raw[0] != _FORMAT:
            raise ReceiptError("forged", "not a receipt: too short, or of an unknown format")
        for key, _ in sorted(zip(self._keys, self._hints, strict=True), key=lambda pair: pair[1] != raw[1]):
            begun = blake2b(prefix, digest_size=_MAC_BYTES, key=key)
            mac = begun.copy()
            mac.update(raw[_PREFIX_BYTES:end])
            if hmac.compare_digest(mac.digest(), raw[end:]):
                found: _Known = _remember(self._known, prefix, _Known(prefix, begun))
                return found
        raise ReceiptError("forged", "the receipt was not signed by this service, or was changed")

    def _new_shape(self, place: tuple[Any, ...]) -> _Shape:
        model, version, role, generation, num_classes = place
        name, number = model.encode(), version.encode()
        if max(len(name), len(number)) > _MAX_NAME_BYTES:
            raise ValueError(f"names of models and versions hold at most {_MAX_NAME_BYTES} bytes, got {model[:100]!r}")
        tail = bytes((len(name),)) + name + bytes((len(number),)) + number
        num_scores = min(num_classes, _MAX_SCORES)
        prefix = _PREFIX.pack(_FORMAT, self._hints[0], _ROLES.index(role), num_scores, generation, self._epoch_bytes)
        size = _PREFIX.size + _row_dtype(num_classes).itemsize + len(tail) + _MAC_BYTES
        made: _Shape = _remember(self._shapes, place, _Shape(prefix, tail + bytes(-size % 3), num_classes))
        return made

    def _begin_signing(self, prefix: bytes) -> Any:
        return _remember(self._signing, prefix, blake2b(prefix, digest_size=_MAC_BYTES, key=self._keys[0]))


def rows_of(receipts: Sequence[Receipt]) -> npt.NDArray[Any]:
    """What receipts of equally many classes say, as one array of records: sequence, event_time_ms, slice_index, predicted;
    shape [N], read-only."""
    return np.frombuffer(b"".join([receipt.row for receipt in receipts]), _row_dtype(receipts[0].num_classes))


def scores_in(rows_N: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.float64]:
    """The scores of what `rows_of` gave, shape [N, K]."""
    if not num_classes:
        return np.zeros((len(rows_N), 0))
    codes = rows_N["scores"].astype(np.float64)
    if num_classes <= _MAX_SCORES:
        return codes / _SCALE
    top_N16, share_N16 = codes[:, :, 0].astype(np.int64), codes[:, :, 1] / _SCALE
    left_N = np.maximum(0.0, 1.0 - share_N16.sum(axis=1))
    scores_NK = np.repeat(left_N[:, None] / (num_classes - _MAX_SCORES), num_classes, axis=1)
    np.put_along_axis(scores_NK, top_N16, share_N16, axis=1)
    return scores_NK


def _row_dtype(num_classes: int) -> np.dtype[Any]:
    if not num_classes:
        return _DTYPES[0]
    return _DTYPES.get(num_classes) or np.dtype([*_ROW_FIELDS, ("scores", "<u2", (_MAX_SCORES, 2))])


_DTYPES: dict[int, np.dtype[Any]] = {
    num_scores: np.dtype([*_ROW_FIELDS, ("scores", "<u2", (num_scores,))] if num_scores else _ROW_FIELDS)
    for num_scores in range(_MAX_SCORES + 1)
}


def _codes(scores_NK: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    codes_NK: npt.NDArray[np.uint16] = (np.minimum(np.maximum(scores_NK, _ZERO), _ONE) * _STEPS + _HALF).astype(_CODE)
    if codes_NK.shape[1] <= _MAX_SCORES:
        return codes_NK
    top_NK = np.argsort(-codes_NK.astype(np.int64), axis=1, kind="stable")[:, :_MAX_SCORES]
    pairs: npt.NDArray[np.uint16] = np.stack([top_NK.astype("<u2"), np.take_along_axis(codes_NK, top_NK, axis=1)], axis=2)
    return pairs


def _code(score: float) -> int:
    return int((score if 0.0 <= score <= 1.0 else min(max(score, 0.0), 1.0)) * _SCALE + 0.5)


def _hint(key: bytes) -> int:
    return blake2b(key, digest_size=1, person=b"clipdrift key").digest()[0]


def _remember(known: dict[Any, Any], place: Any, made: Any) -> Any:
    if len(known) >= _MAX_REMEMBERED:  # of deployments that are over
        known.clear()
    known[place] = made
    return made


def row_bytes(rows: bytes) -> int:
    """Bytes of the first row of rows that were packed one behind the other; all of one request are as long."""
    (*_, num_classes, _) = _unpack_row(rows, 0)
    return _row_dtype(num_classes).itemsize
