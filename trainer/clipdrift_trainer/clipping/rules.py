"""The rules: off, global norm, value, AutoClip. All of them are called like `torch.nn.utils.clip_grad_norm_`.

A step whose norm is NaN or infinite has no direction worth keeping: its gradients are set to zero, so that the optimizer moves
by its momentum alone, and the step is counted. (torch would spread the NaN over every weight.)
"""

import bisect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.norms import gradients_of, tensor_norms, total_norm

_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by (norm + 1e-6)
Parameters = torch.Tensor | Iterable[torch.Tensor]


class ClipStep(NamedTuple):
    """What one call did, on the gradients' device: nothing here forces the host to wait."""

    norm_P: torch.Tensor  # float32 [P], before clipping, in the order of the parameters that have a gradient
    norm_before: torch.Tensor  # 0-d
    norm_after: torch.Tensor  # 0-d: what the optimizer should consume
    coefficient: torch.Tensor  # 0-d: norm_after / norm_before, 0 for a step that was not finite
    bound: torch.Tensor  # 0-d; inf when there is none


class Clipper(Protocol):
    """A clipping rule. Called once a step, between backward and the optimizer, by the training thread."""

    spec: ClipSpec
    last: ClipStep | None

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        """Clip in place; returns the total norm before clipping, as a 0-d tensor."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue as if it had not stopped."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _Stateless:
    """What rules without memory share."""

    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec
        self.last: ClipStep | None = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"clipping by {self.spec.kind} has no state, got {sorted(state)}")


class Off(_Stateless):
    """No clipping; the norms are recorded all the same. A non-finite step is zeroed here too."""

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        gradients = gradients_of(parameters)
        norm_P = tensor_norms(gradients, self.spec.norm_type)
        before = total_norm(norm_P, self.spec.norm_type)
        self.last = _scaled(gradients, norm_P, before, torch.full_like(before, float("inf")))
        return before


class GlobalNorm(_Stateless):
    """g * min(1, max_norm / (norm + 1e-6)) over all gradients together.

    Source: Pascanu, Mikolov, Bengio 2013 (arXiv 1211.5063), algorithm 1, in torch's form with its epsilon.
    """

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        assert self.spec.max_norm is not None
        gradients = gradients_of(parameters)
        norm_P = tensor_norms(gradients, self.spec.norm_type)
        before = total_norm(norm_P, self.spec.norm_type)
        self.last = _scaled(gradients, norm_P, before, torch.full_like(before, self.spec.max_norm))
        return before


class Value(_Stateless):
    """Each entry clamped to [-max_norm, max_norm]. Changes the direction of the gradient."""

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        bound = self.spec.max_norm
        assert bound is not None
        gradients = gradients_of(parameters)
        norm_P = tensor_norms(gradients, self.spec.norm_type)
        before = total_norm(norm_P, self.spec.norm_type)
        for gradient in gradients:
            gradient.clamp_(-bound, bound)
        _zero_unless_finite(gradients, before)
        after = total_norm(tensor_norms(gradients, self.spec.norm_type), self.spec.norm_type)
        coefficient = torch.nan_to_num(after / before, nan=0.0, posinf=0.0)
        self.last = ClipStep(norm_P, before, after, coefficient, torch.full_like(before, bound))
        return before


class AutoClip:
    """Global norm with a bound that follows the run: the p-th percentile of all norms so far, the present one included.

    Needs the norm on the host, so it waits for the device once a step. Non-finite norms are left out of the history.

    Source: Seetharaman et al. 2020 (arXiv 2007.14469), section 3; percentile with linear interpolation, as `numpy.percentile`.
    """

    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec
        self.last: ClipStep | None = None
        self._sorted: list[float] = []

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        gradients = gradients_of(parameters)
        norm_P = tensor_norms(gradients, self.spec.norm_type)
        before = total_norm(norm_P, self.spec.norm_type)
        self.last = _scaled(gradients, norm_P, before, torch.full_like(before, self._next_bound(float(before))))
        return before

    def _next_bound(self, norm: float) -> float:
        if norm - norm == 0.0:  # finite
            bisect.insort(self._sorted, norm)
        if not self._sorted:
            return float("inf")
        position = self.spec.percentile / 100.0 * (len(self._sorted) - 1)
        low = int(position)
        high = min(low + 1, len(self._sorted) - 1)
        bound = self._sorted[low] + (position - low) * (self._sorted[high] - self._sorted[low])
        return bound if self.spec.max_norm is None else min(bound, self.spec.max_norm)

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self._sorted)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sorted = sorted(float(norm) for norm in state["norms"])


_RULES: dict[str, Callable[[ClipSpec], Clipper]] = {"off": Off, "global_norm": GlobalNorm, "value": Value, "autoclip": AutoClip}


def make_clipper(spec: ClipSpec) -> Clipper:
    """The rule that `spec` names.

    Raises:
        ValueError: The bound is missing or not positive, or the percentile is not in 0..100.
    """
    if spec.kind in ("global_norm", "value") and spec.max_norm is None:
        raise ValueError(f"clipping by {spec.kind} needs max_norm")
    if spec.max_norm is not None and not spec.max_norm > 0:
        raise ValueError(f"max_norm must be > 0, got {spec.max_norm!r}; use kind 'off' for no clipping")
    if not 0.0 <= spec.percentile <= 100.0:
        raise ValueError(f"percentile must be in 0..100, got {spec.percentile!r}")
    if not spec.norm_type > 0:
        raise ValueError(f"norm_type must be > 0, got {spec.norm_type!r}")
    return _RULES[spec.kind](spec)


def clip_grad_norm_(
    parameters: Parameters,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> torch.Tensor:
    """`torch.nn.utils.clip_grad_norm_`, to be changed for it by one import: norms in float32, non-finite steps zeroed.

    Args:
        parameters: Tensors with gradients; those without are left out.
        max_norm: Bound; must be > 0 (torch takes 0 and then zeroes every gradient). `inf` only measures.
        norm_type: Order of the norm.
        error_if_nonfinite: Raise instead of zeroing, before anything is changed; waits for the device.
        foreach: Taken for the signature's sake; the fused kernels are used wherever they exist.

    Returns:
        The norm BEFORE clipping, a 0-d tensor.

    Raises:
        RuntimeError: The norm is not finite and `error_if_nonfinite` was asked for.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> norm_before_clip = clip_grad_norm_(weight, max_norm=1.0)
        >>> round(float(norm_before_clip), 4), round(float(weight.grad.norm()), 4)
        (5.0, 1.0)
    """
    listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
    if error_if_nonfinite:
        norm = total_norm(tensor_norms(gradients_of(listed), norm_type), norm_type)
        if not bool(torch.isfinite(norm)):
            raise RuntimeError(f"the total norm of order {norm_type} is {float(norm)}, so the gradients cannot be clipped")
    return make_clipper(ClipSpec(kind="global_norm", max_norm=max_norm, norm_type=norm_type))(listed)


def clip_grad_value_(parameters: Parameters, clip_value: float, foreach: bool | None = None) -> None:
    """`torch.nn.utils.clip_grad_value_` with non-finite steps zeroed; `foreach` is taken for the signature's sake."""
    make_clipper(ClipSpec(kind="value", max_norm=clip_value))(parameters)


def _scaled(gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor, bound: torch.Tensor) -> ClipStep:
    coefficient = torch.clamp(bound / (before + _EPSILON), max=1.0)
    coefficient = torch.where(torch.isfinite(before), coefficient, torch.zeros_like(coefficient))
    if gradients:
        torch._foreach_mul_(gradients, coefficient)
    _zero_unless_finite(gradients, before)
    return ClipStep(norm_P, before, torch.nan_to_num(before * coefficient, nan=0.0), coefficient, bound)


def _zero_unless_finite(gradients: list[torch.Tensor], norm: torch.Tensor) -> None:
    if norm.device.type == "cpu":
        if not torch.isfinite(norm):
            torch._foreach_zero_(gradients)
        return
    is_lost = ~torch.isfinite(norm)  # stays on the device: the host must not wait
    for gradient in gradients:
        gradient.masked_fill_(is_lost, 0.0)
