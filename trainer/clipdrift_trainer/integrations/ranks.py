"""One window out of those that all ranks of a training record, with one collective a window."""

import logging
from collections.abc import Callable

import msgspec
import torch
import torch.distributed as dist

from clipdrift_contract.events import GradWindow

_log = logging.getLogger(__name__)
_PER_SLICE = ("num_samples", "grad_mass_sum", "loss_sum", "grad_mass_removed_sum", "num_clipped")


class MergedRanks:
    """Takes the windows of every rank and hands one on, in the group's first rank.

    After the gradients are reduced (DDP) or scattered (FSDP2) all ranks see the same norms, so those of the first rank stand
    for all and count once. What each rank has of its own is joined: the loss is the mean over the ranks, samples and gradient
    mass of slices are sums.

    Every rank calls this for each of its windows, in the same order: it waits for the others. It does so once a window, never
    once a step.

    Args:
        on_window: Called in the first rank.
        group: The ranks that train one model together.
        device: Where the collective runs: that of the parameters.
        num_slices: How many slices are recorded. A rank that has given up its own takes part with zeros, so that no rank waits.
    """

    def __init__(
        self, on_window: Callable[[GradWindow], None], group: dist.ProcessGroup, device: torch.device, num_slices: int = 0
    ) -> None:
        self._on_window = on_window
        self._group = group
        self._device = device
        self._num_figures = num_slices * len(_PER_SLICE)

    def __call__(self, window: GradWindow) -> None:
        own = [float(window.step_first), float(window.num_steps), window.loss_sum]
        figures = [float(getattr(part, name)) for part in window.slices for name in _PER_SLICE]
        own += figures or [0.0] * self._num_figures
        kind = torch.float32 if self._device.type == "mps" else torch.float64
        summed = torch.tensor(own, dtype=kind, device=self._device)
        dist.all_reduce(summed, group=self._group)
        if dist.get_rank(self._group) == 0:
            self._on_window(self._joined(window, summed.tolist()))

    def _joined(self, window: GradWindow, summed: list[float]) -> GradWindow:
        num_ranks = dist.get_world_size(self._group)
        step_first, num_steps, loss_sum, *figures = summed
        if (step_first, num_steps) != (window.step_first * num_ranks, window.num_steps * num_ranks):
            _log.error(
                "the ranks do not step together: the first rank's window begins at step %d and has %d, theirs on average at %g "
                "with %g; each rank must call clip once a step",
                window.step_first, window.num_steps, step_first / num_ranks, num_steps / num_ranks,
            )  # fmt: skip
        slices = []
        for part in window.slices:
            own, figures = figures[: len(_PER_SLICE)], figures[len(_PER_SLICE) :]
            num_samples, mass, loss, removed, num_clipped = own
            slices.append(
                msgspec.structs.replace(
                    part,
                    num_samples=round(num_samples),
                    grad_mass_sum=mass,
                    loss_sum=loss,
                    grad_mass_removed_sum=removed,
                    num_clipped=round(num_clipped),
                )
            )
        return msgspec.structs.replace(
            window, rank=0, world_size=num_ranks, loss_sum=loss_sum / num_ranks, slices=tuple(slices)
        )
