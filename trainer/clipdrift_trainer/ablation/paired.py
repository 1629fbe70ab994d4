"""Paired differences between two arms that were fitted with the same seeds and judged on the same rows.

Two things are left to chance: which days were judged, and which seeds were drawn. The variance of the difference is the sum
of both, and its degrees of freedom are those that the larger part has.
"""

from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np

from clipdrift_contract.events import Contrast
from clipdrift_trainer.ablation.sums import DaySums
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.retraining.contrast import UNKNOWN

CALIBRATION = "ece"
_NUM_ANGLES = 40_001
_MOST_DEGREES = 1_000.0  # beyond, Student's t is normal to three digits


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """The mean of a paired difference (negative: the first is better) and where its variance comes from."""

    difference: float
    day_variance: float
    seed_variance: float
    num_days: int
    num_seeds: int
    num_rows: int

    @property
    def is_known(self) -> bool:
        """One day has no spread, so it proves nothing."""
        return self.num_days >= 2

    @property
    def degrees(self) -> float:
        """Source: Satterthwaite, Biometrics Bulletin 2 (1946), for a sum of two variances."""
        total = self.day_variance + self.seed_variance
        parts = self.day_variance**2 / max(1, self.num_days - 1) + self.seed_variance**2 / max(1, self.num_seeds - 1)
        return total**2 / parts if parts > 0 else float(max(1, self.num_days - 1))

    def half_width(self, level: float = 0.95) -> float:
        """Half of the interval that holds the true difference with this probability; 1e9 where nothing is known."""
        if not self.is_known:
            return UNKNOWN
        return student_t(self.degrees, level) * float((self.day_variance + self.seed_variance) ** 0.5)

    def contrast(self, slice_name: str, metric: str) -> Contrast:
        """As an event holds it, with its 95 % interval."""
        half = self.half_width()
        return Contrast(
            slice=slice_name, num_rows=self.num_rows, num_blocks=self.num_days, metric=metric,
            difference=self.difference, low=self.difference - half, high=self.difference + half,
        )  # fmt: skip


@cache
def student_t(degrees: float, level: float = 0.95) -> float:
    """Two-sided quantile of Student's t, also for fractional degrees of freedom; right to five digits.

    Source: with t = sqrt(v) tan(a) the density is proportional to cos(a)^(v - 1) on (-pi/2, pi/2), which is summed by
    midpoints.

    Raises:
        ValueError: `degrees` is not positive, or `level` lies outside 0..1.

    Example:
        >>> round(student_t(10), 3), round(student_t(2, 0.99), 2)
        (2.228, 9.92)
    """
    if not degrees > 0 or not 0.0 < level < 1.0:
        raise ValueError(f"degrees of freedom must be > 0 and the level in 0..1, got {degrees!r} and {level!r}")
    degrees = min(degrees, _MOST_DEGREES)
    edge_A = np.linspace(0.0, np.pi / 2, _NUM_ANGLES)
    middle_A = (edge_A[1:] + edge_A[:-1]) / 2
    share_A = np.concatenate([[0.0], np.cumsum(np.cos(middle_A) ** (degrees - 1.0))])
    angle = float(np.interp(level, share_A / share_A[-1], edge_A))
    return float(degrees**0.5 * np.tan(angle))


def paired(first: Sequence[DaySums], second: Sequence[DaySums], metric: str, slice_name: str = "") -> Paired:
    """The difference `first` - `second` of a loss (brier, nll, error) or of the calibration error (ece; all rows only).

    Args:
        first: The sums of one arm, one a seed.
        second: The same of the other, the same seeds on the same rows.
        metric: One of `DaySums.metrics`, or "ece".
        slice_name: "" is all rows.

    Raises:
        ValueError: The two differ in number of seeds or in days, so that nothing can be paired.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"paired arms have the same seeds, at least one; got {len(first)} and {len(second)}")
    if any(one.days != first[0].days for one in (*first, *second)):
        raise ValueError("paired arms are judged on the same days")
    if metric == CALIBRATION:
        return _paired_calibration(first, second)
    return _paired_losses(first, second, metric, slice_name)


def _paired_losses(first: Sequence[DaySums], second: Sequence[DaySums], metric: str, slice_name: str) -> Paired:
    """Source: ratio estimator over clusters, Cochran, Sampling Techniques (1977), section 6.3, as in retraining.contrast."""
    chosen = first[0].columns(slice_name)
    num_D = first[0].counts_DC()[:, chosen].sum(axis=1)
    sum_SD = np.stack(
        [
            one.losses_DC(metric)[:, chosen].sum(axis=1) - other.losses_DC(metric)[:, chosen].sum(axis=1)
            for one, other in zip(first, second, strict=True)
        ]
    )
    sum_SD, num_D = sum_SD[:, num_D > 0], num_D[num_D > 0]
    num_days = len(num_D)
    if not num_days:
        return Paired(difference=0.0, day_variance=0.0, seed_variance=0.0, num_days=0, num_seeds=len(first), num_rows=0)
    by_seed_S = sum_SD.sum(axis=1) / num_D.sum()
    mean = float(by_seed_S.mean())
    residual_D = (sum_SD.mean(axis=0) - mean * num_D) / num_D.mean()
    return Paired(
        difference=mean,
        day_variance=float((residual_D**2).sum()) / (num_days - 1) / num_days if num_days > 1 else 0.0,
        seed_variance=_variance_of_mean(by_seed_S),
        num_days=num_days,
        num_seeds=len(first),
        num_rows=int(num_D.sum()),
    )


def _paired_calibration(first: Sequence[DaySums], second: Sequence[DaySums]) -> Paired:
    """Days are left out one at a time, since the calibration error is no mean over rows.

    Source: the jackknife, Efron and Tibshirani, An Introduction to the Bootstrap (1993), equation 11.5.
    """
    num_D = first[0].counts_DC().sum(axis=1)
    by_seed_S = np.array([a.calibration_error() - b.calibration_error() for a, b in zip(first, second, strict=True)])
    num_days = len(num_D)
    left_out_SD = np.array(
        [
            _leaving_days_out(a.gaps_DB(), num_D) - _leaving_days_out(b.gaps_DB(), num_D)
            for a, b in zip(first, second, strict=True)
        ]
    )
    left_out_D = left_out_SD.mean(axis=0)
    spread = float(((left_out_D - left_out_D.mean()) ** 2).sum()) if num_days > 1 else 0.0
    return Paired(
        difference=float(by_seed_S.mean()),
        day_variance=spread * (num_days - 1) / max(1, num_days),
        seed_variance=_variance_of_mean(by_seed_S),
        num_days=num_days,
        num_seeds=len(first),
        num_rows=int(num_D.sum()),
    )


def _leaving_days_out(gaps_DB: Floats, num_D: Floats) -> Floats:
    if len(num_D) < 2:
        return np.zeros(len(num_D))
    rest_DB = gaps_DB.sum(axis=0) - gaps_DB
    found: Floats = np.abs(rest_DB).sum(axis=1) / (num_D.sum() - num_D)
    return found


def _variance_of_mean(by_seed_S: Floats) -> float:
    return float(by_seed_S.var(ddof=1)) / len(by_seed_S) if len(by_seed_S) > 1 else 0.0
