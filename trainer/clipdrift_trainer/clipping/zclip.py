"""ZClip: only norms that stand out against their running mean are clipped."""

from typing import Annotated, Any

import torch
from msgspec import Meta

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rule import Options, ScalingRule, state_number

_EPSILON = 1e-6  # the authors' own: z = (n - mean) / (deviation + 1e-6)


class ZClipOptions(Options, frozen=True, kw_only=True):
    """Defaults of the paper."""

    alpha: Annotated[float, Meta(ge=0, lt=1, description="how much of mean and variance a step keeps")] = 0.97
    z_threshold: Annotated[float, Meta(gt=0, description="a norm so many deviations above the mean is clipped")] = 2.5
    warmup_steps: Annotated[int, Meta(ge=1, description="finite steps that mean and variance start from, unclipped")] = 25


class ZClip(ScalingRule):
    """Global norm with a bound for outliers only: with z = (n - mean) / (deviation + 1e-6),

        bound = mean + z_threshold^2 * deviation / z  where z > z_threshold, else none,

    so the further out a norm is, the closer to the mean it is brought. Mean and variance are exponential averages of the norms
    after this bound; they start from the warm-up's own. `max_norm` is a cap on every step (the authors' code has 1, here it is
    off by default); the averages see norms before the cap, as in their code. Steps that are not finite count for nothing, nor
    do those whose norm's square is no float32 (above 1.8e19).

    Source: Kumar et al. 2025 (arXiv 2504.02507), algorithm 1, "adaptive scaling"; the variance's new value takes the new mean,
    as in the authors' code.

    Example:
        >>> clipper = ZClip(ClipSpec(kind="zclip", options={"warmup_steps": 4}))
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> for norm in (1.0, 2.0, 3.0, 2.0, 20.0):  # mean 2, deviation 0.7071; 20 is 25.5 deviations out
        ...     weight.grad = torch.tensor([norm])
        ...     norm_before_clip = clipper(weight)
        >>> round(float(weight.grad), 3)  # 2 + 6.25 * 0.7071 / 25.46
        2.174
    """

    kind = "zclip"
    options_type = ZClipOptions

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._count, self._mean, self._variance = torch.zeros(3).unbind()

    def _next_bound(self, norm: torch.Tensor) -> torch.Tensor:
        if self._mean.device != norm.device:
            self._count, self._mean, self._variance = (t.to(norm.device) for t in (self._count, self._mean, self._variance))
        options: ZClipOptions = self._options
        is_warm = self._count >= options.warmup_steps
        deviation = self._variance.sqrt()
        z = (norm - self._mean) / (deviation + _EPSILON)
        bound = self._mean + options.z_threshold**2 * deviation / z
        bound = bound.where(is_warm & (z > options.z_threshold), float("inf"))
        self._learn(torch.minimum(norm, bound), is_warm, torch.isfinite(norm))
        return bound if self.spec.max_norm is None else bound.clamp_max(self.spec.max_norm)

    def _learn(self, norm: torch.Tensor, is_warm: torch.Tensor, is_finite: torch.Tensor) -> None:
        count = self._count + 1
        weight = (1.0 / count).where(~is_warm, 1.0 - self._options.alpha)
        difference = norm - self._mean
        mean = self._mean + weight * difference
        # warm-up: the variance of what was seen (Welford); later: the average of squares around the new mean
        square = torch.where(is_warm, (norm - mean).square(), difference * (norm - mean))
        variance = self._variance + weight * (square - self._variance)
        tells = is_finite & torch.isfinite(norm.square())
        self._mean = torch.where(tells, mean, self._mean)
        self._variance = torch.where(tells, variance, self._variance)
        self._count = torch.where(tells, count, self._count).clamp_max_(self._options.warmup_steps)

    def state_dict(self) -> dict[str, Any]:
        return {"count": int(self._count), "mean": state_number(self._mean), "variance": state_number(self._variance)}

    def _restore(self, state: dict[str, Any]) -> None:
        self._count, self._mean, self._variance = (torch.tensor(float(state[name])) for name in ("count", "mean", "variance"))
