"""Norms of gradients, accumulated in float32 whatever the gradients' own type.

torch's own total norm of float16 gradients overflows to infinity at 65,504, and clipping by it then sets every gradient to zero
without a word; that is why half precision is widened here.
"""

from collections.abc import Iterable

import torch

_HALF = (torch.float16, torch.bfloat16)


def gradients_of(parameters: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients that exist, as dense views or coalesced values of sparse ones (so that scaling them scales the
    gradient)."""
    listed = [parameters] if isinstance(parameters, torch.Tensor) else parameters
    found = []
    for parameter in listed:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            found.append(parameter.grad._values())
        else:
            found.append(parameter.grad)
    return found


def tensor_norms(gradients: list[torch.Tensor], norm_type: float = 2.0) -> torch.Tensor:
    """The norm of each gradient, float32 [P], on the first gradient's device."""
    if not gradients:
        return torch.zeros(0)
    device = gradients[0].device
    if all(g.dtype not in _HALF for g in gradients):
        # One fused kernel for all tensors; what torch.nn.utils.get_total_norm calls too.
        norms = torch._foreach_norm(gradients, norm_type)
    else:
        norms = tuple(
            torch.linalg.vector_norm(g, norm_type, dtype=torch.float32 if g.dtype in _HALF else None) for g in gradients
        )
    return torch.stack([norm.to(device, torch.float32) for norm in norms])


def total_norm(norm_P: torch.Tensor, norm_type: float = 2.0) -> torch.Tensor:
    """The norm over all tensors, a 0-d float32 tensor; 0 for none."""
    return torch.linalg.vector_norm(norm_P, norm_type) if norm_P.numel() else torch.zeros((), device=norm_P.device)
