"""What validation allows: bounds that the harm tests compare with, from the errors of held-out days in time order."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from clipdrift_contract.events import BlockScore, ErrorClustering, RunEnd
from clipdrift_monitor.risk.chain import ErrorRate
from clipdrift_monitor.risk.student import t_exceeded_once_in, t_quantile

REST = "(rest)"  # the slices that are not tested on their own, together
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
    mean_error_bound: float = 1.0
    """95 % upper bound of the mean daily error rate."""
    mean_log_loss_bound: float = math.inf
    """The same of the log loss; infinite where there is none."""
    error_rate: ErrorRate | None = None
    """What the label-by-label test compares with; None in states that are older than it."""
    block_ms: int = 0
    """The longest period over which errors hang together; 0: a window is long enough."""

    day_error_mean: float = -1.0
    """Mean of the daily error rates; below 0 in states that are older than it."""
    day_error_spread: float = 0.0
    """Standard deviation with which one further day is foretold."""

    @property
    def is_usable(self) -> bool:
        return self.num_days >= _MIN_DAYS

    @property
    def has_errors(self) -> bool:
        """Whether a label is right or wrong; of values only the size of a miss is known."""
        return self.day_error_bound < 1.0

    def worst_day(self, blocks: float) -> float:
        """The error rate that one block in `blocks` exceeds by chance, at most 0.9 and at least the 99 % bound.

        A test whose evidence may reach its bound by chance once in so many blocks must not take for a break what a day of its
        own does more often than that.

        Example:
            >>> reference = Reference(
            ...     num_days=28, mean_loss_bound=0.2, day_error_bound=0.32, lag1=0.0, day_error_mean=0.2, day_error_spread=0.05
            ... )
            >>> round(reference.worst_day(90.0), 2), round(reference.worst_day(5400.0), 2)
            (0.32, 0.4)
        """
        if self.day_error_mean < 0 or self.num_days < 2:
            return self.day_error_bound
        rare = self.day_error_mean + t_exceeded_once_in(max(2.0, blocks), self.num_days - 1) * self.day_error_spread
        return max(self.day_error_bound, min(0.9, rare))


def reference_of(run: RunEnd) -> Reference:
    """The bounds from a run's validation."""
    return _bounds(next((one for one in run.clustering if one.slice == ""), None), has_errors=_has_errors(run))


def _has_errors(run: RunEnd) -> bool:
    return run.profile is None or run.profile.task != "regression"


def references_of_slices(run: RunEnd, names: Sequence[str], max_slices: int) -> dict[str, Reference]:
    """The bounds of the slices with the most validated rows, by name, and of all others together as "(rest)".

    A slice without validated rows is among the rest. Nothing where there is one slice or none, or none was validated.
    """
    if max_slices < 1 or len(names) < 2:
        return {}
    clustering = {one.slice: one for one in run.clustering if one.slice in set(names)}
    by_size = sorted(clustering, key=lambda name: (-sum(day.num_rows for day in clustering[name].days), name))
    chosen = by_size[:max_slices]
    if not chosen:
        return {}
    rest = [name for name in names if name not in chosen]
    has_errors = _has_errors(run)
    found = {name: _bounds(clustering[name], has_errors=has_errors) for name in sorted(chosen)}
    if rest:
        found[REST] = _bounds(_together([clustering[name] for name in rest if name in clustering]), has_errors=has_errors)
    return found


def _together(slices: Sequence[ErrorClustering]) -> ErrorClustering | None:
    """Slices as one. Their largest spread and lag stand for all: the order of their rows among each other is not known."""
    if not slices:
        return None
    by_start: dict[int, list[BlockScore]] = {}
    for one in slices:
        for day in one.days:
            by_start.setdefault(day.start_ms, []).append(day)
    days = tuple(
        BlockScore(
            start_ms=start,
            num_rows=sum(day.num_rows for day in of_day),
            num_errors=sum(day.num_errors for day in of_day),
            nll_sum=sum(day.nll_sum for day in of_day),
            brier_sum=sum(day.brier_sum for day in of_day),
        )
        for start, of_day in sorted(by_start.items())
    )
    return ErrorClustering(
        slice=REST,
        lag1_autocorrelation=max(one.lag1_autocorrelation for one in slices),
        between_hour_variance=max(one.between_hour_variance for one in slices),
        between_day_variance=max(one.between_day_variance for one in slices),
        days=days,
    )


def _bounds(validated: ErrorClustering | None, *, has_errors: bool) -> Reference:
    """Source: t intervals over days; for one further day s * sqrt(1 + 1/n) (Hahn, Meeker, Statistical Intervals, section
    4.7)."""
    days = [day for day in validated.days if day.num_rows >= _MIN_ROWS] if validated is not None else []
    if validated is None or len(days) < 2:
        return Reference(num_days=len(days), mean_loss_bound=1.0, day_error_bound=1.0, lag1=0.0)
    loss_bound = min(0.95, _mean_bound([day.brier_sum / day.num_rows for day in days]))
    if not has_errors:
        return Reference(num_days=len(days), mean_loss_bound=loss_bound, day_error_bound=1.0, lag1=0.0)
    errors = np.array([day.num_errors / day.num_rows for day in days])
    # an evening can be bad within a day that is not: the spread of hours counts where it is larger
    spread = math.sqrt(max(float(errors.var(ddof=1)), validated.between_hour_variance))
    n, lag1 = len(days), min(0.9, max(0.0, lag1_within_days(validated, days)))
    log_loss = _mean_bound([day.nll_sum / day.num_rows for day in days])
    return Reference(
        num_days=n,
        mean_loss_bound=loss_bound,
        day_error_bound=min(0.9, float(errors.mean() + t_quantile(0.99, n - 1) * spread * math.sqrt(1 + 1 / n))),
        day_error_mean=float(errors.mean()),
        day_error_spread=float(spread * math.sqrt(1 + 1 / n)),
        lag1=lag1,
        mean_error_bound=min(0.95, _mean_bound(errors.tolist())),
        mean_log_loss_bound=log_loss if log_loss > 0 else math.inf,
        error_rate=error_rate_of(days, lag1),
    )


def error_rate_of(days: Sequence[BlockScore], lag1: float) -> ErrorRate:
    """The validated error rate, half an error and half a hit added so that neither is impossible, and how much days differ.

    Source: Pearson's dispersion, sum_d n_d (r_d - r)^2 / (r (1 - r)) / (D - 1), over (1 + lag1) / (1 - lag1).
    """
    num_D = np.array([float(day.num_rows) for day in days])
    error_D = np.array([float(day.num_errors) for day in days])
    rate = float((error_D.sum() + 0.5) / (num_D.sum() + 1.0))
    found = ErrorRate(rate=rate, num_labels=float(num_D.sum()), lag1=lag1, num_blocks=len(days))
    chance = rate * (1 - rate) * found.chain_inflation
    inflation = float((num_D * (error_D / num_D - error_D.sum() / num_D.sum()) ** 2).sum()) / chance / max(1, len(days) - 1)
    return msgspec.structs.replace(found, inflation=inflation)


def _mean_bound(values: Sequence[float]) -> float:
    """95 % upper t bound of a mean."""
    n = len(values)
    return float(np.mean(values) + t_quantile(0.95, n - 1) * np.std(values, ddof=1) / math.sqrt(n))


def lag1_within_days(clustering: ErrorClustering, days: Sequence[BlockScore]) -> float:
    """Lag-1 correlation with the part that whole days explain taken out: what is left between neighbours of one day."""
    num_rows = sum(day.num_rows for day in days)
    mean = sum(day.num_errors for day in days) / num_rows
    variance = mean * (1 - mean)
    if variance <= 0:
        return 0.0
    between = clustering.between_day_variance
    return (clustering.lag1_autocorrelation * variance - between) / max(1e-9, variance - between)
