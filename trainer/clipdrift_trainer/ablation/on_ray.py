"""Trials on a Ray cluster. Needs the extra `ray`; nothing else imports this module."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from clipdrift_contract.errors import ClipdriftError
from clipdrift_trainer.ablation.runners import Run, Runner
from clipdrift_trainer.ablation.trial import Job, Outcome, Study, attempt


def on_ray(address: str, own_code: Path | None = None, local_workers: int = 2) -> Runner:
    """Trials as Ray tasks of one CPU each.

    Args:
        address: `ray://HOST:10001` or `HOST:6379` of a cluster; `auto` for the one that this machine belongs to; `local` for
            one that is started here and ends with the ablation.
        own_code: Folder of the user's modules. They travel with the trials, so the cluster needs no copy of them; Clipdrift and
            torch in the same versions it does need.
        local_workers: CPUs of a local cluster.

    Raises:
        ClipdriftError: (when it is opened) No cluster answers there.
    """

    @contextmanager
    def open_cluster(study: Study) -> Iterator[Run]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        _send_by_value(own_code)
        try:
            ray.init(address=address, log_to_driver=False, **_size(address, local_workers))
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClipdriftError(
                f"no Ray cluster answers at {address!r} ({error}); start one with `ray start --head`, or leave --ray out"
            ) from error
        try:
            shared = ray.put(study)
            remote = ray.remote(num_cpus=1, max_retries=2)(attempt)
            yield lambda jobs: _as_done({remote.remote(shared, job): job for job in jobs})
        finally:
            ray.shutdown()

    return open_cluster


def _size(address: str, local_workers: int) -> dict[str, Any]:
    return {"num_cpus": local_workers, "include_dashboard": False} if address == "local" else {}


def _send_by_value(folder: Path | None) -> None:
    """Classes of modules below `folder` are pickled whole instead of by name."""
    if folder is None:
        return
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and Path(path).is_relative_to(folder):
            ray.cloudpickle.register_pickle_by_value(module)


def _as_done(waiting: dict[Any, Job]) -> Iterator[tuple[Job, Outcome]]:
    while waiting:
        (done, *_), _ = ray.wait(list(waiting), num_returns=1)
        job = waiting.pop(done)
        try:
            yield job, ray.get(done)
        except ray.exceptions.RayError as error:
            raise ClipdriftError(
                f"the Ray cluster lost a trial ({error}); those that are done are kept: start again"
            ) from error
