"""All that is known of a candidate and of the model in service when the gate measures them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from clipdrift_contract.events import DataCheck
from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.tasks.task import Rows, Task


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    content: bytes  # of its file, as it is or will be served
    features: tuple[FeatureSpec, ...]  # what that file takes
    scores_NK: Floats  # its answers to the rows that judge
    module: Callable[[], nn.Module]  # its module in evaluation mode; raises what says why there is none
    vocabularies: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Case:
    """Both models and the rows that they are measured on."""

    task: Task
    candidate: Side
    champion: Side
    judged: Rows  # N rows that neither model was trained on
    trained: Rows  # of the candidate
    held_out: Rows  # of the candidate, also those from before the model in service was trained
    temperature: float  # of the candidate
    label_span: float = 1.0  # regression: losses are in units of its square
    data_checks: Sequence[DataCheck] = ()


def spread_over(rows: Rows, num_rows: int) -> Rows:
    """At most so many of the rows, evenly over time, in order."""
    return rows.select(spread_positions(len(rows), num_rows))


def spread_positions(num_rows: int, most: int) -> np.ndarray:
    """Positions of at most `most` of so many rows, evenly.

    Example:
        >>> spread_positions(10, 3).tolist(), spread_positions(2, 3).tolist()
        ([0, 4, 9], [0, 1])
    """
    return np.arange(num_rows) if num_rows <= most else np.linspace(0, num_rows - 1, most).astype(np.int64)
