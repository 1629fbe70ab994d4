"""What makes a serving process one of several."""

from typing import NamedTuple


class Worker(NamedTuple):
    """One worker of a supervisor: its number, the listening socket it was given, and where its admin application listens."""

    number: int
    data_fd: int
    admin_path: str
    had_models: bool = False
    """Its predecessor answered for a model: take no connection before the models are back."""
