"""Would a looser bound hold? A raised bound lets longer steps through, which is harmless until the day when it is not."""

from collections.abc import Sequence

import msgspec
import numpy as np

from clipdrift_trainer.ablation.trial import Trial


class StabilityPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a run counts as stable."""

    learning_rate_factor: float = 2.0
    """The candidate is trained again with so many times the learning rate."""
    num_seeds: int = 2
    """With so many of the seeds."""
    most_growth: float = 1.5
    """Mean norm of the last third of a run over that of the middle third."""
    most_spike: float = 10.0
    """99 % quantile of the norms over their median, in the last half of a run."""


class Stability(msgspec.Struct, frozen=True, kw_only=True):
    """The finding, with its reasons in words."""

    is_stable: bool
    reasons: tuple[str, ...]


def judge_stability(
    own: Sequence[Trial], hot: Sequence[Trial], present_loss: float | None, metric: str, margin: float, policy: StabilityPolicy
) -> Stability:
    """Whether the candidate's norms neither grow nor jump, and whether it still is no worse than the present policy when the
    learning rate is raised.

    Args:
        own: The candidate's trials at the task's learning rate.
        hot: Its trials at the raised one; none: nobody tried, so it does not count as stable.
        present_loss: Mean loss under the present policy at the task's learning rate; None: that one diverges, so the candidate
            is compared with itself.
        metric: The loss that decides.
        margin: A loss that is higher by less is no worse.
        policy: The limits.
    """
    whose = "the candidate at its usual one" if present_loss is None else "the present policy"
    limit = _mean_loss(own, metric) if present_loss is None else present_loss
    faults = [*_norm_faults(own, policy), *_hot_faults(hot, limit, whose, metric, margin, policy)]
    if faults:
        return Stability(is_stable=False, reasons=tuple(faults))
    growth, spike = max(map(growth_of, own)), max(map(spike_of, own))
    words = (
        f"norms neither grow (last third over middle third: {growth:.2f}) nor jump (99 % quantile over median: {spike:.1f}), "
        f"and with {policy.learning_rate_factor:g} times the learning rate it is still no worse than {whose}"
    )
    return Stability(is_stable=True, reasons=(words,))


def _norm_faults(own: Sequence[Trial], policy: StabilityPolicy) -> list[str]:
    faults = []
    if any(one.num_nonfinite for one in own):
        faults.append(f"{sum(one.num_nonfinite for one in own)} steps were not finite")
    growth, spike = max(map(growth_of, own), default=1.0), max(map(spike_of, own), default=1.0)
    if growth > policy.most_growth:
        faults.append(
            f"its norms grow while it trains: the last third of a run has {growth:.1f} times those of the middle third"
        )
    if spike > policy.most_spike:
        faults.append(f"its norms jump: the 99 % quantile is {spike:.0f} times the median")
    return faults


def _hot_faults(
    hot: Sequence[Trial], limit: float, whose: str, metric: str, margin: float, policy: StabilityPolicy
) -> list[str]:
    times = f"with {policy.learning_rate_factor:g} times the learning rate"
    if not hot or any(one.has_diverged for one in hot):
        return [f"{times} it diverges" if hot else f"nobody tried it {times}"]
    if any(one.num_nonfinite for one in hot):
        return [f"{times} {sum(one.num_nonfinite for one in hot)} steps were not finite"]
    loss = _mean_loss(hot, metric)
    return [f"{times} its loss is {loss:.4f}, above the {limit:.4f} of {whose}"] if loss > limit + margin else []


def _mean_loss(trials: Sequence[Trial], metric: str) -> float:
    return float(np.mean([one.validation.mean(metric) for one in trials if one.validation is not None]))


def growth_of(trial: Trial) -> float:
    """Mean norm of the last third of the run over that of the middle third; 1 where the run is too short to say.

    Norms fall or stay while a model converges; where they grow, the steps are already as long as it bears.
    """
    means = np.array(trial.norm_means)
    third = len(means) // 3
    if not third:
        return 1.0
    middle, last = means[third : 2 * third].mean(), means[-third:].mean()
    return float(last / middle) if middle > 0 else 1.0


def spike_of(trial: Trial) -> float:
    """99 % quantile of the norms over their median, in the last half of the run; 1 where nothing is known."""
    quantiles = trial.norm_quantiles
    return quantiles.p99 / quantiles.p50 if quantiles is not None and quantiles.p50 > 0 else 1.0
