"""What makes a serving process one of several."""

from pathlib import Path
from typing import NamedTuple


class Worker(NamedTuple):
    """One worker of a supervisor: its number, the listening socket it was given, and where its admin application listens."""

    number: int
    data_fd: int
    admin_path: str
    had_models: bool = False
    """Its predecessor answered for a model: take no connection before the models are back."""


def last_figures_path(admin_path: str) -> Path:
    """Where a worker that ends as asked leaves its last metrics, as OpenMetrics: its drain is in them.

    Example:
        >>> str(last_figures_path("/spool/worker-0/admin.sock"))
        '/spool/worker-0/metrics.txt'
    """
    return Path(admin_path).with_name("metrics.txt")
