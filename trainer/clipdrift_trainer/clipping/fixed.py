"""Rules whose bound stands still: off, global norm, value, per tensor."""

import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.norms import local_parts, tensor_norms, total_norm
from clipdrift_trainer.clipping.rule import Rule, ScalingRule
from clipdrift_trainer.clipping.scaling import EPSILON, ratio_of, scale_each, zero_unless_finite
from clipdrift_trainer.clipping.step import ClipStep


class _FixedBound(ScalingRule):
    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._max_norm = float("inf") if spec.max_norm is None else spec.max_norm
        self._bound: torch.Tensor | None = None

    def _next_bound(self, norm: torch.Tensor) -> torch.Tensor:
        if self._bound is None or self._bound.device != norm.device:
            self._bound = torch.full_like(norm, self._max_norm)  # filled there: a copy would wait for the device
        return self._bound


class Off(_FixedBound):
    """No clipping; the norms are measured all the same, and a step that is not finite is zeroed here too.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> norm_before_clip = Off(ClipSpec(kind="off"))(weight)
        >>> float(norm_before_clip), weight.grad.tolist()
        (5.0, [3.0, 4.0])
    """

    kind = "off"

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._max_norm = float("inf")


class GlobalNorm(_FixedBound):
    """g * min(1, max_norm / (norm + 1e-6)) over all gradients together; `norm_type` p gives the p-norm, inf the largest entry.

    Source: Pascanu, Mikolov, Bengio 2013 (arXiv 1211.5063), algorithm 1, in torch's form with its epsilon; the same numbers as
    `torch.nn.utils.clip_grad_norm_`, bit for bit, for float32.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> norm_before_clip = GlobalNorm(ClipSpec(kind="global_norm", max_norm=1.0))(weight)
        >>> float(norm_before_clip), [round(g, 3) for g in weight.grad.tolist()]
        (5.0, [0.6, 0.8])
    """

    kind = "global_norm"
    needs_max_norm = True


class _BoundOfEach(Rule):
    """One bound for each entry, or each tensor, by itself."""

    keeps_direction = False
    needs_max_norm = True

    def _clip(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor
    ) -> ClipStep:
        bound = self.spec.max_norm
        assert bound is not None
        after, ratio = self._clip_each(gradients, norm_P, before, bound)
        return ClipStep(norm_P, before, after, ratio, torch.full_like(before, bound))

    def _clip_each(
        self, gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor, bound: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clip in place; the total norm after, and its ratio to the one before."""
        raise NotImplementedError


class Value(_BoundOfEach):
    """Each entry clamped to [-max_norm, max_norm]: g_j <- clamp(g_j, -c, c).

    Source: `torch.nn.utils.clip_grad_value_`. Biased: large entries lose most.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, -0.5])
        >>> norm_before_clip = Value(ClipSpec(kind="value", max_norm=1.0))(weight)
        >>> weight.grad.tolist()
        [1.0, -0.5]
    """

    kind = "value"

    def _clip_each(
        self, gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor, bound: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts = local_parts(gradients)
        torch._foreach_clamp_min_(parts, -bound)
        torch._foreach_clamp_max_(parts, bound)
        zero_unless_finite(gradients, before)
        after = total_norm(tensor_norms(gradients, self.spec.norm_type), self.spec.norm_type)
        return after, ratio_of(after, before)


class PerTensor(_BoundOfEach):
    """Each tensor by its own norm: g_l <- g_l * min(1, max_norm / (norm_l + 1e-6)). One bound for all of them.

    Source: the rule of `GlobalNorm` on each tensor alone. The step turns towards the tensors that were not clipped.

    Example:
        >>> weights = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
        >>> weights[0].grad, weights[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.5])
        >>> norm_before_clip = PerTensor(ClipSpec(kind="per_tensor", max_norm=1.0))(weights)
        >>> [round(g, 3) for weight in weights for g in weight.grad.tolist()]
        [0.6, 0.8, 0.5]
    """

    kind = "per_tensor"

    def _clip_each(
        self, gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor, bound: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        coefficient_P = norm_P.add(EPSILON).reciprocal_().mul_(bound).clamp_max_(1.0)
        return scale_each(gradients, norm_P, before, coefficient_P, self.spec.norm_type)
