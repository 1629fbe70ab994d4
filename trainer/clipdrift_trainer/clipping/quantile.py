"""Adaptive quantile clipping: the bound moves until a wanted share of steps is left alone."""

from typing import Annotated, Any

import torch
from msgspec import Meta

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rule import Options, ScalingRule, state_number


class QuantileOptions(Options, frozen=True, kw_only=True):
    """Target and speed as in the paper's experiments; bounds of the bound as Opacus has them, open by default."""

    target: Annotated[float, Meta(ge=0, le=1, description="wanted share of steps at or below the bound")] = 0.5
    learning_rate: Annotated[float, Meta(gt=0, description="how fast the logarithm of the bound moves")] = 0.2
    min_bound: Annotated[float, Meta(ge=0, description="the bound never falls below")] = 0.0
    max_bound: Annotated[float, Meta(gt=0, description="the bound never rises above")] = float("inf")

    def __post_init__(self) -> None:
        if not self.min_bound < self.max_bound:
            raise ValueError(f"min_bound must be < max_bound, got {self.min_bound!r} and {self.max_bound!r}")


class Quantile(ScalingRule):
    """Global norm with a bound that finds a quantile of the norms: a controller of the clip rate. After each step

        C <- C * exp(-learning_rate * (b - target)),   b = 1 if norm <= C else 0.

    In the long run a share `target` of the steps is left alone. `max_norm` is the first C; without it the first norm is (the
    paper starts at 0.1, which suits its own updates). A step that is not finite, or exactly zero, moves nothing.

    Source: Andrew, Thakkar, McMahan, Ramaswamy 2019 (arXiv 1905.03871), section 2.2 "geometric updates", without noise. Theirs
    is about the norms of users or samples; here b is that of the one batch.

    Example:
        >>> clipper = Quantile(ClipSpec(kind="quantile", max_norm=1.0))
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> weight.grad = torch.tensor([5.0])
        >>> norm_before_clip = clipper(weight)
        >>> round(float(weight.grad), 3), round(clipper.state_dict()["bound"], 4)  # then C = exp(0.2 * 0.5)
        (1.0, 1.1052)
    """

    kind = "quantile"
    options_type = QuantileOptions

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._bound = self._within(torch.tensor(float("inf") if spec.max_norm is None else spec.max_norm))

    def _next_bound(self, norm: torch.Tensor) -> torch.Tensor:
        if self._bound.device != norm.device:
            self._bound = self._bound.to(norm.device)
        options: QuantileOptions = self._options
        tells = torch.isfinite(norm) & (norm > 0)
        bound = torch.where(torch.isinf(self._bound) & tells, self._within(norm), self._bound)
        moved = self._within(bound * torch.exp(-options.learning_rate * ((norm <= bound).float() - options.target)))
        self._bound = torch.where(tells, moved, bound)
        return bound

    def _within(self, bound: torch.Tensor) -> torch.Tensor:
        inside = bound.clamp(self._options.min_bound, self._options.max_bound)
        return inside.where(torch.isfinite(bound), float("inf"))  # not set yet

    def state_dict(self) -> dict[str, Any]:
        return {"bound": state_number(self._bound)}

    def _restore(self, state: dict[str, Any]) -> None:
        self._bound = torch.tensor(float("inf") if state["bound"] is None else float(state["bound"]))
