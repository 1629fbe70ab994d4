"""The false alarms that a model's own healthy days would bring, beside those that the budget allows.

The days of a history are drawn again in stretches (a bad week stays a bad week), and the very tests that run live are run on
them from the beginning. Nothing in what is drawn is a harm, so every alarm is false.

What it cannot know: a kind of day that the history does not hold.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Severity
from clipdrift_monitor.risk.student import t_quantile

D = TypeVar("D")
StepTests = Callable[[D, int], Iterable[Severity]]
"""Steps tests that have just begun by one day, which is the how manieth of the replay; the severities of alarms raised."""

REPLAY_DAYS = 90
_REPLAYS_A_HISTORY = 4
_MIN_HISTORIES = 5
MIN_DAYS = 10  # fewer say nothing about another ninety
_WEEK = 7.0
_Z975 = 1.959964


class Realised(msgspec.Struct, frozen=True, kw_only=True):
    """False alarms of one severity in 90 days of one model: as promised and as its own days would bring them."""

    severity: Severity
    promised: float
    """At most so many are expected."""
    mean: float
    low: float
    """95 % interval of the mean: chance of the replays, and of which days the history happens to hold."""
    high: float
    num_days: int
    """Days of the history."""
    num_replays: int
    """Of 90 days each."""


class Rehearsal(Generic[D]):
    """Replays of one model's history, one at a time, so that a live monitor can do them when it has nothing else to do.

    The same seed and history give the same replays. Not thread-safe.

    Args:
        days: The healthy days, in the order of time; at least 10.
        begin: Gives tests that have just begun, as a function that steps them by one day.
        seed: Of all draws.
        mean_stretch: Mean number of days in a row that are kept together, >= 1.
        counts: Of an earlier rehearsal of the same days, to go on from there.

    Raises:
        ValueError: There are fewer than 10 days, or the stretch is below 1.

    Example:
        >>> days = [0.1] * 19 + [0.9]
        >>> rehearsal = Rehearsal(days, lambda: lambda day, _: ["page"] if day > 0.5 else [])
        >>> for _ in range(32):
        ...     rehearsal.replay()
        >>> found = rehearsal.realised("page", promised=1.0)
        >>> found.low < 90 / 20 < found.high, found.num_replays
        (True, 32)
    """

    def __init__(
        self, days: Sequence[D], begin: Callable[[], StepTests[D]], *, seed: int = 0, mean_stretch: float = _WEEK,
        counts: Sequence[dict[Severity, int]] = (),
    ) -> None:  # fmt: skip
        if len(days) < MIN_DAYS:
            raise ValueError(f"a rehearsal needs at least {MIN_DAYS} days, got {len(days)}")
        self._days = days
        self._begin = begin
        self._seed = seed
        self._mean_stretch = mean_stretch
        self._counts = list(counts)
        self._days_of_replays = self._replays()

    @property
    def counts(self) -> tuple[dict[Severity, int], ...]:
        """Alarms of each replay that is through, by severity: another rehearsal of the same days goes on from there."""
        return tuple(self._counts)

    @property
    def num_replays(self) -> int:
        """Of those that are through."""
        return len(self._counts)

    def replay(self) -> None:
        """One more life of 90 days, or what is left of one that was begun."""
        number = len(self._counts)
        while len(self._counts) == number:
            self.step()

    def step(self) -> None:
        """One more day: 90 make a replay."""
        next(self._days_of_replays)

    def _replays(self) -> Iterator[None]:
        while True:
            yield from self._one_replay(len(self._counts))

    def _one_replay(self, number: int) -> Iterator[None]:
        # several replays share a history that was itself drawn: how much they differ from others' shows what the days decide
        of_history = np.random.default_rng([self._seed, 0, number // _REPLAYS_A_HISTORY])
        history = stretches(len(self._days), len(self._days), self._mean_stretch, of_history)
        of_replay = np.random.default_rng([self._seed, 1, number])
        step = self._begin()
        counts: dict[Severity, int] = {}
        for at, chosen in enumerate(stretches(len(history), REPLAY_DAYS, self._mean_stretch, of_replay).tolist()):
            for severity in step(self._days[int(history[chosen])], at):
                counts[severity] = counts.get(severity, 0) + 1
            if at == REPLAY_DAYS - 1:
                self._counts.append(counts)
            yield

    def realised(self, severity: Severity, promised: float) -> Realised | None:
        """What the replays so far say; None before the first twenty are through.

        Args:
            severity: Whose alarms.
            promised: What the budget allows this model in 90 days.
        """
        num_histories = len(self._counts) // _REPLAYS_A_HISTORY
        if num_histories < _MIN_HISTORIES:
            return None
        counts_R = np.array([one.get(severity, 0) for one in self._counts[: num_histories * _REPLAYS_A_HISTORY]], float)
        mean_H = counts_R.reshape(num_histories, _REPLAYS_A_HISTORY).mean(axis=1)
        # counts are skewed and their roots are not: the interval is that of the root of the rate
        root, half = math.sqrt(mean_H.mean()), t_quantile(0.975, num_histories - 1) * float(np.sqrt(mean_H).std(ddof=1))
        return Realised(
            severity=severity, promised=promised, mean=root**2, low=max(0.0, root - half) ** 2,
            high=max((root + half) ** 2, poisson_upper(round(float(counts_R.sum()))) / len(counts_R)),
            num_days=len(self._days), num_replays=len(counts_R),
        )  # fmt: skip


def stretches(num_days: int, num_drawn: int, mean_stretch: float, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Numbers of days [num_drawn] in 0..num_days - 1: stretches of days in a row, each of a geometric length, from anywhere,
    going round at the end.

    Source: Politis, Romano 1994, The stationary bootstrap (JASA 89, 1303).

    Example:
        >>> stretches(5, 8, 1e9, np.random.default_rng(1)).tolist()
        [3, 4, 0, 1, 2, 3, 4, 0]
    """
    if num_days < 1 or not mean_stretch >= 1:
        raise ValueError(f"expected days and a mean stretch of at least 1, got {num_days} and {mean_stretch!r}")
    begins_N = random.random(num_drawn) < 1 / mean_stretch
    begins_N[:1] = True
    first_N = random.integers(0, num_days, num_drawn)
    at_N = np.arange(num_drawn)
    begun_N = np.maximum.accumulate(np.where(begins_N, at_N, 0))
    drawn_N: npt.NDArray[np.int64] = (first_N[begun_N] + at_N - begun_N) % num_days
    return drawn_N


def poisson_upper(count: int) -> float:
    """97.5 % upper confidence bound of a Poisson mean, to 1 %.

    Source: Garwood 1936, half the chi-square quantile with 2 (count + 1) degrees of freedom, that by Wilson, Hilferty 1931.

    Example:
        >>> round(poisson_upper(0), 1), round(poisson_upper(10), 1)
        (3.7, 18.4)
    """
    if count < 0:
        raise ValueError(f"a count must be >= 0, got {count!r}")
    degrees = 2.0 * (count + 1)
    return degrees / 2 * (1 - 2 / (9 * degrees) + _Z975 * math.sqrt(2 / (9 * degrees))) ** 3


def ordered_errors(num_labels: int, num_errors: int, lag1: float, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Errors [num_labels] of a day of which only their number is kept: a two-state chain with that error rate and that lag-1
    correlation, so that runs of errors are as long as validated.

    Example:
        >>> errors = ordered_errors(40_000, 8_000, 0.3, np.random.default_rng(0))
        >>> round(float(errors.mean()), 2), round(float(np.corrcoef(errors[1:], errors[:-1])[0, 1]), 1)
        (0.2, 0.3)
    """
    if not 0 <= num_errors <= num_labels:
        raise ValueError(f"there cannot be {num_errors} errors among {num_labels} labels")
    if not 0 <= lag1 < 1:
        raise ValueError(f"lag1 must be in [0, 1), got {lag1!r}")
    if not num_labels:
        return np.zeros(0, bool)
    # each label repeats the one before with probability lag1 and is drawn anew otherwise
    fresh_N = random.random(num_labels) < num_errors / num_labels
    is_new_N = random.random(num_labels) >= lag1
    is_new_N[0] = True
    drawn_N: npt.NDArray[np.bool_] = fresh_N[np.maximum.accumulate(np.where(is_new_N, np.arange(num_labels), 0))]
    return drawn_N
