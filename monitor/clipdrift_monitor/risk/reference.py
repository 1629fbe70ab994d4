"""What validation allows: bounds that the harm tests compare with, from the errors of held-out days in time order."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from clipdrift_contract.events import BlockScore, ErrorClustering, RunEnd
from clipdrift_monitor.risk.student import t_quantile

_MIN_ROWS = 10
_MIN_DAYS = 3


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one version. `num_days` below 3 means that validation was too short to know: the absolute tests then rest."""

    num_days: int
    mean_loss_bound: float
    """95 % upper bound of the mean daily Brier score."""
    day_error_bound: float
    """99 % upper prediction bound of the error rate over the worst stretch (a day, or an hour of it)."""
    lag1: float
    """Correlation of an error with the one before it, within a day, >= 0."""

    @property
    def is_usable(self) -> bool:
        return self.num_days >= _MIN_DAYS


def reference_of(run: RunEnd) -> Reference:
    """The bounds from a run's validation.

    Source: t intervals over days; for one further day s * sqrt(1 + 1/n) (Hahn, Meeker, Statistical Intervals, section 4.7).
    """
    overall = next((one for one in run.clustering if one.slice == ""), None)
    days = [day for day in overall.days if day.num_rows >= _MIN_ROWS] if overall is not None else []
    if overall is None or len(days) < 2:
        return Reference(num_days=len(days), mean_loss_bound=1.0, day_error_bound=1.0, lag1=0.0)
    errors = np.array([day.num_errors / day.num_rows for day in days])
    # an evening can be bad within a day that is not: the spread of hours counts where it is larger
    spread = math.sqrt(max(float(errors.var(ddof=1)), overall.between_hour_variance))
    losses = np.array([day.brier_sum / day.num_rows for day in days])
    n = len(days)
    return Reference(
        num_days=n,
        mean_loss_bound=min(0.95, float(losses.mean() + t_quantile(0.95, n - 1) * losses.std(ddof=1) / math.sqrt(n))),
        day_error_bound=min(0.9, float(errors.mean() + t_quantile(0.99, n - 1) * spread * math.sqrt(1 + 1 / n))),
        lag1=min(0.9, max(0.0, lag1_within_days(overall, days))),
    )


def lag1_within_days(clustering: ErrorClustering, days: Sequence[BlockScore]) -> float:
    """Lag-1 correlation with the part that whole days explain taken out: what is left between neighbours of one day."""
    num_rows = sum(day.num_rows for day in days)
    mean = sum(day.num_errors for day in days) / num_rows
    variance = mean * (1 - mean)
    if variance <= 0:
        return 0.0
    between = clustering.between_day_variance
    return (clustering.lag1_autocorrelation * variance - between) / max(1e-9, variance - between)
