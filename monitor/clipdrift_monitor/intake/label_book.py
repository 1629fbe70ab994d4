"""Which receipts have been redeemed: one bit a prediction."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

CHUNK = 8_192
_MAX_CHUNKS = 4_096
Place = tuple[str, str, int]  # model, epoch, chunk


class LabelBook:
    """Bits by (model, epoch, sequence). What is set is also in `changed` until `forget_changes`, for the store.

    Args:
        load: Reads a chunk of bits from the store; None where there is none.
        max_chunks: Chunks (of 8,192 bytes) that are kept in memory between commits.

    Example:
        >>> book = LabelBook(lambda model, epoch, chunk: None)
        >>> book.first_time("m", "e", np.array([5, 6, 5], "u8")).tolist()
        [True, True, False]
        >>> book.first_time("m", "e", np.array([6, 7], "u8")).tolist()
        [False, True]
    """

    def __init__(self, load: Callable[[str, str, int], bytes | None], max_chunks: int = _MAX_CHUNKS) -> None:
        self._load = load
        self._max_chunks = max_chunks
        self._chunks: OrderedDict[Place, npt.NDArray[np.bool_]] = OrderedDict()
        self._changed: set[Place] = set()

    def first_time(self, model: str, epoch: str, sequence_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Mark the receipts as redeemed; which of them were not before (of equal ones the first). Shape [N]."""
        _, first_index = np.unique(sequence_N, return_index=True)
        is_first_N = np.zeros(len(sequence_N), bool)
        is_first_N[first_index] = True
        chunk_N = sequence_N // np.uint64(CHUNK)
        for number in np.unique(chunk_N).tolist():
            at = np.flatnonzero(is_first_N & (chunk_N == number))
            bits = self._bits((model, epoch, int(number)))
            place = (sequence_N[at] % np.uint64(CHUNK)).astype(np.int64)
            is_first_N[at] = ~bits[place]
            bits[place] = True
            self._changed.add((model, epoch, int(number)))
        return is_first_N

    def changes(self) -> Mapping[Place, bytes]:
        """Chunks that were changed, packed for the store."""
        return {place: np.packbits(self._chunks[place]).tobytes() for place in self._changed}

    def forget_changes(self) -> None:
        """The store has them now; what was not used for long is let go."""
        self._changed.clear()
        while len(self._chunks) > self._max_chunks:
            self._chunks.popitem(last=False)

    def clear(self) -> None:
        """Forget everything that is not in the store."""
        self._chunks.clear()
        self._changed.clear()

    def _bits(self, place: Place) -> npt.NDArray[np.bool_]:
        if place not in self._chunks:
            packed = self._load(*place)
            bits = np.zeros(CHUNK, bool) if packed is None else np.unpackbits(np.frombuffer(packed, np.uint8)).astype(bool)
            self._chunks[place] = bits
        self._chunks.move_to_end(place)
        return self._chunks[place]
