"""TensorBoard as a sink: curves, and the norms' histogram as a real one. Needs the extra `tensorboard`.

The event files are written here, record by record, not by a `SummaryWriter`: that one writes from a thread of its own, so an
error of the disk would be nobody's.
"""

import itertools
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import GradWindow
from clipdrift_trainer.recording.sinks.figures import curves, step_after
from clipdrift_trainer.recording.sinks.sink import Telemetry

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import histogram_raw, scalar
except ImportError as error:
    raise ImportError(
        f"a TensorBoard sink needs {error.name}: pip install 'clipdrift[tensorboard]'", name=error.name
    ) from error

_LAST_STEP = "clipdrift/last_step"
_numbers = itertools.count()


class _Open(NamedTuple):
    """An event file that is being written."""

    path: Path
    file: BinaryIO
    records: Any


class TensorBoardSink:
    """Writes one event folder a run, `FOLDER/RUN_ID`. A window that is there already is not written twice.

    Args:
        folder: What `tensorboard --logdir` is given; made when missing.
    """

    name = "tensorboard"
    needs_every_window = True

    def __init__(self, folder: Path) -> None:
        self.target = str(folder.absolute())
        self._folder = folder
        self._open: dict[str, _Open] = {}
        self._last_steps: dict[str, int] = {}

    def send(self, events: Sequence[Telemetry]) -> None:
        try:
            for event in events:
                if isinstance(event, GradWindow):
                    self._write(event)
        except OSError as error:
            self._let_go()  # a record may be cut off now: what follows goes to a file of its own
            raise RetryableError(f"TensorBoard's events cannot be written: {error}") from error

    def close(self) -> None:
        self._let_go()

    def _write(self, window: GradWindow) -> None:
        written = self._file_of(window.run_id)
        step = step_after(window)
        if step <= self._last_steps[window.run_id]:
            return
        # one record a window, which is there whole or not at all: a record has a checksum
        values = [value for summary in _summaries(window, step) for value in summary.value]
        event = Event(wall_time=window.ended_at_ms / 1000, step=step, summary=Summary(value=values))
        written.records.write(event.SerializeToString())
        written.file.flush()
        self._last_steps[window.run_id] = step

    def _file_of(self, run_id: str) -> _Open:
        known = self._open.get(run_id)
        if known is not None and known.path.exists():
            return known
        folder = self._folder / run_id.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        self._last_steps[run_id] = _last_step(folder)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        file = (folder / name).open("wb")
        made = _Open(folder / name, file, RecordWriter(file))
        made.records.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._open[run_id] = made
        return made

    def _let_go(self) -> None:
        while self._open:
            _, written = self._open.popitem()
            with suppress(OSError):  # what could not be written is sent again
                written.file.close()


def _summaries(window: GradWindow, step: int) -> Iterator[Any]:
    for name, value in curves(window).items():
        yield scalar(f"clipdrift/{name}", value)
    if window.norm_histogram:
        buckets = range(min(window.norm_histogram), max(window.norm_histogram) + 1)
        counts = [window.norm_histogram.get(bucket, 0) for bucket in buckets]
        yield histogram_raw(  # the window's own buckets, four to the octave: nothing is binned anew
            "clipdrift/grad_norm_before_clip",
            window.norm_min or 0.0,
            window.norm_max,
            sum(counts),
            window.norm_sum,
            window.norm_sq_sum,
            [2.0 ** ((bucket + 1) / 4) for bucket in buckets],
            counts,
        )
    yield scalar(_LAST_STEP, step)


def _last_step(folder: Path) -> int:
    """The last step that was written; 0 where there is none."""
    if not any(folder.glob("events.out.tfevents.*")):
        return 0
    written = EventAccumulator(str(folder), size_guidance={"scalars": 1, "histograms": 1})
    written.Reload()
    if _LAST_STEP not in written.Tags()["scalars"]:
        return 0
    return int(written.Scalars(_LAST_STEP)[-1].step)
