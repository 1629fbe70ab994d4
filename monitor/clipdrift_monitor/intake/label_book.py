"""Which receipts have been redeemed: one bit a prediction, and for each chunk of them the time of the newest prediction, by
which the store lets it go when labels of that time are no longer taken."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

CHUNK = 8_192
_MAX_CHUNKS = 4_096
Place = tuple[str, str, int]  # model, epoch, chunk
Kept = tuple[bytes, int]  # packed bits, newest event time


class LabelBook:
    """Bits by (model, epoch, sequence). What is set is also in `changed` until `forget_changes`, for the store.

    Args:
        load: Reads a chunk from the store; None where there is none.
        max_chunks: Chunks (of 8,192 bytes) that are kept in memory between commits.

    Example:
        >>> book = LabelBook(lambda model, epoch, chunk: None)
        >>> book.first_time("m", "e", np.array([5, 6, 5], "u8"), np.array([10, 20, 10])).tolist()
        [True, True, False]
        >>> book.first_time("m", "e", np.array([6, 7], "u8"), np.array([20, 15])).tolist()
        [False, True]
        >>> [newest_ms for _, newest_ms in book.changes().values()]
        [20]
    """

    def __init__(self, load: Callable[[str, str, int], Kept | None], max_chunks: int = _MAX_CHUNKS) -> None:
        self._load = load
        self._max_chunks = max_chunks
        self._chunks: OrderedDict[Place, npt.NDArray[np.bool_]] = OrderedDict()
        self._newest_ms: dict[Place, int] = {}  # of the chunks in memory
        self._changed: set[Place] = set()

    def first_time(
        self, model: str, epoch: str, sequence_N: npt.NDArray[np.uint64], time_ms_N: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Mark the receipts as redeemed; which of them were not before (of equal ones the first). Shape [N].

        `time_ms_N` is when the predictions were made.
        """
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
            changed = (model, epoch, int(number))
            self._newest_ms[changed] = max(self._newest_ms[changed], int(time_ms_N[at].max()) if len(at) else 0)
            self._changed.add(changed)
        return is_first_N

    def changes(self) -> Mapping[Place, Kept]:
        """Chunks that were changed, packed for the store."""
        return {place: (np.packbits(self._chunks[place]).tobytes(), self._newest_ms[place]) for place in self._changed}

    def forget_changes(self) -> None:
        """The store has them now; what was not used for long is let go."""
        self._changed.clear()
        while len(self._chunks) > self._max_chunks:
            place, _ = self._chunks.popitem(last=False)
            del self._newest_ms[place]

    def clear(self) -> None:
        """Forget everything that is not in the store."""
        self._chunks.clear()
        self._newest_ms.clear()
        self._changed.clear()

    def _bits(self, place: Place) -> npt.NDArray[np.bool_]:
        if place not in self._chunks:
            packed, newest_ms = self._load(*place) or (bytes(CHUNK // 8), 0)
            self._chunks[place] = np.unpackbits(np.frombuffer(packed, np.uint8)).astype(bool)
            self._newest_ms[place] = newest_ms
        self._chunks.move_to_end(place)
        return self._chunks[place]
