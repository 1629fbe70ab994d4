"""Columns on the wire: one contiguous buffer for 512 values instead of 512 objects."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.errors import PoisonError

STRING = "str"
_NUMERIC = frozenset({"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"})


class Column(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # in no cycle; a batch has dozens
    """An array of numbers (little endian, C order) or a dictionary-coded array of strings.

    Example:
        >>> Column.of(np.array([1.5, 2.5], "f4")).array()
        array([1.5, 2.5], dtype=float32)
        >>> Column.of(np.array(["UA", "AA", "UA"], object)).array().tolist()
        ['UA', 'AA', 'UA']
    """

    dtype: str  # a numpy type string such as "<f4", or "str"
    shape: tuple[int, ...]
    data: bytes  # the numbers; for strings their codes, as "<i4"
    strings: tuple[str, ...] = ()  # for strings: what the codes stand for

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> "Column":
        """Pack `values`; any shape. Object and unicode arrays become dictionary-coded strings.

        Raises:
            ValueError: The array's type has no place on the wire.
        """
        if values.dtype.kind in "OUS":
            # never as a numpy string: that would drop NULs at the end of a word
            words = [str(word) for word in (values.astype(str) if values.dtype.kind == "S" else values).ravel().tolist()]
            strings = sorted(set(words))
            code_of = {word: code for code, word in enumerate(strings)}
            codes = np.fromiter((code_of[word] for word in words), "<i4", len(words))
            return cls(dtype=STRING, shape=values.shape, data=codes.tobytes(), strings=tuple(strings))
        little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        if little.dtype.str not in _NUMERIC:
            raise ValueError(f"a column holds numbers or strings, got an array of {values.dtype}")
        return cls(dtype=little.dtype.str, shape=values.shape, data=little.tobytes())

    def array(self) -> npt.NDArray[Any]:
        """Unpack; numbers come back read-only and without a copy.

        Raises:
            PoisonError: Buffer, shape and type do not fit each other.
        """
        if self.dtype != STRING and self.dtype not in _NUMERIC:
            raise PoisonError(f"column has unknown type {self.dtype!r}")
        try:
            flat = np.frombuffer(self.data, dtype="<i4" if self.dtype == STRING else self.dtype)
            shaped = flat.reshape(self.shape)
        except ValueError as error:
            raise PoisonError(f"column of {self.dtype} and shape {self.shape} holds {len(self.data)} bytes") from error
        if self.dtype != STRING:
            return shaped
        if shaped.size and not (shaped.min() >= 0 and shaped.max() < len(self.strings)):
            raise PoisonError(f"string column has a code outside 0..{len(self.strings) - 1}")
        words: npt.NDArray[Any] = np.array(self.strings, dtype=object)[shaped] if shaped.size else shaped.astype(object)
        return words

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0
