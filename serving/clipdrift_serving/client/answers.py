"""What the calls of the client return."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy.typing as npt


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """The model's answer to one request. Keep a receipt beside your own record of each row: the label comes back with it."""

    model: str
    version: str
    role: str
    """`champion`, or `canary` where a new version answered its share."""
    generation: int
    """Of the deployment that answered; 0 where the server has none."""
    request_id: str
    """Yours, or the client's; a label may come back with it too."""
    outputs: Mapping[str, npt.NDArray[Any]]
    """By name; the first axis is the row."""
    receipts: tuple[str, ...]
    """One a row."""
    more_receipts: Mapping[str, tuple[str, ...]] = {}
    """Of a model with several outputs that are watched: one a row for each further one, by its name."""


class RejectedLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label that was not accepted."""

    index: int
    """Its position in the lists of the call; of an upload, its line in the file (the first is 1)."""
    reason: str
    """One word: `forged`, `expired`, `unknown_model`, `bad_value`, `bad_line`, ..."""
    message: str


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What became of labels."""

    num_accepted: int
    rejected: tuple[RejectedLabel, ...]
    """In order; of a very long upload, the first ones."""
    num_rejected: int
