"""What a drift detector is: how far a window's bin counts lie from the reference's, and how surely.

Axes: K bins.
"""

from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.profile import BlockSpread

Floats = npt.NDArray[np.float64]
BinKind = Literal["ordered", "unordered"]
INDEPENDENT = BlockSpread()


class Bins(NamedTuple):
    """The counts of the same K bins in the reference and in a window, and what is known of them.

    Counts are >= 0 and whole, unless somebody weighs rows. `ordered`: the bins follow each other along a number line.
    """

    reference_K: Floats
    current_K: Floats
    kind: BinKind = "unordered"
    edges: tuple[float, ...] = ()  # ordered: the K - 1 cuts, where they are known
    has_missing: bool = False  # one more bin, the last, counts missing values; it is on no number line
    spread: BlockSpread = INDEPENDENT  # how much windows differ beyond what independent rows give

    @property
    def num_rows(self) -> int:
        return round(float(self.current_K.sum()))

    @property
    def on_line(self) -> "Bins":
        """The bins that lie on the number line: without that of the missing values."""
        if not self.has_missing:
            return self
        return self._replace(reference_K=self.reference_K[:-1], current_K=self.current_K[:-1], has_missing=False)

    def checked(self) -> "Bins":
        """These bins.

        Raises:
            ValueError: The sides differ in length, or a count is negative or not finite.
        """
        if len(self.reference_K) != len(self.current_K):
            raise ValueError(f"bins must be the same, got {len(self.reference_K)} and {len(self.current_K)}")
        joined = np.concatenate([self.reference_K, self.current_K])
        if not np.isfinite(joined).all() or (joined < 0).any():
            raise ValueError("counts must be finite and >= 0")
        return self

    @property
    def is_empty(self) -> bool:
        """Whether a side has no rows: then nothing is known."""
        return not self.reference_K.sum() or not self.current_K.sum()


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A detector's answer for one feature, score or slice mix: the size of the change, and whether chance alone gives it."""

    score: float
    p_value: float
    num_rows: int


class Detector(Protocol):
    """Pure: the same counts give the same answer. Called by the monitor once a closed window and feature.

    What every one promises, and `tests/conformance/detectors` holds it to: a score >= 0 that is 0 on equal shares and grows
    with the change; p-values that are uniform when nothing has changed, at any number of rows, and that know the spread.
    """

    name: str
    kinds: frozenset[BinKind]
    """Which bins it can read."""
    min_effect: float
    """Score from which a proven change is worth mentioning, where the policy does not say."""

    def compare(self, bins: Bins) -> Drift:
        """Compare; an empty side gives score 0 and p-value 1, since nothing is known.

        Raises:
            ValueError: The sides differ in length, or a count is negative or not finite.
        """
        ...


def nothing(bins: Bins) -> Drift:
    """What is said where nothing is known."""
    return Drift(score=0.0, p_value=1.0, num_rows=bins.num_rows)
