"""Clipping and its record in a Hugging Face `Trainer`."""

import logging
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.integrations.loop import LoopRecorder, choose_clipper, watch

try:
    from transformers import Trainer, TrainerCallback
except ModuleNotFoundError as error:
    message = f"{error}; this is for the Trainer of transformers: pip install 'transformers>=5'"
    raise ModuleNotFoundError(message, name=error.name) from error

_log = logging.getLogger(__name__)


def record_clipping(trainer: Trainer, *, clip: ClipSpec | None = None, run_id: str = "", **settings: Any) -> None:
    """Make a Trainer's clipping ours, and record it. Call it before `trainer.train()`.

    The Trainer clips by `accelerator.clip_grad_norm_`; while it trains, that call comes here. So `grad_norm` in its logs stays
    what it was (the norm before clipping, of the last step before each log), and nothing is computed twice. Accumulated batches
    are one step. Each checkpoint folder gets a file with the state of rule and recorder (`clipdrift-RANK.pt`).

    Args:
        trainer: Yours.
        clip: The rule; None: the global norm by `max_grad_norm` of its arguments, 1.0 by default, and none where that is 0.
        run_id: Identity of the run; made up if empty, and kept in checkpoints. Further calls of `train` are further runs,
            `RUN-2` and so on.
        settings: Those of `watch`: name, sinks, window_steps, check_every, slices, clock.

    Raises:
        ConfigError: `clip` is given and `max_grad_norm` is not 0: only one of them can hold. Or, in training, the Trainer clips
            by code of its own.
    """
    max_norm = trainer.args.max_grad_norm or None
    if clip is not None and max_norm is not None:
        raise ConfigError(
            f"clip={clip.kind!r} is given, and max_grad_norm={max_norm!r} would clip too (it is 1.0 by default): "
            "set max_grad_norm=0.0 in TrainingArguments, or leave clip out"
        )
    choose_clipper(max_norm, clip)  # refuses what cannot be, before the training starts
    clipping = _ClippingOf(trainer, (max_norm, clip), run_id, settings)
    trainer.add_callback(clipping)
    train = trainer.train

    @wraps(train)
    def noting_where_it_resumes(resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        clipping.resumes_from = None if isinstance(resume_from_checkpoint, bool) else resume_from_checkpoint
        return train(resume_from_checkpoint, *args, **kwargs)

    trainer.train = noting_where_it_resumes


class _ClippingOf(TrainerCallback):  # type: ignore[misc]
    """Stands in for the accelerator's clipping from the first step to the last."""

    def __init__(self, trainer: Any, rule: tuple[float | None, ClipSpec | None], run_id: str, settings: dict[str, Any]) -> None:
        self._trainer = trainer
        self._rule = rule
        self._run_id = run_id
        self._num_runs = 0
        self._settings = settings
        self._recorder: LoopRecorder | None = None
        self._has_clipped = False
        self.resumes_from: str | None = None  # no callback is told; None: the folder that its number of steps names

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._let_go()  # of a training that an error ended
        accelerator = self._trainer.accelerator
        self._recorder = watch(
            self._trainer.model_wrapped,
            self._trainer.optimizer,
            run_id=self._next_run_id(),
            clip=choose_clipper(*self._rule),
            scaler=accelerator.scaler,
            group=dist.group.WORLD if args.world_size > 1 else None,
            **self._settings,
        )
        if state.global_step:
            self._resume(args, state)
        self._has_clipped = False
        self._backward = accelerator.backward
        accelerator.backward, accelerator.clip_grad_norm_ = self._note_and_go_back, self._clip

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Clips where the Trainer has not asked for it, as some of its releases do when `max_grad_norm` is 0.

        Raises:
            ConfigError: It has clipped by itself, as subclasses do and as transformers does with parameters on several meshes.
        """
        if not self._has_clipped:
            if args.max_grad_norm:
                raise ConfigError(
                    f"{type(self._trainer).__name__} clips past accelerator.clip_grad_norm_, where nothing is recorded: set "
                    f"max_grad_norm=0.0 and give record_clipping the rule, clip=ClipSpec(kind='global_norm', "
                    f"max_norm={args.max_grad_norm!r})"
                )
            self._clip()
        self._has_clipped = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = _checkpoint(args, state)
        if self._recorder is not None and folder.is_dir():
            torch.save(self._recorder.state_dict(), folder / f"clipdrift-{args.process_index}.pt")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._recorder is not None:
            self._recorder.finish()
        self._let_go()

    def _next_run_id(self) -> str:
        self._num_runs += 1
        return f"{self._run_id}-{self._num_runs}" if self._run_id and self._num_runs > 1 else self._run_id

    def _clip(self, *_: Any, **__: Any) -> torch.Tensor:
        """In place of `accelerator.clip_grad_norm_(parameters, max_norm, norm_type)`, once a step."""
        assert self._recorder is not None
        self._trainer.accelerator.unscale_gradients()
        self._has_clipped = True
        return self._recorder.clip()

    def _note_and_go_back(self, loss: torch.Tensor, **settings: Any) -> None:
        """In place of `accelerator.backward(loss)`: it divides the loss once more, by steps of its own."""
        assert self._recorder is not None
        self._recorder.note(loss / self._trainer.accelerator.gradient_accumulation_steps)
        self._backward(loss, **settings)

    def _resume(self, args: Any, state: Any) -> None:
        assert self._recorder is not None
        folder = _checkpoint(args, state) if self.resumes_from is None else Path(self.resumes_from)
        path = folder / f"clipdrift-{args.process_index}.pt"
        if path.is_file():
            self._recorder.take_up(torch.load(path, weights_only=True))
        else:
            self._recorder.begin_at(state.global_step)
            _log.warning("there is no %s: the record begins anew at step %d", path, state.global_step)

    def _let_go(self) -> None:
        if self._recorder is None:
            return
        self._recorder.abandon()
        self._recorder = None
        for name in ("backward", "clip_grad_norm_"):
            vars(self._trainer.accelerator).pop(name, None)


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
