"""What clipping with full recording costs a training step, paired against torch's own clip_grad_norm_, on one CPU thread.

An LSTM (207,000 parameters) and a transformer (4.7 million), both with norms by layer, gradient mass by slice and the check
of what the optimizer consumes. In each round an arm takes a whole window of steps on a copy of its own, ours and torch's next
to each other in random order; compared is process CPU time. Beside: `wandb.watch` at each step, Lightning's `grad_norm`, and an
`.item()` a parameter. The last line is one JSON object.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import wandb
from lightning.pytorch.utilities import grad_norm
from torch import nn

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.recording.recorder import Recorder
from clipdrift_trainer.recording.slices import SliceMass

MAX_NORM = 1.0
NUM_BATCHES = 8
SLICES = tuple(f"slice{i}" for i in range(8))
Clip = Callable[[torch.Tensor, int], object]


class Lstm(nn.Module):
    """Two layers of 128; batches of 64 sequences of 50 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(16, 128, 2, batch_first=True), nn.Linear(128, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Block(nn.Module):
    """Pre-norm attention of 4 heads and a feed-forward layer, width 256."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.qkv, self.out = nn.LayerNorm(256), nn.Linear(256, 768), nn.Linear(256, 256)
        self.norm2, self.wide, self.narrow = nn.LayerNorm(256), nn.Linear(256, 1024), nn.Linear(1024, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, steps, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, steps, 3, 4, 64).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, steps, 256)
        x = x + self.out(attended)
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))


class Transformer(nn.Module):
    """Six blocks; batches of 16 sequences of 32 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.blocks = nn.Linear(16, 256), nn.ModuleList(Block() for _ in range(6))
        self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inward(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class Arm:
    """A copy of the model with its optimizer, and what it does between backward and step."""

    def __init__(self, make: Callable[[], nn.Module], shape: tuple[int, int]) -> None:
        torch.manual_seed(0)
        self.module = make()
        self.parameters = list(self.module.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(NUM_BATCHES, *shape, 16, generator=generator)
        self.labels = torch.randint(0, 2, (NUM_BATCHES, shape[0]), generator=generator)
        self.slices = torch.randint(0, len(SLICES), (NUM_BATCHES, shape[0]), generator=generator)
        self.clip: Clip = lambda loss, i: nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)

    def run(self, num_steps: int) -> float:
        """CPU milliseconds a step."""
        started = time.process_time()
        for step in range(num_steps):
            i = step % NUM_BATCHES
            loss = nn.functional.cross_entropy(self.module(self.inputs[i]), self.labels[i])
            self.optimizer.zero_grad()
            loss.backward()
            self.clip(loss, i)
            self.optimizer.step()
        return (time.process_time() - started) / num_steps * 1e3


def recorded(arm: Arm, window_steps: int, windows: list[GradWindow]) -> Arm:
    recorder = Recorder(
        make_clipper(ClipSpec(kind="global_norm", max_norm=MAX_NORM)), arm.module.named_parameters(), arm.optimizer,
        run_id="bench", model="bench", on_window=windows.append, clock=SystemClock(), window_steps=window_steps,
        slices=SliceMass(arm.module.head, SLICES),
    )  # fmt: skip
    arm.clip = lambda loss, i: recorder.clip(loss, slice_index=arm.slices[i])
    return arm


def with_items(arm: Arm) -> Arm:
    def clip(loss: torch.Tensor, i: int) -> None:
        seen.append([parameter.grad.norm().item() for parameter in arm.parameters])
        nn.utils.clip_grad_norm_(arm.parameters, MAX_NORM)

    seen: list[list[float]] = []
    arm.clip = clip
    return arm


def with_lightning(arm: Arm) -> Arm:
    def clip(loss: torch.Tensor, i: int) -> None:
        seen.append({name: float(norm) for name, norm in grad_norm(arm.module, 2).items()})
        nn.utils.clip_grad_norm_(arm.parameters, MAX_NORM)

    seen: list[dict[str, float]] = []
    arm.clip = clip
    return arm


def with_wandb(arm: Arm, run: "wandb.Run") -> Arm:
    def clip(loss: torch.Tensor, i: int) -> None:
        nn.utils.clip_grad_norm_(arm.parameters, MAX_NORM)
        run.log({"loss": i})

    run.watch(arm.module, log="gradients", log_freq=1)
    arm.clip = clip
    return arm


def compare(arms: dict[str, Arm], num_rounds: int, window_steps: int, peer_steps: int) -> dict[str, list[float]]:
    """Ratio to torch by arm, a number a round; peers take fewer steps."""
    order = random.Random(0)
    ratios: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm.run(window_steps)
    for number in range(num_rounds):
        pair = dict.fromkeys(order.sample(["torch", "clipdrift"], 2), 0.0)
        taken = {name: arms[name].run(window_steps) for name in pair}
        peers = [name for name in arms if name not in pair] if number % 3 == 0 else []
        taken |= {name: arms[name].run(peer_steps) for name in order.sample(peers, len(peers))}
        for name, milliseconds in taken.items():
            ratios[name].append(milliseconds / taken["torch"])
    return ratios


def upper_95(ratios: list[float]) -> float:
    """Upper end of the two-sided 95 % bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(ratios, (4_000, len(ratios)))
    return float(np.quantile(np.median(draws, axis=1), 0.975))


def check(arms: dict[str, Arm], windows: list[GradWindow]) -> None:
    """The watched copy has learned the same and its windows say so."""
    theirs, ours = (arms[name].module.state_dict() for name in ("torch", "clipdrift"))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4)
    assert all(not window.faults and window.num_checked and not window.num_ineffective for window in windows)
    assert all(len(window.slices) == len(SLICES) and window.layers for window in windows)


def measure(name: str, num_rounds: int, run: "wandb.Run") -> Iterator[tuple[str, object]]:
    make, shape, window_steps = {"lstm": (Lstm, (64, 50), 50), "transformer": (Transformer, (16, 32), 10)}[name]
    windows: list[GradWindow] = []
    arms = {
        "torch": Arm(make, shape),
        "clipdrift": recorded(Arm(make, shape), window_steps, windows),
        "items": with_items(Arm(make, shape)),
        "lightning": with_lightning(Arm(make, shape)),
        "wandb": with_wandb(Arm(make, shape), run),
    }
    ratios = compare(arms, num_rounds, window_steps, peer_steps=10)
    check(arms, windows)
    yield f"{name}_ratio", round(statistics.median(ratios["clipdrift"]), 4)
    yield f"{name}_ratio_upper", round(upper_95(ratios["clipdrift"]), 4)
    yield f"{name}_num_rounds", num_rounds
    yield f"{name}_window_steps", window_steps
    for peer in ("items", "lightning", "wandb"):
        yield f"{name}_{peer}_ratio", round(statistics.median(ratios[peer]), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    num_rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found: dict[str, object] = {"bench": "telemetry"}
    with tempfile.TemporaryDirectory() as folder, wandb.init(mode="offline", dir=folder, project="bench") as run:
        for name in ("lstm", "transformer"):
            found |= dict(measure(name, num_rounds, run))
            print(name, {key: value for key, value in found.items() if key.startswith(name)})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
