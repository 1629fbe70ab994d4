"""The rule that a `ClipSpec` names, and torch's own two functions to be changed for ours by one import.

docs/reference/clipping-rules.md has all rules side by side.
"""

import torch

from clipdrift_contract.events import ClipKind, ClipSpec
from clipdrift_trainer.clipping.adagc import AdaGc
from clipdrift_trainer.clipping.agc import Agc
from clipdrift_trainer.clipping.autoclip import AutoClip
from clipdrift_trainer.clipping.fixed import GlobalNorm, Off, PerTensor, Value
from clipdrift_trainer.clipping.norms import gradients_of, tensor_norms, total_norm
from clipdrift_trainer.clipping.quantile import Quantile
from clipdrift_trainer.clipping.rule import Rule
from clipdrift_trainer.clipping.step import Clipper, ClipStep, Parameters
from clipdrift_trainer.clipping.zclip import ZClip

__all__ = ["RULES", "ClipStep", "Clipper", "Parameters", "clip_grad_norm_", "clip_grad_value_", "make_clipper"]

RULES: dict[ClipKind, type[Rule]] = {
    rule.kind: rule for rule in (Off, GlobalNorm, Value, PerTensor, Agc, AutoClip, ZClip, AdaGc, Quantile)
}


def make_clipper(spec: ClipSpec) -> Clipper:
    """The rule that `spec` names, for rules that need nothing but gradients and weights.

    Raises:
        ValueError: The bound is missing or not positive, an option is unknown or out of range, or the rule needs the module
            and the optimizer too (per_sample).
    """
    if spec.max_norm is not None and not spec.max_norm > 0:
        raise ValueError(f"max_norm must be > 0, got {spec.max_norm!r}; use kind 'off' for no clipping")
    if not spec.norm_type > 0:
        raise ValueError(f"norm_type must be > 0, got {spec.norm_type!r}")
    if spec.kind not in RULES:
        raise ValueError(
            f"clipping by {spec.kind} needs the module and the optimizer, not only gradients: make it with "
            "clipdrift_trainer.clipping.per_sample"
        )
    return RULES[spec.kind](spec)


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
