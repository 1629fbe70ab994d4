"""A thread that asks the CI, so that the engine never waits for the network."""

import logging
import queue
import threading
from collections.abc import Callable

from clipdrift_monitor.actions.backends.backend import Backend
from clipdrift_monitor.actions.course import NoAnswer, Observation
from clipdrift_monitor.actions.errands import Errand, carry_out

_CLOSE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Dispatcher:
    """Carries out errands one after another.

    Args:
        backend: Where to ask; used by this thread alone, and closed with it.
        tell: Takes what was seen; must not block.
        is_current: Whether an errand is still this monitor's to do.
    """

    def __init__(
        self, backend: Backend, tell: Callable[[Errand, Observation], object], is_current: Callable[[Errand], bool]
    ) -> None:
        self._backend = backend
        self._tell = tell
        self._is_current = is_current
        self._errands: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def take(self, errand: Errand) -> None:
        """Have an errand done; returns at once. Any thread."""
        self._errands.put(errand)

    def close(self) -> None:
        """Begin nothing more; waits some seconds for what is under way, whose end is found again in another life."""
        self._is_closing.set()
        self._errands.put(None)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._backend.close()

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None and not self._is_closing.is_set():
            if not self._is_current(errand):
                continue
            try:
                seen = carry_out(self._backend, errand, self._is_current)
            except Exception as error:  # noqa: BLE001  a thread's boundary: the other runs go on
                _log.exception("%s: %s has failed", errand.attempt.title, errand.kind)
                seen = NoAnswer(reason=f"{type(error).__name__}, see the log", was_dispatched=errand.kind == "start")
            if seen is not None:
                self._tell(errand, seen)
