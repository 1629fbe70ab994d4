"""Norms of batch gradients of a module that is not trained: before and after a clipping rule, batch by batch.

Axes: S batches, N rows, B rows of a batch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_trainer.clipping.rules import Clipper
from clipdrift_trainer.tasks.task import Rows, Task, encode

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BatchNorms:
    """Of batches whose gradients were finite."""

    before_S: Floats
    after_S: Floats
    is_clipped_S: npt.NDArray[np.bool_]

    @property
    def would_clip_ratio(self) -> float:
        """Share of the batches that the rule changes; 0 for none."""
        return float(self.is_clipped_S.mean()) if len(self.is_clipped_S) else 0.0

    @property
    def removed_mass_ratio(self) -> float:
        """Share of the norms that the rule takes away: sum max(0, before - after) / sum before; 0 for no gradients."""
        total = float(self.before_S.sum())
        return float(np.maximum(0.0, self.before_S - self.after_S).sum()) / total if total > 0 else 0.0

    def quantile(self, share: float) -> float:
        """Of the norms before clipping; 0 for no batch."""
        return float(np.quantile(self.before_S, share)) if len(self.before_S) else 0.0


def measure_batches(
    task: Task,
    module: nn.Module,
    rows: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    clipper: Clipper,
    *,
    num_batches: int,
    seed: int,
) -> BatchNorms:
    """Gradients of `num_batches` batches drawn as training draws them, and what `clipper` would make of each.

    No step is taken, and the module is left as it was: weights, buffers, gradients, mode. It is measured in eval mode: dropout
    draws nothing, batch normalisation uses its running figures, so the norms say something about the rows and not about chance.
    torch's global random state is as it was before. A rule with a memory learns from these batches.

    Raises:
        ValueError: There are no rows.
    """
    if not len(rows):
        raise ValueError("there are no rows to measure gradients on")
    tensors = encode(task, rows, vocabularies)
    label_N = torch.from_numpy(rows.label).to(torch.float32 if task.kind == "regression" else torch.int64)
    generator = np.random.default_rng(seed)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    found = []
    with _left_as_it_was(module), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for _ in range(num_batches):
            batch_B = torch.from_numpy(generator.integers(0, len(rows), task.batch_size))
            loss = task.loss(module({name: tensor[batch_B] for name, tensor in tensors.items()}), label_N[batch_B])
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            clipper(parameters)
            step = clipper.last
            assert step is not None
            found.append([float(figure) for figure in (step.norm_before, step.norm_after, step.bound, step.coefficient)])
    return _batch_norms(np.array(found, np.float64).reshape(-1, 4))


def _batch_norms(figures_S4: Floats) -> BatchNorms:
    before_S, after_S, bound_S, coefficient_S = figures_S4[np.isfinite(figures_S4[:, 0])].T
    return BatchNorms(before_S, after_S, (before_S > bound_S) & (coefficient_S < 1.0))


@contextmanager
def _left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each part has its own mode again, and each parameter its own gradient."""
    modes = [(part, part.training) for part in module.modules()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    module.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training
        for parameter, gradient in gradients:
            parameter.grad = gradient
