"""Which receipts this process has counted, so that a label that is sent again does not weigh twice in its live figures."""

from collections import OrderedDict
from collections.abc import Sequence

_CHUNK = 8_192
_MAX_CHUNKS = 4_096  # of 1 KiB: 33 million predictions; what is older may be counted again (by the monitor it is not)


class RedeemedReceipts:
    """One bit a prediction, in bounded memory. Another replica, or the next life, knows nothing of it.

    Example:
        >>> redeemed = RedeemedReceipts()
        >>> [redeemed.is_first("a1", number) for number in (5, 6, 5)], redeemed.is_first("b2", 5)
        ([True, True, False], True)
    """

    def __init__(self, max_chunks: int = _MAX_CHUNKS) -> None:
        self._max_chunks = max_chunks
        self._chunks: OrderedDict[tuple[str, int], bytearray] = OrderedDict()

    def first_of(self, receipts: Sequence[tuple[str, int]]) -> list[bool]:
        """`is_first` of many (epoch, sequence): one look-up for each run of neighbours.

        Example:
            >>> RedeemedReceipts().first_of([("a1", 5), ("a1", 6), ("a1", 5)])
            [True, True, False]
        """
        found = []
        epoch_now, number_now, chunk = None, -1, bytearray()
        for epoch, sequence in receipts:
            number, within = divmod(sequence, _CHUNK)
            if number != number_now or epoch != epoch_now:
                epoch_now, number_now, chunk = epoch, number, self._chunk(epoch, number)
            index, bit = within >> 3, 1 << (within & 7)
            byte = chunk[index]
            found.append(not byte & bit)
            chunk[index] = byte | bit
        return found

    def is_first(self, epoch: str, sequence: int) -> bool:
        """Mark the receipt; whether it was not marked before."""
        return self.first_of(((epoch, sequence),))[0]

    def _chunk(self, epoch: str, number: int) -> bytearray:
        place = (epoch, number)
        chunk = self._chunks.get(place)
        if chunk is None:
            chunk = self._chunks[place] = bytearray(_CHUNK // 8)
            if len(self._chunks) > self._max_chunks:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(place)
        return chunk
