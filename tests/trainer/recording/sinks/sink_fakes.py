"""Windows, and sinks that obey the test."""

import contextlib
import resource
import threading

from clipdrift_contract.events import GradWindow


def window(step, run_id="r", **changes):
    given = {"norm_histogram": {0: 50}, "num_clipped": 0, "num_steps": 50} | changes
    return GradWindow(run_id=run_id, model="m", started_at_ms=0, ended_at_ms=0, step_first=step, **given)


@contextlib.contextmanager
def files_end_at(num_bytes):
    """A disk that fills: the write that reaches the limit is cut short, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class FakeSink:
    """Keeps the steps it was given; raises what it is told to, one error a call; hangs while it is told to."""

    needs_every_window = True

    def __init__(self, *errors, name="fake", target=""):
        self.name = name
        self.target = target
        self.errors = list(errors)
        self.steps = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_called = threading.Event()
        self.num_closed = 0

    def send(self, events):
        self.is_called.set()
        assert self.goes_on.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        self.steps += [event.step_first for event in events]

    def close(self):
        self.num_closed += 1
