"""What a drift detector is: a distance between two sets of bin counts, with a p-value that knows the windows' sizes."""

from typing import Protocol

import msgspec

from clipdrift_monitor.windows.window import Floats


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A detector's answer for one feature, score or slice mix."""

    score: float
    p_value: float
    num_rows: int


class Detector(Protocol):
    """Pure: the same counts give the same answer. Called by the monitor once a closed window and feature."""

    name: str

    def compare(self, reference_K: Floats, current_K: Floats) -> Drift:
        """Compare counts of the same K >= 2 bins.

        Counts are whole numbers >= 0; an empty side gives score 0 and p-value 1, since nothing is known.

        Raises:
            ValueError: The two differ in length, or a count is negative or not finite.
        """
        ...
