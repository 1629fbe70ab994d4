"""Whether predictions come as they used to: a window with far fewer rows than any before, a silence longer than any before."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from clipdrift_monitor.detectors.tails import gamma_tail

_MIN_PAST = 7  # a week of days, so that a weekend is known
_PROVEN = 1e-6
_MS_PER_HOUR = 3_600_000


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """What is unusual about how rows came; empty words: nothing."""

    words: str = ""
    num_rows: int = 0
    fewest_before: int = 0
    silent_ms: int = 0  # before this window
    longest_before_ms: int = 0


def freshness_of(
    start_ms: int, num_rows: int, past: Sequence[tuple[int, int]], window_ms: int, min_share: float = 0.5
) -> Freshness:
    """What is unusual about a window's rows, by those of the windows before it; nothing is with fewer than seven of them.

    Args:
        start_ms: Of the window.
        num_rows: Its predictions.
        past: Start and predictions of each window before that had any, oldest first.
        window_ms: Width of a window.
        min_share: Of the rows of the emptiest window before, under which a window has far fewer, unless by chance.

    Source: the tail of a Poisson count, P(N <= n) = Q(n + 1, mean) (DLMF 8.4.10).

    Example:
        >>> days = [(day * 10, 500) for day in range(8)]
        >>> freshness_of(80, 90, days, 10).words
        'Only 90 predictions, and never under 500 in the 8 windows before.'
        >>> freshness_of(80, 480, days, 10).words
        ''
    """
    if len(past) < _MIN_PAST:
        return Freshness(num_rows=num_rows)
    fewest = min(rows for _, rows in past)
    starts = [start for start, _ in past]
    gaps = [later - earlier - window_ms for earlier, later in pairwise(starts)]
    silent, longest = start_ms - starts[-1] - window_ms, max(gaps, default=0)
    said = []
    if num_rows < min_share * fewest and _as_few(num_rows, min_share * fewest) < _PROVEN:
        said.append(f"Only {num_rows:,} predictions, and never under {fewest:,} in the {len(past)} windows before.")
    if silent > longest:
        said.append(
            f"No predictions for {silent / _MS_PER_HOUR:,.0f} hours before this window; the longest silence before was "
            f"{longest / _MS_PER_HOUR:,.0f}."
        )
    return Freshness(words=" ".join(said), num_rows=num_rows, fewest_before=fewest, silent_ms=silent, longest_before_ms=longest)


def _as_few(num_rows: int, mean: float) -> float:
    """Probability of a Poisson count of at most `num_rows`."""
    return gamma_tail(mean, num_rows + 1)
