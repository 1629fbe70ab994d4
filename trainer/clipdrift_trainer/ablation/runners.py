"""Where trials are made: here, or in processes of one thread each. A third place, Ray, is in `on_ray`."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager

from clipdrift_contract.errors import ClipdriftError
from clipdrift_trainer.ablation.trial import Job, Outcome, Study, attempt
from clipdrift_trainer.workers import forked_workers, unpack

Run = Callable[[Sequence[Job]], Iterator[tuple[Job, Outcome]]]
"""Makes the trials of jobs and gives each as it is done, in whatever order."""
Runner = Callable[[Study], AbstractContextManager[Run]]
"""A place that stays open for several rounds of jobs."""


def in_processes(max_workers: int) -> Runner:
    """Up to `max_workers` processes on this machine; below 2 all is done in this one."""

    @contextmanager
    def open_workers(study: Study) -> Iterator[Run]:
        if max_workers < 2:
            yield lambda jobs: ((job, attempt(study, job)) for job in jobs)
            return
        with forked_workers(study, max_workers) as workers:

            def run(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
                return _as_done({workers.submit(attempt, job): job for job in jobs})

            yield run

    return open_workers


def _as_done(waiting: dict[Future[bytes], Job]) -> Iterator[tuple[Job, Outcome]]:
    while waiting:
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            job = waiting.pop(future)
            try:
                yield job, unpack(future)
            except BrokenProcessPool as error:
                raise ClipdriftError(
                    "a worker process was killed, perhaps because memory ran out; the trials that are done are kept: start "
                    "again with fewer --workers"
                ) from error
