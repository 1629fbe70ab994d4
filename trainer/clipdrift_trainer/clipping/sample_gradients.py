"""The gradient of each sample of a batch, by the first way that holds for the module: what per-sample clipping clips.

Needs the extra `privacy` (Opacus). Axes: B samples, P parameters.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from opacus.grad_sample import GradSampleHooks, GradSampleHooksFastGradientClipping
from torch import nn

from clipdrift_trainer.clipping.norms import tensor_norms
from clipdrift_trainer.recording.per_sample_norms import (
    Inputs,
    Loss,
    gradients_by_vmap,
    gradients_of_one,
    per_sample_norms,
    sample_losses,
    select_samples,
    steady,
)
from clipdrift_trainer.recording.slices import uncounted

Way = Literal["hooks", "ghost", "vmap", "loop"]
_TOLERANCE = 1e-3  # relative, between a way and autograd on one sample
_TRIED_SAMPLES = 4
_REFUSALS = (RuntimeError, NotImplementedError, ValueError, AttributeError, KeyError, TypeError)  # torch's and Opacus'


@dataclass(frozen=True)
class Found:
    """Of one batch: losses [B], whose gradients are finite [B], and of those samples alone the norms by parameter [P, kept]."""

    loss_B: torch.Tensor
    is_finite_B: torch.Tensor
    norm_PB: torch.Tensor
    sum_norm_P: torch.Tensor  # norms of the plain sum of the kept samples' gradients


class SampleGradients:
    """Finds the samples' gradients and leaves them where Opacus' optimizers look: in each parameter's `grad_sample` [B, ...].

    "ghost" leaves only norms; `weigh` then makes the weighted sum of gradients by a second backward.

    Args:
        module: Kept as it is; hooks come and go.
        parameters: Those that are trained.
        loss: Of a batch; asked for one sample at a time.
        asked: A way, or "auto": loop for recurrent modules, else the first of hooks, vmap, loop that agrees with autograd on
            some samples of the first batch.
    """

    def __init__(
        self, module: nn.Module, parameters: list[nn.Parameter], loss: Loss, asked: Literal["auto"] | Way = "auto"
    ) -> None:
        self.way: Way | None = None  # settled on the first batch that has a sample to judge it by
        self._module = module
        self._parameters = parameters
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._loss = loss
        is_recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
        automatic: tuple[Way, ...] = ("loop",) if is_recurrent else ("hooks", "vmap", "loop")
        self._candidates: tuple[Way, ...] = automatic if asked == "auto" else (asked,)
        self._hooks: Any = None
        self._loss_B: torch.Tensor | None = None  # with its graph, for the second backward of ghost

    def find(self, inputs: Inputs, label_B: torch.Tensor) -> Found:
        """Gradients of the samples whose gradient is finite; the others are left out. Waits for the device.

        Raises:
            ValueError: No way holds for the module; each is named with its reason. Only until a way is settled.
        """
        if not len(label_B):
            return self._nothing()
        if self.way is None:
            self._settle(inputs, label_B)
        if self.way is None:
            with torch.no_grad(), uncounted():
                loss_B = sample_losses(self._loss, self._module(inputs), label_B)
            return self._none_of(loss_B)
        loss_B = self._attempt(self.way, inputs, label_B)
        norm_PB = self._norms(len(label_B))
        is_finite_B = torch.isfinite(norm_PB.sum(dim=0))
        if not bool(is_finite_B.all()):
            kept = is_finite_B.nonzero()[:, 0]
            if not len(kept):
                return self._none_of(loss_B.detach())
            self._attempt(self.way, select_samples(inputs, kept), label_B[kept])
            norm_PB = self._norms(len(kept))
        return Found(loss_B.detach(), is_finite_B, norm_PB, tensor_norms([_gradient(one) for one in self._parameters]))

    def weigh(self, factor_B: torch.Tensor) -> None:
        """Make each parameter's gradient the sum of the samples' gradients times their factor; for "ghost" only."""
        for parameter in self._parameters:
            parameter.grad = None
        if self._loss_B is not None:
            with _quiet():
                (factor_B * self._loss_B).sum().backward()  # type: ignore[no-untyped-call]  # torch's own signature
            self._loss_B = None
        for parameter in self._parameters:
            parameter.grad = _gradient(parameter)

    def close(self) -> None:
        """Take the hooks from the module and what they left on its parameters. Idempotent."""
        if self._hooks is not None:
            self._hooks.cleanup()
            self._hooks = None
        self._loss_B = None
        for parameter in self._parameters:
            if hasattr(parameter, "grad_sample"):
                del parameter.grad_sample

    def _settle(self, inputs: Inputs, label_B: torch.Tensor) -> None:
        """Take the first way that agrees with autograd; none as long as no sample's gradient is finite, for then nothing can be
        compared."""
        refused = []
        with torch.random.fork_rng(devices=[label_B.device] if label_B.is_cuda else []), uncounted(), steady(self._module):
            tried = self._comparable(inputs, label_B)
            if tried is None:
                return
            few, few_label, expected_B = tried
            for way in self._candidates:
                try:
                    self._attempt(way, few, few_label)
                    refusal = _disagreement(self._norms(len(few_label)).norm(dim=0), expected_B)
                except _REFUSALS as error:
                    refusal = f"{type(error).__name__}: {str(error).splitlines()[:1]}"
                if refusal is None:
                    self.way = way
                    return
                refused.append(f"{way}: {refusal}")
                self.close()
        raise ValueError(f"the samples' gradients of {type(self._module).__name__} are not to be had: {'; '.join(refused)}")

    def _comparable(self, inputs: Inputs, label_B: torch.Tensor) -> tuple[Inputs, torch.Tensor, torch.Tensor] | None:
        """The first few samples of which one at least has a finite gradient, with their norms by autograd."""
        for start in range(0, len(label_B), _TRIED_SAMPLES):
            some = slice(start, start + _TRIED_SAMPLES)
            few, few_label = select_samples(inputs, some), label_B[some]
            norm_B = per_sample_norms(self._module, self._loss, few, few_label, method="loop").norm_B
            if bool(torch.isfinite(norm_B).any()):
                return few, few_label, norm_B
        return None

    def _attempt(self, way: Way, inputs: Inputs, label_B: torch.Tensor) -> torch.Tensor:
        self._clear()
        if way in ("hooks", "ghost"):
            return self._by_opacus(way, inputs, label_B)
        gradients, loss_B = _WAYS[way](self._module, self._trained(), self._loss, inputs, label_B)
        found = [gradients[self._names[id(parameter)]] for parameter in self._parameters]
        # through autograd, so that whoever watches for a backward pass sees one
        torch.autograd.backward(self._parameters, [gradient.sum(dim=0) for gradient in found])
        for parameter, gradient in zip(self._parameters, found, strict=True):
            parameter.grad_sample = gradient  # type: ignore[attr-defined]
        return loss_B

    def _by_opacus(self, way: Way, inputs: Inputs, label_B: torch.Tensor) -> torch.Tensor:
        if self._hooks is None:
            kind = GradSampleHooksFastGradientClipping if way == "ghost" else GradSampleHooks
            self._hooks = kind(self._module, loss_reduction="sum", strict=False)
        with self._hooked():
            loss_B = sample_losses(self._loss, self._module(inputs), label_B)
            loss_B.sum().backward(retain_graph=way == "ghost")  # type: ignore[no-untyped-call]
        self._loss_B = loss_B if way == "ghost" else None
        for parameter in self._parameters:
            if way == "hooks" and getattr(parameter, "grad_sample", None) is None:  # took no part, or the check finds out
                parameter.grad_sample = parameter.new_zeros((len(label_B), *parameter.shape))  # type: ignore[attr-defined]
        return loss_B

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        """Opacus looks; outside of this a forward pass of the caller's own is none of ours."""
        self._hooks.enable_hooks()
        try:
            with _quiet():
                yield
        finally:
            self._hooks.disable_hooks()

    def _norms(self, num_samples: int) -> torch.Tensor:
        if self._loss_B is not None:
            none = self._parameters[0].new_zeros(num_samples)
            return torch.stack([getattr(one, "_norm_sample", none).reshape(-1).float() for one in self._parameters])
        return torch.stack([one.grad_sample.flatten(1).norm(dim=1).float() for one in self._parameters])  # type: ignore[attr-defined]

    def _nothing(self) -> Found:
        """Of no sample: Opacus then adds its noise to zeros."""
        self._clear()
        first = self._parameters[0]
        for parameter in self._parameters:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
            parameter.grad = torch.zeros_like(parameter)
        zeros_P = torch.zeros(len(self._parameters), device=first.device)
        return Found(
            first.new_zeros(0), torch.zeros(0, dtype=torch.bool, device=first.device), zeros_P[:, None][:, :0], zeros_P
        )

    def _none_of(self, loss_B: torch.Tensor) -> Found:
        """Of a batch none of whose samples has a finite gradient."""
        nothing = self._nothing()
        is_finite_B = torch.zeros(len(loss_B), dtype=torch.bool, device=loss_B.device)
        return Found(loss_B, is_finite_B, nothing.norm_PB, nothing.sum_norm_P)

    def _clear(self) -> None:
        self._loss_B = None
        for parameter in self._parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]

    def _trained(self) -> dict[str, nn.Parameter]:
        return {self._names[id(parameter)]: parameter for parameter in self._parameters}


def _by_loop(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows: list[list[torch.Tensor]] = []
    losses = []
    for index in range(len(label_B)):
        gradients, value = gradients_of_one(module, trained, loss, inputs, label_B, index)
        rows.append([
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(trained.values(), gradients, strict=True)
        ])  # fmt: skip
        losses.append(value)
    stacked = {name: torch.stack(column) for name, column in zip(trained, zip(*rows, strict=True), strict=True)}
    return stacked, torch.stack(losses)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")  # inputs need no gradient, and get none
        yield


def _disagreement(found_B: torch.Tensor, expected_B: torch.Tensor) -> str | None:
    is_known_B = torch.isfinite(expected_B)
    for found, expected in zip(found_B[is_known_B].tolist(), expected_B[is_known_B].tolist(), strict=True):
        if not abs(found - expected) <= _TOLERANCE * expected + 1e-9:
            return f"it gives a norm of {found:.6g} where autograd gives {expected:.6g}"
    return None


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


_WAYS: Mapping[str, Callable[..., tuple[dict[str, torch.Tensor], torch.Tensor]]] = {"vmap": gradients_by_vmap, "loop": _by_loop}
