"""Small tasks of columns in memory, for the tests of the data checks."""

from typing import Any

import numpy as np
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer.quality.table import Table
from clipdrift_trainer.tasks.split import hold_out_blocks
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows

DAY = 86_400_000


class Given(BaseTask):
    """Hands out given rows; its model is a linear one over the numbers."""

    num_steps = 40

    def __init__(self, rows: Rows, features: tuple[FeatureSpec, ...], classes: tuple[str, ...]) -> None:
        self.rows, self.features, self.classes = rows, features, classes  # type: ignore[misc]
        self.kind = "regression" if not classes else "binary" if len(classes) == 2 else "multiclass"  # type: ignore[misc]

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        rows = self.rows
        return rows.select((rows.time_ms >= start_ms) & (rows.time_ms < end_ms) & (rows.label_time_ms <= as_of_ms))

    def build(self, context: BuildContext) -> nn.Module:
        return Linear([one.name for one in self.features if one.kind == "numeric"], max(1, len(self.classes)))

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=0.1)


class Linear(nn.Module):
    def __init__(self, names: list[str], num_outputs: int) -> None:
        super().__init__()
        self.names = names
        self.layer = nn.Linear(len(names), num_outputs)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layer(torch.nan_to_num(torch.stack([features[name] for name in self.names], dim=1)))


def given(columns: dict[str, Any], label: Any, classes: tuple[str, ...] = ("no", "yes"), num_days: int = 20) -> Given:
    """A task of these columns, evenly over the days, every label known an hour later."""
    label = np.asarray(label, np.float64)
    columns = {name: np.asarray(column) for name, column in columns.items()}
    time_ms = np.linspace(0, num_days * DAY - 1, len(label)).astype(np.int64)
    specs = tuple(_spec(name, column) for name, column in columns.items())
    columns = {
        name: column.astype(np.float32) if spec.kind != "categorical" else column.astype(object)
        for (name, column), spec in zip(columns.items(), specs, strict=True)
    }
    return Given(Rows(columns, label, time_ms, time_ms + DAY // 24), specs, classes)


def _spec(name: str, column: np.ndarray) -> FeatureSpec:
    if column.dtype.kind in "OU":
        return FeatureSpec(name=name, kind="categorical")
    kind = "numeric" if column.ndim == 1 else "sequence"
    return FeatureSpec(name=name, kind=kind, nullable=True, shape=column.shape[1:])


def table(
    columns: dict[str, Any], label: Any, classes: tuple[str, ...] = ("no", "yes"), num_days: int = 20, **further: Any
) -> Table:
    return table_of(given(columns, label, classes, num_days), **further)


def table_of(task: Given, **further: Any) -> Table:
    is_held_out = np.zeros(len(task.rows), bool)
    if len(task.rows):
        is_held_out[hold_out_blocks(task.rows.time_ms)[1]] = True
    return Table(task, task.rows, is_held_out, **further)
