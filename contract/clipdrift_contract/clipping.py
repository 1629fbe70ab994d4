"""How clipping is put into words, the same on every page and in every command."""

from clipdrift_contract.events import ClipSpec

_NAMES = {"off": "no clipping", "autoclip": "AutoClip", "zclip": "ZClip", "agc": "AGC", "adagc": "AdaGC"}


def describe_clip(clip: ClipSpec, digits: int | None = None) -> str:
    """A policy in a few words: its rule and every setting that is not the rule's default.

    Args:
        clip: The policy.
        digits: Of its bound; None: all, so that two policies with different settings are never called the same.

    Example:
        >>> describe_clip(ClipSpec(kind="global_norm", max_norm=0.05)), describe_clip(ClipSpec(kind="autoclip"))
        ('global norm 0.05', 'AutoClip, 10th percentile')
        >>> describe_clip(ClipSpec(kind="agc", options={"clip_factor": 0.05})), describe_clip(ClipSpec())
        ('AGC, clip_factor 0.05', 'no clipping')
        >>> describe_clip(ClipSpec(kind="autoclip", max_norm=0.5)), describe_clip(ClipSpec(kind="zclip", max_norm=2 / 3), 3)
        ('AutoClip 0.5, 10th percentile', 'ZClip 0.667')
    """
    name = _NAMES.get(clip.kind, clip.kind.replace("_", " "))
    if clip.kind == "off":
        return name
    return ", ".join(
        [
            name if clip.max_norm is None else f"{name} {_number(clip.max_norm, digits)}",
            *([f"{clip.percentile:g}th percentile"] if clip.kind == "autoclip" else []),
            *([f"norm type {clip.norm_type:g}"] if clip.norm_type != ClipSpec().norm_type else []),
            *(f"{option} {value}" for option, value in clip.options.items()),
        ]
    )


def percent(share: float) -> str:
    """A share in whole percent, that never calls a little nothing or nearly all all.

    Example:
        >>> percent(0.0), percent(0.004), percent(0.999), percent(1.0), percent(0.5)
        ('0 %', 'less than 1 %', 'more than 99 %', '100 %', '50 %')
    """
    if 0 < share < 0.01:
        return "less than 1 %"
    if 0.99 < share < 1:
        return "more than 99 %"
    return f"{100 * share:.0f} %"


def _number(value: float, digits: int | None) -> str:
    if digits is not None:
        return f"{value:.{digits}g}"
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
