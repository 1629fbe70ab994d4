"""What is known of an optimizer by its name."""

_ADAPTIVE = frozenset({"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "RMSprop", "Lion"})


def is_adaptive(name: str) -> bool:
    """Whether the optimizer rescales every step by its own history, so that a common factor on all gradients cancels.

    Example:
        >>> is_adaptive("AdamW"), is_adaptive("SGD")
        (True, False)
    """
    return name in _ADAPTIVE
