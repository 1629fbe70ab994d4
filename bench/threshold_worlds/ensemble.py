"""Many small networks trained in lock-step by batched products: the steps of the product's `fit`, many times over.

Axes: M models, B rows of a batch, D inputs, H hidden, K classes, T steps, N rows. Models of one stream share rows, first
weights and order of rows, so that they differ by their clipping alone.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from threshold_worlds.datasets import Part

BATCH, HIDDEN = 64, 64
_PIECE = 1_000  # rows at a time
_EPSILON = 1e-6  # as the product's clipping divides
_MOMENTUM, _BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.9, 0.999, 1e-8
_WARM_UP_STEPS, _DECAY_FROM = 50, 0.7


class Stream(NamedTuple):
    """Rows, and the seed of first weights and order."""

    rows: Part
    seed: int


class Model(NamedTuple):
    """One network: which stream it drinks from and how it is clipped. A bound that is infinite clips nothing."""

    stream: int
    bound: float = float("inf")
    percentile: float | None = None  # AutoClip's, instead of a bound


class Recipe(NamedTuple):
    """How all of them are trained."""

    optimizer: str  # "sgd" (momentum 0.9) or "adam"
    learning_rate: float
    per_sample: bool = False
    num_steps: int = 600


class Trained(NamedTuple):
    weights: list[torch.Tensor]  # per layer [M, in, out]
    biases: list[torch.Tensor]  # per layer [M, 1, out]
    norm_TM: torch.Tensor  # before clipping: of the batch, or the median of the samples'
    sample_norm_TMB: torch.Tensor | None  # of the last half of the steps; per-sample clipping only
    loss_TM: torch.Tensor
    removed_M: torch.Tensor  # removed mass ratio

    def of(self, models: Sequence[int]) -> "Trained":
        """Some of the models."""
        index = list(models)
        samples = self.sample_norm_TMB
        return Trained(
            [one[index] for one in self.weights], [one[index] for one in self.biases], self.norm_TM[:, index],
            None if samples is None else samples[:, index], self.loss_TM[:, index], self.removed_M[index],
        )  # fmt: skip


def schedule(step: int, num_steps: int) -> float:
    """Factor of the learning rate: a short warm-up, flat, then a cosine to nothing."""
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    start = _DECAY_FROM * num_steps
    return warm if step < start else warm * 0.5 * (1 + float(np.cos(np.pi * (step - start) / (num_steps - start))))


def first_weights(num_inputs: int, num_classes: int, seed: int) -> list[torch.Tensor]:
    """Weights [in, out] of the three layers (He et al. 2015); biases begin at zero."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (num_inputs, HIDDEN, HIDDEN, num_classes)
    return [torch.randn(i, o, generator=generator) * (2 / i) ** 0.5 for i, o in pairwise(sizes)]


def train(streams: Sequence[Stream], models: Sequence[Model], recipe: Recipe, num_classes: int) -> Trained:
    """Train all `models`. Batches are drawn as the product's `fit` draws them, by numpy's generator with the stream's seed."""
    with torch.no_grad():
        return _train(streams, models, recipe, num_classes)


def _train(streams: Sequence[Stream], models: Sequence[Model], recipe: Recipe, num_classes: int) -> Trained:
    stream_M = torch.tensor([model.stream for model in models])
    first = [first_weights(one.rows.x.shape[1], num_classes, one.seed) for one in streams]
    weights = [torch.stack(layer)[stream_M] for layer in zip(*first, strict=True)]
    biases = [torch.zeros(len(models), 1, weight.shape[2]) for weight in weights]
    optimizer = _Optimizer(recipe, [*weights, *biases])
    clip = _Clip(models, recipe)
    x_S = [torch.from_numpy(one.rows.x) for one in streams]
    label_S = [torch.from_numpy(one.rows.label) for one in streams]
    random_S = [np.random.default_rng(one.seed) for one in streams]
    loss_TM = torch.zeros(recipe.num_steps, len(models))
    for step in range(recipe.num_steps):
        rows_S = [torch.from_numpy(random.integers(0, len(x), BATCH)) for random, x in zip(random_S, x_S, strict=True)]
        x_MBD = torch.stack([x[rows] for x, rows in zip(x_S, rows_S, strict=True)])[stream_M]
        label_MB = torch.stack([label[rows] for label, rows in zip(label_S, rows_S, strict=True)])[stream_M]
        loss_TM[step], layers = _backward(weights, biases, x_MBD, label_MB)
        optimizer.step(clip(step, layers), schedule(step, recipe.num_steps))
    return Trained(weights, biases, clip.norm_TM, clip.sample_norms(), loss_TM, clip.removed())


def logits(trained: Trained, x_ND: npt.NDArray[np.float32], models: Sequence[int] | None = None) -> npt.NDArray[np.float32]:
    """Raw outputs [M, N, K] of all models, or of those named, for the same rows; NaN and infinity as they come."""
    weights, biases = trained.weights, trained.biases
    if models is not None:
        weights, biases = ([one[list(models)] for one in layer] for layer in (weights, biases))
    with torch.no_grad():
        pieces = [
            _forward(weights, biases, torch.from_numpy(x_ND[start : start + _PIECE]).expand(len(weights[0]), -1, -1))[-1]
            for start in range(0, len(x_ND), _PIECE)
        ]
    found: npt.NDArray[np.float32] = torch.cat(pieces, 1).numpy()
    return found


def _forward(weights: list[torch.Tensor], biases: list[torch.Tensor], x_MBD: torch.Tensor) -> list[torch.Tensor]:
    """The input of each layer, and the output."""
    found = [x_MBD]
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        out = torch.baddbmm(bias, found[-1], weight)
        found.append(out if number == len(weights) - 1 else out.clamp_(min=0))
    return found


_Layers = list[
    tuple[torch.Tensor, torch.Tensor]
]  # per layer: input [M, B, in], derivative of the loss by the output [M, B, out]


def _backward(
    weights: list[torch.Tensor], biases: list[torch.Tensor], x_MBD: torch.Tensor, label_MB: torch.Tensor
) -> tuple[torch.Tensor, _Layers]:
    *inputs, logits_MBK = _forward(weights, biases, x_MBD)
    log_MBK = logits_MBK.log_softmax(-1)
    loss_M = -log_MBK.gather(2, label_MB[..., None]).squeeze(2).mean(1)
    delta = log_MBK.exp_().sub_(functional.one_hot(label_MB, logits_MBK.shape[2]))
    layers: _Layers = []
    for number in reversed(range(len(weights))):
        layers.insert(0, (inputs[number], delta))
        if number:
            delta = torch.bmm(delta, weights[number].transpose(1, 2)).mul_(inputs[number] > 0)
    return loss_M, layers


class _Clip:
    """Clips each model by its own rule, and keeps the norms."""

    def __init__(self, models: Sequence[Model], recipe: Recipe) -> None:
        self._recipe = recipe
        self._bound_M = torch.tensor([model.bound for model in models])
        self._auto = [(index, model.percentile) for index, model in enumerate(models) if model.percentile is not None]
        self.norm_TM = torch.zeros(recipe.num_steps, len(models))
        self._sample_norms: list[torch.Tensor] = []
        self._norm_sum_M, self._kept_sum_M = torch.zeros(len(models)), torch.zeros(len(models))

    def __call__(self, step: int, layers: _Layers) -> list[torch.Tensor]:
        return self._per_sample(step, layers) if self._recipe.per_sample else self._whole(step, layers)

    def _whole(self, step: int, layers: _Layers) -> list[torch.Tensor]:
        gradients = _gradients(layers, None)
        norm_M = sum(torch.linalg.vector_norm(one, dim=(1, 2)).square_() for one in gradients).sqrt()
        self.norm_TM[step] = norm_M
        coefficient_M = self._coefficient(step, norm_M, self._bound_M)
        self._count(norm_M, coefficient_M)
        for one in gradients:
            one.mul_(coefficient_M[:, None, None])
        if not torch.isfinite(norm_M).all():
            for one in gradients:
                one[~torch.isfinite(norm_M)] = 0.0
        return gradients

    def _per_sample(self, step: int, layers: _Layers) -> list[torch.Tensor]:
        # of a linear layer, the norm of one sample's gradient is |delta| * |(input, 1)| (Goodfellow 2015, arXiv 1510.01799)
        squared_MB = sum(delta.square().sum(-1) * (given.square().sum(-1) + 1) for given, delta in layers)
        norm_MB = squared_MB.sqrt()
        self.norm_TM[step] = norm_MB.median(1).values
        if step >= self._recipe.num_steps // 2:
            self._sample_norms.append(norm_MB)
        coefficient_MB = self._coefficient(step, norm_MB, self._bound_M[:, None])
        self._count(norm_MB, coefficient_MB)
        return _gradients(layers, coefficient_MB)

    def _coefficient(self, step: int, norm: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        for index, percentile in self._auto:
            past = self.norm_TM[: step + 1, index]
            self._bound_M[index] = torch.quantile(past[torch.isfinite(past)], percentile / 100.0)
        coefficient = (bound / (norm + _EPSILON)).clamp_(max=1.0)
        return torch.where(torch.isfinite(norm), coefficient, 0.0)

    def _count(self, norm: torch.Tensor, coefficient: torch.Tensor) -> None:
        finite = torch.nan_to_num(norm, nan=0.0, posinf=0.0)
        kept = finite * coefficient
        self._norm_sum_M += finite if finite.dim() == 1 else finite.sum(1)
        self._kept_sum_M += kept if kept.dim() == 1 else kept.sum(1)

    def sample_norms(self) -> torch.Tensor | None:
        return torch.stack(self._sample_norms) if self._sample_norms else None

    def removed(self) -> torch.Tensor:
        return 1 - self._kept_sum_M / self._norm_sum_M


def _gradients(layers: _Layers, weight_MB: torch.Tensor | None) -> list[torch.Tensor]:
    """Of the mean loss, each sample weighed: by layer the weights' [M, in, out], then the biases' [M, 1, out]."""
    scaled = []
    for _, delta in layers:
        scaled.append(delta / BATCH if weight_MB is None else torch.nan_to_num(delta) * (weight_MB / BATCH)[..., None])
    of_weights = [torch.bmm(given.transpose(1, 2), delta) for (given, _), delta in zip(layers, scaled, strict=True)]
    return [*of_weights, *(delta.sum(1, keepdim=True) for delta in scaled)]


class _Optimizer:
    """torch's SGD with momentum, or Adam, with a schedule on the learning rate."""

    def __init__(self, recipe: Recipe, parameters: list[torch.Tensor]) -> None:
        self._recipe, self._parameters, self._num_steps = recipe, parameters, 0
        self._first = [torch.zeros_like(one) for one in parameters]
        self._second = [torch.zeros_like(one) for one in parameters] if recipe.optimizer == "adam" else []

    def step(self, gradients: list[torch.Tensor], factor: float) -> None:
        self._num_steps += 1
        rate = self._recipe.learning_rate * factor
        if self._recipe.optimizer == "sgd":
            torch._foreach_mul_(self._first, _MOMENTUM)
            torch._foreach_add_(self._first, gradients)
            torch._foreach_add_(self._parameters, self._first, alpha=-rate)
            return
        torch._foreach_lerp_(self._first, gradients, 1 - _BETA_1)
        torch._foreach_mul_(self._second, _BETA_2)
        torch._foreach_addcmul_(self._second, gradients, gradients, 1 - _BETA_2)
        root = torch._foreach_sqrt(self._second)
        torch._foreach_div_(root, (1 - _BETA_2**self._num_steps) ** 0.5)
        torch._foreach_add_(root, _ADAM_EPSILON)
        torch._foreach_addcdiv_(self._parameters, self._first, root, -rate / (1 - _BETA_1**self._num_steps))
