"""Exact gradient norms of single samples, on demand: what the head's stand-in (slices.py) is checked against.

Axes: B samples. What costs least is chosen by what the module is made of; the result says what was used.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipdrift_contract.events import SliceGradient
from clipdrift_trainer.recording.ghost import conv1d_squares, embedding_squares, layer_norm_squares, linear_squares
from clipdrift_trainer.recording.slices import slice_gradients, uncounted

Method = Literal["ghost", "vmap", "loop"]
Inputs = torch.Tensor | Mapping[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(output [B, ...], label [B, ...]) -> the scalar that training minimises. A sample's own loss is this of a batch of one."""

_TOLERANCE = 1e-3  # relative; float32 sums in another order differ by far less, a wrong formula by far more
_VMAP_SAMPLES = 64  # at a time: vmap keeps a gradient of every sample in memory
_SHARED_STATISTICS = (nn.modules.batchnorm._BatchNorm,)
_RANDOM = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)
_CHECKED_SAMPLES = 3


@dataclass(frozen=True)
class PerSampleNorms:
    """Norms over all parameters that are trained, float32 [B], the samples' losses [B], and how they were found."""

    norm_B: torch.Tensor
    loss_B: torch.Tensor
    method: Method


def per_sample_norms(
    module: nn.Module, loss: Loss, inputs: Inputs, label_B: torch.Tensor, *, method: Method | None = None
) -> PerSampleNorms:
    """The gradient norm of each sample's own loss, over all parameters that require a gradient; no gradient is left behind.

    - "ghost": one forward and backward for all samples, and the formulas of `ghost`. For modules made of Linear, LayerNorm,
      Embedding and Conv1d, each called once a forward pass with the samples on the first axis. One sample is checked against
      autograd, without dropout, and where that does not agree another way is taken.
    - "vmap": `torch.func.vmap`, a gradient for every sample at once. For any other module that torch can vectorise.
    - "loop": one sample after the other. For modules with an RNN, GRU or LSTM, where it is several times faster than vmap
      (research on an LSTM: 4.6 against 25 times a training step), and wherever vmap is refused.

    Dropout draws as it does in training; the global random state moves on, see `NormSampler` for a run that must not notice.

    Args:
        module: In the mode, training or evaluation, that its gradients are wanted in.
        loss: See `Loss`. The mean over the batch, its sum and weighted means all give the same: it is asked for batches of one.
        inputs: A tensor [B, ...], or tensors by name as tasks have them.
        label_B: [B, ...].
        method: None: the cheapest that holds.

    Raises:
        ValueError: There is no sample, no parameter is trained, the module has batch normalisation in training mode (there one
            sample's gradient depends on the others), or the method that was asked for is not possible.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> inputs = torch.tensor([[2.0, 2.0], [0.0, 0.0]])
        >>> found = per_sample_norms(layer, lambda output, label: output.sum(), inputs, torch.zeros(2))
        >>> found.norm_B.tolist(), found.method
        ([3.0, 1.0], 'ghost')
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError("no parameter of the module requires a gradient")
    if not len(label_B):
        raise ValueError("there is no sample to take a gradient of")
    if any(isinstance(part, _SHARED_STATISTICS) and part.training for part in module.modules()):
        raise ValueError(
            "with batch normalisation in training mode a sample's gradient depends on the others, so it has no norm of its "
            "own; use GroupNorm or LayerNorm, or call module.eval() to measure with the running statistics"
        )
    attempts = [method] if method is not None else methods_for(module)
    refused = []
    for attempt in attempts:
        try:
            with uncounted():
                norm_B, loss_B = _WAYS[attempt](module, trained, loss, inputs, label_B)
        except _NotPossible as reason:
            refused.append(f"{attempt}: {reason}")
        else:
            return PerSampleNorms(norm_B.detach(), loss_B.detach(), attempt)
    raise ValueError(f"per-sample norms of {type(module).__name__} are not possible: {'; '.join(refused)}")


def methods_for(module: nn.Module) -> list[Method]:
    """What may hold for the module, cheapest first.

    Example:
        >>> methods_for(nn.Linear(2, 1)), methods_for(nn.GRU(2, 2))
        (['ghost', 'vmap', 'loop'], ['loop'])
    """
    if any(isinstance(part, nn.RNNBase) for part in module.modules()):
        return ["loop"]
    return ["ghost", "vmap", "loop"] if _is_covered(module) else ["vmap", "loop"]


class NormSampler:
    """Measures exact norms on every N-th step and sums them by slice.

    Call it once an optimizer step, after clipping and before the optimizer moves the weights. Between, it costs nothing; on its
    own steps about one forward and backward more (ghost), several (loop: 4.6 times a step for an LSTM of batch 64, so 7 % at
    one step in 50). It waits for nothing until `slices` is read, and leaves gradients and the random state as they are.

    Args:
        module, loss: As of `per_sample_norms`.
        names: Names of the slices.
        every: Steps from one measurement to the next; the first step is measured.
    """

    def __init__(self, module: nn.Module, loss: Loss, names: Sequence[str], *, every: int = 50) -> None:
        if every < 1:
            raise ValueError(f"every must be >= 1, got {every!r}")
        self.method: Method | None = None  # that the last measurement used
        self._module = module
        self._loss = loss
        self._names = tuple(names)
        self._every = every
        self._step = 0
        self._sums = torch.zeros(len(names), 5)  # samples, mass, removed mass, samples of clipped steps, loss

    def step(self, inputs: Inputs, label_B: torch.Tensor, slice_index_B: torch.Tensor, coefficient: torch.Tensor) -> None:
        """Count a step; measure it when it is due. `coefficient`: 0-d, what clipping multiplied the step's gradient with."""
        is_due = self._step % self._every == 0
        self._step += 1
        if not is_due:
            return
        with torch.random.fork_rng(devices=[label_B.device] if label_B.is_cuda else []):
            found = per_sample_norms(self._module, self._loss, inputs, label_B)
        self.method = found.method
        self._sums = self._sums.to(found.norm_B.device)
        norm_B = torch.nan_to_num(found.norm_B, nan=0.0, posinf=0.0)
        ones_B, coefficient = torch.ones_like(norm_B), coefficient.to(norm_B.device)
        columns = (ones_B, norm_B, norm_B * (1.0 - coefficient), ones_B * (coefficient < 1.0), torch.nan_to_num(found.loss_B))
        self._sums.index_add_(0, slice_index_B.long().to(norm_B.device), torch.stack(columns, dim=1))

    def slices(self) -> tuple[SliceGradient, ...]:
        """Of all measured steps together, one a slice in the names' order; waits for the device."""
        return slice_gradients(self._names, self._sums.cpu().numpy(), "exact")


class _NotPossible(Exception):  # noqa: N818  # no error: the next way is tried
    pass


def _by_loop(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [_alone(module, trained, loss, inputs, label_B, index) for index in range(len(label_B))]
    return torch.stack([norm for norm, _ in pairs]), torch.stack([value for _, value in pairs])


def _alone(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor, index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Norm and loss of one sample, 0-d, by autograd."""
    gradients, value = gradients_of_one(module, trained, loss, inputs, label_B, index)
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients if g is not None]
    return torch.linalg.vector_norm(torch.stack(norms)), value.float()


def gradients_of_one(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor, index: int
) -> tuple[Sequence[torch.Tensor | None], torch.Tensor]:
    """The gradients of one sample by autograd, in the order of `trained` (None: took no part), and its loss, 0-d."""
    one = slice(index, index + 1)
    with torch.enable_grad():
        value = loss(module(select_samples(inputs, one)), label_B[one]).sum()
        return torch.autograd.grad(value, list(trained.values()), allow_unused=True), value.detach()


def gradients_by_vmap(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The gradients [B, ...] of all samples at once, by the names of `trained`, and the losses [B]; raises what vmap does for a
    module that it cannot vectorise."""
    weights = {name: parameter.detach() for name, parameter in trained.items()}
    fixed = {name: value.detach() for name, value in module.named_parameters() if name not in trained}
    fixed |= dict(module.named_buffers())

    def loss_of(weights: dict[str, torch.Tensor], inputs: Inputs, label: torch.Tensor) -> torch.Tensor:
        single = inputs[None] if isinstance(inputs, torch.Tensor) else {name: one[None] for name, one in inputs.items()}
        return loss(functional_call(module, (weights, fixed), (single,)), label[None]).sum()

    of_one = vmap(grad_and_value(loss_of), in_dims=(None, 0, 0), randomness="different")
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that vmap vectorises
        gradients, loss_B = of_one(weights, inputs, label_B)
    return gradients, loss_B


def _by_vmap(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    norms, losses = [], []
    for start in range(0, len(label_B), _VMAP_SAMPLES):
        some = slice(start, start + _VMAP_SAMPLES)
        try:
            gradients, loss_B = gradients_by_vmap(module, trained, loss, select_samples(inputs, some), label_B[some])
        except (RuntimeError, NotImplementedError) as error:
            raise _NotPossible(str(error).splitlines()[0]) from error
        squares = [gradient.float().flatten(1).square().sum(dim=1) for gradient in gradients.values()]
        norms.append(torch.stack(squares).sum(dim=0).sqrt())
        losses.append(loss_B.float())
    return torch.cat(norms), torch.cat(losses)


def _by_ghost(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if not _is_covered(module):
        raise _NotPossible("not all parameters belong to a Linear, LayerNorm, Embedding or Conv1d of their own")
    norm_B, loss_B = _ghost_norms(module, trained, loss, inputs, label_B)
    _check_one(module, trained, loss, inputs, label_B)
    return norm_B, loss_B


def _ghost_norms(
    module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    squares: dict[nn.Module, torch.Tensor] = {}
    calls: list[nn.Module] = []

    def watch(layer: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if len(output) != len(label_B):
            raise _NotPossible(f"{type(layer).__name__} does not have the samples on its first axis")
        calls.append(layer)
        hidden = given[0].detach()
        if output.requires_grad:
            output.register_hook(lambda gradient: squares.update({layer: _squares(layer, hidden, gradient.detach())}))  # type: ignore[no-untyped-call]

    with _hooked([layer for layer in module.modules() if any(_flags(layer).values())], watch), torch.enable_grad():
        loss_B = sample_losses(loss, module(inputs), label_B)
        gradients = torch.autograd.grad(loss_B.sum(), list(trained.values()), allow_unused=True)
    if len(set(calls)) != len(calls):
        raise _NotPossible("a layer is called more than once in a forward pass")
    reached = {id(parameter) for parameter, gradient in zip(trained.values(), gradients, strict=True) if gradient is not None}
    if any(id(parameter) in reached for layer in module.modules() if layer not in squares for parameter in _own(layer)):
        raise _NotPossible("a layer's weight is used without calling the layer")
    norm_B = torch.stack(list(squares.values())).sum(dim=0).sqrt() if squares else torch.zeros_like(loss_B)
    return norm_B, loss_B.detach().float()


def _check_one(module: nn.Module, trained: dict[str, nn.Parameter], loss: Loss, inputs: Inputs, label_B: torch.Tensor) -> None:
    """The formulas hold for what torch's own layers do; whether the module calls them as assumed, one sample of three shows."""
    some = slice(0, _CHECKED_SAMPLES)
    with steady(module):
        found_B, _ = _ghost_norms(module, trained, loss, select_samples(inputs, some), label_B[some])
        index = len(found_B) - 1
        expected = float(_alone(module, trained, loss, inputs, label_B, index)[0])
    if abs(float(found_B[index]) - expected) > _TOLERANCE * expected + 1e-9:
        raise _NotPossible(f"sample {index} has norm {expected:.6g}, the formulas give {float(found_B[index]):.6g}")


@contextmanager
def steady(module: nn.Module) -> Iterator[None]:
    """The module without dropout, everything else in the mode it is in: so that two passes can be compared."""
    random = [part for part in module.modules() if isinstance(part, _RANDOM) and part.training]
    for part in random:
        part.training = False  # of this part alone, not of the parts within
    try:
        yield
    finally:
        for part in random:
            part.training = True


def sample_losses(loss: Loss, output: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """Each sample's own loss [B], whatever the loss does to a batch."""

    def of_one(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return loss(output[None], label[None]).sum()

    try:
        return vmap(of_one, randomness="different")(output, label_B)
    except (RuntimeError, NotImplementedError):  # a loss that looks at values
        return torch.stack([of_one(one, label) for one, label in zip(output, label_B, strict=True)])


def _squares(layer: nn.Module, hidden: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.Embedding):
        return embedding_squares(layer, hidden, gradient)
    if isinstance(layer, nn.LayerNorm):
        return layer_norm_squares(layer, hidden, gradient, **_flags(layer))
    if isinstance(layer, nn.Conv1d):
        return conv1d_squares(layer, hidden, gradient, **_flags(layer))
    return linear_squares(hidden, gradient, **_flags(layer))


def _is_covered(module: nn.Module) -> bool:
    owners = [layer for layer in module.modules() if _own(layer)]
    parameters = [id(parameter) for layer in owners for parameter in _own(layer)]
    return all(map(_is_known, owners)) and len(set(parameters)) == len(parameters)  # no weight is shared


def _is_known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv1d:
        return layer.padding_mode == "zeros"
    if type(layer) is nn.Embedding:
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    is_plain = set(layer._parameters) <= {"weight", "bias"}
    return is_plain and type(layer) in (nn.Linear, nn.LayerNorm)  # a subclass may do anything


def _own(layer: nn.Module) -> list[nn.Parameter]:
    """The layer's own parameters that are trained, those of its parts left out."""
    return [parameter for parameter in layer._parameters.values() if parameter is not None and parameter.requires_grad]


def _flags(layer: nn.Module) -> dict[str, bool]:
    own = layer._parameters
    return {name: (one := own.get(name)) is not None and one.requires_grad for name in ("weight", "bias")}


def select_samples(inputs: Inputs, some: slice | torch.Tensor) -> Inputs:
    return inputs[some] if isinstance(inputs, torch.Tensor) else {name: tensor[some] for name, tensor in inputs.items()}


@contextmanager
def _hooked(layers: list[nn.Module], watch: Callable[..., None]) -> Iterator[None]:
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_WAYS: dict[Method, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {"ghost": _by_ghost, "vmap": _by_vmap, "loop": _by_loop}
