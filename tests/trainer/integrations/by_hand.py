"""A small training, and what torch's own clipping makes of it in a loop by hand: what every integration must equal."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import pytest
import torch
from torch import nn

from clipdrift_contract.events import GradWindow
from clipdrift_trainer.recording.window import merge

MAX_NORM = 0.5
LEARNING_RATE = 0.2
NUM_STEPS = 24
BATCH = 8


def make_module(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def make_batches(num: int = NUM_STEPS, size: int = BATCH) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 4, generator=generator), torch.randint(0, 2, (size,), generator=generator)) for _ in range(num)]


def loss_of(module: nn.Module, batch: Sequence[torch.Tensor]) -> torch.Tensor:
    inputs, labels = batch
    return 4 * nn.functional.cross_entropy(module(inputs), labels)


def make_optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, momentum=0.9)


def train_by_hand(
    module: nn.Module,
    batches: Sequence[Any],
    *,
    accumulate: int = 1,
    loss: Callable[[nn.Module, Any], torch.Tensor] = loss_of,
    optimizer: torch.optim.Optimizer | None = None,
    max_norm: float = MAX_NORM,
) -> list[float]:
    """Trains `module` with torch's own clipping; returns the norms before it, one a step."""
    optimizer = optimizer or make_optimizer(module)
    norms = []
    for first in range(0, len(batches), accumulate):
        optimizer.zero_grad()
        for batch in batches[first : first + accumulate]:
            (loss(module, batch) / accumulate).backward()
        norms.append(float(nn.utils.clip_grad_norm_(module.parameters(), max_norm)))
        optimizer.step()
    return norms


def assert_same_weights(module: nn.Module, reference: nn.Module, tolerance: float = 1e-6) -> None:
    expected = dict(reference.named_parameters())
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def assert_tells(
    windows: Iterable[GradWindow], norms: Sequence[float], max_norm: float = MAX_NORM, tolerance: float = 1e-5
) -> GradWindow:
    """The windows tell these norms and no others, and that every check of the optimizer found what clipping promised."""
    total = reduce(merge, windows)
    assert total.num_steps == len(norms)
    assert total.norm_sum == pytest.approx(math.fsum(norms), rel=tolerance)
    assert (total.norm_min, total.norm_max) == (
        pytest.approx(min(norms), rel=tolerance),
        pytest.approx(max(norms), rel=tolerance),
    )
    assert total.norm_removed_sum == pytest.approx(math.fsum(max(0.0, n - max_norm) for n in norms), rel=1e-4, abs=1e-4)
    assert 0 < total.num_clipped == sum(n > max_norm for n in norms)
    assert total.num_checked > 0
    assert (total.num_ineffective, total.faults) == (0, ())
    return total
