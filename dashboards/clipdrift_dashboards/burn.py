"""Alerts on an error budget: how fast it is spent, and a refusal of those that could never fire."""

import msgspec

from clipdrift_contract.errors import ConfigError

PERIOD_HOURS = 30 * 24
"""What a budget is for."""
_HALF = 0.5
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


class Burn(msgspec.Struct, frozen=True, kw_only=True):
    """Fires while the budget of 30 days goes so fast that `spent` of it would be gone after the long window.

    The short window makes it end soon after the trouble does.

    Raises:
        ConfigError: It could never fire, or would fire within the budget.

    Example:
        >>> fast = Burn(budget=0.01, spent=0.02, long="1h", short="5m")
        >>> round(fast.factor, 1), round(fast.bound, 3)
        (14.4, 0.144)

    Source: The Site Reliability Workbook (Beyer et al. 2018), chapter 5, table 5-8.
    """

    budget: float
    """Share of all that may go wrong, in 0..1."""
    spent: float
    """Share of the budget that is gone when it fires."""
    long: str
    short: str

    def __post_init__(self) -> None:
        if not 0 < self.budget < 1:
            raise ConfigError(f"an error budget is a share between 0 and 1, got {self.budget!r}")
        if self.bound >= 1:
            raise ConfigError(
                f"an alert on a budget of {self.budget:g} at {self.factor:.3g} times its rate can never fire: it needs "
                f"{self.bound:.0%} of all to go wrong; at most {1 / self.budget:.3g} times is possible"
            )
        if self.factor <= 1:
            raise ConfigError(f"an alert at {self.factor:.3g} times the rate of a budget of {self.budget:g} fires within it")

    @property
    def factor(self) -> float:
        """How many times faster than the budget allows; at 1 the budget lasts its 30 days."""
        return self.spent * PERIOD_HOURS / hours(self.long)

    @property
    def bound(self) -> float:
        """The share of all that must go wrong."""
        return self.factor * self.budget


def reachable(budget: float, spent: float, long: str, short: str) -> Burn:
    """A burn that needs at most half of all to go wrong: of a large budget, less may be spent before it fires.

    Raises:
        ConfigError: `budget` is half or more: no rate above it is reachable.

    Example:
        >>> one = reachable(0.1, 0.02, "1h", "5m")
        >>> round(one.factor, 1), round(one.bound, 2)
        (5.0, 0.5)
    """
    if not 0 < budget < _HALF:
        raise ConfigError(f"a budget that alerts can watch is between 0 and {_HALF:g}, got {budget!r}")
    most = _HALF / budget * hours(long) / PERIOD_HOURS
    return Burn(budget=budget, spent=min(spent, most), long=long, short=short)


def hours(window: str) -> float:
    """
    Example:
        >>> hours("30m"), hours("3d")
        (0.5, 72.0)
    """
    return int(window[:-1]) * _HOURS[window[-1]]
