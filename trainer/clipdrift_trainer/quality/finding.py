"""What one check found, before policy decides what it means for the training."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Level = Literal["pass", "warn", "stop", "skipped"]
LEVELS: tuple[Level, ...] = ("skipped", "pass", "warn", "stop")


def _no_rows() -> npt.NDArray[Any]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """The statement of one check.

    `rows` are all rows that it is about, as positions in the task's rows, worst first; `level` is "stop" where the check's own
    stop threshold is passed, and `is_unmistakable` says whether that alone may end a training that only wants to be warned.
    """

    level: Level
    words: str
    figures: dict[str, float] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    rows: npt.NDArray[Any] = field(default_factory=_no_rows)
    is_unmistakable: bool = False


def passed(words: str, **figures: float) -> Finding:
    return Finding(level="pass", words=words, figures=figures)


def skipped(why: str) -> Finding:
    """A check that had nothing to go by."""
    return Finding(level="skipped", words=why)


def level_of(value: float, warn: float, stop: float) -> Level:
    """Which threshold `value` reaches; NaN reaches none.

    Example:
        >>> level_of(0.3, warn=0.01, stop=0.2), level_of(0.01, warn=0.01, stop=0.2), level_of(0.0, warn=0.01, stop=0.2)
        ('stop', 'warn', 'pass')
    """
    return "stop" if value >= stop else "warn" if value >= warn else "pass"


def worst(levels: list[Level]) -> Level:
    """The most serious of `levels`; "pass" for none.

    Example:
        >>> worst(["pass", "warn", "skipped"])
        'warn'
    """
    return max(levels, key=LEVELS.index, default="pass")


def listed(words: list[str], limit: int = 3) -> str:
    """The first words and how many more there are.

    Example:
        >>> listed(["a", "b", "c", "d", "e"])
        'a, b, c and 2 more'
    """
    return ", ".join(words[:limit]) + (f" and {len(words) - limit} more" if len(words) > limit else "")
