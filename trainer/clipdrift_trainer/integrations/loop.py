"""`watch`: clipping and its record for a training loop of one's own, in one line."""

import inspect
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.clipping.rules import Clipper, make_clipper
from clipdrift_trainer.integrations.closure import when_gradients_are_there
from clipdrift_trainer.integrations.ranks import MergedRanks
from clipdrift_trainer.recording.recorder import Named, OnWindow, Recorder
from clipdrift_trainer.recording.sinks.sink import Sink
from clipdrift_trainer.recording.sinks.window_sink import WindowSink
from clipdrift_trainer.recording.slices import SliceSums

_log = logging.getLogger(__name__)
# What torch.compile, activation checkpointing and Lightning's Fabric put into the names of layers.
_IN_NAMES = ("_orig_mod.", "_checkpoint_wrapped_module.", "_forward_module.")
_REFUSED = {
    "FullyShardedDataParallel": "it flattens the parameters of several layers into one; shard by fully_shard (FSDP2)",
    "DeepSpeedEngine": "it clips by itself, where no other code sees the gradients; say gradient_clipping in its configuration",
    "MegatronEngine": "it clips by itself, where no other code sees the gradients; say --clip-grad to it",
}
Sinks = OnWindow | Sink | Iterable[OnWindow | Sink]


class LoopRecorder(Recorder):
    """A recorder that takes in the micro-batches of a step one by one, and that may clip by itself.

    With `at_step` it clips right before each optimizer step, so that clipping can be neither forgotten nor misplaced. A step
    that the loss scaler skips is then no step at all: only `clip` sees and counts it.
    """

    def __init__(
        self,
        clipper: Clipper,
        parameters: Iterable[Named],
        optimizer: torch.optim.Optimizer,
        *,
        at_step: bool,
        on_end: Callable[[], None],
        **settings: Any,
    ) -> None:
        named = list(parameters)
        _refuse_a_second(optimizer, named)
        # Where the user compiles the whole step, or optimizer.step, the host's counting must not be traced: each step would be
        # compiled anew. This costs no import: torch imports its compiler for any optimizer.
        self._clip_untraced = torch.compiler.disable(self._clip_noted)  # type: ignore[no-untyped-call]
        hook = torch.compiler.disable(self._clip_before_step)  # type: ignore[no-untyped-call]
        self._clip_hook = optimizer.register_step_pre_hook(hook) if at_step else None
        try:
            super().__init__(clipper, named, optimizer, **settings)  # its hooks come after ours, to see what clipping did
        except ValueError:
            if self._clip_hook is not None:
                self._clip_hook.remove()
            raise
        self._on_end = on_end
        self._loss: torch.Tensor | None = None
        self._slice_indices: list[torch.Tensor] = []
        self._batch_id = ""

    def note(self, loss: torch.Tensor | None = None, *, slice_index: torch.Tensor | None = None, batch_id: str = "") -> None:
        """What to record with the next step, once for each micro-batch: losses are summed, so divide them as for backward.

        Raises:
            ValueError: The loss is no tensor of one number.
        """
        if loss is not None:
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
                raise ValueError(f"the loss must be the tensor of one number that backward was called on, got {got}")
            loss = loss.detach().reshape(())
            self._loss = loss if self._loss is None else self._loss + loss
        if slice_index is not None:
            self._slice_indices.append(slice_index)
        self._batch_id = batch_id or self._batch_id

    def clip(
        self,
        loss: torch.Tensor | None = None,
        *,
        slice_index: torch.Tensor | None = None,
        batch_id: str = "",
        parameters: Iterable[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Clip and record the step with what was noted for it; returns the norm before clipping, a 0-d tensor.

        Raises:
            ValueError: This recorder clips by itself.
        """
        if self._clip_hook is not None:
            raise ValueError("this recorder clips in the optimizer's step (at_step=True); give it the loss by note(loss)")
        self.note(loss, slice_index=slice_index, batch_id=batch_id)
        norm_before_clip: torch.Tensor = self._clip_untraced(parameters)
        return norm_before_clip

    def finish(self) -> None:
        """Send what is left and let go of model and optimizer. Idempotent."""
        if self._clip_hook is not None:
            self._clip_hook.remove()
        super().finish()
        self._on_end()

    def abandon(self) -> None:
        """Let go of model and optimizer, and of what was not sent yet: where one of several ranks fails, sending would wait for
        the others."""
        if self._clip_hook is not None:
            self._clip_hook.remove()
        self._let_go()
        if self._slices is not None:
            self._slices.remove()
        self._on_end()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, the rule's own state included; taken between two steps."""
        return {**super().state_dict(), "run_id": self._run_id, "clipper": self._clipper.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken, under the same run id.

        Raises:
            ValueError: The state is that of another model, rule or window length.
        """
        before = self._clipper.state_dict()
        self._clipper.load_state_dict(state.get("clipper", {}))
        try:
            super().load_state_dict(state)
        except ValueError:
            self._clipper.load_state_dict(before)
            raise
        self._run_id = state["run_id"]

    def take_up(self, state: dict[str, Any]) -> None:
        """`load_state_dict` for a training that goes on by itself: what another model, rule or window length cannot use is left
        out and said in the log, and steps are counted on."""
        self._run_id, self._step = state.get("run_id", self._run_id), state.get("step", 0)
        for load in (super().load_state_dict, lambda whole: self._clipper.load_state_dict(whole.get("clipper", {}))):
            try:
                load(state)
            except ValueError as error:
                _log.warning(
                    "the record of %s goes on from step %d without all of its state: %s", self._model, self._step, error
                )

    def begin_at(self, step: int) -> None:
        """Count steps from here, where a training goes on whose record is lost."""
        self._step = step

    def _clip_before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(optimizer, "grad_scale", None) is not None:
            raise ValueError(
                f"{type(optimizer).__name__} is fused and unscales the gradients inside its step; call "
                "scaler.unscale_(optimizer) before scaler.step(optimizer), so that they can be clipped"
            )
        return when_gradients_are_there(self._clip_noted, args, kwargs)

    def _clip_noted(self, parameters: Iterable[torch.Tensor] | None = None) -> torch.Tensor:
        slice_index = torch.cat(self._slice_indices) if self._slice_indices else None
        norm_before_clip = super().clip(self._loss, slice_index=slice_index, batch_id=self._batch_id, parameters=parameters)
        self._loss, self._slice_indices, self._batch_id = None, [], ""
        return norm_before_clip


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    max_norm: float | None = None,
    *,
    clip: ClipSpec | Clipper | None = None,
    only: Callable[[nn.Parameter], bool] | None = None,
    name: str = "",
    run_id: str = "",
    sinks: Sinks = (),
    window_steps: int = 50,
    check_every: int = 10,
    slices: SliceSums | None = None,
    scaler: torch.amp.GradScaler | None = None,
    group: dist.ProcessGroup | None = None,
    clock: Clock | None = None,
    at_step: bool = False,
) -> LoopRecorder:
    """A recorder that clips where you called `torch.nn.utils.clip_grad_norm_`: `recorder.clip(loss)`, or by itself.

    Call `recorder.finish()` after the loop. The model may be compiled, wrapped by DDP or sharded by `fully_shard`; its layers
    are named as in the module itself.

    Args:
        model: What is trained.
        optimizer: What trains it.
        max_norm: Bound of the global norm. Neither this nor `clip`: nothing is clipped, everything is recorded.
        clip: Another rule, instead of `max_norm`.
        only: Says which parameters to clip and record together; None: all that need a gradient.
        name: The model's name in the windows; its class if empty.
        run_id: Identity of the run; made up if empty. A run that may be resumed needs one that stays the same.
        sinks: Functions that are called with each finished window in the training thread; what one raises is logged and ends
            nothing. Or places (`LinesSink` and others in `recording.sinks`), which are served by threads of their own.
        window_steps: Optimizer steps in a window.
        check_every: Once in so many steps the norm that the optimizer meets is recorded; 0: never.
        slices: Records gradient mass by slice.
        scaler: The loss scaler, where there is one. Unscale before `clip`, as for torch's own.
        group: The ranks that train this model together; found by itself for DDP and `fully_shard`. Every rank must then call
            `clip` and `finish`, and the windows come in the first rank alone.
        clock: Gives the windows' times.
        at_step: Clip in the optimizer's step, so that there is nothing to call but `optimizer.step()`.

    Raises:
        ValueError: Both `max_norm` and `clip` are given; the model hides its gradients, or is watched already; the optimizer is
            L-BFGS, which takes several gradients a step.

    Example:
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> windows = []
        >>> recorder = watch(model, optimizer, max_norm=1.0, sinks=windows.append)
        >>> loss = model(torch.ones(8, 4)).square().mean()
        >>> loss.backward()
        >>> norm_before_clip = recorder.clip(loss)
        >>> optimizer.step()
        >>> recorder.finish()
        >>> windows[0].model, windows[0].num_steps
        ('Linear', 1)
    """
    module, optimizer = unwrapped(model), inner_optimizer(optimizer)
    group = group or training_group(model)
    clipper = choose_clipper(max_norm, clip)
    fan = _Fan(sinks)
    on_window: OnWindow = fan
    if group is not None and dist.get_world_size(group) > 1:
        num_slices = 0 if slices is None else len(slices.names)
        on_window = MergedRanks(fan, group, next(module.parameters()).device, num_slices)
    try:
        return LoopRecorder(
            clipper,
            ((layer, parameter) for layer, parameter in named_parameters(module) if only is None or only(parameter)),
            optimizer,
            run_id=run_id or uuid.uuid4().hex,
            model=name or type(module).__name__,
            on_window=on_window,
            clock=clock or SystemClock(),
            window_steps=window_steps,
            check_every=check_every,
            slices=slices,
            scaler=scaler,
            is_partial=only is not None,
            at_step=at_step,
            on_end=fan.close,
        )
    except ValueError:
        fan.close()
        raise


def choose_clipper(max_norm: float | None, clip: ClipSpec | Clipper | None) -> Clipper:
    """The rule that the two arguments of `watch` name; raises ValueError where they name two, or none that exists."""
    if max_norm is not None and clip is not None:
        raise ValueError(f"say either max_norm or clip, got both: max_norm={max_norm!r}, clip={clip!r}")
    if clip is None:
        clip = ClipSpec() if max_norm is None else ClipSpec(kind="global_norm", max_norm=max_norm)
    return make_clipper(clip) if isinstance(clip, ClipSpec) else clip


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside what torch.compile, data parallelism and Fabric wrap it in.

    Raises:
        ValueError: It is inside something that hides its gradients; the message says what to do.
    """
    for part in model.modules():
        reason = _REFUSED.get(type(part).__name__)
        if reason is not None:
            raise ValueError(f"clipping cannot be recorded inside {type(part).__name__}: {reason}")
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, (DistributedDataParallel, nn.DataParallel)):
        module: nn.Module = model.module
        return module
    return next((part for name, part in model.named_children() if f"{name}." in _IN_NAMES), None)


def inner_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """torch's own optimizer inside what frameworks wrap it in: the one whose step runs the hooks that recording needs.

    Raises:
        ValueError: There is none, or it is L-BFGS.
    """
    inner = optimizer
    while not _runs_hooks(inner) and hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not isinstance(inner, torch.optim.Optimizer) or not _runs_hooks(inner):
        raise ValueError(
            f"optimizer must be a torch.optim.Optimizer whose __init__ has run, since its step then runs hooks; "
            f"got {type(optimizer).__name__}"
        )
    if isinstance(inner, torch.optim.LBFGS):
        raise ValueError("L-BFGS takes several gradients a step and searches along them: clipped, they mislead it; do not clip")
    return inner


def _runs_hooks(optimizer: Any) -> bool:
    """What torch writes at the class's step when it makes it run hooks; wrappers that only look like optimizers lack it."""
    return getattr(getattr(type(optimizer), "step", None), "hooked", None) is True


def named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The module's parameters under the names that they have without wrappers inside it."""
    for name, parameter in module.named_parameters():
        for wrapper in _IN_NAMES:
            name = name.replace(wrapper, "")
        yield name, parameter


def training_group(model: nn.Module) -> dist.ProcessGroup | None:
    """The ranks that train this model together; None where it trains alone, or nobody can tell."""
    for part in model.modules():
        if isinstance(part, DistributedDataParallel):
            group: dist.ProcessGroup = part.process_group
            return group
    is_sharded = any(hasattr(parameter, "device_mesh") for parameter in model.parameters())
    return dist.group.WORLD if is_sharded else None


def _refuse_a_second(optimizer: torch.optim.Optimizer, named: Iterable[Named]) -> None:
    own = {id(parameter) for _, parameter in named}
    for hook in optimizer._optimizer_step_pre_hooks.values():
        other = getattr(inspect.unwrap(hook), "__self__", None)
        if isinstance(other, LoopRecorder) and any(id(parameter) in own for parameter in other._parameters):
            raise ValueError(
                f"these parameters of {type(optimizer).__name__} are watched already, and would be clipped and told twice; "
                "call finish() or abandon() on that recorder first"
            )


class _Fan:
    """Hands each window to every function, and to the places by a `WindowSink`; what a function raises is logged."""

    def __init__(self, sinks: Sinks) -> None:
        given = list(sinks) if isinstance(sinks, Iterable) else [sinks]
        places = [sink for sink in given if not callable(sink)]
        wrong = [type(place).__name__ for place in places if not hasattr(place, "send")]
        if wrong:
            raise ValueError(
                f"sinks must be functions of a window, or places with send (recording.sinks), got {', '.join(wrong)}"
            )
        self._places = WindowSink(None, MetricSet(), 0, sinks=places) if places else None
        self._functions: list[OnWindow] = [sink for sink in given if callable(sink)]
        self._functions += [self._places] if self._places is not None else []

    def __call__(self, window: GradWindow) -> None:
        for function in self._functions:
            try:
                function(window)
            except Exception:  # noqa: BLE001  # training must not end for its telemetry
                _log.exception("a sink lost the window of %s at step %d", window.model, window.step_first)

    def close(self) -> None:
        """Wait for the places, at most 10 seconds."""
        if self._places is not None:
            self._places.close()
