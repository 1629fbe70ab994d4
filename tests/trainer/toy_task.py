"""A small task that the trainer's tests share: whether a pump fails, by its pressure, its site and a short trace."""

import numpy as np
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec, SliceSpec
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows

DAY = 86_400_000
ROWS_A_DAY = 60
SITES = ("north", "south")


class Toy(BaseTask):
    """High pressure means failure until `turn_day`, low pressure afterwards. Every label is known an hour later."""

    kind = "binary"
    classes = ("fine", "failed")
    features = (
        FeatureSpec(name="site", kind="categorical"),
        FeatureSpec(name="pressure", kind="numeric", nullable=True),
        FeatureSpec(name="trace", kind="sequence", shape=(4, 2)),
    )
    slices = SliceSpec(feature="site", categories=SITES)
    num_steps = 60
    batch_size = 64

    def __init__(self, turn_day: int = 30, learning_rate: float = 0.02) -> None:
        self.turn_day = turn_day
        self.learning_rate = learning_rate

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        rows = self.make(end_ms // DAY)
        known = (rows.time_ms >= start_ms) & (rows.time_ms < end_ms) & (rows.label_time_ms <= as_of_ms)
        return rows.select(known)

    def make(self, num_days: int) -> Rows:
        """All rows of the first days, each day of its own seed, so that a longer window holds the shorter one."""
        pieces = [self._day(day) for day in range(num_days)]
        features = {name: np.concatenate([piece.features[name] for piece in pieces]) for name in pieces[0].features}
        columns = [np.concatenate([getattr(p, name) for p in pieces]) for name in ("label", "time_ms", "label_time_ms")]
        return Rows(features, *columns)

    def _day(self, day: int) -> Rows:
        generator = np.random.default_rng(day)
        pressure = generator.normal(size=ROWS_A_DAY).astype(np.float32)
        sign = 1.0 if day < self.turn_day else -1.0
        label = (generator.random(ROWS_A_DAY) < 1 / (1 + np.exp(-2.5 * sign * pressure))).astype(np.float64)
        pressure[generator.random(ROWS_A_DAY) < 0.02] = np.nan
        time_ms = day * DAY + np.arange(ROWS_A_DAY, dtype=np.int64) * (DAY // ROWS_A_DAY)
        features = {
            "site": generator.choice(np.array(SITES, object), ROWS_A_DAY),
            "pressure": pressure,
            "trace": generator.normal(size=(ROWS_A_DAY, 4, 2)).astype(np.float32),
        }
        return Rows(features, label, time_ms, time_ms + DAY // 24)

    def build(self, context: BuildContext) -> nn.Module:
        return ToyNet(len(context.vocabularies["site"]) + 1, num_outputs=1 if self.kind == "regression" else len(self.classes))

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=self.learning_rate, momentum=0.9)


class TooSure(Toy):
    """Four times as sure as its loss would have it: a temperature of about 4 repairs it."""

    def loss(self, output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return super().loss(output / 4, label)


class ToyNet(nn.Module):
    def __init__(self, num_sites: int, num_outputs: int) -> None:
        super().__init__()
        self.site = nn.Embedding(num_sites, 3)
        self.trace = nn.GRU(2, 4, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(3 + 4 + 1, 16), nn.ReLU(), nn.Linear(16, num_outputs))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        state = self.trace(features["trace"])[0][:, -1]
        pressure = torch.nan_to_num(features["pressure"])[:, None]
        return self.layers(torch.cat([self.site(features["site"]), state, pressure], dim=1))
