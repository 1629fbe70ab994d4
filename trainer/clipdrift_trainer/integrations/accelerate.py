"""Clipping and its record in a loop with Hugging Face Accelerate."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from clipdrift_trainer.integrations.loop import LoopRecorder, watch

try:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
except ModuleNotFoundError as error:
    message = f"{error}; this is for loops with Accelerate: pip install 'accelerate>=1.10'"
    raise ModuleNotFoundError(message, name=error.name) from error


class AcceleratedRecorder:
    """Clips when Accelerate has synchronised the gradients, and only then; otherwise notes the loss.

    Made by `watch_accelerated`.
    """

    def __init__(self, accelerator: Any, optimizer: torch.optim.Optimizer, recorder: LoopRecorder) -> None:
        self._accelerator = accelerator
        self._optimizer = optimizer
        self._recorder = recorder

    def clip(
        self, loss: torch.Tensor | None = None, *, slice_index: torch.Tensor | None = None, batch_id: str = ""
    ) -> torch.Tensor | None:
        """Call it after each `accelerator.backward(loss)`, with the same loss; it unscales as Accelerate's own clipping does.

        Returns:
            The norm before clipping, a 0-d tensor; None for a batch that is accumulated further.
        """
        share = None if loss is None else loss.detach() / self._accelerator.gradient_accumulation_steps
        self._recorder.note(share, slice_index=slice_index, batch_id=batch_id)
        if not self._accelerator.sync_gradients:
            return None
        self._accelerator.unscale_gradients(self._optimizer)
        return self._recorder.clip()

    def finish(self) -> None:
        """Send what is left and let go of model and optimizer; on every process. Idempotent."""
        self._recorder.finish()

    def state_dict(self) -> dict[str, Any]:
        """With `load_state_dict`, what `accelerator.register_for_checkpointing(recorder)` needs."""
        return self._recorder.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken; see `LoopRecorder.load_state_dict`."""
        self._recorder.load_state_dict(state)


def watch_accelerated(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    max_norm: float | None = None,
    **settings: Any,
) -> AcceleratedRecorder:
    """A recorder for a loop with Accelerate; `recorder.clip(loss)` replaces `accelerator.clip_grad_norm_`.

    Args:
        accelerator: Yours.
        model: As `accelerator.prepare` gave it.
        optimizer: As `accelerator.prepare` gave it.
        max_norm: Bound of the global norm.
        settings: Those of `watch`: clip, name, run_id, sinks, window_steps, check_every, slices, clock.

    Raises:
        ValueError: The optimizer was not prepared, or Accelerate runs DeepSpeed, Megatron-LM or FSDP 1, which hide their
            gradients.
    """
    if not isinstance(optimizer, AcceleratedOptimizer):
        raise ValueError(f"prepare the optimizer first (accelerator.prepare), got {type(optimizer).__name__}")
    return AcceleratedRecorder(
        accelerator,
        optimizer,
        watch(
            model,
            optimizer,
            max_norm,
            scaler=accelerator.scaler,
            group=dist.group.WORLD if accelerator.num_processes > 1 else None,
            **settings,
        ),
    )
