"""A thread of its own for a model that takes long, so that it holds up neither other models nor health and metrics."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from clipdrift_serving.dataplane.errors import RequestError

Schedule = Callable[[Callable[[], None]], Any]
W = TypeVar("W")
R = TypeVar("R")


class Worker(Generic[W, R]):
    """Runs batches one after another; what arrives during a run makes up the next. Called on the loop's thread only.

    Args:
        choose: The first batch of what waits, in order.
        run: In the thread; may raise RequestError.
        finish: On the loop's thread, with the result or the error.
        schedule: Calls a function on the loop's thread.
    """

    def __init__(
        self,
        choose: Callable[[list[W]], list[W]],
        run: Callable[[list[W]], R],
        finish: Callable[[list[W], R | RequestError], None],
        schedule: Schedule,
    ) -> None:
        self._choose = choose
        self._run = run
        self._finish = finish
        self._schedule = schedule
        self._waiting: list[W] = []
        self._alone: list[W] = []
        self._is_running = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def add(self, waiting: list[W]) -> None:
        """Queue requests; they run now or after what runs."""
        self._waiting += waiting
        self._start()

    def add_alone(self, waiting: list[W]) -> None:
        """Queue requests of which each is to run by itself."""
        self._alone += waiting
        self._start()

    def _start(self) -> None:
        if self._is_running or not (self._waiting or self._alone):
            return
        if self._alone:
            batch = [self._alone.pop(0)]
        else:
            batch = list(self._choose(self._waiting))  # its own list: the choice may be the whole queue
            del self._waiting[: len(batch)]
        self._is_running = True
        self._thread.submit(self._run, batch).add_done_callback(
            lambda future: self._schedule(lambda: self._on_end(batch, future))
        )

    def _on_end(self, batch: list[W], future: "Future[R]") -> None:
        error = future.exception()
        result = (
            error if isinstance(error, RequestError) else RequestError("no_answer", f"{error}") if error else future.result()
        )
        self._is_running = False
        self._finish(batch, result)
        self._start()
