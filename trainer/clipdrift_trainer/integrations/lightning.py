"""Clipping and its record in a Lightning `Trainer`, as a callback."""

import uuid
from typing import Any

import torch
import torch.distributed as dist

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.integrations.loop import LoopRecorder, Sinks, choose_clipper, unwrapped, watch

try:
    import lightning.pytorch as pl
    from lightning.pytorch.utilities.model_helpers import is_overridden
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}; this callback is for Lightning: pip install 'lightning>=2.5'", name=error.name
    ) from error


class RecordClipping(pl.Callback):  # type: ignore[misc]
    """Clips before each optimizer step and records what that did; the Trainer's own clipping stays unset.

    Lightning calls `on_before_optimizer_step` with complete and unscaled gradients right before it would clip itself, in
    automatic and in manual optimization; it discards the norm that its own clipping computes. This callback clips there.
    Accumulated batches are one step, mixed precision is unscaled before. Checkpoints hold the state of rule and recorder.

    With several optimizers (manual optimization) each is clipped and recorded by itself, over the parameters that it trains, as
    `NAME-0`, `NAME-1`. With several ranks the windows come in rank 0 alone.

    Args:
        max_norm: Bound of the global norm. Neither this nor `clip`: nothing is clipped, everything is recorded.
        clip: Another rule, instead of `max_norm`.
        name: The model's name in the windows; the module's class if empty.
        run_id: Identity of the run; made up if empty, and kept in checkpoints.
        sinks: As for `watch`.
        window_steps: Optimizer steps in a window.
        check_every: Once in so many steps the norm that the optimizer meets is recorded; 0: never.
        clock: Gives the windows' times.

    Raises:
        ConfigError: When the training starts: somebody else clips too. The message says what to unset.
    """

    def __init__(
        self,
        max_norm: float | None = None,
        *,
        clip: ClipSpec | None = None,
        name: str = "",
        run_id: str = "",
        sinks: Sinks = (),
        window_steps: int = 50,
        check_every: int = 10,
        clock: Clock | None = None,
    ) -> None:
        choose_clipper(max_norm, clip)  # refuses what cannot be, before the training starts
        self._rule = (max_norm, clip)
        self._name = name
        self._run_id = run_id or uuid.uuid4().hex
        self._settings: dict[str, Any] = {
            "sinks": sinks,
            "window_steps": window_steps,
            "check_every": check_every,
            "clock": clock,
        }
        self._recorders: dict[int, LoopRecorder] = {}  # by the optimizer's id
        self._loss: torch.Tensor | None = None
        self._restored: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Starts recording; refuses where the Trainer or the module clips too."""
        _refuse_other_clipping(trainer, pl_module)
        unwrapped(trainer.strategy.model)
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._recorders = {
            id(optimizer): self._start(trainer, pl_module, index) for index, optimizer in enumerate(trainer.optimizers)
        }
        for recorder, state in zip(self._recorders.values(), self._restored, strict=False):
            recorder.take_up(state)
        self._restored, self._loss = [], None
        if not pl_module.automatic_optimization:
            _refuse_later_clipping(pl_module)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        """Keeps the loss, already divided by the number of accumulated batches, for the step."""
        loss = loss.detach()
        if self._scaler is not None and self._scaler.is_enabled():
            loss = loss / self._scaler.scale(torch.ones((), device=loss.device))  # what came has been multiplied by it
        self._loss = loss if self._loss is None else self._loss + loss

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Clips and records."""
        self._recorders[id(optimizer)].clip(self._loss)
        self._loss = None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Sends what is left; a further `fit` goes on counting from here."""
        for recorder in self._recorders.values():
            recorder.finish()
        self._let_go(pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Sends what is left, but with several ranks: that would wait for ranks that have not failed."""
        for recorder in self._recorders.values():
            if trainer.world_size > 1:
                recorder.abandon()
            else:
                recorder.finish()
        self._let_go(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the state of the rule and of the recorder, by optimizer."""
        states = [recorder.state_dict() for recorder in self._recorders.values()]
        return {"recorders": states or list(self._restored)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Taken up when the training starts, since the optimizers are made only then."""
        self._restored = list(state_dict["recorders"])

    def _start(self, trainer: Any, pl_module: Any, index: int) -> LoopRecorder:
        optimizer, is_only = trainer.optimizers[index], len(trainer.optimizers) == 1
        name = self._name or type(pl_module).__name__
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return watch(
            pl_module,
            optimizer,
            clip=choose_clipper(*self._rule),
            only=None if is_only else (lambda parameter: id(parameter) in trained),
            name=name if is_only else f"{name}-{index}",
            run_id=self._run_id,
            scaler=self._scaler,
            group=dist.group.WORLD if trainer.world_size > 1 else None,
            **self._settings,
        )

    def _let_go(self, pl_module: Any) -> None:
        self._restored = [recorder.state_dict() for recorder in self._recorders.values()]
        self._recorders = {}
        vars(pl_module).pop("clip_gradients", None)


def _refuse_other_clipping(trainer: Any, pl_module: Any) -> None:
    if trainer.gradient_clip_val:
        raise ConfigError(_refusal(f"Trainer(gradient_clip_val={trainer.gradient_clip_val!r}) clips too"))
    if is_overridden("configure_gradient_clipping", pl_module):
        raise ConfigError(_refusal(f"{type(pl_module).__name__} has a configure_gradient_clipping of its own"))


def _refuse_later_clipping(pl_module: Any) -> None:
    """In manual optimization the module may call Lightning's clipping in its own step."""
    clip_gradients = pl_module.clip_gradients

    def refuse(optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None) -> None:
        if gradient_clip_val:
            raise ConfigError(_refusal(f"clip_gradients(gradient_clip_val={gradient_clip_val!r}) was called"))
        clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    pl_module.clip_gradients = refuse


def _refusal(what: str) -> str:
    return (
        f"{what}: gradients would be clipped twice, and the recorded norms would be wrong. Leave that out and give "
        "RecordClipping the bound (max_norm) or the rule (clip)"
    )
