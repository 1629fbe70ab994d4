"""Where windows go: the bus, and Prometheus while the run lasts. A sink that fails never fails the training."""

import logging
from collections import deque

from clipdrift_contract import metrics as names
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import GradWindow
from clipdrift_contract.metrics import MetricSet

_log = logging.getLogger(__name__)
_MAX_UNSENT = 10_000


class WindowSink:
    """Sends windows to the bus and counts them for Prometheus; windows that cannot be sent wait, bounded, and are tried again.

    A window's event id is made of its run and step, so a run that is told again after a crash is counted once.

    Args:
        publisher: None: only metrics are kept.
        metrics: The process's metrics.
        num_steps: Planned steps of the run, for the progress gauge.
    """

    def __init__(self, publisher: EventPublisher | None, metrics: MetricSet, num_steps: int) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._num_steps = num_steps
        self._unsent: deque[GradWindow] = deque(maxlen=_MAX_UNSENT)

    def __call__(self, window: GradWindow) -> None:
        self._count(window)
        self._unsent.append(window)
        self._send(window.model)

    def _send(self, model: str) -> None:
        while self._publisher is not None and self._unsent:
            window = self._unsent[0]
            try:
                self._publisher.publish(window, event_id=f"window-{window.run_id}-{window.rank}-{window.step_first}")
            except RetryableError as error:
                _log.warning("%d telemetry windows of %s wait: %s", len(self._unsent), model, error)
                break
            except Exception:  # noqa: BLE001  # training must not end for its telemetry, nor one window block the rest
                _log.exception("the window of %s at step %d is lost", model, window.step_first)
            self._unsent.popleft()
        self._metrics.gauge(names.TRAINER_WINDOWS_UNSENT).labels(model).set(len(self._unsent))

    def _count(self, window: GradWindow) -> None:
        model = window.model
        counts = {
            names.TRAINER_STEPS: window.num_steps,
            names.TRAINER_CLIPPED_STEPS: window.num_clipped,
            names.TRAINER_NONFINITE_STEPS: window.num_nonfinite,
            names.TRAINER_INEFFECTIVE_STEPS: window.num_ineffective,
            names.TRAINER_GRAD_NORM_REMOVED: window.norm_removed_sum,
        }
        for metric, count in counts.items():
            self._metrics.counter(metric).labels(model).inc(count)
        histogram = self._metrics.histogram(names.TRAINER_GRAD_NORM).labels(model)
        for bucket, count in window.norm_histogram.items():
            for _ in range(count):  # a bucket's geometric middle stands for its norms
                histogram.observe(2.0 ** ((bucket + 0.5) / 4))
        bound = window.max_norm_last if window.max_norm_last is not None else float("inf")
        self._metrics.gauge(names.TRAINER_CLIP_BOUND).labels(model).set(bound)
        num_finite = max(1, window.num_steps - window.num_nonfinite)
        self._metrics.gauge(names.TRAINER_LOSS).labels(model).set(window.loss_sum / num_finite)
        done = (window.step_first + window.num_steps) / max(1, self._num_steps)
        self._metrics.gauge(names.TRAINER_PROGRESS).labels(model).set(min(1.0, done))
