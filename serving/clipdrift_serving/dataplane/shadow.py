"""A shadow version sees what the champion sees; its answers are recorded, never returned, and never waited for."""

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.model import LoadedModel
from clipdrift_serving.dataplane.tensors import Tensor
from clipdrift_serving.dataplane.worker import Schedule
from clipdrift_serving.recording.recorder import Predicted
from clipdrift_serving.recording.tally import Tally

_NICENESS = 19  # the least: the shadow computes when nobody else wants to
_log = logging.getLogger(__name__)


class Shadowed(NamedTuple):
    """Rows that the champion has answered, under the identities that it gave them."""

    name: str
    model: LoadedModel
    generation: int
    sequence_N: npt.NDArray[np.uint64]
    event_time_N: npt.NDArray[np.int64]
    inputs: dict[str, Tensor]
    tally: Tally  # of the shadow: rows that it could not answer


class ShadowRunner:
    """Runs shadow versions in one thread of least priority, over a bounded queue.

    Args:
        record: Takes what was predicted, on the loop's thread.
        max_rows: Rows that may wait; what comes beyond is left out and counted.
        metrics: For what was left out.
        schedule: Calls a function on the loop's thread; None: everything runs in `offer`.
    """

    def __init__(
        self, record: Callable[[Predicted], None], max_rows: int, metrics: MetricSet, schedule: Schedule | None
    ) -> None:
        self._record = record
        self._max_rows = max_rows
        self._left_out = metrics.counter(names.SERVING_UNRECORDED)
        self._schedule = schedule
        self._queue: deque[Shadowed] = deque()
        self._num_rows = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def offer(self, rows: Shadowed) -> None:
        """Queue rows; returns at once."""
        if self._schedule is None:
            self._take(rows, _predicted(rows))
            return
        with self._changed:
            if self._num_rows + len(rows.sequence_N) > self._max_rows:
                self._left_out.labels(rows.name, "shadow").inc(len(rows.sequence_N))
                return
            self._queue.append(rows)
            self._num_rows += len(rows.sequence_N)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread after the run that is under way."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(10.0)

    def _run(self) -> None:
        assert self._schedule is not None
        with contextlib.suppress(OSError, AttributeError):  # of this thread only, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closing)
                if self._is_closing:
                    return
                rows = self._queue.popleft()
            predicted = _predicted(rows)
            with self._changed:
                self._num_rows -= len(rows.sequence_N)
            self._schedule(lambda rows=rows, predicted=predicted: self._take(rows, predicted))  # type: ignore[misc]

    def _take(self, rows: Shadowed, predicted: list[Predicted]) -> None:
        """On the loop's thread."""
        if not predicted:
            rows.tally.num_failed += len(rows.sequence_N)
        for one in predicted:
            self._record(one)


def _predicted(rows: Shadowed) -> list[Predicted]:
    """What the shadow predicts, a record for each head; nothing where it cannot answer these rows."""
    model, num_rows = rows.model, len(rows.sequence_N)
    try:
        inputs = {name: rows.inputs[name] for name in model.inputs}
        outputs = model.infer(inputs)
        slice_N = model.slice_index(inputs, num_rows)
        return [
            Predicted(
                head.name, model.version, "shadow", rows.generation, rows.sequence_N, rows.event_time_N, slice_N,
                *head.scores(outputs, num_rows), inputs, (), head.profile or model.profile,
            )
            for head in model.heads
        ]  # fmt: skip
    except (RequestError, KeyError, ValueError) as error:
        _log.warning("shadow version %s of %s cannot answer what the champion answered: %s", model.version, rows.name, error)
        return []
