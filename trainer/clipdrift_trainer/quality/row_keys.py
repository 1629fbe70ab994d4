"""A digest of each row's features, by which equal rows are found in one sort."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from clipdrift_trainer.tasks.task import Rows, Task


def row_keys(task: Task, rows: Rows, without: str = "") -> npt.NDArray[np.uint64]:
    """A 64-bit digest of each row's features [N]: equal for equal rows, where NaN equals NaN and -0 equals 0.

    Two different rows share a digest with a probability of about 2^-60.

    Args:
        task: Names the features.
        rows: N rows.
        without: A feature that is left out.

    Source: multilinear hashing with odd 64-bit multipliers (Dietzfelbinger 1996), the upper halves of two of them joined.
    """
    generator = np.random.default_rng(0)
    high_N, low_N = np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint64)
    for spec in task.features:
        bits_ND = _bits(rows.features[spec.name])
        factors_2D = generator.integers(0, 2**63, (2, bits_ND.shape[1]), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        if spec.name != without:
            high_N += bits_ND @ factors_2D[0]
            low_N += bits_ND @ factors_2D[1]
    return (high_N & np.uint64(0xFFFFFFFF00000000)) | (low_N >> np.uint64(32))


def _bits(column: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    if column.dtype == object:
        words = pl.Series(column.tolist(), dtype=pl.String).fill_null("None")  # the word that `load_as_of` makes of it
        digest_U = np.array([_digest(word) for word in words.unique().sort()], np.uint64)
        digest_N1: npt.NDArray[np.uint64] = digest_U[words.rank("dense").to_numpy().astype(np.int64) - 1][:, None]
        return digest_N1
    numbers = column.reshape(len(column), -1).astype(np.float32) + np.float32(0.0)  # -0 becomes 0
    numbers[np.isnan(numbers)] = np.nan
    return numbers.view(np.uint32).astype(np.uint64)


def _digest(word: str) -> int:
    """32 bits, the same in every process, unlike Python's own hash of a text."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest())
