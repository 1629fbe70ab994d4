"""How long labels take, apart for right and wrong predictions: what a window that is not fully labelled yet can say.

Labels that come sooner for one class, or for errors, make a young window look worse (or better) than it is. How much is known
from the windows before: an outcome of which only a third has its label by now stands for three.
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_monitor.windows.binning import Edges

_NUM_STEPS = 40
_FIRST_MS = 60_000
# from a minute to two years, each step by the factor sqrt(2)
EDGES_MS: npt.NDArray[np.float64] = np.concatenate([[0.0], _FIRST_MS * 2.0 ** (np.arange(_NUM_STEPS + 1) / 2)])
_BINS = Edges(EDGES_MS[1:-1])
_NUM_BINS = len(EDGES_MS) - 1
_MIN_LABELS = 200  # below, nothing is said of delays
_MIN_SHARE = 0.05  # an outcome of which less is labelled stands for too many to be believed
_NUM_AGES = 16  # moments of a window that its rows stand for
MATURE_SHARE = 0.95


class Maturity(msgspec.Struct, frozen=True, kw_only=True):
    """How far a window is labelled, and what its accuracy is once that is allowed for."""

    share: float | None = None  # of its predictions that have a label
    expected_share: float | None = None  # that would have one by now, as labels came before; None where that is not known
    is_mature: bool = False  # all but one in twenty of the labels that will come are here
    accuracy: float | None = None  # of the labels that are here, each weighted by how likely its outcome is labelled by now


class LabelDelays(msgspec.Struct, frozen=True, kw_only=True):
    """Labels counted by outcome and delay. Sums of two are those of all their labels.

    Example:
        >>> hours = np.repeat([1.0, 30.0], 300) * 3_600_000
        >>> delays = LabelDelays().with_labels(hours, hours > 3_600_000)  # errors are told after an hour, the rest after 30
        >>> [round(delays.share_by(12 * 3_600_000, is_right), 2) for is_right in (False, True)]
        [1.0, 0.0]
    """

    wrong: tuple[int, ...] = (0,) * _NUM_BINS
    right: tuple[int, ...] = (0,) * _NUM_BINS

    @property
    def num_labels(self) -> int:
        return sum(self.wrong) + sum(self.right)

    def with_labels(self, delay_ms_N: npt.NDArray[np.float64], is_right_N: npt.NDArray[np.bool_]) -> "LabelDelays":
        """These and more; a label that claims to be older than its prediction took no time."""
        bin_N = _BINS.bins(np.asarray(delay_ms_N, np.float64)).astype(np.intp)
        added = np.bincount(bin_N + is_right_N * _NUM_BINS, minlength=2 * _NUM_BINS).tolist()
        return LabelDelays(
            wrong=tuple(map(sum, zip(self.wrong, added[:_NUM_BINS], strict=True))),
            right=tuple(map(sum, zip(self.right, added[_NUM_BINS:], strict=True))),
        )

    def share_by(self, age_ms: float, is_right: bool | None = None) -> float:
        """Of the labels of an outcome (None: of all), the share that took at most so long; 0 where there are none.

        Within a step, labels are taken to lie evenly.
        """
        return float(self._shares_by(np.array([age_ms]), is_right)[0])

    def quantile_ms(self, share: float) -> float | None:
        """In what time that share of all labels came; None while fewer than 200 are known."""
        if self.num_labels < _MIN_LABELS:
            return None
        below = np.concatenate([[0.0], np.cumsum(self._counts(None))])
        return float(np.interp(share * below[-1], below, EDGES_MS))

    def horizon_ms(self, least_ms: int, most_ms: int) -> int:
        """How long after its end a window is mature, within what the settings allow; `least_ms` where that is not known."""
        needed_ms = self.quantile_ms(MATURE_SHARE)
        return least_ms if needed_ms is None else max(least_ms, min(math.ceil(needed_ms), most_ms))

    def maturity(
        self, num_predictions: int, num_labels: int, num_correct: int, *, start_ms: int, end_ms: int, now_ms: int,
        usual_share: float | None = None,
    ) -> Maturity:  # fmt: skip
        """Of the window [start, end), at a moment of event time.

        Args:
            num_predictions: Of the window.
            num_labels: That are here.
            num_correct: Of them.
            start_ms: Of the window.
            end_ms: Of the window.
            now_ms: The newest event time that is known of.
            usual_share: Of the predictions of older windows that were labelled in the end; None where that is not known.

        Source: inverse probability weighting (Horvitz and Thompson 1952): right and wrong labels are each divided by the share
        of their kind that past labels had come by at this age. Rows lie evenly within the window. It rests on delays being as
        before; they are those of the labels that have come, so in a model's first days those that take long are missing.
        """
        share = min(1.0, num_labels / num_predictions) if num_predictions else None
        if self.num_labels < _MIN_LABELS:
            return Maturity(share=share, accuracy=num_correct / num_labels if num_labels else None)
        middles_A = start_ms + (end_ms - start_ms) * (np.arange(_NUM_AGES) + 0.5) / _NUM_AGES
        ages_A = np.maximum(0.0, now_ms - middles_A)
        come = {is_right: float(self._shares_by(ages_A, is_right).mean()) for is_right in (None, False, True)}
        stands_for = {
            is_right: number / max(come[is_right], _MIN_SHARE) if number else 0.0
            for is_right, number in ((True, num_correct), (False, num_labels - num_correct))
        }
        total = sum(stands_for.values())
        return Maturity(
            share=share,
            expected_share=None if usual_share is None else usual_share * come[None],
            is_mature=come[None] >= MATURE_SHARE,
            accuracy=stands_for[True] / total if total else None,
        )

    def _shares_by(self, ages_A: npt.NDArray[np.float64], is_right: bool | None) -> npt.NDArray[np.float64]:
        below = np.concatenate([[0.0], np.cumsum(self._counts(is_right))])
        shares_A: npt.NDArray[np.float64] = np.interp(ages_A, EDGES_MS, below) / (below[-1] or 1.0)
        return shares_A

    def _counts(self, is_right: bool | None) -> npt.NDArray[np.float64]:
        of_both = np.array([self.wrong, self.right], np.float64)
        counts: npt.NDArray[np.float64] = of_both.sum(axis=0) if is_right is None else of_both[int(is_right)]
        return counts
