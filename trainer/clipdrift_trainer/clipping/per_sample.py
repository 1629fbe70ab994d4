"""Per-sample clipping: each sample's own gradient is held to the bound, then they are averaged; with noise it is DP-SGD.

Needs the extra `privacy` (Opacus). Axes: B samples, P parameters.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from msgspec import Meta
from opacus.optimizers import AdaClipDPOptimizer, DPOptimizer, DPOptimizerFastGradientClipping, DPPerLayerOptimizer
from torch import nn

from clipdrift_contract.events import ClipSpec, GradWindow, NormQuantiles, PrivacyBudget, SliceGradient
from clipdrift_trainer.clipping.norms import tensor_norms, total_norm
from clipdrift_trainer.clipping.rule import Options
from clipdrift_trainer.clipping.sample_gradients import Found, SampleGradients, Way
from clipdrift_trainer.clipping.step import ClipStep, Parameters
from clipdrift_trainer.privacy import PrivacyAccount
from clipdrift_trainer.recording.per_sample_norms import Inputs, Loss
from clipdrift_trainer.recording.slices import slice_gradients
from clipdrift_trainer.recording.window import norm_histogram

_EPSILON = 1e-6  # Opacus divides by (norm + 1e-6)


class PerSampleOptions(Options, frozen=True, kw_only=True):
    """`ClipSpec.options` of the rule."""

    bound: Annotated[Literal["flat", "per_layer", "adaptive"], Meta(description="one bound, one a tensor, or a moving one")] = (
        "flat"
    )
    gradients: Annotated[
        Literal["auto", "hooks", "ghost", "vmap", "loop"], Meta(description="how samples' gradients are found")
    ] = "auto"
    noise_multiplier: Annotated[float, Meta(ge=0, description="standard deviation of the noise in bounds; 0: none")] = 0.0
    delta: Annotated[float, Meta(gt=0, lt=1, description="None: a tenth of one over the number of rows")] | None = None
    max_epsilon: Annotated[float, Meta(gt=0, description="training stops before it spends more")] | None = None
    accountant: Literal["prv", "rdp"] = "prv"
    randomness: Annotated[Literal["secret", "seed"], Meta(description="whence noise and batches of private training come")] = (
        "secret"
    )
    target: Annotated[float, Meta(ge=0, le=1, description="adaptive: wanted share of samples below the bound")] = 0.5
    learning_rate: Annotated[float, Meta(gt=0, description="adaptive: how fast the logarithm of the bound moves")] = 0.2
    min_bound: Annotated[float, Meta(ge=0, description="adaptive: None: a tenth of max_norm")] | None = None
    max_bound: Annotated[float, Meta(gt=0, description="adaptive: the bound never rises above")] = 1e6
    count_noise: Annotated[float, Meta(gt=0, description="adaptive: of the share; None: batch / 20")] | None = None

    def __post_init__(self) -> None:
        if self.gradients == "ghost" and self.bound != "flat":
            raise ValueError(f"gradients = 'ghost' knows only bound = 'flat', got {self.bound!r}")
        if self.max_epsilon is not None and not self.noise_multiplier:
            raise ValueError("max_epsilon needs a noise_multiplier > 0: without noise epsilon is infinite")


class PerSample:
    """Clips each sample's gradient, then averages: g <- (1/B) sum_i g_i * min(1, c / (||g_i|| + 1e-6)), plus noise if private.

    A `Clipper` that needs more than gradients. In each step `backward` takes the place of forward, loss and backward, and then
    the recorder (or the rule itself) is called as with any rule, and the optimizer steps:

        loss = rule.backward(inputs, label)
        recorder.clip(loss)
        optimizer.step()

    `finish` lets go of the module, which is never replaced: what was trained is what the caller gave.

    Bounds: "flat", c over all parameters; "per_layer", c / sqrt(P) for each tensor (together the same reach); "adaptive", c
    follows the share of samples below it (Andrew et al. 2019, arXiv 1905.03871), and never falls below `min_bound`: without a
    floor it shrinks to suit the majority and starves rare groups (arXiv 2506.01396).

    Gradients: "hooks", Opacus' formulas by layer; "ghost", norms by Opacus and a second backward, which needs no memory for the
    samples' gradients; "vmap"; "loop", sample by sample, also for LSTM and GRU, which stay as they are (Opacus' own LSTM would
    take their place and is slower than the loop). "auto" takes the first of loop (recurrent modules), hooks, vmap, loop that
    agrees with autograd on some samples of the first batch.

    Private training (noise_multiplier > 0): batches must come from `draw`, which takes each row by a coin of its own, since
    that is what epsilon is computed for. Noise and coins come from the operating system's randomness unless randomness =
    "seed", which makes runs repeatable and their privacy void for whoever knows the seed. What the run tells of itself
    (windows, losses, figures by slice) is exact and not covered by epsilon.

    A sample whose gradient is not finite is left out of its step, and the step counts as not finite. One process; no loss
    scaling, and no accumulation over several calls of `backward`.

    Args:
        spec: kind "per_sample"; `max_norm` is c, or where it starts; `options` as in `PerSampleOptions`.
        module: In training mode while it trains. No batch normalisation.
        optimizer: Over the module's trained parameters, all of them and no others.
        loss: As training minimises it; asked for one sample at a time.
        num_rows: Rows that batches are drawn from.
        batch_size: Rows in a batch, on average when private.
        num_steps: Planned; a budget is checked against it before the first. None: not known.
        seed: Of batches and noise where they are not secret.

    Raises:
        ValueError: The settings do not fit together or the module has no per-sample gradients.
        BudgetError: The planned steps would spend more than max_epsilon.

    Source: Abadi et al. 2016 (arXiv 1607.00133), algorithm 1, by Opacus' optimizers.
    """

    def __init__(
        self,
        spec: ClipSpec,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        *,
        num_rows: int,
        batch_size: int,
        num_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.options = checked_options(spec)
        if not 1 <= batch_size <= num_rows:
            raise ValueError(f"batch_size must be in 1..num_rows={num_rows}, got {batch_size!r}")
        self.spec = spec
        self.last: ClipStep | None = None
        self._num_rows, self._batch_size = num_rows, batch_size
        self._parameters = _checked_parameters(module, optimizer)
        self._gradients = SampleGradients(module, self._parameters, loss, self.options.gradients)
        self._found: Found | None = None
        self.samples = SampleClip(*(torch.zeros(0) for _ in range(3)))
        self._told: list[SampleClip] = []
        self._totals: list[npt.NDArray[np.float32]] = []
        self.is_private = self.options.noise_multiplier > 0
        self._account = self._make_account(num_steps)
        device = self._parameters[0].device
        self.noise_generator, self._coins = torch.Generator(device), torch.Generator()
        for generator, number in zip((self.noise_generator, self._coins), np.random.SeedSequence(seed).spawn(2), strict=True):
            if self.is_private and self.options.randomness == "secret":
                generator.seed()
            else:
                generator.manual_seed(int(number.generate_state(1)[0]))
        self._dp = self._make_optimizer(optimizer)

    def draw(self) -> torch.Tensor:
        """Positions of the next batch's rows, int64: each of `num_rows` with probability batch_size / num_rows; may be none."""
        chance = self._batch_size / self._num_rows
        coins = torch.rand(self._num_rows, generator=self._coins, dtype=torch.float64)  # float32's are multiples of 2^-24
        return (coins < chance).nonzero()[:, 0]

    @property
    def way(self) -> Way | None:
        """How the samples' gradients are found; None before the first batch that has a finite one."""
        return self._gradients.way

    def backward(self, inputs: Inputs, label_B: torch.Tensor) -> torch.Tensor:
        """Find the gradient of each sample; returns the batch's mean loss, 0-d, NaN for an empty batch.

        Takes the place of zero_grad, forward, loss and backward. Waits for the device.

        Raises:
            ValueError: The samples' gradients of this module are not to be had (on the first batch).
        """
        self._dp.zero_grad(set_to_none=True)
        self._found = self._gradients.find(inputs, label_B)
        return self._found.loss_B.mean()

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        """Clip, average and add noise; the optimizer then finds the result in the parameters' gradients.

        Returns:
            The norm of the plain mean gradient, 0-d; NaN where a sample's gradient was not finite.

        Raises:
            ValueError: `backward` was not called, or some parameters are left out.
            BudgetError: The step would spend more than max_epsilon.
        """
        listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        if {id(one) for one in listed if one.requires_grad} != {id(one) for one in self._parameters}:
            raise ValueError("per-sample clipping is over all of the optimizer's parameters together; clip them in one call")
        if self._found is None:
            raise ValueError(
                "per-sample clipping needs backward(inputs, label) of the rule before each clip, and one clip a step"
            )
        found, self._found = self._found, None
        if self._account is not None:
            self._account.spend()
        bound = float(self._dp.max_grad_norm)
        self.samples = self._measured(found, bound)
        norm_P = found.sum_norm_P / (self._batch_size if self.is_private else max(1, found.norm_PB.shape[1]))
        self._step_of_opacus(found)
        self.last = _step_of(self.samples, found, norm_P, self._parameters, bound)
        self._told.append(self.samples)
        return self.last.norm_before

    def complete(self, window: GradWindow) -> GradWindow:
        """The window with its sums over the samples instead of over batches, of the steps since the last call.

        Norms, their histogram (a count a sample), removed mass and coefficient are of the samples' own gradients: sums of the
        steps' means, so that ratios of sums are those of samples. A step is clipped when any of its samples was.
        """
        told, self._told = self._told, []
        steps = [one for one in told if len(one.before_B)]
        before = [one.before_B.double().cpu().numpy() for one in steps]
        after = [one.after_B.double().cpu().numpy() for one in steps]
        norms = np.concatenate(before) if before else np.zeros(0)
        self._totals.append(norms.astype(np.float32))
        kept = [float(b.sum() / a.sum()) if a.sum() > 0 else 1.0 for a, b in zip(before, after, strict=True)]
        return msgspec.structs.replace(
            window,
            num_clipped=sum(bool(one.is_clipped_B.any()) for one in steps),
            norm_sum=float(sum(one.mean() for one in before)),
            norm_sq_sum=float(sum((one**2).mean() for one in before)),
            norm_min=float(norms.min()) if len(norms) else None,
            norm_max=float(norms.max()) if len(norms) else 0.0,
            norm_removed_sum=float(sum((a - b).mean() for a, b in zip(before, after, strict=True))),
            norm_histogram=norm_histogram(norms),
            coefficient_sum=float(sum(kept)),
            coefficient_min=min(kept, default=1.0),
        )

    def slices(self, names: Sequence[str]) -> "SampleSlices":
        """What sums the samples' norms by slice, to be given to the recorder."""
        return SampleSlices(self, names)

    def norm_quantiles(self) -> NormQuantiles | None:
        """Quantiles of the samples' norms in the last half of the windows; None before any."""
        late = np.concatenate(self._totals[len(self._totals) // 2 :]) if self._totals else np.zeros(0)
        if not len(late):
            return None
        p10, p50, p90, p99 = (float(q) for q in np.percentile(late, (10, 50, 90, 99)))
        return NormQuantiles(p10=p10, p50=p50, p90=p90, p99=p99)

    def privacy(self) -> PrivacyBudget | None:
        """What was spent; None for training without noise."""
        if self._account is None:
            return None
        self._account.max_norm = float(self._dp.max_grad_norm)
        return self._account.budget()

    def finish(self) -> None:
        """Take all hooks from the module. Idempotent."""
        self._gradients.close()
        for parameter in self._parameters:
            if hasattr(parameter, "summed_grad"):
                del parameter.summed_grad

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the bound and the steps that were paid for; the randomness only where it is no secret."""
        state: dict[str, Any] = {
            "bound": float(self._dp.max_grad_norm),
            "num_steps": 0 if self._account is None else self._account.num_steps,
        }
        if not (self.is_private and self.options.randomness == "secret"):
            state["noise"] = self.noise_generator.get_state().tolist()
            state["coins"] = self._coins.get_state().tolist()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.options.bound == "adaptive":
            self._dp.max_grad_norm = torch.tensor(float(state["bound"]))
        if self._account is not None:
            self._account.num_steps = int(state["num_steps"])
        if "noise" in state:
            self.noise_generator.set_state(torch.tensor(state["noise"], dtype=torch.uint8))
            self._coins.set_state(torch.tensor(state["coins"], dtype=torch.uint8))

    def _make_account(self, num_steps: int | None) -> PrivacyAccount | None:
        if not self.is_private:
            return None
        options = self.options
        delta = options.delta if options.delta is not None else 0.1 / self._num_rows
        if delta >= 1 / self._num_rows:
            raise ValueError(
                f"delta must be below one over the number of rows, 1/{self._num_rows} = {1 / self._num_rows:.3g}, got "
                f"{delta:g}: at that size giving one row away outright would count as private"
            )
        account = PrivacyAccount(
            noise_multiplier=options.noise_multiplier,
            sample_rate=self._batch_size / self._num_rows,
            delta=delta,
            max_norm=float(self.spec.max_norm or 0.0),
            accountant=options.accountant,
            max_epsilon=options.max_epsilon,
        )
        if num_steps is not None:
            account.check_plan(num_steps)
        return account

    def _make_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        options, bound = self.options, float(self.spec.max_norm or 0.0)
        common: dict[str, Any] = {
            "noise_multiplier": options.noise_multiplier,
            "expected_batch_size": self._batch_size,
            "loss_reduction": "mean",
            "generator": self.noise_generator,
        }
        if options.gradients == "ghost":
            return DPOptimizerFastGradientClipping(optimizer, max_grad_norm=bound, **common)
        if options.bound == "per_layer":
            num = len(self._parameters)
            return DPPerLayerOptimizer(optimizer, max_grad_norm=[bound / math.sqrt(num)] * num, **common)
        if options.bound == "adaptive":
            # a twentieth is the paper's; above half the noise multiplier is theorem 1's; Opacus refuses none at all
            quiet = max(self._batch_size / 20, options.noise_multiplier) if self.is_private else 1e-12
            return AdaClipDPOptimizer(
                optimizer,
                max_grad_norm=bound,
                target_unclipped_quantile=options.target,
                clipbound_learning_rate=options.learning_rate,
                min_clipbound=bound / 10 if options.min_bound is None else options.min_bound,
                max_clipbound=options.max_bound,
                unclipped_num_std=quiet if options.count_noise is None else options.count_noise,
                **common,
            )
        return DPOptimizer(optimizer, max_grad_norm=bound, **common)

    def _measured(self, found: Found, bound: float) -> "SampleClip":
        """Each sample's norm before and after clipping, with 0 where it was left out."""
        before_B = found.norm_PB.norm(dim=0)
        if self.options.bound == "per_layer":
            bound_P1 = torch.tensor(self._dp.max_grad_norms, device=before_B.device)[:, None]
            factor_PB = (bound_P1 / (found.norm_PB + _EPSILON)).clamp(max=1.0)
            after_B, is_clipped_B = (found.norm_PB * factor_PB).norm(dim=0), (factor_PB < 1).any(dim=0)
        else:
            factor_B = (bound / (before_B + _EPSILON)).clamp(max=1.0)
            after_B, is_clipped_B = before_B * factor_B, factor_B < 1
        if self.way == "ghost":
            self._gradients.weigh(after_B / before_B.clamp_min(1e-30))
        whole = [torch.zeros(len(found.is_finite_B), device=before_B.device) for _ in range(3)]
        for into, values in zip(whole, (before_B, after_B, is_clipped_B.float()), strict=True):
            into[found.is_finite_B] = values
        return SampleClip(*whole)

    def _step_of_opacus(self, found: Found) -> None:
        num_samples = found.norm_PB.shape[1]
        if not self.is_private:  # private: the mean is over the batch that is expected, or its size would tell who is in it
            self._dp.expected_batch_size = max(1, num_samples)
        if num_samples or self.options.bound != "adaptive":
            self._dp.pre_step()
        else:  # no sample to learn a bound from, only noise to add
            for parameter in self._parameters:
                parameter.summed_grad = torch.zeros_like(parameter)  # type: ignore[attr-defined]
            self._dp.unclipped_num = torch.zeros(())
            self._dp.add_noise()
            self._dp.scale_grad()
        for parameter in self._parameters:
            parameter.grad_sample = None  # type: ignore[attr-defined]  # the memory of B gradients


class SampleClip(NamedTuple):
    """Of the samples of one batch, float32 [B]: norm before clipping, after it, and 1 where it was clipped. All 0 where the
    gradient was not finite."""

    before_B: torch.Tensor
    after_B: torch.Tensor
    is_clipped_B: torch.Tensor


class SampleSlices:
    """Sums of the samples' own norms by slice, as the recorder takes them; kind "exact". See `SliceMass` for the calls."""

    def __init__(self, rule: PerSample, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._rule = rule
        self._sums = torch.zeros(len(names), 4)

    @property
    def sums(self) -> torch.Tensor:
        return self._sums

    def add(
        self, slice_index_B: torch.Tensor | None, coefficient: torch.Tensor, grad_scale: torch.Tensor | float | None = None
    ) -> None:
        """Add the samples that the rule clipped last; each has its own coefficient, so the step's is not looked at."""
        if slice_index_B is None:
            return
        before_B, after_B, is_clipped_B = self._rule.samples
        if len(slice_index_B) != len(before_B):
            raise ValueError(f"slice_index has {len(slice_index_B)} entries, the clipped batch had {len(before_B)} samples")
        self._sums = self._sums.to(before_B.device)
        columns = torch.stack((torch.ones_like(before_B), before_B, before_B - after_B, is_clipped_B), dim=1)
        chosen_B = (slice_index_B >= 0).to(before_B.device)
        self._sums.index_add_(0, slice_index_B.long().to(before_B.device)[chosen_B], columns[chosen_B])

    def reset(self) -> None:
        self._sums.zero_()

    def build(self, sums_S4: npt.NDArray[np.floating[Any]]) -> tuple[SliceGradient, ...]:
        return slice_gradients(self.names, sums_S4, "exact")

    def remove(self) -> None: ...


def _step_of(samples: SampleClip, found: Found, norm_P: torch.Tensor, parameters: list[nn.Parameter], bound: float) -> ClipStep:
    before = total_norm(norm_P)
    if not bool(found.is_finite_B.all()):
        before = torch.full_like(before, float("nan"))
    after = total_norm(tensor_norms([parameter.grad for parameter in parameters if parameter.grad is not None]))
    mass = samples.before_B.sum()
    kept = torch.where(mass > 0, samples.after_B.sum() / mass, 1.0).where(torch.isfinite(before), 0.0)
    return ClipStep(norm_P, before, after, kept, torch.full_like(before, bound))


def checked_options(spec: ClipSpec) -> PerSampleOptions:
    """The rule's options, checked as far as no module and no rows are needed.

    Raises:
        ValueError: The rule, its bound or an option is none that this rule has.
    """
    if spec.kind != "per_sample":
        raise ValueError(f"this rule is per_sample, got {spec.kind!r}; clipping.rules.make_clipper makes the others")
    if spec.max_norm is None or not 0 < spec.max_norm < math.inf:
        raise ValueError(f"clipping by per_sample needs a finite max_norm > 0, got {spec.max_norm!r}")
    if spec.norm_type != 2.0:
        raise ValueError(f"clipping by per_sample knows the 2-norm only, got norm_type={spec.norm_type!r}")
    try:
        return msgspec.convert(spec.options, PerSampleOptions, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(PerSampleOptions))
        raise ValueError(f"clipping by per_sample: {error}; its options are {known}") from error


def _checked_parameters(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        raise ValueError("with batch normalisation a sample has no gradient of its own; use GroupNorm or LayerNorm instead")
    moved = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trained or {id(one) for one in moved} != {id(one) for one in trained}:
        raise ValueError(
            f"the optimizer must move exactly the module's trained parameters: it has {len(moved)}, the module trains "
            f"{len(trained)} (freeze others with requires_grad_(False))"
        )
    return moved
