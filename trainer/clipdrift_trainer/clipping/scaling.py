"""Gradients multiplied in place by what a rule decided: all by one coefficient, or each by its own.

A step whose norm is NaN or infinite has no direction worth keeping: its gradients are set to zero, so that the optimizer moves
by its momentum alone. (torch would spread the NaN over every weight.) On the CPU the host may look at a number for nothing, so
there a multiplication by 1 is left out; on other devices nothing is looked at, and the host does not wait.
"""

import math

import torch

from clipdrift_trainer.clipping.norms import local_parts, total_norm
from clipdrift_trainer.clipping.step import ClipStep

EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by (norm + 1e-6)


def scale_together(gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor, bound: torch.Tensor) -> ClipStep:
    """Every gradient times min(1, bound / (norm + 1e-6)), bit for bit what torch multiplies by."""
    coefficient = before.add(EPSILON).reciprocal_().mul_(bound).clamp_max_(1.0)
    parts = local_parts(gradients)
    if before.is_cpu:
        if not math.isfinite(before.item()):
            torch._foreach_zero_(parts)
            return ClipStep(norm_P, before, torch.zeros_like(before), torch.zeros_like(before), bound)
        if parts and coefficient.item() < 1.0:
            _scale_all(parts, coefficient)
        return ClipStep(norm_P, before, before * coefficient, coefficient, bound)
    is_finite = torch.isfinite(before)
    coefficient = coefficient.where(is_finite, 0.0)
    _scale_all(parts, coefficient, is_finite)
    return ClipStep(norm_P, before, (before * coefficient).where(is_finite, 0.0), coefficient, bound)


def scale_each(
    gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor, coefficient_P: torch.Tensor, norm_type: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each gradient times its own coefficient; returns the total norm after, and its ratio to the one before (both 0-d)."""
    parts = local_parts(gradients)
    is_finite = torch.isfinite(before)
    if before.is_cpu:
        if not is_finite:
            torch._foreach_zero_(parts)
            return torch.zeros_like(before), torch.zeros_like(before)
        if (coefficient_P < 1.0).any():
            _scale_all(parts, coefficient_P)
    else:
        coefficient_P = coefficient_P.where(is_finite, 0.0)
        _scale_all(parts, coefficient_P, is_finite)
    after = total_norm((norm_P * coefficient_P).where(is_finite, 0.0), norm_type)
    return after, ratio_of(after, before)


def zero_unless_finite(gradients: list[torch.Tensor], norm: torch.Tensor) -> None:
    """Set every gradient to zero where the norm of all of them is NaN or infinite."""
    parts = local_parts(gradients)
    if not norm.is_cpu:
        for device, positions in _by_device(parts).items():
            _zero_unless([parts[i] for i in positions], torch.isfinite(norm).to(device))
    elif not math.isfinite(norm.item()):
        torch._foreach_zero_(parts)


def ratio_of(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """after / before, at most 1; 1 for a norm of zero, which nothing was taken from, and 0 for one that was not finite."""
    ratio = torch.where(before > 0, after / before, torch.ones_like(before))
    return ratio.clamp_max_(1.0).where(torch.isfinite(before), 0.0)


def _scale_all(parts: list[torch.Tensor], coefficient: torch.Tensor, is_finite: torch.Tensor | None = None) -> None:
    """All by one coefficient (0-d) or each by its own ([P]); zero where `is_finite` is given and says no. The layers of a model
    may be spread over several devices."""
    for device, positions in _by_device(parts).items():
        there, scale = [parts[i] for i in positions], coefficient.to(device)
        if scale.ndim == 0:
            torch._foreach_mul_(there, scale)
        else:
            each = scale.unbind()
            torch._foreach_mul_(there, [each[i] for i in positions])
        if is_finite is not None:
            _zero_unless(there, is_finite.to(device))


def _zero_unless(gradients: list[torch.Tensor], is_finite: torch.Tensor) -> None:
    is_lost = is_finite.logical_not()
    for gradient in gradients:
        gradient.masked_fill_(is_lost, 0.0)


def _by_device(tensors: list[torch.Tensor]) -> dict[torch.device, list[int]]:
    found: dict[torch.device, list[int]] = {}
    for position, tensor in enumerate(tensors):
        found.setdefault(tensor.device, []).append(position)
    return found
