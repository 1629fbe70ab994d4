"""How much gradient each slice of the data contributes, told by the head: the last linear layer, whose per-sample gradient norm
comes for almost nothing.

Axes: B samples, T positions, H inputs and K outputs of the head, S slices, C room for samples under torch.compile.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_contract.events import SliceGradient
from clipdrift_trainer.recording.ghost import linear_squares

_log = logging.getLogger(__name__)
_is_counting = True
_STEPS_TOGETHER = 32  # added steps whose arithmetic is done in one go: a step then costs two kernels
_MAX_WAITING = 4_096  # backward passes that nobody added: someone trains past the recorder
LossReduction = Literal["mean", "sum"]


class SliceSums(Protocol):
    """What the recorder asks of whoever sums gradient norms by slice. Called by the training thread; must not wait."""

    names: tuple[str, ...]

    @property
    def sums(self) -> torch.Tensor:
        """float32 [S, 4]: samples, mass, removed mass, clipped samples, since the last `reset`."""
        ...

    def add(
        self, slice_index_B: torch.Tensor | None, coefficient: torch.Tensor, grad_scale: torch.Tensor | float | None = None
    ) -> None: ...

    def reset(self) -> None: ...

    def build(self, sums_S4: npt.NDArray[np.floating[Any]]) -> tuple[SliceGradient, ...]: ...

    def remove(self) -> None: ...


class SliceMass:
    """Sums, by slice, of the norms of the samples' gradients with respect to the head's weight and bias.

    Exact for the head whatever the loss is, since the gradient of the head's output is taken from backward itself. Over all
    parameters it is a stand-in that ranks and is no magnitude: the head holds 8 to 86 % of the squared norm. It ranks samples
    well and slices not always (`make bench-fidelity`; docs/design/trainer.md has its figures).

    Counted is a forward pass of the head in training mode (`head.training`) that is followed by a backward pass; neither
    evaluation nor a forward without backward leaves anything behind. Everything stays on the head's device and nothing waits
    for it. Nothing here raises in a forward or backward pass.

    Under torch.compile the hook is traced and breaks no graph, given that this object is made before the first call of the
    compiled module. Then each backward pass must have been preceded by one forward pass of the head, of at most `compiled_room`
    samples, and micro-batches between two calls of `add` must be of one size.

    Args:
        head: The layer; see `head_of`.
        names: Names of the slices.
        loss_reduction: "mean" where the loss is the mean over the batch's samples: the samples' own gradients are then B times
            what backward shows; "sum" where it is their sum. A loss that is divided further, as for gradient accumulation,
            makes all masses smaller by that number alike.
        compiled_room: Most samples of a batch under torch.compile.

    Source: the gradient of one sample is the outer product d h^T (bias: d), so its norm is ||d|| sqrt(||h||^2 + 1); over
    positions see `ghost.linear_squares`.

    Example:
        >>> head = nn.Linear(2, 1)
        >>> mass = SliceMass(head, ("a", "b"), loss_reduction="sum")
        >>> head(torch.tensor([[2.0, 2.0], [0.0, 0.0]])).sum().backward()
        >>> mass.add(torch.tensor([0, 1]), coefficient=torch.tensor(0.25))
        >>> [(s.slice, s.grad_mass_sum, s.grad_mass_removed_sum) for s in mass.build(mass.sums.numpy())]
        [('a', 3.0, 2.25), ('b', 1.0, 0.75)]
    """

    def __init__(
        self,
        head: nn.Linear,
        names: Sequence[str],
        *,
        loss_reduction: LossReduction = "mean",
        compiled_room: int = 4_096,
    ) -> None:
        if not isinstance(head, nn.Linear):
            raise ValueError(f"the head must be a torch.nn.Linear, got {type(head).__name__}")
        if isinstance(names, str) or not names or len(set(names)) != len(names):
            raise ValueError(f"names must be those of the slices, at least one and no name twice, got {names!r}")
        if loss_reduction not in ("mean", "sum"):
            raise ValueError(f"loss_reduction must be 'mean' or 'sum', got {loss_reduction!r}")
        if compiled_room < 1:
            raise ValueError(f"compiled_room must be >= 1, got {compiled_room!r}")
        self.names = tuple(names)
        self.loss_reduction: LossReduction = loss_reduction
        self._head = head
        self._has_bias = head.bias is not None
        self._num_forward = 0
        self._waiting: list[_Pass] = []  # since the last call of `add`
        self._steps: list[_Step] = []  # added, not yet in the sums
        self._has_warned = False
        self._sums = torch.zeros(len(names) + 1, 4, device=head.weight.device)
        self._probe = torch.zeros(compiled_room, device=head.weight.device, requires_grad=True)
        self._handles = [
            head.register_forward_hook(self._on_forward),
            self._probe.register_post_accumulate_grad_hook(self._take_from_probe),  # type: ignore[no-untyped-call]
        ]

    def add(
        self, slice_index_B: torch.Tensor | None, coefficient: torch.Tensor, grad_scale: torch.Tensor | float | None = None
    ) -> None:
        """Add what was collected since the last call; once an optimizer step, after backward.

        Args:
            slice_index_B: Integers in 0..S-1, one a sample, in the order of the forward passes since the last call; -1: in no
                slice. None: no sample is in a slice, and what was collected is let go.
            coefficient: 0-d, what clipping multiplied the step's gradient with; 1 is "not clipped".
            grad_scale: What the loss was multiplied with before backward (the scale of `torch.amp.GradScaler`).

        A sample whose gradient is not finite counts as a sample, with mass 0.

        Raises:
            ValueError: There are more or fewer indices than samples were collected.
        """
        passes, self._waiting = self._waiting, []
        if slice_index_B is None:
            return
        passes = self._checked(passes, slice_index_B)
        self._steps.append(_Step(passes, slice_index_B.clone(), coefficient.clone(), grad_scale))
        if len(self._steps) >= _STEPS_TOGETHER:
            self._fold()

    @property
    def sums(self) -> torch.Tensor:
        """float32 [S, 4] on the head's device: samples, mass, removed mass (mass * (1 - coefficient)), samples of clipped
        steps.

        Raises:
            ValueError: An index is above S-1 or below -1. (Found on the CPU only: elsewhere the host would have to wait, and
                such a sample is in no slice.)
        """
        if self._steps:
            self._fold()
        return self._sums[:-1]

    def reset(self) -> None:
        """Begin again with sums of 0."""
        self._steps = []
        self._sums.zero_()

    def build(self, sums_S4: npt.NDArray[np.floating[Any]]) -> tuple[SliceGradient, ...]:
        """The event's rows out of a host copy of `sums`, one a slice in the names' order. `loss_sum` is 0: not measured."""
        return slice_gradients(self.names, sums_S4, "head")

    def remove(self) -> None:
        """Let go of the head. Idempotent."""
        for handle in self._handles:
            handle.remove()
        self._waiting = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "SliceMass":
        """The same object: a copy of the module (an average of weights, say) must feed nobody, see `_on_forward`."""
        return self

    def _on_forward(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        if not _is_counting or module is not self._head or not module.training or not output.requires_grad:
            return None
        hidden = inputs[0].detach()
        if torch.compiler.is_compiling():
            if output.dim() < 2 or len(output) > len(self._probe):
                return None
            kept: torch.Tensor = _Tap.apply(output, hidden, self._probe[: len(output)], self)  # type: ignore[no-untyped-call]
            return kept
        self._num_forward += 1
        output.register_hook(partial(self._on_gradient, self._num_forward, hidden))  # type: ignore[no-untyped-call]
        return None

    def _on_gradient(self, number: int, hidden: torch.Tensor, gradient: torch.Tensor) -> None:
        if gradient.dim() == 2:  # the rest of the arithmetic waits until many steps share it
            hidden_B = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
            self._keep(_Pass(number, torch.linalg.vector_norm(gradient.detach(), dim=-1, dtype=torch.float32), hidden_B))
        else:
            self._keep(self._finished(number, self.norms(hidden, gradient.detach())))

    def _take_from_probe(self, probe: torch.Tensor) -> None:
        assert probe.grad is not None
        self._num_forward += 1
        self._keep(self._finished(self._num_forward, probe.grad)._replace(is_padded=True))
        probe.grad = None

    def _keep(self, one: "_Pass") -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting = []
            if not self._has_warned:
                _log.warning("%d backward passes went by without a recorded step; their slices are lost", _MAX_WAITING)
            self._has_warned = True
        self._waiting.append(one)

    def norms(self, hidden: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """float32 [B]: norms of each sample's part in the gradient of the head, from its input [B, ..., H] and the gradient of
        its output [B, ..., K]; one sample where they have one axis."""
        if gradient.dim() < 2:
            hidden, gradient = hidden[None], gradient[None]
        if gradient.dim() > 2:
            return linear_squares(hidden, gradient, bias=self._has_bias).sqrt()
        hidden_B = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
        norm_B: torch.Tensor = torch.linalg.vector_norm(gradient, dim=-1, dtype=torch.float32) * self._with_bias(hidden_B)
        return norm_B

    def _finished(self, number: int, norm_B: torch.Tensor) -> "_Pass":
        return _Pass(number, norm_B, torch.full_like(norm_B, 0.0 if self._has_bias else 1.0))  # a factor of 1

    def _with_bias(self, hidden_B: torch.Tensor) -> torch.Tensor:
        return (hidden_B.square() + 1.0).sqrt() if self._has_bias else hidden_B

    def _checked(self, passes: list["_Pass"], slice_index_B: torch.Tensor) -> list["_Pass"]:
        """The passes in the order of their forward, cut to the samples that they had."""
        if len(passes) == 1 and passes[0].norm_B.shape == slice_index_B.shape and not passes[0].is_padded:
            return passes  # the common case, quickly
        num_expected = len(slice_index_B)
        if passes and passes[0].is_padded:
            each, rest = divmod(num_expected, len(passes))
            if rest or each > len(self._probe):
                raise ValueError(
                    f"slice_index has {num_expected} entries for {len(passes)} backward passes under torch.compile; there the "
                    f"micro-batches of a step must be of one size, of at most compiled_room={len(self._probe)} samples"
                )
            return [one._replace(norm_B=one.norm_B[:each], hidden_B=one.hidden_B[:each]) for one in passes]
        sizes = [len(one.norm_B) for one in passes]
        if sum(sizes) != num_expected or not sizes:
            raise ValueError(
                f"slice_index has {num_expected} entries, but backward went through the head for {sum(sizes)} samples "
                f"({len(sizes)} passes, of sizes {sizes[:8]}) since the last step. Give one entry a sample, in the order of "
                "the forward passes. Where nothing was collected: the head must be in training mode, take part in the loss, "
                "and be watched before its module is compiled"
            )
        return sorted(passes, key=lambda one: one.number)

    def _fold(self) -> None:
        """Bring the added steps into the sums: one set of kernels for all of them, and nothing that waits for the device."""
        steps, self._steps = self._steps, []
        passes = [one for step in steps for one in step.passes]
        device = passes[0].norm_B.device
        self._sums = self._sums.to(device)  # the module was moved after this was made
        mass_N = torch.cat([one.norm_B for one in passes]) * self._with_bias(torch.cat([one.hidden_B for one in passes]))
        sizes = [len(one.norm_B) for one in passes]
        if self.loss_reduction == "mean":
            mass_N *= _spread([float(size) for size in sizes], sizes, device)
        num_samples = [len(step.slice_index_B) for step in steps]
        if any(step.grad_scale is not None for step in steps):
            scales = [1.0 if step.grad_scale is None else step.grad_scale for step in steps]
            mass_N /= _spread([torch.as_tensor(scale).reshape(()).to(device) for scale in scales], num_samples, device)
        mass_N = torch.nan_to_num(mass_N, nan=0.0, posinf=0.0)
        coefficient_N = _spread([step.coefficient for step in steps], num_samples, device)
        columns = [torch.ones_like(mass_N), mass_N, mass_N * (1.0 - coefficient_N), (coefficient_N < 1.0).float()]
        index_N = self._in_range(torch.cat([step.slice_index_B for step in steps]).to(device, non_blocking=True))
        self._sums.index_add_(0, index_N, torch.stack(columns, dim=1))

    def _in_range(self, slice_index_N: torch.Tensor) -> torch.Tensor:
        num_slices, slice_index_N = len(self.names), slice_index_N.long()
        is_wrong_N = (slice_index_N < -1) | (slice_index_N >= num_slices)
        if slice_index_N.device.type == "cpu" and is_wrong_N.any():
            raise ValueError(
                f"slice_index must hold integers in 0..{num_slices - 1} ({num_slices} slices) or -1 for none, got "
                f"{int(slice_index_N[is_wrong_N][0])} within the last {_STEPS_TOGETHER} steps"
            )
        return torch.where(is_wrong_N | (slice_index_N < 0), num_slices, slice_index_N)


class _Pass(NamedTuple):
    """One forward pass of the head and its backward."""

    number: int
    norm_B: torch.Tensor  # of the gradient of the output
    hidden_B: torch.Tensor  # norm of the input
    is_padded: bool = False  # came through the probe: what is beyond the batch is 0


class _Step(NamedTuple):
    passes: list[_Pass]
    slice_index_B: torch.Tensor
    coefficient: torch.Tensor
    grad_scale: torch.Tensor | float | None


def _spread(values: list[torch.Tensor] | list[float], sizes: list[int], device: torch.device) -> torch.Tensor:
    """float32 [N]: each value repeated for its samples."""
    value_P = torch.stack(values) if isinstance(values[0], torch.Tensor) else torch.tensor(values)
    sizes_P = torch.tensor(sizes).to(device, non_blocking=True)
    spread_N = torch.repeat_interleave(value_P.to(device, non_blocking=True), sizes_P, output_size=sum(sizes))
    return spread_N.float()


class _Tap(torch.autograd.Function):
    """Passes the head's output on; its gradient goes back unchanged, and the norms arrive as the gradient of `probe`.

    A function without side effects, so that torch.compile can trace it into its graph, which it cannot do with hooks on tensors
    that live inside it.
    """

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, hidden: torch.Tensor, probe: torch.Tensor, mass: SliceMass) -> torch.Tensor:
        ctx.save_for_backward(hidden)
        ctx.mass = mass
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor, None]:
        (hidden,) = ctx.saved_tensors
        return gradient, None, ctx.mass.norms(hidden, gradient), None


def slice_gradients(
    names: Sequence[str], sums_SF: npt.NDArray[np.floating[Any]], kind: Literal["head", "exact"]
) -> tuple[SliceGradient, ...]:
    """The event's rows out of sums [S, 4 or 5]: samples, mass, removed mass, clipped samples and, where measured, loss."""
    return tuple(
        SliceGradient(
            slice=name,
            num_samples=round(num_samples),
            grad_mass_sum=mass,
            loss_sum=loss[0] if loss else 0.0,
            grad_mass_removed_sum=removed,
            num_clipped=round(num_clipped),
            kind=kind,
        )
        for name, (num_samples, mass, removed, num_clipped, *loss) in zip(names, sums_SF.tolist(), strict=True)
    )


@contextmanager
def uncounted() -> Iterator[None]:
    """Forward passes within are no training, whoever watches a head: for measurements on a module that is being trained."""
    global _is_counting
    before, _is_counting = _is_counting, False
    try:
        yield
    finally:
        _is_counting = before


def head_of(module: nn.Module, num_outputs: int | None = None) -> nn.Linear:
    """The linear layer that gives the module's output: the last one that was registered.

    Args:
        module: Searched in the order in which its parts were set as attributes, parts of parts included. The projection inside
            `nn.MultiheadAttention` is left out: it is never called as a module.
        num_outputs: Where given, only layers with so many outputs are looked at.

    Raises:
        ValueError: There is none; the message says what to do.

    Example:
        >>> head_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        Linear(in_features=8, out_features=2, bias=True)
    """
    linears = [part for part in module.modules() if isinstance(part, nn.Linear) and not isinstance(part, _NEVER_CALLED)]
    fitting = [part for part in linears if num_outputs is None or part.out_features == num_outputs]
    if not fitting:
        wanted = "" if num_outputs is None else f" with {num_outputs} outputs"
        found = f"its linear layers have {[part.out_features for part in linears]} outputs" if linears else "it has none"
        raise ValueError(
            f"{type(module).__name__} has no torch.nn.Linear{wanted} that could be its head ({found}); end the model with one, "
            "name the layer yourself (SliceMass(layer, names)), or record without slices"
        )
    return fitting[-1]


_NEVER_CALLED = nn.modules.linear.NonDynamicallyQuantizableLinear
