"""The privacy account of a differentially private training: what its steps spend, and when they must stop.

Needs the extra `privacy` (Opacus).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import PrivacyBudget

AccountantName = Literal["prv", "rdp"]
_MOST_STEPS = 1 << 40
_PRV_LIMIT = 20.0


class BudgetError(ClipdriftError):
    """The next step, or the planned run, would spend more privacy than is allowed."""


class PrivacyAccount:
    """Counts the steps of one run of DP-SGD and says what they spent: (epsilon, delta) for adding or removing one row.

    Holds when every step takes each row by a coin of its own with probability `sample_rate` (Poisson sampling), clips each
    row's gradient, and adds Gaussian noise of `noise_multiplier` times the bound to their sum.

    Args:
        noise_multiplier: > 0.
        sample_rate: In (0, 1].
        delta: In (0, 1): the chance that the promise of epsilon does not hold; below one over the number of rows.
        max_norm: The bound, for the record.
        accountant: "prv" (tight; its upper bound is taken) or "rdp" (looser, older, quick). Where RDP says more than 20, which
            promises next to nothing, RDP's bound is taken for both: PRV would need a minute for it.
        max_epsilon: What may be spent; None: no limit.

    Source: Opacus' accountants: PRV, Gopi et al. 2021 (arXiv 2106.02848), with an error of epsilon of at most 0.01; RDP,
    Mironov et al. 2019 (arXiv 1908.10530).

    Example:
        >>> account = PrivacyAccount(noise_multiplier=1.0, sample_rate=0.01, delta=1e-5, max_norm=1.0)
        >>> for _ in range(100):
        ...     account.spend()
        >>> round(account.budget().epsilon, 2)
        0.73
    """

    def __init__(
        self,
        *,
        noise_multiplier: float,
        sample_rate: float,
        delta: float,
        max_norm: float,
        accountant: AccountantName = "prv",
        max_epsilon: float | None = None,
    ) -> None:
        if not noise_multiplier > 0:
            raise ValueError(f"noise_multiplier must be > 0, got {noise_multiplier!r}: without noise nothing is private")
        if not 0 < sample_rate <= 1:
            raise ValueError(f"sample_rate must be in (0, 1], got {sample_rate!r}")
        if not 0 < delta < 1:
            raise ValueError(f"delta must be in (0, 1), got {delta!r}")
        if max_epsilon is not None and not max_epsilon > 0:
            raise ValueError(f"max_epsilon must be > 0, got {max_epsilon!r}")
        self.num_steps = 0
        self.max_norm = max_norm
        self._noise_multiplier = noise_multiplier
        self._sample_rate = sample_rate
        self._delta = delta
        self._accountant: AccountantName = accountant
        self._max_epsilon = max_epsilon
        self._num_allowed = 0 if max_epsilon is not None else _MOST_STEPS  # known to be within the limit

    def epsilon(self, num_steps: int) -> float:
        """What so many steps spend; 0 for none."""
        return self._spent(num_steps)[0]

    def _spent(self, num_steps: int) -> tuple[float, AccountantName]:
        if num_steps == 0:
            return 0.0, self._accountant
        rough = self._by("rdp", num_steps)
        if self._accountant == "rdp" or rough > _PRV_LIMIT:
            return rough, "rdp"
        return self._by(self._accountant, num_steps), self._accountant

    def _by(self, name: AccountantName, num_steps: int) -> float:
        accountant = create_accountant(mechanism=name)
        accountant.history = [(self._noise_multiplier, self._sample_rate, num_steps)]
        with _quiet():
            return float(accountant.get_epsilon(delta=self._delta))

    def check_plan(self, num_steps: int) -> None:
        """Raise BudgetError where so many further steps would spend too much; the message says what would fit."""
        if self._max_epsilon is None:
            return
        total = self.num_steps + num_steps
        needed = self.epsilon(total)
        if needed <= self._max_epsilon:
            self._num_allowed = max(self._num_allowed, total)
            return
        raise BudgetError(
            f"{total} steps would spend epsilon = {needed:.2f} at delta = {self._delta:g}, max_epsilon is "
            f"{self._max_epsilon:g}. Within it: {self._most_steps()} steps, or noise_multiplier = "
            f"{self._enough_noise(total):.2f} instead of {self._noise_multiplier:g}, or fewer rows a batch"
        )

    def spend(self) -> None:
        """Count one step, before its gradient is used.

        Raises:
            BudgetError: It would spend more than `max_epsilon`; it is not counted.
        """
        if self.num_steps >= self._num_allowed:
            self._num_allowed = self._most_steps()
        if self.num_steps >= self._num_allowed:
            raise BudgetError(
                f"step {self.num_steps + 1} would spend epsilon = {self.epsilon(self.num_steps + 1):.2f} at delta = "
                f"{self._delta:g}, max_epsilon is {self._max_epsilon:g}; the {self.num_steps} steps until here are within it"
            )
        self.num_steps += 1

    def budget(self) -> PrivacyBudget:
        """What was spent, for the run's record."""
        epsilon, accountant = self._spent(self.num_steps)
        return PrivacyBudget(
            epsilon=epsilon,
            delta=self._delta,
            noise_multiplier=self._noise_multiplier,
            max_norm=self.max_norm,
            sample_rate=self._sample_rate,
            num_steps=self.num_steps,
            accountant=accountant,
        )

    def _enough_noise(self, num_steps: int) -> float:
        assert self._max_epsilon is not None
        accountant = "rdp" if self._max_epsilon > _PRV_LIMIT else self._accountant
        with _quiet():
            return float(
                get_noise_multiplier(
                    target_epsilon=self._max_epsilon,
                    target_delta=self._delta,
                    sample_rate=self._sample_rate,
                    steps=num_steps,
                    accountant=accountant,
                )
            )

    def _most_steps(self) -> int:
        """The most steps within the limit, by bisection: epsilon never falls with the steps."""
        assert self._max_epsilon is not None
        low, high = 0, 1
        while high < _MOST_STEPS and self.epsilon(high) <= self._max_epsilon:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epsilon(middle) <= self._max_epsilon else (low, middle)
        return low


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is")  # the bound holds, it could be tighter
        warnings.filterwarnings("ignore", message="divide by zero encountered in log")  # PRV at a sample rate of 1
        yield
