"""Which clipping policies a retrain tries: few, since each costs a training."""

import math

import msgspec

from clipdrift_contract.events import Arm, ClipSpec, NormQuantiles
from clipdrift_contract.optimizers import COMMON_FACTOR, is_adaptive

_FAR = 4.0  # a bound this many times away leaves room for one between


def threshold_candidates(clip: ClipSpec, quantiles: NormQuantiles | None, optimizer: str) -> tuple[Arm, ...]:
    """What a later retrain should try beside the policy of this run ("same").

    An adaptive optimizer takes a common factor out again, so there is nothing to try where all gradients of a step share one.
    Otherwise the bound may go to the 90 % quantile of this run's own norms ("q90"), or half-way there on a log scale ("half").
    A run without a bound of one number tries AutoClip instead of the way between. No clipping at all is never tried: it ruined
    runs at a high learning rate. Private training tries nothing, since every arm would spend the same rows' privacy again.

    Args:
        clip: The policy of this run.
        quantiles: Of what `clip` bounds: of the batch's norms, or of the samples' where each sample is clipped. None: unknown.
        optimizer: Class name, as torch has it.

    Example:
        >>> norms = NormQuantiles(p10=0.2, p50=0.4, p90=0.9, p99=2.0)
        >>> tight = ClipSpec(kind="global_norm", max_norm=0.01)
        >>> [(arm.name, round(arm.clip.max_norm, 3)) for arm in threshold_candidates(tight, norms, "SGD")]
        [('same', 0.01), ('half', 0.095), ('q90', 0.9)]
        >>> [arm.name for arm in threshold_candidates(tight, norms, "Adam")]
        ['same']
    """
    arms = [Arm(name="same", clip=clip, provenance="the policy of the model in service")]
    if (is_adaptive(optimizer) and clip.kind in COMMON_FACTOR) or _spends_privacy(clip):
        return tuple(arms)
    bound = clip.max_norm if clip.kind in ("global_norm", "per_sample") else None
    if bound is None and clip.kind != "autoclip":
        autoclip = ClipSpec(kind="autoclip", percentile=10.0)
        arms.append(Arm(name="autoclip_p10", clip=autoclip, provenance="AutoClip (arXiv 2007.14469)"))
    if quantiles is None or not quantiles.p90 > 0:
        return tuple(arms)
    if bound is not None and abs(math.log(quantiles.p90 / bound)) > math.log(_FAR):
        words = "half-way, on a log scale, from the bound in service to the 90 % quantile of the norms"
        arms.append(Arm(name="half", clip=_bounded(clip, math.sqrt(bound * quantiles.p90)), provenance=words))
    words = "90 % quantile of the norms before clipping in the last half of the run"
    arms.append(Arm(name="q90", clip=_bounded(clip, quantiles.p90), provenance=words))
    return tuple(arms)


def _spends_privacy(clip: ClipSpec) -> bool:
    return bool(clip.options.get("noise_multiplier"))


def _bounded(clip: ClipSpec, max_norm: float) -> ClipSpec:
    if clip.kind == "per_sample":  # its other options are no matter of the bound
        return msgspec.structs.replace(clip, max_norm=max_norm)
    return ClipSpec(kind="global_norm", max_norm=max_norm)
