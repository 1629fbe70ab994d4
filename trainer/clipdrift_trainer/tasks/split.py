"""Which rows are held out. Errors hang together within a day, so whole days are held out, never single rows."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY

Index = npt.NDArray[Any]


def hold_out_blocks(
    time_ms: npt.NDArray[np.int64], *, block_ms: int = MS_PER_DAY, every: int = 5, offset: int = 4
) -> tuple[Index, Index]:
    """Positions of the rows to train on and of those held out: of the blocks that hold rows, each `every`-th.

    Args:
        time_ms: When each row happened, shape [N].
        block_ms: Length of a block.
        every: One block in so many is held out; at least 2.
        offset: The first that is held out, in 0..every-1. The last keeps the newest blocks apart from the oldest evenly.

    Example:
        >>> day = 86_400_000
        >>> train, held_out = hold_out_blocks(np.array([0, 1, day, 2 * day, 3 * day, 4 * day]))
        >>> train.tolist(), held_out.tolist()
        ([0, 1, 2, 3, 4], [5])
    """
    if every < 2 or not 0 <= offset < every:
        raise ValueError(f"every must be >= 2 and 0 <= offset < every, got every={every!r}, offset={offset!r}")
    _, block_N = np.unique(time_ms // block_ms, return_inverse=True)
    is_held_out_N = block_N % every == offset
    return np.flatnonzero(~is_held_out_N), np.flatnonzero(is_held_out_N)


def split_newest(
    time_ms: npt.NDArray[np.int64], among: Index, *, block_ms: int = MS_PER_DAY, share: float = 0.25
) -> tuple[Index, Index]:
    """Positions of the older rows and of the newest `among` some: of the blocks that hold such rows, the last `share`, at least
    one.

    What is trained on the older rows and judged on the newest is judged as it will be used: on days that come after.

    Args:
        time_ms: When each row happened, shape [N].
        among: Positions of the rows to part; the others are in neither. Blocks that judge the outcome later stay out of it.
        block_ms: Length of a block.
        share: Of the blocks, in 0..1; with a single block that holds rows, all rows are among the newest.

    Example:
        >>> day = 86_400_000
        >>> older, newest = split_newest(np.array([4 * day, 0, day, day + 1, 2 * day]), np.array([1, 2, 3, 4]))
        >>> older.tolist(), newest.tolist()
        ([1, 2, 3], [4])
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, got {share!r}")
    blocks, block_N = np.unique(time_ms[among] // block_ms, return_inverse=True)
    is_newest_N = block_N >= len(blocks) - max(1, int(share * len(blocks)))
    return among[~is_newest_N], among[is_newest_N]
