"""The task: which rows there are, what the model looks like. Replace `load` and `build` by your own."""

import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec, SliceSpec
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows

SITES = ("harbour", "north", "south")
NUMBERS = ("pressure", "vibration", "temperature")


class Pumps(BaseTask):
    """Is a pump fine, worn or failing? Known when the mechanic has looked, some hours later."""

    kind = "multiclass"
    classes = ("fine", "worn", "failing")
    features = (
        FeatureSpec(name="site", kind="categorical"),
        *(FeatureSpec(name=name, kind="numeric", nullable=name == "vibration") for name in NUMBERS),
    )
    slices = SliceSpec(feature="site", categories=SITES)
    num_steps = 600
    batch_size = 128

    def __init__(self, csv: str = "data.csv") -> None:
        self._path = Path(__file__).parent / csv

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        """Rows that happened in [start, end) and whose label was known by `as_of`."""
        with self._path.open() as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if start_ms <= int(row["time_ms"]) < end_ms and int(row["label_time_ms"]) <= as_of_ms
            ]
        numbers = {name: np.array([float(row[name] or "nan") for row in rows], "f4") for name in NUMBERS}
        return Rows(
            features={"site": np.array([row["site"] for row in rows], object), **numbers},
            label=np.array([self.classes.index(row["state"]) for row in rows], "f8"),
            time_ms=np.array([row["time_ms"] for row in rows], "i8"),
            label_time_ms=np.array([row["label_time_ms"] for row in rows], "i8"),
        )

    def build(self, context: BuildContext) -> nn.Module:
        numbers_ND = np.stack([context.rows.features[name] for name in NUMBERS], axis=1)
        return Net(
            num_sites=len(context.vocabularies["site"]) + 1,  # the last code is a site never seen
            mean_D=torch.tensor(np.nanmean(numbers_ND, axis=0)),
            std_D=torch.tensor(np.nanstd(numbers_ND, axis=0) + 1e-6),
        )

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=3e-3)


class Net(nn.Module):
    """A small network over the raw features; it normalises them itself, so that serving needs no preprocessing."""

    mean_D: torch.Tensor
    std_D: torch.Tensor

    def __init__(self, num_sites: int, mean_D: torch.Tensor, std_D: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_D", mean_D)
        self.register_buffer("std_D", std_D)
        self.site = nn.Embedding(num_sites, 4)
        self.layers = nn.Sequential(nn.Linear(len(NUMBERS) + 4, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers_ND = torch.stack([features[name] for name in NUMBERS], dim=1)
        scaled_ND = torch.nan_to_num((numbers_ND - self.mean_D) / self.std_D).clamp(-6, 6)
        return self.layers(torch.cat([scaled_ND, self.site(features["site"])], dim=1))
