"""Whether a retrain pays: what waiting is expected to lose, against what a retrain costs and how likely it is to help."""

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from clipdrift_contract.clock import MS_PER_DAY


class RetrainCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.cost]`: what a retrain costs and what a better model is worth, in one unit of your choice.

    As it stands the unit is one prediction that was wholly wrong and becomes wholly right (1.0 of Brier score), and a retrain
    costs next to nothing: this machine's idle time. Say your own in euros, say.
    """

    value_per_point: float = 1.0
    """What 1.0 of Brier score on one prediction is worth."""
    per_retrain: float = 1.0
    """What each retrain costs, however long it takes: people who look at it, say."""
    per_cpu_hour: float = 0.0
    """What an hour of one core costs."""
    cpu_hours: float = 0.1
    """Hours of one core that a retrain takes, until the first has ended; then the mean of those that have."""
    otherwise_days: float = 28.0
    """Days until the model would be repaired without this retrain: the next training on the calendar, say."""
    prior_passed: float = 2.0
    """Retrains that passed the gate, as if seen before the first: with `prior_failed` the Beta prior of success."""
    prior_failed: float = 1.0
    """Retrains that did not pass, as if seen before the first."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number >= 0, got {value!r}")
        if not (self.prior_passed > 0 and self.prior_failed > 0):
            raise ValueError(
                f"prior_passed and prior_failed must be > 0, got {self.prior_passed!r} and {self.prior_failed!r}: "
                "nothing is certain before the first retrain"
            )


class PastRetrains(msgspec.Struct, frozen=True, kw_only=True):
    """How the finished retrains of a project ended, all models together. What ended inconclusive did not pass."""

    num_passed: int = 0
    num_failed: int = 0
    num_timed: int = 0
    """Retrains that told how long they took."""
    cpu_seconds: float = 0.0
    """Of all of these together."""


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair would bring, as the repairable test sees it, and how many predictions it would bring it to."""

    gain: float
    """Brier score a prediction."""
    gain_low: float | None = None
    gain_high: float | None = None
    """95 % interval; None where there are too few blocks for one."""
    rows_a_day: float = 0.0


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides, in the unit of the costs. `net` = chance * loss - cost."""

    loss: float
    """Expected loss of waiting until the model would be repaired otherwise."""
    loss_low: float | None
    loss_high: float | None
    chance: float
    """Posterior mean of the chance that a retrain passes the gate."""
    chance_low: float
    chance_high: float
    cost: float
    net: float

    @property
    def pays(self) -> bool:
        return self.net > 0

    @property
    def terms(self) -> dict[str, float]:
        """All numbers by name; an end of an interval that is not known is left out."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}


def weigh(worth: Worth, past: PastRetrains, cost: RetrainCost) -> Weighed:
    """Weigh a retrain now against waiting.

    What it leaves out: that a better repair may come later, and that a retrain may be worth more than the simple repair that
    the test tries, which is the least that is proven.

    Source: expected staleness cost against retraining cost, as in Mahadevan, Mathioudakis (CARA, arXiv 2310.04216) and Regol et
    al. (When to retrain, arXiv 2505.14903), here with the paired test's interval in the place of a forecast. The chance is the
    mean of a Beta posterior.

    Example:
        >>> found = weigh(Worth(gain=0.01, rows_a_day=1000), PastRetrains(num_passed=1, num_failed=2), RetrainCost())
        >>> round(found.loss), round(found.chance, 2), round(found.net)
        (280, 0.5, 139)
    """
    scale = worth.rows_a_day * cost.otherwise_days * cost.value_per_point
    passed, failed = past.num_passed + cost.prior_passed, past.num_failed + cost.prior_failed
    chance = passed / (passed + failed)
    low, high = beta_interval(passed, failed)
    hours = past.cpu_seconds / past.num_timed / 3600 if past.num_timed else cost.cpu_hours
    price = cost.per_retrain + cost.per_cpu_hour * hours
    loss = max(0.0, worth.gain) * scale
    return Weighed(
        loss=loss,
        loss_low=None if worth.gain_low is None else worth.gain_low * scale,
        loss_high=None if worth.gain_high is None else worth.gain_high * scale,
        chance=chance,
        chance_low=low,
        chance_high=high,
        cost=price,
        net=chance * loss - price,
    )


def past_retrains(num_by_verdict: Mapping[str, int], num_timed: int = 0, cpu_seconds: float = 0.0) -> PastRetrains:
    """From the number of finished retrains by verdict.

    Example:
        >>> past_retrains({"pass": 2, "fail": 1, "inconclusive": 1}).num_failed
        2
    """
    num_passed = num_by_verdict.get("pass", 0)
    num_failed = sum(num_by_verdict.values()) - num_passed
    return PastRetrains(num_passed=num_passed, num_failed=num_failed, num_timed=num_timed, cpu_seconds=cpu_seconds)


def rows_a_day(num_predictions: float, num_blocks: int, window_ms: int) -> float:
    """Predictions a day over so many blocks.

    Example:
        >>> rows_a_day(700, 7, 43_200_000)
        200.0
    """
    return num_predictions / max(1, num_blocks) * MS_PER_DAY / window_ms


def beta_interval(a: float, b: float) -> tuple[float, float]:
    """Central 95 % interval of a Beta distribution, to 3 digits: by summing its density over log-odds.

    Example:
        >>> [round(x, 3) for x in beta_interval(2.0, 1.0)]
        [0.158, 0.987]
    """
    centre, spread = math.log(a / b), math.sqrt(1 / a + 1 / b)
    x_N = np.linspace(centre - 12 * spread, centre + 12 * spread, 4001)
    log_density_N = a * x_N - (a + b) * np.logaddexp(0.0, x_N)
    share_N = np.cumsum(np.exp(log_density_N - log_density_N.max()))
    low, high = np.interp([0.025, 0.975], share_N / share_N[-1], x_N)
    return float(1 / (1 + np.exp(-low))), float(1 / (1 + np.exp(-high)))
