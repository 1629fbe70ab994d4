"""One training run: a task, rows, a clipping rule and a seed give a fitted module and what clipping did to it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_contract.clock import Clock, SystemClock
from clipdrift_contract.events import ClipSpec, GradWindow, NormQuantiles, PrivacyBudget, SliceGradient
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.recording.per_sample_norms import NormSampler
from clipdrift_trainer.recording.recorder import Recorder
from clipdrift_trainer.recording.slices import SliceMass, SliceSums, head_of
from clipdrift_trainer.recording.window import merge
from clipdrift_trainer.tasks.task import BuildContext, Rows, Task, encode

if TYPE_CHECKING:
    from clipdrift_trainer.clipping.per_sample import PerSample

_log = logging.getLogger(__name__)
OnProgress = Callable[[int, int], None]
_PREDICT_ROWS = 8_192


@dataclass(frozen=True)
class Fit:
    """A fitted module and the sums over all its steps."""

    module: nn.Module
    optimizer: str
    learning_rate: float
    num_parameters: int
    norm_quantiles: NormQuantiles | None
    total: GradWindow
    privacy: PrivacyBudget | None = None  # of private training by per_sample
    exact_slices: tuple[SliceGradient, ...] = ()  # of the steps whose samples were measured exactly

    @property
    def removed_mass_ratio(self) -> float:
        """Share of the norms before clipping that clipping took away: sum max(0, n - c) / sum n; 0 for no gradients."""
        return self.total.norm_removed_sum / self.total.norm_sum if self.total.norm_sum > 0 else 0.0

    @property
    def clip_rate_ratio(self) -> float:
        """Share of the finite steps whose norm was above the bound."""
        num_finite = self.total.num_steps - self.total.num_nonfinite
        return self.total.num_clipped / num_finite if num_finite else 0.0


def fit(
    task: Task,
    rows: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    clip: ClipSpec,
    seed: int,
    *,
    run_id: str = "",
    model: str = "",
    on_window: Callable[[GradWindow], None] | None = None,
    on_progress: OnProgress | None = None,
    clock: Clock | None = None,
    exact_norms_every: int = 0,
) -> Fit:
    """Train the task's model on `rows`; on every `exact_norms_every`-th step measure each sample's exact gradient norm (0:
    never; never again once that fails, as with batch normalisation).

    The same arguments give the same weights, bit for bit, on one machine's CPU with one thread; private training, whose
    randomness is secret, is the exception. torch's global random state is as it was before.

    Raises:
        ValueError: There are no rows, or the rule does not fit the module.
        BudgetError: Private training would spend more than its max_epsilon.
    """
    if not len(rows):
        raise ValueError("there are no rows to train on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = task.build(BuildContext(rows, vocabularies))
        optimizer = task.optimizer(module)
        rule = _per_sample_rule(task, module, optimizer, clip, len(rows), seed) if clip.kind == "per_sample" else None
        clipper = make_clipper(clip) if rule is None else rule
        sampler: NormSampler | None = None
        if exact_norms_every and rule is None:  # clipping by sample has them anyway
            sampler = NormSampler(module, task.loss, slice_names(task), every=exact_norms_every)
        windows: list[GradWindow] = []

        def keep(window: GradWindow) -> None:
            window = window if rule is None else rule.complete(window)
            windows.append(window)
            if on_window is not None:
                on_window(window)
            if on_progress is not None:
                on_progress(window.step_first + window.num_steps, task.num_steps)

        recorder = Recorder(
            clipper,
            module.named_parameters(),
            optimizer,
            run_id=run_id,
            model=model,
            on_window=keep,
            clock=clock or SystemClock(),
            slices=_slice_sums(task, module, rule),
        )

        def measure(inputs: dict[str, torch.Tensor], label: torch.Tensor, slices: torch.Tensor) -> None:
            nonlocal sampler
            if sampler is None or clipper.last is None:
                return
            try:
                sampler.step(inputs, label, slices, clipper.last.coefficient)
            except Exception as error:  # noqa: BLE001  what only looks must not end the training
                _log.warning("exact gradient norms are left out of the record, they cannot be measured: %s", error)
                sampler = None

        _step_through(task, module, optimizer, recorder, rows, encode(task, rows, vocabularies), seed, rule, measure)
        recorder.finish()
        if rule is not None:
            rule.finish()
    module.eval()
    return Fit(
        module=module,
        optimizer=type(optimizer).__name__,
        learning_rate=float(optimizer.param_groups[0]["lr"]),
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        norm_quantiles=recorder.norm_quantiles() if rule is None else rule.norm_quantiles(),
        total=reduce(merge, windows),
        privacy=None if rule is None else rule.privacy(),
        exact_slices=() if sampler is None else sampler.slices(),
    )


def per_sample_module() -> ModuleType:
    """`clipping.per_sample`, which needs the extra `privacy`.

    Raises:
        ValueError: Opacus is not there.
    """
    try:
        return import_module("clipdrift_trainer.clipping.per_sample")
    except ImportError as error:
        raise ValueError("clipping by per_sample needs Opacus: pip install 'clipdrift[privacy]'") from error


def _per_sample_rule(
    task: Task, module: nn.Module, optimizer: torch.optim.Optimizer, clip: ClipSpec, num_rows: int, seed: int
) -> "PerSample":
    rule: PerSample = per_sample_module().PerSample(
        clip, module, optimizer, task.loss,
        num_rows=num_rows, batch_size=min(task.batch_size, num_rows), num_steps=task.num_steps, seed=seed,
    )  # fmt: skip
    return rule


def _step_through(
    task: Task,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    recorder: Recorder,
    rows: Rows,
    tensors: dict[str, torch.Tensor],
    seed: int,
    rule: "PerSample | None",
    measure: Callable[[dict[str, torch.Tensor], torch.Tensor, torch.Tensor], None],
) -> None:
    label = torch.from_numpy(rows.label).to(torch.float32 if task.kind == "regression" else torch.int64)
    slices = torch.from_numpy(slice_index(task, rows).astype(np.int64))
    generator = np.random.default_rng(seed)

    def draw() -> torch.Tensor:
        if rule is not None and rule.is_private:  # epsilon holds for its way of drawing only
            return rule.draw()
        return torch.from_numpy(generator.integers(0, len(rows), task.batch_size))

    module.train()
    for _ in range(task.num_steps):
        batch = draw()
        inputs = {name: tensor[batch] for name, tensor in tensors.items()}
        if rule is None:
            loss = task.loss(module(inputs), label[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        else:
            loss = rule.backward(inputs, label[batch])
        recorder.clip(loss, slice_index=slices[batch])
        measure(inputs, label[batch], slices[batch])
        optimizer.step()


def _slice_sums(task: Task, module: nn.Module, rule: "PerSample | None") -> SliceSums | None:
    """None where the task declares no slices, or the module has no linear layer that gives its output."""
    if task.slices is None:
        return None
    if rule is not None:
        return rule.slices(slice_names(task))
    try:
        head = head_of(module, 1 if task.kind == "regression" else len(task.classes))
    except ValueError:
        return None
    return SliceMass(head, slice_names(task))


def predict_logits(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> npt.NDArray[np.float32]:
    """The module's raw output [N, K] for encoded rows, in pieces so that memory stays bounded."""
    num_rows = len(next(iter(tensors.values())))
    with torch.inference_mode():
        pieces = [
            module({name: tensor[start : start + _PREDICT_ROWS] for name, tensor in tensors.items()})
            for start in range(0, num_rows, _PREDICT_ROWS)
        ]
    joined: npt.NDArray[Any] = torch.cat(pieces).numpy() if pieces else np.zeros((0, 1), np.float32)
    return joined.astype(np.float32)


def to_scores(logits_NK: npt.NDArray[np.float32], kind: TaskKind, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Class probabilities softmax(logits / temperature), rows summing to 1; for regression the value itself."""
    if kind == "regression":
        return logits_NK.astype(np.float64)
    scaled_NK = logits_NK.astype(np.float64) / temperature
    exponent_NK = np.exp(scaled_NK - scaled_NK.max(axis=1, keepdims=True))
    scores: npt.NDArray[np.float64] = exponent_NK / exponent_NK.sum(axis=1, keepdims=True)
    return scores
