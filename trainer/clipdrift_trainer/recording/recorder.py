"""The recorder: clips, and keeps norms, coefficient, bound and loss in a ring on the gradients' device until the window is
full.

Between two flushes the host never waits for the device; a flush is one copy. Whether the optimizer really consumed what
clipping promised is checked by a hook on a sample of the steps.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import GradWindow, LayerNorms, NormQuantiles
from clipdrift_trainer.clipping.norms import gradients_of, tensor_norms, total_norm
from clipdrift_trainer.clipping.rules import Clipper

_TOTAL, _AFTER, _COEFFICIENT, _BOUND, _LOSS = range(5)
_NUM_EXTRA = 5
_BUCKETS_PER_OCTAVE = 4
_BUCKET_LIMIT = 80
_CHECK_TOLERANCE = 1e-3  # float32 sums of a million entries differ by less
_BFLOAT16_TOLERANCE = 1e-2  # one rounding of a bfloat16 entry is up to 0.4 %
OnWindow = Callable[[GradWindow], None]


class Recorder:
    """Clips and records; one call a step, between backward and `optimizer.step()`.

    Args:
        clipper: The rule.
        parameters: Named parameters of the model, as `module.named_parameters()` gives them.
        optimizer: Whose step is checked; its first group's learning rate is recorded.
        run_id: Identity of the run.
        model: The model's name.
        on_window: Called with each finished window, in the training thread; must not block.
        clock: Gives the windows' times.
        window_steps: Steps in a window.
        check_every: The optimizer's consumed norm is compared with the promise on each so-manieth step; 0: never.

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
        >>> windows[0].num_steps, windows[0].num_ineffective
        (2, 0)
    """

    def __init__(
        self,
        clipper: Clipper,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        optimizer: torch.optim.Optimizer,
        *,
        run_id: str,
        model: str,
        on_window: OnWindow,
        clock: Clock,
        window_steps: int = 50,
        check_every: int = 10,
    ) -> None:
        if window_steps < 1:
            raise ValueError(f"window_steps must be >= 1, got {window_steps!r}")
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        if not named:
            raise ValueError("there is no parameter that requires a gradient")
        self._names = [name for name, _ in named]
        self._parameters = [parameter for _, parameter in named]
        self._clipper = clipper
        self._optimizer = optimizer
        self._run_id = run_id
        self._model = model
        self._on_window = on_window
        self._clock = clock
        self._check_every = check_every
        is_coarse = any(parameter.dtype is torch.bfloat16 for parameter in self._parameters)
        self._tolerance = _BFLOAT16_TOLERANCE if is_coarse else _CHECK_TOLERANCE
        self._ring = torch.zeros(window_steps, len(named) + _NUM_EXTRA, device=self._parameters[0].device)
        self._filled = 0
        self._step = 0
        self._promised: torch.Tensor | None = None
        self._learning_rate_sum = 0.0
        self._num_checked = 0
        self._num_ineffective = 0
        self._window_started_ms = clock.now_ms()
        self._totals: list[npt.NDArray[np.float32]] = []
        self._hook = optimizer.register_step_pre_hook(self._check_consumed)

    def clip(self, loss: torch.Tensor) -> torch.Tensor:
        """Clip the model's gradients and record the step; returns the norm before clipping, a 0-d tensor."""
        if self._filled == len(self._ring):  # not when it fills: the optimizer's check of that step belongs to it
            self._flush()
        norm_before_clip = self._clipper(self._parameters)
        step = self._clipper.last
        assert step is not None
        row = self._ring[self._filled]
        present = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        if len(present) == len(self._parameters):
            row[:-_NUM_EXTRA] = step.norm_P
        else:
            row.zero_()
            if present:
                row[torch.tensor(present, device=row.device)] = step.norm_P
        tail = torch.stack([step.norm_before, step.norm_after, step.coefficient, step.bound, loss.detach().float()])
        row[-_NUM_EXTRA:] = tail
        self._promised = step.norm_after
        self._learning_rate_sum += float(self._optimizer.param_groups[0]["lr"])
        self._filled += 1
        self._step += 1
        return norm_before_clip

    def finish(self) -> None:
        """Send what is left and let go of the optimizer. Idempotent."""
        if self._filled:
            self._flush()
        self._hook.remove()

    def norm_quantiles(self) -> NormQuantiles | None:
        """Quantiles of the finite norms of the last half of the run; None before anything was recorded."""
        if not self._totals:
            return None
        norms = np.concatenate(self._totals)
        late = norms[len(norms) // 2 :]
        late = late[np.isfinite(late)]
        if not len(late):
            return None
        p10, p50, p90, p99 = (float(q) for q in np.percentile(late, (10, 50, 90, 99)))
        return NormQuantiles(p10=p10, p50=p50, p90=p90, p99=p99)

    def _check_consumed(self, *_: Any) -> None:
        """Runs right before the optimizer steps: does it see what clipping left behind?"""
        is_due = self._check_every > 0 and self._step % self._check_every == 0
        if not is_due:
            self._promised = None
            return
        norm_type = self._clipper.spec.norm_type
        consumed = float(total_norm(tensor_norms(gradients_of(self._parameters), norm_type), norm_type))
        promised = float("nan") if self._promised is None else float(self._promised)  # nan: clip was not called in this step
        self._num_checked += 1
        if not math.isclose(consumed, promised, rel_tol=self._tolerance, abs_tol=1e-7):
            self._num_ineffective += 1
        self._promised = None

    def _flush(self) -> None:
        rows = self._ring[: self._filled].cpu().numpy().astype(np.float64)
        self._totals.append(rows[:, -_NUM_EXTRA + _TOTAL].astype(np.float32))
        window = build_window(
            rows,
            self._names,
            run_id=self._run_id,
            model=self._model,
            step_first=self._step - self._filled,
            started_at_ms=self._window_started_ms,
            ended_at_ms=self._clock.now_ms(),
        )
        window = msgspec.structs.replace(
            window,
            num_checked=self._num_checked,
            num_ineffective=self._num_ineffective,
            learning_rate_sum=self._learning_rate_sum,
            optimizer=type(self._optimizer).__name__,
            clip=self._clipper.spec,
        )
        self._filled = 0
        self._num_checked = self._num_ineffective = 0
        self._learning_rate_sum = 0.0
        self._window_started_ms = window.ended_at_ms
        self._on_window(window)


def build_window(
    rows: npt.NDArray[np.float64],
    names: list[str],
    *,
    run_id: str,
    model: str,
    step_first: int,
    started_at_ms: int,
    ended_at_ms: int,
) -> GradWindow:
    """The window of recorded steps: rows [S, P+5] with per-tensor norms, then total, after, coefficient, bound, loss."""
    extra = rows[:, -_NUM_EXTRA:]
    total_S = extra[:, _TOTAL]
    is_finite_S = np.isfinite(total_S)
    norm_S, bound_S = total_S[is_finite_S], extra[is_finite_S, _BOUND]
    layer_SP = np.where(np.isfinite(rows[:, :-_NUM_EXTRA]), rows[:, :-_NUM_EXTRA], 0.0)
    loss_S = extra[:, _LOSS]
    last_bound = float(extra[-1, _BOUND])
    return GradWindow(
        run_id=run_id,
        model=model,
        started_at_ms=started_at_ms,
        ended_at_ms=ended_at_ms,
        step_first=step_first,
        num_steps=len(rows),
        # A bound on entries (value) leaves a larger norm alone when no entry is above it.
        num_clipped=int(((norm_S > bound_S) & (extra[is_finite_S, _COEFFICIENT] < 1.0)).sum()),
        num_nonfinite=int((~is_finite_S).sum()),
        num_zero=int((norm_S == 0).sum()),
        max_norm_last=last_bound if math.isfinite(last_bound) else None,
        norm_sum=float(norm_S.sum()),
        norm_sq_sum=float((norm_S**2).sum()),
        norm_min=float(norm_S.min()) if len(norm_S) else None,
        norm_max=float(norm_S.max()) if len(norm_S) else 0.0,
        norm_removed_sum=float(np.maximum(0.0, norm_S - extra[is_finite_S, _AFTER]).sum()),
        coefficient_sum=float(extra[is_finite_S, _COEFFICIENT].sum()),
        coefficient_min=float(extra[is_finite_S, _COEFFICIENT].min()) if len(norm_S) else 1.0,
        norm_after_max=float(extra[:, _AFTER].max()),
        loss_sum=float(loss_S[np.isfinite(loss_S)].sum()),
        norm_histogram=norm_histogram(norm_S),
        layers=tuple(
            LayerNorms(
                name=name,
                norm_sum=float(layer_SP[:, i].sum()),
                norm_sq_sum=float((layer_SP[:, i] ** 2).sum()),
                norm_max=float(layer_SP[:, i].max()),
            )
            for i, name in enumerate(names)
        ),
    )


def norm_histogram(norm_S: npt.NDArray[np.float64]) -> dict[int, int]:
    """Counts by bucket b, norms in [2**(b/4), 2**((b+1)/4)), b clipped to -80..80; zeros are in bucket -80.

    Example:
        >>> norm_histogram(np.array([1.0, 1.1, 2.0]))
        {0: 2, 4: 1}
    """
    with np.errstate(divide="ignore"):
        bucket_S = np.floor(np.log2(norm_S) * _BUCKETS_PER_OCTAVE)
    buckets, counts = np.unique(np.clip(bucket_S, -_BUCKET_LIMIT, _BUCKET_LIMIT).astype(int), return_counts=True)
    return {int(b): int(c) for b, c in zip(buckets, counts, strict=True)}


def merge(first: GradWindow, second: GradWindow) -> GradWindow:
    """Two windows of one run, `first` being the earlier, as if their steps had been recorded together."""
    if (first.run_id, first.model) != (second.run_id, second.model):
        raise ValueError(f"windows of different runs do not merge: {first.run_id!r} and {second.run_id!r}")
    summed = {name: getattr(first, name) + getattr(second, name) for name in _SUMS}
    histogram = dict(first.norm_histogram)
    for bucket, count in second.norm_histogram.items():
        histogram[bucket] = histogram.get(bucket, 0) + count
    minima = [norm for norm in (first.norm_min, second.norm_min) if norm is not None]
    layers = {layer.name: layer for layer in first.layers}
    for layer in second.layers:
        layers[layer.name] = _merge_layer(layers[layer.name], layer) if layer.name in layers else layer
    return msgspec.structs.replace(
        second,
        started_at_ms=first.started_at_ms,
        step_first=first.step_first,
        norm_min=min(minima) if minima else None,
        norm_max=max(first.norm_max, second.norm_max),
        coefficient_min=min(first.coefficient_min, second.coefficient_min),
        norm_after_max=max(first.norm_after_max, second.norm_after_max),
        norm_histogram=histogram,
        layers=tuple(layers.values()),
        **summed,
    )


_SUMS = (
    "num_steps", "num_clipped", "num_nonfinite", "num_skipped", "num_zero", "num_ineffective", "num_checked",
    "learning_rate_sum", "norm_sum", "norm_sq_sum", "norm_removed_sum", "coefficient_sum", "loss_sum",
)  # fmt: skip


def _merge_layer(a: LayerNorms, b: LayerNorms) -> LayerNorms:
    return LayerNorms(
        name=a.name,
        norm_sum=a.norm_sum + b.norm_sum,
        norm_sq_sum=a.norm_sq_sum + b.norm_sq_sum,
        norm_max=max(a.norm_max, b.norm_max),
    )
