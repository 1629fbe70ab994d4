"""AdaGC: each tensor against the running mean of its own clipped norms."""

from typing import Annotated, Any

import torch
from msgspec import Meta

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.agc import own_bounds_step
from clipdrift_trainer.clipping.rule import Options, Rule
from clipdrift_trainer.clipping.scaling import scale_each
from clipdrift_trainer.clipping.step import ClipStep

_EPSILON = 1e-8  # pytorch_optimizer's
_DEFAULT_MAX_NORM = 1.0  # the paper's lambda_abs


class AdaGcOptions(Options, frozen=True, kw_only=True):
    """Defaults of the paper. Its lambda_abs is `ClipSpec.max_norm` (1 when that is None)."""

    beta: Annotated[float, Meta(ge=0, lt=1, description="how much of its mean a tensor keeps in a step")] = 0.98
    lambda_rel: Annotated[float, Meta(gt=0, description="largest ratio of a tensor's norm to its mean")] = 1.05
    warmup_steps: Annotated[int, Meta(ge=0, description="steps before this one clip the global norm")] = 100


class AdaGc(Rule):
    """Each tensor l by its own history of norms, gamma_l:

        g_l <- g_l * min(1, lambda_rel * gamma_l / |g_l|),   gamma_l <- beta * gamma_l + (1 - beta) * |g_l after|.

    Before step `warmup_steps` (counted from 1) the global norm is clipped to `max_norm` instead, and gamma_l is the smallest
    norm after that. A tensor that has its first gradient later is in its own warm-up for that step. A step that is not finite
    counts for nothing. One deviation: a gradient that is exactly zero leaves its gamma alone; the minimum would be 0 and freeze
    that tensor for thousands of steps.

    Source: Wang et al. 2025 (arXiv 2502.11034), algorithm 1; the clipping of pytorch_optimizer 4.1's `AdaGC`, which also counts
    warm-up steps so.

    Example:
        >>> clipper = AdaGc(ClipSpec(kind="adagc", max_norm=10.0, options={"warmup_steps": 2}))
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> for norm in (2.0, 9.0):  # 2 is learned in the warm-up
        ...     weight.grad = torch.tensor([norm])
        ...     norm_before_clip = clipper(weight)
        >>> round(float(weight.grad), 4), round(clipper.state_dict()["gamma"][0], 4)
        (2.1, 2.002)
    """

    kind = "adagc"
    keeps_direction = False
    options_type = AdaGcOptions

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._max_norm = _DEFAULT_MAX_NORM if spec.max_norm is None else spec.max_norm
        self._gamma: torch.Tensor | None = None  # [all parameters], float32; inf: not seen yet
        self._step = torch.tensor(0)
        self._present: list[int] = []
        self._present_index = torch.zeros(0, dtype=torch.int64)

    def _clip(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor
    ) -> ClipStep:
        self._prepare(len(parameters), norm_P.device)
        assert self._gamma is not None
        present = [i for i, parameter in enumerate(parameters) if parameter.grad is not None]
        index = None if len(present) == len(parameters) else self._index_of(present)
        gamma_P = self._gamma if index is None else self._gamma[index]
        is_finite = torch.isfinite(before)
        self._step = self._step + is_finite
        is_warm_P = (self._step >= self._options.warmup_steps) & torch.isfinite(gamma_P)
        own_P = self._options.lambda_rel * gamma_P.clamp_min(_EPSILON) / norm_P.clamp_min(_EPSILON)
        coefficient_P = torch.where(is_warm_P, own_P, self._max_norm / (before + _EPSILON)).clamp_max_(1.0)
        learned_P = self._learned(gamma_P, norm_P * coefficient_P, is_warm_P, is_finite)
        if index is None:
            self._gamma = learned_P
        else:
            self._gamma[index] = learned_P
        after, _ = scale_each(gradients, norm_P, before, coefficient_P, self.spec.norm_type)
        return own_bounds_step(norm_P, before, after)

    def _prepare(self, num_parameters: int, device: torch.device) -> None:
        if self._gamma is None:
            self._gamma = torch.full((num_parameters,), float("inf"))
        if len(self._gamma) != num_parameters:
            raise ValueError(
                f"clipping by adagc remembers {len(self._gamma)} tensors and got {num_parameters}: give it the same parameters "
                "in the same order in every step, also those without a gradient"
            )
        if self._gamma.device != device:
            self._gamma, self._step = self._gamma.to(device), self._step.to(device)

    def _index_of(self, present: list[int]) -> torch.Tensor:
        """Positions of the tensors that have a gradient; copied to the device only when they are others than in the step
        before."""
        assert self._gamma is not None
        if present != self._present or self._present_index.device != self._gamma.device:
            self._present, self._present_index = present, torch.tensor(present, device=self._gamma.device)
        return self._present_index

    def _learned(
        self, gamma_P: torch.Tensor, after_P: torch.Tensor, is_warm_P: torch.Tensor, is_finite: torch.Tensor
    ) -> torch.Tensor:
        mean_P = gamma_P + (1.0 - self._options.beta) * (after_P - gamma_P)
        learned_P = torch.where(is_warm_P, mean_P, torch.minimum(gamma_P, after_P))
        return torch.where(is_finite & (after_P > 0), learned_P, gamma_P)

    def state_dict(self) -> dict[str, Any]:
        gamma = [] if self._gamma is None else self._gamma.tolist()
        return {"step": int(self._step), "gamma": [None if norm == float("inf") else norm for norm in gamma]}

    def _restore(self, state: dict[str, Any]) -> None:
        self._step = torch.tensor(int(state["step"]))
        gamma = [float("inf") if norm is None else float(norm) for norm in state["gamma"]]
        self._gamma = torch.tensor(gamma) if gamma else None
