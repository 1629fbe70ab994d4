"""Paired differences between two arms of an ablation, from what is kept of their answers."""

from collections.abc import Sequence

import numpy as np

from clipdrift_trainer.ablation.sums import DaySums
from clipdrift_trainer.evaluation.paired import Paired, paired_sums, variance_of_mean
from clipdrift_trainer.evaluation.scores import Floats

CALIBRATION = "ece"


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
    chosen = first[0].columns(slice_name)
    sum_SD = np.stack(
        [
            one.losses_DC(metric)[:, chosen].sum(axis=1) - other.losses_DC(metric)[:, chosen].sum(axis=1)
            for one, other in zip(first, second, strict=True)
        ]
    )
    return paired_sums(sum_SD, first[0].counts_DC()[:, chosen].sum(axis=1))


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
        seed_variance=variance_of_mean(by_seed_S),
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
