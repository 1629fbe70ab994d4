"""What carries out retrains, as the engine knows it."""

from typing import Protocol

from clipdrift_contract.events import RetrainRequest
from clipdrift_contract.jobs import JobState


class Jobs(Protocol):
    """Called by the engine's thread alone; nothing here waits for a job. Only `order` may raise, and only RetryableError."""

    def order(self, request: RetrainRequest) -> None:
        """Leave the order where the job finds it; the same order twice changes nothing.

        Raises:
            RetryableError: It cannot be left now (a full disk, say).
        """
        ...

    def start(self, key: str) -> None:
        """Start the job. One that cannot be started is a job that died: its state stays "requested"."""
        ...

    def state(self, key: str) -> JobState:
        """How far the job is; "running" from its start until nobody works on it any more."""
        ...

    def log_words(self, key: str) -> str:
        """Where the job's log is, and how it ends."""
        ...
