"""Processes of one torch thread each: they share what they work on, and end with the process that started them."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

Shared = TypeVar("Shared")
Result = TypeVar("Result")


class Workers(Generic[Shared]):
    """A pool whose processes hold one shared value. Made by `forked_workers`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, call: Callable[..., Result], *arguments: Any) -> Future[bytes]:
        """Run `call(shared, *arguments)` in a worker; `unpack` gives what it returned.

        Args:
            call: A function of a module, so that it can be named to another process.
            arguments: What it takes behind the shared value; pickled.
        """
        return self._pool.submit(_call_in_worker, call, arguments)


def unpack(future: Future[bytes]) -> Any:
    """What the submitted call returned; raises what it raised. Waits for it."""
    return pickle.loads(future.result())  # noqa: S301  written by our own child


@contextmanager
def forked_workers(shared: Shared, num_workers: int) -> Iterator[Workers[Shared]]:
    """Processes that hold `shared` from the start, each with one torch thread; they end with the block, or with this process.

    A block that ends by itself waits for what was submitted; one that raises (also by Ctrl-C) ends the workers at once.

    Raises:
        BrokenProcessPool: (from `unpack`) A worker died, as when memory ran out.

    Example:
        >>> with forked_workers([10.0, 20.0], num_workers=1) as workers:
        ...     unpack(workers.submit(max))
        20.0
    """
    # fork: the shared value is there at once and nothing is pickled; torch's threads do not matter to a child that uses one
    context = multiprocessing.get_context("fork")
    read_end, write_end = os.pipe()
    pool = ProcessPoolExecutor(
        num_workers, mp_context=context, initializer=_start_worker, initargs=(shared, read_end, write_end)
    )
    try:
        yield Workers(pool)
        pool.shutdown()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        os.close(read_end)
        os.close(write_end)  # whoever still works sees it, and ends


class _Worker:
    """What a worker process holds."""

    shared: Any


def _start_worker(shared: Any, read_end: int, write_end: int) -> None:
    os.close(write_end)
    threading.Thread(target=_end_with_parent, args=(read_end,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    torch.set_num_threads(1)
    _Worker.shared = shared


def _end_with_parent(read_end: int) -> None:
    """Only the parent holds the write end, so the read returns when it dies. A child that lived on would keep the job's lock,
    and nobody could take the job up again."""
    os.read(read_end, 1)
    os._exit(1)


def _call_in_worker(call: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    # pickled here: torch would otherwise pass each tensor through shared memory that dies with this process
    return pickle.dumps(call(_Worker.shared, *arguments))


@contextmanager
def single_threaded() -> Iterator[None]:
    """The number of threads changes the order of sums, and with it the weights: a run that is done again must give the same."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
