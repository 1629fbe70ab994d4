"""Adaptive gradient clipping: each unit's gradient against the norm of its own weights."""

from typing import Annotated

import torch
from msgspec import Meta

from clipdrift_trainer.clipping.norms import local_parts, tensor_norms, total_norm
from clipdrift_trainer.clipping.rule import Options, Rule
from clipdrift_trainer.clipping.scaling import ratio_of, zero_unless_finite
from clipdrift_trainer.clipping.step import ClipStep

_SMALLEST_NORM = 1e-6  # what timm and pytorch_optimizer divide by at least


class AgcOptions(Options, frozen=True, kw_only=True):
    """Defaults of the paper's code, but for the head: the paper leaves it out, a rule does not know which tensors it is."""

    clip_factor: Annotated[float, Meta(gt=0, description="lambda: largest ratio of gradient to weight, by norm")] = 0.01
    eps: Annotated[float, Meta(gt=0, description="weights are taken to have at least this norm, so that zeros can grow")] = 1e-3
    exclude_last: Annotated[
        int, Meta(ge=0, description="so many last tensors are left alone; 2: the head's weight and bias")
    ] = 0


class Agc(Rule):
    """Unit by unit: G_i <- lambda * max(|W_i|, eps) / |G_i| * G_i where |G_i| > lambda * max(|W_i|, eps).

    A unit is a row: all entries of one index of the first axis (the output of Linear and ConvNd, a row of Embedding); vectors
    and scalars are one unit. `norm_type` is the order of the norms. `max_norm` is not taken. Sparse gradients are compared with
    the rows that they hold. Tensors that are sharded must be so by rows (as FSDP2 does).

    Source: Brock, De, Smith, Simonyan 2021 (arXiv 2102.06171), equation 3 and section 4.1; the same numbers as
    pytorch_optimizer 4.1 for tensors of 1, 2 and 4 axes (of 3, Conv1d, it takes the norm over axis 1 alone).

    Example:
        >>> from clipdrift_contract.events import ClipSpec
        >>> weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
        >>> weight.grad = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> norm_before_clip = Agc(ClipSpec(kind="agc"))(weight)
        >>> [round(float(row.norm()), 6) for row in weight.grad]  # 0.01 * 5, and 0.01 * 0.001
        [0.05, 1e-05]
    """

    kind = "agc"
    keeps_direction = False
    takes_max_norm = False
    options_type = AgcOptions

    def _clip(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor
    ) -> ClipStep:
        num_chosen = len(parameters) - self._options.exclude_last
        held = [(i < num_chosen, parameter) for i, parameter in enumerate(parameters) if parameter.grad is not None]
        vectors = [parameter.detach() for is_chosen, parameter in held if is_chosen and parameter.ndim <= 1]
        vector_norms = iter(tensor_norms(vectors, self.spec.norm_type).unbind())  # together: of shards, by one collective
        for (is_chosen, parameter), gradient, norm in zip(held, gradients, norm_P.unbind(), strict=True):
            if not is_chosen:
                continue
            if parameter.ndim > 1:
                self._clip_rows(parameter, gradient)
            else:
                device = gradient.device  # norms are on the first tensor's
                local_parts([gradient])[0].mul_(self._scale(next(vector_norms).to(device), norm.to(device)))
        zero_unless_finite(gradients, before)
        after = total_norm(tensor_norms(gradients, self.spec.norm_type), self.spec.norm_type)
        return own_bounds_step(norm_P, before, after)

    def _clip_rows(self, parameter: torch.Tensor, gradient: torch.Tensor) -> None:
        weight, rows = (part.detach() for part in local_parts([parameter, gradient]))
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            weight = weight[parameter.grad._indices()[0]]
        rows.mul_(self._scale(self._row_norms(weight), self._row_norms(rows)))

    def _row_norms(self, tensor: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(1, tensor.ndim))
        wide = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None
        found: torch.Tensor = torch.linalg.vector_norm(tensor, self.spec.norm_type, axes, keepdim=True, dtype=wide)
        return found

    def _scale(self, weight_norm: torch.Tensor, gradient_norm: torch.Tensor) -> torch.Tensor:
        bound = weight_norm.clamp_min(self._options.eps) * self._options.clip_factor
        scale: torch.Tensor = bound / gradient_norm.clamp_min(_SMALLEST_NORM)
        return scale.clamp_max_(1.0)


def own_bounds_step(norm_P: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> ClipStep:
    """The step of a rule whose tensors have bounds of their own: `bound` is what they left, or infinity where none took
    anything."""
    ratio = ratio_of(after, before)
    return ClipStep(norm_P, before, after, ratio, after.where(after < before, float("inf")))
