"""Signs of life of a job, sent beside its work."""

import threading
from collections.abc import Callable

from clipdrift_contract.errors import ClipdriftError
from clipdrift_deploy.ci_job.client import NotOursError


class Beats:
    """A context in which a thread says every so often that the job lives. A monitor that is away is no reason to stop.

    Args:
        beat: Says it once; raises `NotOursError` when the job is to stop.
        seconds: Between two of them.
        stop: Called, from the thread, when the job is to stop.
    """

    def __init__(self, beat: Callable[[], None], seconds: float, stop: Callable[[], None]) -> None:
        self.why_stopped = ""
        self._beat = beat
        self._seconds = seconds
        self._stop = stop
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="beats", daemon=True)

    def __enter__(self) -> "Beats":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(5.0)

    def _go_on(self) -> None:
        while not self._is_over.wait(self._seconds):
            try:
                self._beat()
            except NotOursError as error:
                self.why_stopped = str(error)
                self._stop()
                return
            except (ClipdriftError, OSError):
                continue
