"""Which receipts this process has counted, so that a label that is sent again does not weigh twice in its live figures."""

from collections import OrderedDict

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

    def is_first(self, epoch: str, sequence: int) -> bool:
        """Mark the receipt; whether it was not marked before."""
        place = (epoch, sequence // _CHUNK)
        chunk = self._chunks.get(place)
        if chunk is None:
            chunk = self._chunks[place] = bytearray(_CHUNK // 8)
            if len(self._chunks) > self._max_chunks:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(place)
        index, bit = sequence % _CHUNK // 8, 1 << sequence % 8
        is_first = not chunk[index] & bit
        chunk[index] |= bit
        return is_first
