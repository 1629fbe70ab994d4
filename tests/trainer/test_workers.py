import os
import time
from pathlib import Path

import pytest
import torch

from clipdrift_trainer.workers import forked_workers, single_threaded, unpack


def process_and_threads(shared: str) -> tuple[str, int, int]:
    return shared, os.getpid(), torch.get_num_threads()


def raise_key_error(shared: str) -> None:
    raise KeyError(shared)


def never_end(shared: str) -> None:
    while True:
        time.sleep(1.0)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_worker_is_another_process_with_one_thread_that_holds_the_shared_value() -> None:
    with forked_workers("rows", num_workers=1) as workers:
        shared, pid, num_threads = unpack(workers.submit(process_and_threads))

    assert (shared, num_threads) == ("rows", 1)
    assert pid != os.getpid()


def test_what_the_call_raises_is_raised_here() -> None:
    with forked_workers("rows", num_workers=1) as workers, pytest.raises(KeyError, match="rows"):
        unpack(workers.submit(raise_key_error))


def test_a_block_that_raises_ends_workers_that_would_work_for_ever() -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with forked_workers("rows", num_workers=1) as workers:
            pids.append(unpack(workers.submit(process_and_threads))[1])
            workers.submit(never_end)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    deadline = time.monotonic() + 10
    while is_alive(pids[0]):
        assert time.monotonic() < deadline, "the worker outlived the block"


def test_the_number_of_threads_is_as_it_was_behind_single_threaded() -> None:
    torch.set_num_threads(2)
    with single_threaded():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
