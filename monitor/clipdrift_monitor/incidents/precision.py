"""How often incidents were right, by what people said of them."""

from collections.abc import Mapping

import msgspec

from clipdrift_monitor.windows.view import wilson_interval


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """Of the incidents that people gave a verdict on: shares are None where there is none.

    An incident that was "known" before is right, but told nobody anything; it counts in neither.
    """

    num_true: int
    num_false: int
    num_known: int
    value: float | None
    low: float | None
    high: float | None


def precision_of(num_by_verdict: Mapping[str, int]) -> Precision:
    """Share of "true" among "true" and "false", with Wilson's 95 % interval.

    Example:
        >>> found = precision_of({"true": 9, "false": 1, "known": 3})
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.9, 0.596, 0.982)
    """
    num_true, num_false = (num_by_verdict.get(verdict, 0) for verdict in ("true", "false"))
    num_rows = num_true + num_false
    low, high = wilson_interval(num_true, num_rows) if num_rows else (None, None)
    return Precision(
        num_true=num_true, num_false=num_false, num_known=num_by_verdict.get("known", 0),
        value=num_true / num_rows if num_rows else None, low=low, high=high,
    )  # fmt: skip
