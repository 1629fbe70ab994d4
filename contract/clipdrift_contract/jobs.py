"""The folder that a retraining job lives in: how whoever ordered it and the job itself meet without a server.

`request.json` is the order, `lock` is held by the one process that carries it out (the kernel lets go of it when that process
dies), `run_end.json` describes the winner's run, `outcome.json` appears once, whole, at the end; `log.txt` is what the job
printed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.files import lock_file, write_whole

JobState = Literal["absent", "requested", "running", "finished"]


class JobTakenError(ClipdriftError):
    """Another process is carrying out this order at this moment."""


class JobFolder:
    """One retrain order on disk, below `root`, named by its key."""

    def __init__(self, root: Path, key: str) -> None:
        if not key or any(c in key for c in "/\\.") or len(key) > 128:
            raise ValueError(f"a job key is 1 to 128 characters without / \\ or ., got {key!r}")
        self.path = root / key
        self.request_path = self.path / "request.json"
        self.run_end_path = self.path / "run_end.json"
        self.outcome_path = self.path / "outcome.json"
        self.lock_path = self.path / "lock"
        self.log_path = self.path / "log.txt"

    def write_request(self, request: RetrainRequest) -> None:
        """Put the order there; writing the same order again changes nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.request_path.exists():
            write_whole(self.request_path, msgspec.json.encode(request))

    def read_request(self) -> RetrainRequest:
        return msgspec.json.decode(self.request_path.read_bytes(), type=RetrainRequest)

    def write_run_end(self, run_end: RunEnd) -> None:
        """Written before the outcome, so that whoever finds an outcome can publish both."""
        write_whole(self.run_end_path, msgspec.json.encode(run_end))

    def read_run_end(self) -> RunEnd | None:
        """The winner's run, or None where there is none."""
        if not self.run_end_path.exists():
            return None
        return msgspec.json.decode(self.run_end_path.read_bytes(), type=RunEnd)

    def write_outcome(self, outcome: RetrainOutcome) -> None:
        write_whole(self.outcome_path, msgspec.json.encode(outcome))

    def read_outcome(self) -> RetrainOutcome | None:
        """The outcome, or None while there is none."""
        if not self.outcome_path.exists():
            return None
        return msgspec.json.decode(self.outcome_path.read_bytes(), type=RetrainOutcome)

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the order for as long as the block runs.

        Raises:
            JobTakenError: Another living process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        handle = lock_file(self.lock_path)
        if handle is None:
            raise JobTakenError(f"job {self.path.name} is being carried out by another process")
        try:
            yield
        finally:
            os.close(handle)

    def state(self) -> JobState:
        """What can be seen from outside: "requested" is an order that nobody carries out at this moment."""
        if self.outcome_path.exists():
            return "finished"
        if not self.request_path.exists():
            return "absent"
        try:
            with self.claim():
                return "requested"
        except JobTakenError:
            return "running"
