"""Splits the loss of accuracy into a mix term (other rows than before) and a within-slice term (worse on the same rows)."""

from collections.abc import Mapping

import msgspec


class LossSplit(msgspec.Struct, frozen=True, kw_only=True):
    """validated - live accuracy = mix + within, exactly, over the slices that have labels on both sides."""

    loss: float
    mix: float
    within: float


def split_loss(validated: Mapping[str, tuple[int, int]], live: Mapping[str, tuple[int, int]]) -> LossSplit:
    """Split by slice.

    Args:
        validated: Rows and correct rows of each slice at validation.
        live: The same in production.

    Source: sum_s (p_s - q_s) a_s + sum_s q_s (a_s - b_s), p and q the slices' shares, a and b their accuracies, validated and
    live.

    Example:
        >>> split = split_loss({"easy": (90, 81), "hard": (10, 5)}, {"easy": (50, 45), "hard": (50, 25)})
        >>> round(split.loss, 3), round(split.mix, 3), round(split.within, 3)
        (0.16, 0.16, 0.0)
    """
    shared = [name for name in validated if validated[name][0] and live.get(name, (0, 0))[0]]
    num_before, num_now = sum(validated[name][0] for name in shared), sum(live[name][0] for name in shared)
    mix = within = 0.0
    for name in shared:
        p, q = validated[name][0] / num_before, live[name][0] / num_now
        a, b = validated[name][1] / validated[name][0], live[name][1] / live[name][0]
        mix += (p - q) * a
        within += q * (a - b)
    return LossSplit(loss=mix + within, mix=mix, within=within)
