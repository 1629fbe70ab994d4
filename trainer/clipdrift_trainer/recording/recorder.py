"""The recorder: clips, and keeps norms, coefficient, bound and loss in a ring on the gradients' device until the window is
full.

Between two flushes the host never waits for the device, and a flush is one copy. In which order backward, clipping and the
optimizer's step come is seen by hooks that only count; on a sample of the steps the norm that the optimizer really meets is
recorded too. From both a window names what is wrong.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch.amp.grad_scaler import OptState

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import GradWindow, NormQuantiles, SliceGradient
from clipdrift_trainer.clipping.norms import gradients_of, tensor_norms, total_norm
from clipdrift_trainer.clipping.rules import Clipper, ClipStep
from clipdrift_trainer.recording.faults import Setting, StepNote, find_faults, is_broken_promise, is_misplaced
from clipdrift_trainer.recording.groups import layer_groups
from clipdrift_trainer.recording.ring import Ring
from clipdrift_trainer.recording.slices import SliceSums
from clipdrift_trainer.recording.spikes import find_spikes
from clipdrift_trainer.recording.window import Column, build_window

_log = logging.getLogger(__name__)
_CHECK_TOLERANCE = 1e-3  # float32 sums of a million entries differ by less
_HALF_TOLERANCE = 1e-2  # one rounding of a bfloat16 entry is up to 0.4 %
OnWindow = Callable[[GradWindow], None]
Named = tuple[str, torch.nn.Parameter]


class Recorder:
    """Clips and records; one call a step, between backward and `optimizer.step()`.

    Args:
        clipper: The rule.
        parameters: Named parameters of the model, as `module.named_parameters()` gives them.
        optimizer: Whose steps are watched; its first group's learning rate is recorded.
        run_id: Identity of the run.
        model: The model's name.
        on_window: Called with each finished window, in the training thread; must not block.
        clock: Gives the windows' times.
        window_steps: Steps in a window.
        check_every: Once in so many steps the norm that the optimizer meets is recorded; 0: never.
        slices: Gradient mass by slice; None: not recorded. The recorder takes it over and removes its hooks at the end.
        scaler: The loss scaler of mixed precision, so that steps it skips are counted apart.
        is_partial: The optimizer also trains tensors that are none of this recorder's business.

    A layer that is unfrozen while the run goes on is clipped and recorded from then on, in a window that begins there.

    Example:
        >>> from clipdrift_contract.clock import ManualClock
        >>> from clipdrift_contract.events import ClipSpec
        >>> from clipdrift_trainer.clipping.rules import make_clipper
        >>> layer = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> windows = []
        >>> recorder = Recorder(make_clipper(ClipSpec(kind="global_norm", max_norm=0.1)), layer.named_parameters(), optimizer,
        ...                     run_id="r", model="m", on_window=windows.append, clock=ManualClock(), window_steps=2)
        >>> for _ in range(2):
        ...     loss = layer(torch.ones(8, 4)).square().mean() + 10
        ...     optimizer.zero_grad(); loss.backward()
        ...     norm_before_clip = recorder.clip(loss)
        ...     optimizer.step()
        >>> recorder.finish()
        >>> windows[0].num_steps, windows[0].faults
        (2, ())
    """

    def __init__(
        self,
        clipper: Clipper,
        parameters: Iterable[Named],
        optimizer: torch.optim.Optimizer,
        *,
        run_id: str,
        model: str,
        on_window: OnWindow,
        clock: Clock,
        window_steps: int = 50,
        check_every: int = 10,
        slices: SliceSums | None = None,
        scaler: torch.amp.GradScaler | None = None,
        is_partial: bool = False,
    ) -> None:
        if window_steps < 1:
            raise ValueError(f"window_steps must be >= 1, got {window_steps!r}")
        if check_every < 0:
            raise ValueError(f"check_every must be >= 0 (0: never), got {check_every!r}")
        self._clipper = clipper
        self._optimizer = optimizer
        self._run_id = run_id
        self._model = model
        self._on_window = on_window
        self._clock = clock
        self._check_every = check_every
        self._slices = slices
        self._scaler = scaler
        self._is_partial = is_partial
        self._window_steps = window_steps
        self._all = list(parameters)
        self._notes: list[StepNote] = []
        self._step = 0  # steps that the optimizer took
        self._num_skipped = 0  # that no window has told yet
        self._num_clips = 0
        self._stepped_first = False
        self._clipped_ids: frozenset[int] = frozenset()
        self._num_backwards = 0
        self._backwards_seen = 0  # at the last clip or step
        self._version_clipped = 0
        self._has_observed = False
        self._window_started_ms = clock.now_ms()
        self._totals: list[npt.NDArray[np.float32]] = []
        self._backward_hooks: list[Any] = []
        self._take(self._all)
        self._hooks = self._watch_steps()

    def clip(
        self,
        loss: torch.Tensor | None = None,
        *,
        slice_index: torch.Tensor | None = None,
        batch_id: str = "",
        parameters: Iterable[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Clip the model's gradients and record the step; returns the norm before clipping, a 0-d tensor.

        Args:
            loss: The step's loss, a 0-d tensor; None: not recorded.
            slice_index: The slice of each sample that was propagated back since the last call, int64 [B].
            batch_id: What to call this batch, so that a spike can be followed up.
            parameters: Clip only these; None: all that are recorded.
        """
        if any(parameter.requires_grad for _, parameter in self._frozen):
            self._take_unfrozen()
        note = self._open(is_clipped=True)
        note.batch_id = batch_id
        chosen = self._parameters if parameters is None else self._listed(parameters)
        done = self._measured(chosen) if note.is_scaled else self._clipped(chosen)
        self._ring.write(len(self._notes) - 1, chosen, done, loss)
        self._add_slices(slice_index, done.coefficient)
        if not self._clipped_ids:
            self._clipped_ids = frozenset(map(id, chosen))
        self._version_clipped = self._version_of_gradient()
        return done.norm_before

    def finish(self) -> None:
        """Send what is left and let go of model and optimizer. Idempotent."""
        self._let_go()
        if self._notes or self._num_skipped:
            self._flush()
        if self._slices is not None:
            self._slices.remove()

    def norm_quantiles(self) -> NormQuantiles | None:
        """Quantiles of the finite norms of the last half of the run; None before anything was recorded."""
        norms = np.concatenate(self._totals) if self._totals else np.zeros(0)
        late = norms[len(norms) // 2 :]
        late = late[np.isfinite(late)]
        if not len(late):
            return None
        p10, p50, p90, p99 = (float(q) for q in np.percentile(late, (10, 50, 90, 99)))
        return NormQuantiles(p10=p10, p50=p50, p90=p90, p99=p99)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to tell the same windows as one that was not stopped; taken between two steps."""
        return {
            "step": self._step,
            "num_skipped": self._num_skipped,
            "num_clips": self._num_clips,
            "stepped_first": self._stepped_first,
            "window_started_ms": self._window_started_ms,
            "rows": self._ring.copy(len(self._notes)),
            "notes": [asdict(note) for note in self._notes],
            "totals": torch.from_numpy(np.concatenate(self._totals)) if self._totals else torch.zeros(0),
            "slice_sums": self._slice_sums(),
            "clipped": [i for i, parameter in enumerate(self._parameters) if id(parameter) in self._clipped_ids],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken; a state that is refused changes nothing.

        Raises:
            ValueError: The state is that of a model with other parameters or slices, of a longer window, or of another release.
        """
        lacking = sorted(set(self.state_dict()) - set(state))
        if lacking:
            raise ValueError(f"the state lacks {', '.join(lacking)}: it was written by another release")
        sums, own = state["slice_sums"], self._slice_sums()
        if sums is not None and own is not None and sums.shape != own.shape:
            raise ValueError(f"the state holds {len(sums)} slices, this recorder has {len(own)}")
        self._ring.restore(state["rows"])
        self._step, self._num_skipped = state["step"], state["num_skipped"]
        self._num_clips, self._stepped_first = state["num_clips"], state["stepped_first"]
        self._window_started_ms = state["window_started_ms"]
        self._notes = [StepNote(**note) for note in state["notes"]]
        self._totals = [state["totals"].numpy()] if len(state["totals"]) else []
        self._clipped_ids = frozenset(id(self._parameters[i]) for i in state["clipped"])
        if self._slices is not None and sums is not None:
            self._slices.sums.copy_(sums)

    def _take(self, named: Sequence[Named]) -> None:
        """Record those that need a gradient now, and look out for the others."""
        recorded = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        if not recorded:
            raise ValueError("there is no parameter that requires a gradient")
        self._frozen = [(name, parameter) for name, parameter in named if not parameter.requires_grad]
        self._names = [name for name, _ in recorded]
        self._parameters = [parameter for _, parameter in recorded]
        self._groups = layer_groups(self._names)
        is_coarse = any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in self._parameters)
        self._tolerance = _HALF_TOLERANCE if is_coarse else _CHECK_TOLERANCE
        self._ring = Ring(self._parameters, self._window_steps)
        for hook in self._backward_hooks:
            hook.remove()
        self._backward_hooks = [
            one.register_post_accumulate_grad_hook(self._count_backward)  # type: ignore[no-untyped-call]
            for one in self._parameters
        ]

    def _take_unfrozen(self) -> None:
        if self._notes:
            self._flush()
        self._take(self._all)

    def _listed(self, parameters: Iterable[torch.Tensor]) -> Sequence[torch.Tensor]:
        given = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        own = self._parameters
        is_same = len(given) == len(own) and all(a is b for a, b in zip(given, own, strict=True))
        return own if is_same else given

    def _watch_steps(self) -> list[Any]:
        # Traced into a compiled optimizer.step, what is counted here would have each step compiled anew.
        before, after = (torch.compiler.disable(hook) for hook in (self._before_step, self._after_step))  # type: ignore[no-untyped-call]
        return [self._optimizer.register_step_pre_hook(before), self._optimizer.register_step_post_hook(after)]

    def _let_go(self) -> None:
        for hook in (*self._hooks, *self._backward_hooks):
            hook.remove()
        self._hooks, self._backward_hooks = [], []

    def _count_backward(self, _: torch.Tensor) -> None:
        self._num_backwards += 1

    def _open(self, *, is_clipped: bool) -> StepNote:
        """A new row; whether backward came in time is known from counts alone."""
        if self._notes and not self._notes[-1].is_stepped:
            # With a scaler the step was skipped; gradients that are zeroed in place then look like ones that accumulate.
            self._notes[-1].is_repeated = not self._has_scaler() and self._version_of_gradient() > self._version_clipped
        if len(self._notes) == len(self._ring):  # not when it fills: the optimizer's step of that row belongs to it
            self._flush()
        note = StepNote(self._step, float(self._optimizer.param_groups[0]["lr"]), is_clipped=is_clipped)
        note.is_stale = is_clipped and self._num_backwards == self._backwards_seen
        note.is_scaled = is_clipped and self._is_scaled()
        if is_clipped:
            self._num_clips += 1
        elif not self._num_clips:
            self._stepped_first = True
        self._backwards_seen = self._num_backwards
        self._notes.append(note)
        return note

    def _clipped(self, chosen: Sequence[torch.Tensor]) -> ClipStep:
        self._clipper(chosen)
        assert self._clipper.last is not None
        return self._clipper.last

    def _measured(self, chosen: Sequence[torch.Tensor]) -> ClipStep:
        """Nothing is changed: no bound fits gradients that are still scaled, and were infinite ones set to zero, the
        scaler would never find them, and never lower its scale."""
        norm_P, total = self._norms(chosen)
        return ClipStep(norm_P, total, total, torch.ones_like(total), torch.full_like(total, float("inf")))

    def _before_step(self, _: torch.optim.Optimizer, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """A closure runs backward and clipping within the step (Lightning does so), and then this is too early to look."""
        has_closure = (len(arguments) > 1 and arguments[1] is not None) or keywords.get("closure") is not None
        if not has_closure:
            self._observe_step()
        self._has_observed = not has_closure

    def _after_step(self, *_: Any) -> None:
        if not self._has_observed:
            self._observe_step()
        self._has_observed = False

    @torch.no_grad()
    def _observe_step(self) -> None:
        """The optimizer steps: note in which order, and now and then what it meets."""
        if not self._notes or self._notes[-1].is_stepped:
            self._open(is_clipped=False)
        note, index = self._notes[-1], len(self._notes) - 1
        note.is_overtaken = note.is_clipped and self._num_backwards != self._backwards_seen
        note.is_stale = note.is_stale and self._num_backwards > 0  # else the hooks do not fire here, as for sharded parameters
        note.is_stepped = True
        self._backwards_seen = self._num_backwards
        self._step += 1
        if is_misplaced(note):
            self._ring.write_unclipped(index, *self._norms(self._parameters))
        elif self._check_every and self._step % self._check_every == 0:
            self._ring.write_consumed(index, self._norms(self._trained())[1])

    def _norms(self, parameters: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        norm_type = self._clipper.spec.norm_type
        norm_P = tensor_norms(gradients_of(parameters), norm_type)
        return norm_P, total_norm(norm_P, norm_type)

    def _trained(self) -> list[torch.Tensor]:
        """What the optimizer trains, as far as it is this recorder's business."""
        trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        return [one for one in trained if self._ring.position(one) is not None] if self._is_partial else trained

    def _version_of_gradient(self) -> int:
        """Grows when a gradient is accumulated into, starts again when it was dropped and made anew."""
        gradient = next((one.grad for one in self._parameters if one.grad is not None), None)
        return gradient._version if gradient is not None else 0

    def _add_slices(self, slice_index: torch.Tensor | None, coefficient: torch.Tensor) -> None:
        if self._slices is None:
            return
        try:
            self._slices.add(slice_index, coefficient, self._scale())
        except ValueError as error:
            self._give_up_slices(error)

    def _slice_sums(self) -> torch.Tensor | None:
        """A copy; None where slices are not, or no longer, recorded."""
        if self._slices is None:
            return None
        try:
            return self._slices.sums.clone()
        except ValueError as error:  # an index that no slice has is found when steps are summed
            self._give_up_slices(error)
            return None

    def _give_up_slices(self, error: ValueError) -> None:
        """Telemetry never ends a training."""
        assert self._slices is not None
        _log.warning("%s: gradient mass by slice is no longer recorded: %s", self._model, error)
        self._slices.remove()
        self._slices = None

    def _scale(self) -> torch.Tensor | None:
        """What the loss was multiplied with; None without a scaler."""
        return self._scaler._get_scale_async() if self._scaler is not None and self._has_scaler() else None

    def _has_scaler(self) -> bool:
        return self._scaler is not None and self._scaler.is_enabled()

    def _is_scaled(self) -> bool:
        if self._scaler is None or not self._has_scaler():
            return False
        state = self._scaler._per_optimizer_states.get(id(self._optimizer))
        return state is None or state["stage"] is OptState.READY

    def _flush(self) -> None:
        rows, sums = self._ring.fetch(len(self._notes), self._slice_sums())
        notes, taken = self._notes, [i for i, note in enumerate(self._notes) if note.is_stepped]
        self._num_skipped += sum(not note.is_stepped and not note.is_repeated and not note.is_stale for note in notes)
        faults = find_faults(rows, notes, self._setting())
        steps, done = rows[taken], [notes[i] for i in taken]
        self._notes, self._clipped_ids = [], frozenset()
        self._ring.clear()
        if not taken and not faults and self._hooks:
            return  # only skipped steps: told with the next window, whose first step is the same
        slices: tuple[SliceGradient, ...] = ()
        if self._slices is not None and sums is not None:
            slices = self._slices.build(sums)
            self._slices.reset()
        window = build_window(
            steps,
            self._names,
            run_id=self._run_id,
            model=self._model,
            step_first=self._step - len(taken),
            started_at_ms=self._window_started_ms,
            ended_at_ms=self._clock.now_ms(),
            learning_rate_S=np.array([note.learning_rate for note in done]),
            groups=self._groups,
        )
        is_misplaced_S = np.array([is_misplaced(note) for note in done], bool)
        is_checked_S = is_misplaced_S | ~np.isnan(steps[:, Column.CONSUMED])
        is_broken_S = np.array([is_broken_promise(row, self._tolerance) for row in steps], bool)
        window = msgspec.structs.replace(
            window,
            num_skipped=self._num_skipped,
            num_checked=int(is_checked_S.sum()),
            num_ineffective=int((is_misplaced_S | is_broken_S).sum()),
            optimizer=type(self._optimizer).__name__,
            clip=self._clipper.spec,
            slices=slices,
            spikes=find_spikes(steps, self._names, [note.step for note in done], [note.batch_id for note in done]),
            faults=faults,
        )
        self._num_skipped = 0
        self._totals.append(steps[:, Column.TOTAL].astype(np.float32))
        self._window_started_ms = window.ended_at_ms
        self._on_window(window)

    def _setting(self) -> Setting:
        trained = self._trained()
        trained_ids = {id(parameter) for parameter in trained}
        is_known = bool(self._clipped_ids)
        excused = self._clipped_ids | {id(parameter) for _, parameter in self._frozen}  # in this window
        lacking = [one for one in trained if one.requires_grad and id(one) not in excused] if is_known else []
        return Setting(
            names=self._names,
            has_clipped_before=self._num_clips > sum(note.is_clipped for note in self._notes),
            has_stepped_first=self._stepped_first,
            has_half=any(parameter.dtype is torch.float16 for parameter in self._parameters),
            unclipped=[self._name(one) for one in lacking],
            untrained=[name for name, one in self._own() if is_known and id(one) not in trained_ids],
            resting=[name for name, one in self._own() if not one.requires_grad],
            tolerance=self._tolerance,
        )

    def _own(self) -> Iterator[tuple[str, torch.Tensor]]:
        return zip(self._names, self._parameters, strict=True)

    def _name(self, parameter: torch.Tensor) -> str:
        place = self._ring.position(parameter)
        return f"a tensor of shape {tuple(parameter.shape)}" if place is None else self._names[place]
