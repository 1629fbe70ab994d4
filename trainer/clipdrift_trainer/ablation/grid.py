"""The arms: the present policy, no clipping, thresholds relative to the gradients' own size, and what else was asked for."""

import math
from collections.abc import Sequence

import msgspec

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.events import Arm, ClipKind, ClipSpec, NormQuantiles

PRESENT, OFF = "present", "off"
MULTIPLES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
REASONABLE_FROM = 0.1
"""Below a tenth of the median norm every step is cut to the same length: such a bound is a learning rate by another name, and
whether clipping matters should not hang on it."""


class NormScale(msgspec.Struct, frozen=True, kw_only=True):
    """How large the gradients are, as the first runs found it."""

    median: float
    """Of the norms before clipping in the last half of the run that `origin` names."""
    origin: str
    own: NormQuantiles | None
    """Of the run with the present policy."""
    num_tensors: int
    num_parameters: int


def first_arms(present: ClipSpec) -> tuple[Arm, ...]:
    """What must run before thresholds can be named: the present policy, and no clipping unless that is it, or the noise of
    private training depends on the bound."""
    arms = [Arm(name=PRESENT, clip=present, provenance="the policy in clipdrift.toml")]
    if present.kind not in ("off", "per_sample"):
        arms.append(Arm(name=OFF, clip=ClipSpec(kind="off"), provenance="gradients as they are"))
    return tuple(arms)


def later_arms(
    present: ClipSpec, scale: NormScale, thresholds: Sequence[float] = (), rules: Sequence[tuple[ClipKind, float | None]] = ()
) -> tuple[Arm, ...]:
    """All other arms; of several with the same policy the first stays.

    A per-sample bound is varied as such: another rule would take the privacy away that it stands for.

    Args:
        present: The policy that is compared with.
        scale: How large the gradients are.
        thresholds: Bounds of the norm; none: `MULTIPLES` of the median.
        rules: Further rules, each with its bound or None for its default.

    Raises:
        ValueError: A threshold is not a positive number, the gradients have no size to speak of, or another rule is asked for
            in the place of a per-sample bound.

    Example:
        >>> scale = NormScale(median=2.0, origin="off", own=None, num_tensors=4, num_parameters=100)
        >>> [arm.name for arm in later_arms(ClipSpec(), scale, thresholds=[0.5], rules=[("zclip", None)])]
        ['global norm 0.5', 'AutoClip, 10th percentile', 'ZClip']
    """
    if present.kind == "per_sample":
        assert present.max_norm is not None
        if rules:
            raise ValueError("a per-sample bound stands for privacy, which no other rule keeps: ask for no further rules")
        bounds = tuple(thresholds) or tuple(_rounded(multiple * present.max_norm) for multiple in MULTIPLES)
        arms = [_threshold(msgspec.structs.replace(present, max_norm=bound), bound / present.max_norm) for bound in bounds]
    else:
        if not thresholds and not scale.median > 0:
            raise ValueError("every gradient of the first run was zero: nothing learns, so there is nothing to clip")
        bounds = tuple(thresholds) or tuple(_rounded(multiple * scale.median) for multiple in MULTIPLES)
        arms = [_threshold(ClipSpec(kind="global_norm", max_norm=bound), bound / scale.median) for bound in bounds]
        arms.append(_arm(ClipSpec(kind="autoclip", percentile=10.0), "arXiv 2007.14469"))
        if scale.own is not None and scale.own.p90 > 0:
            q90 = ClipSpec(kind="global_norm", max_norm=_rounded(scale.own.p90))
            arms.append(Arm(name="q90", clip=q90, provenance="90 % quantile of the norms under the present policy"))
        arms += [_rule_arm(kind, bound, scale) for kind, bound in rules]
    return _distinct(arms, present)


def multiple_of(clip: ClipSpec, scale: NormScale) -> float | None:
    """How many medians the bound of the norm is; None where there is no such bound."""
    is_bound = clip.kind == "global_norm" and clip.max_norm is not None and scale.median > 0
    return clip.max_norm / scale.median if is_bound and clip.max_norm is not None else None


def _threshold(clip: ClipSpec, multiple: float) -> Arm:
    assert clip.max_norm is not None
    if not (clip.max_norm > 0 and math.isfinite(clip.max_norm)):
        raise ValueError(f"a threshold must be a positive number, got {clip.max_norm!r}; no clipping is always an arm")
    unit = "present bound" if clip.kind == "per_sample" else "median norm"
    return _arm(clip, f"{multiple:.2g} x the {unit}")


def _rule_arm(kind: ClipKind, bound: float | None, scale: NormScale) -> Arm:
    if bound is None:
        bound = _default_bound(kind, scale)
    return _arm(ClipSpec(kind=kind, max_norm=bound), "asked for by --rule")


def _arm(clip: ClipSpec, provenance: str) -> Arm:
    """Named by all its settings, so that no two arms have one name."""
    return Arm(name=describe_clip(clip), clip=clip, provenance=provenance)


def _default_bound(kind: ClipKind, scale: NormScale) -> float | None:
    """The median norm where a rule starts from it; where a rule bounds parts, what each has if all have the same."""
    parts = {"per_tensor": scale.num_tensors, "value": scale.num_parameters, "adagc": 1, "quantile": 1, "global_norm": 1}
    return _rounded(scale.median / math.sqrt(max(1, parts[kind]))) if kind in parts else None


def _distinct(arms: Sequence[Arm], present: ClipSpec) -> tuple[Arm, ...]:
    seen = [present, ClipSpec(kind="off")]
    kept = []
    for arm in arms:
        if arm.clip not in seen:
            seen.append(arm.clip)
            kept.append(arm)
    return tuple(kept)


def _rounded(value: float) -> float:
    """Three digits, so that a bound can be written down.

    Example:
        >>> _rounded(0.0171634)
        0.0172
    """
    return float(f"{value:.3g}")
