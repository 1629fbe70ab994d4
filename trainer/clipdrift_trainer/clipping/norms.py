"""Norms of gradients, accumulated in float32 whatever the gradients' own type.

torch's own total norm of float16 gradients overflows to infinity at 65,504, and clipping by it then sets every gradient to zero
without a word; that is why half precision is widened here.

Sharded gradients (`DTensor`, as FSDP2's `fully_shard` gives them) have the norm of the whole tensor, on every rank: each rank
sums the powers of its own shards, and one collective for all tensors together adds them up.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist

_HALF = (torch.float16, torch.bfloat16)


def gradients_of(parameters: torch.Tensor | Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The gradients that exist, as dense views or coalesced values of sparse ones (so that scaling them scales the
    gradient)."""
    listed = [parameters] if isinstance(parameters, torch.Tensor) else parameters
    found = []
    for parameter in listed:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            parameter.grad = gradient = gradient.coalesce()
            gradient = gradient._values()
        found.append(gradient)
    return found


def local_parts(gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """What this rank holds of each gradient, sharing its memory: of a sharded one its shard, of any other all of it."""
    if all(type(gradient) is torch.Tensor for gradient in gradients):
        return gradients
    return [_local(gradient) for gradient in gradients]


def tensor_norms(gradients: list[torch.Tensor], norm_type: float = 2.0) -> torch.Tensor:
    """The norm of each gradient, float32 [P], on the first gradient's device; of a sharded one, the norm over all its shards.

    All ranks of a sharded gradient's mesh must call this together, with the same gradients in the same order.

    Raises:
        ValueError: A sharded gradient is not yet summed over its ranks (a partial placement).
    """
    if not gradients:
        return torch.zeros(0)
    if _is_fusable(gradients) and norm_type < math.inf:  # an empty tensor has no largest entry
        return torch.stack(torch._foreach_norm(gradients, norm_type))
    local = local_parts(gradients)
    device = local[0].device
    if all(g.dtype not in _HALF and g.numel() for g in local):
        # One fused kernel for all tensors; what torch.nn.utils.get_total_norm calls too.
        norms = torch._foreach_norm(local, norm_type)
    else:
        norms = tuple(
            torch.linalg.vector_norm(g, norm_type, dtype=torch.float32 if g.dtype in _HALF else None)
            if g.numel()
            else g.new_zeros((), dtype=torch.float32)  # a rank that holds nothing of a small tensor
            for g in local
        )
    norm_P = torch.stack([norm.to(device, torch.float32) for norm in norms])
    shards = _shards_by_group(gradients)
    return _summed_over_shards(norm_P, shards, norm_type) if shards else norm_P


def total_norm(norm_P: torch.Tensor, norm_type: float = 2.0) -> torch.Tensor:
    """The norm over all tensors, a 0-d float32 tensor; 0 for none."""
    return torch.linalg.vector_norm(norm_P, norm_type) if norm_P.numel() else torch.zeros((), device=norm_P.device)


def _is_fusable(gradients: list[torch.Tensor]) -> bool:
    """Whether these are what nearly all training has, which one kernel takes as it is: whole float32 tensors on one device."""
    device = gradients[0].device
    return all(type(g) is torch.Tensor and g.dtype is torch.float32 and g.device == device for g in gradients)


def _is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this is a DTensor, told by what it has: its module takes half a second to import, and few need it."""
    return hasattr(tensor, "device_mesh")


def _local(tensor: Any) -> torch.Tensor:
    """This rank's part of a DTensor, sharing its memory; any other tensor as it is."""
    if not _is_sharded(tensor):
        return tensor  # type: ignore[no-any-return]
    with torch.no_grad():
        local: torch.Tensor = tensor.to_local()
    return local


def _shards_by_group(gradients: list[Any]) -> dict[Any, list[int]]:
    """For each group of ranks that a gradient is sharded over, the positions of those gradients: one group with FSDP2, two with
    tensor parallelism beside it. Replicas (HSDP) hold the same shard and are not summed."""
    found: dict[Any, list[int]] = {}
    for position, gradient in enumerate(gradients):
        if not _is_sharded(gradient):
            continue
        for dimension, placement in enumerate(gradient.placements):
            if placement.is_partial():
                raise ValueError(
                    f"gradient {position} has the placements {gradient.placements}: it is not summed over its ranks yet; "
                    "redistribute it to shards or replicas before clipping"
                )
            if placement.is_shard():
                found.setdefault((gradient.device_mesh, dimension), []).append(position)
    return found


def _summed_over_shards(norm_P: torch.Tensor, shards: dict[Any, list[int]], norm_type: float) -> torch.Tensor:
    """Norms of whole tensors from norms of shards: ||g||_p^p = sum over shards of ||shard||_p^p; the largest for p = inf."""
    if math.isinf(norm_type):
        largest_P = torch.nan_to_num(norm_P, nan=math.inf, posinf=math.inf)  # a maximum may lose a NaN
        return _reduced(largest_P, shards, dist.ReduceOp.MAX)
    power_P = norm_P.double() ** norm_type  # in float32 a square overflows from 1.8e19 on
    return (_reduced(power_P, shards, dist.ReduceOp.SUM) ** (1.0 / norm_type)).float()


def _reduced(figure_P: torch.Tensor, shards: dict[Any, list[int]], operation: Any) -> torch.Tensor:
    for (mesh, dimension), positions in shards.items():
        is_part = len(positions) < len(figure_P)
        chosen_P = figure_P[positions] if is_part else figure_P
        dist.all_reduce(chosen_P, operation, group=mesh.get_group(dimension))
        if is_part:
            figure_P[positions] = chosen_P
    return figure_P
