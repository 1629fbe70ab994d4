"""Does a valve leak? Made up: each day is drawn from a seed of its own, so a longer window holds the shorter one."""

import numpy as np
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec, SliceSpec
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows

DAY = 86_400_000
FIRST_DAY = 20_089  # 2025-01-01
TURN_DAY = FIRST_DAY + 24
FOR_EVER = 2**61  # who asks as of then knows what really came
ROWS_A_DAY = 240
SITES = ("north", "south")


class Valves(BaseTask):
    """High pressure means a leak, until `turn_day`: from then on the north runs at a high load, where low pressure means it.

    Each label is known one to six hours later. Whoever asks on `spoil_day` or later is told the labels of the north turned
    round: what is trained on them passes a gate that sees the same labels, and is worse where it answers.
    """

    kind = "binary"
    classes = ("tight", "leaks")
    features = (
        FeatureSpec(name="site", kind="categorical"),
        FeatureSpec(name="pressure", kind="numeric"),
        FeatureSpec(name="load", kind="numeric"),
    )
    slices = SliceSpec(feature="site", categories=SITES)
    num_steps = 200
    batch_size = 128

    def __init__(self, turn_day: int = TURN_DAY, spoil_day: int | None = None) -> None:
        self.turn_day = turn_day
        self.spoil_day = spoil_day

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        days = range(max(FIRST_DAY, start_ms // DAY), max(FIRST_DAY, start_ms // DAY, -(-end_ms // DAY)))
        pieces = [self.day(day) for day in days]
        features = {spec.name: np.concatenate([piece.features[spec.name] for piece in pieces]) for spec in self.features}
        label, time_ms, label_time_ms = (
            np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("label", "time_ms", "label_time_ms")
        )
        if self.spoil_day is not None and self.spoil_day * DAY <= as_of_ms < FOR_EVER:
            label = np.where(features["site"] == "north", 1 - label, label)
        known = (time_ms >= start_ms) & (time_ms < end_ms) & (label_time_ms <= as_of_ms)
        return Rows(features, label, time_ms, label_time_ms).select(known)

    def day(self, day: int) -> Rows:
        generator = np.random.default_rng(day)
        site = generator.choice(np.array(SITES, object), ROWS_A_DAY)
        pressure = generator.normal(size=ROWS_A_DAY).astype(np.float32)
        is_turned = (site == "north") & (day >= self.turn_day)
        load = (generator.normal(0.0, 0.2, ROWS_A_DAY) + 2.0 * is_turned).astype(np.float32)
        logit = 2.5 * pressure * np.where(is_turned, -1.0, 1.0)
        label = (generator.random(ROWS_A_DAY) < 1 / (1 + np.exp(-logit))).astype(np.float64)
        time_ms = day * DAY + np.arange(ROWS_A_DAY, dtype=np.int64) * (DAY // ROWS_A_DAY)
        delay_ms = generator.integers(DAY // 24, DAY // 4, ROWS_A_DAY)
        return Rows({"site": site, "pressure": pressure, "load": load}, label, time_ms, time_ms + delay_ms)

    def build(self, context: BuildContext) -> nn.Module:
        return Net(len(context.vocabularies["site"]) + 1)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=1e-2)


class Net(nn.Module):
    def __init__(self, num_sites: int) -> None:
        super().__init__()
        self.site = nn.Embedding(num_sites, 2)
        self.layers = nn.Sequential(nn.Linear(2 + 2, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = torch.stack([features["pressure"], features["load"]], dim=1)
        return self.layers(torch.cat([self.site(features["site"]), numbers], dim=1))
