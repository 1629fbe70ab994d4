"""A window counted in the process's Prometheus metrics."""

import math
from bisect import bisect_left
from collections.abc import Mapping

from prometheus_client import Histogram

from clipdrift_contract import metrics as names
from clipdrift_contract.events import GradWindow
from clipdrift_contract.metrics import MetricSet

MOST_GROUPS = 12
MOST_SLICES = 50
OTHER = "(other)"


class WindowCounts:
    """Adds windows to the metrics. One series a group or slice, within a bound: what comes beyond it is counted as "(other)".

    Args:
        metrics: The process's metrics.
        num_steps: Planned steps of the run, for the progress gauge.
    """

    def __init__(self, metrics: MetricSet, num_steps: int) -> None:
        self._metrics = metrics
        self._num_steps = num_steps
        self._groups = _Names(MOST_GROUPS)
        self._slices = _Names(MOST_SLICES)

    def add(self, window: GradWindow) -> None:
        self._count_steps(window)
        self._show_last(window)
        for group, norm in self._group_norms(window).items():
            self._metrics.gauge(names.TRAINER_GROUP_NORM).labels(window.model, group).set(norm)
        for one in window.slices:
            mass = self._metrics.counter(names.TRAINER_SLICE_GRAD_MASS).labels(window.model, self._slices.shown(one.slice))
            mass.inc(one.grad_mass_sum)
        for fault in window.faults:
            self._metrics.counter(names.TRAINER_FAULTS).labels(window.model, fault.kind).inc(fault.num_steps)

    def _count_steps(self, window: GradWindow) -> None:
        counts = {
            names.TRAINER_STEPS: window.num_steps,
            names.TRAINER_CLIPPED_STEPS: window.num_clipped,
            names.TRAINER_NONFINITE_STEPS: window.num_nonfinite,
            names.TRAINER_SKIPPED_STEPS: window.num_skipped,
            names.TRAINER_INEFFECTIVE_STEPS: window.num_ineffective,
            names.TRAINER_GRAD_NORM_REMOVED: window.norm_removed_sum,
        }
        for metric, count in counts.items():
            self._metrics.counter(metric).labels(window.model).inc(count)
        histogram = self._metrics.histogram(names.TRAINER_GRAD_NORM).labels(window.model)
        for bucket, count in window.norm_histogram.items():
            _observe(histogram, 2.0 ** ((bucket + 0.5) / 4), count)  # a bucket's geometric middle stands for its norms

    def _show_last(self, window: GradWindow) -> None:
        num_steps, num_finite = max(1, window.num_steps), max(1, window.num_steps - window.num_nonfinite)
        done = (window.step_first + window.num_steps) / max(1, self._num_steps)
        gauges = {
            names.TRAINER_CLIP_BOUND: window.max_norm_last if window.max_norm_last is not None else math.inf,
            names.TRAINER_LOSS: window.loss_sum / num_finite,
            names.TRAINER_LEARNING_RATE: window.learning_rate_sum / num_steps,
            names.TRAINER_EFFECTIVE_LEARNING_RATE: window.effective_learning_rate_sum / num_finite,
            names.TRAINER_PROGRESS: min(1.0, done),
        }
        for metric, value in gauges.items():
            self._metrics.gauge(metric).labels(window.model).set(value)

    def _group_norms(self, window: GradWindow) -> Mapping[str, float]:
        """Mean norm by shown name; that of the rest is the root of the sum of their squares, as of one group."""
        num_finite = max(1, window.num_steps - window.num_nonfinite)
        found: dict[str, float] = {}
        rest = 0.0
        for group in window.groups:
            shown = self._groups.shown(group.name)
            if shown == OTHER:
                rest += group.norm_sq_sum
            else:
                found[shown] = group.norm_sum / num_finite
        return found | ({OTHER: math.sqrt(rest / num_finite)} if rest else {})


def _observe(histogram: Histogram, value: float, count: int) -> None:
    """`histogram.observe(value)`, `count` times. By sample a window has 200,000 norms, and the training waits for this; but
    prometheus_client has no such call, so its own fields are moved (a test holds this to what `observe` does)."""
    histogram._sum.inc(value * count)
    histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(count)


class _Names:
    """The first names that come keep their own series.

    Example:
        >>> names = _Names(2)
        >>> [names.shown(name) for name in ("a", "b", "c", "a")]
        ['a', 'b', '(other)', 'a']
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def shown(self, name: str) -> str:
        if name not in self._known and len(self._known) < self._most:
            self._known.add(name)
        return name if name in self._known else OTHER
