"""What is known of an optimizer by its name, and which clipping it takes out again."""

from clipdrift_contract.events import ClipKind

_ADAPTIVE = frozenset({"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "RMSprop", "Lion"})

COMMON_FACTOR: frozenset[ClipKind] = frozenset({"off", "global_norm", "autoclip", "zclip", "quantile"})
"""Rules that scale all gradients of a step by one factor, which an adaptive optimizer divides out again."""


def is_adaptive(name: str) -> bool:
    """Whether the optimizer rescales every step by its own history, so that a common factor on all gradients cancels.

    Example:
        >>> is_adaptive("AdamW"), is_adaptive("SGD")
        (True, False)
    """
    return name in _ADAPTIVE
