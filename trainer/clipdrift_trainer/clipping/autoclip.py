"""AutoClip: the bound is a percentile of all norms of the run."""

from typing import Any

import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rule import ScalingRule

_FIRST_CAPACITY = 1_024


class AutoClip(ScalingRule):
    """Global norm with a bound that follows the run: the p-th percentile of all norms so far, the present one included.

    `ClipSpec.percentile` is p (10 in the paper), `max_norm` a cap. At p = 10 some 90 % of the steps are clipped, by design.
    Norms that are not finite are left out. The norms are kept sorted on the gradients' device (4 bytes a step), so the host
    does not wait; a step costs two passes over them.

    Source: Seetharaman et al. 2020 (arXiv 2007.14469), section 3; percentile with linear interpolation, as `numpy.percentile`.

    Example:
        >>> clipper = AutoClip(ClipSpec(kind="autoclip", percentile=50.0))
        >>> weight = torch.zeros(1, requires_grad=True)
        >>> for norm in (1.0, 2.0, 9.0):
        ...     weight.grad = torch.tensor([norm])
        ...     norm_before_clip = clipper(weight)
        >>> float(clipper.last.bound), round(float(weight.grad), 3)  # the median of 1, 2 and 9
        (2.0, 2.0)
    """

    kind = "autoclip"

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        if not 0.0 <= spec.percentile <= 100.0:
            raise ValueError(f"percentile must be in 0..100, got {spec.percentile!r}")
        self._norms = _SortedNorms([])

    def _next_bound(self, norm: torch.Tensor) -> torch.Tensor:
        self._norms.insert(norm)
        bound = self._norms.percentile(self.spec.percentile)
        return bound if self.spec.max_norm is None else bound.clamp_max(self.spec.max_norm)

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self._norms.to_list()}

    def _restore(self, state: dict[str, Any]) -> None:
        self._norms = _SortedNorms(sorted(float(norm) for norm in state["norms"]))


class _SortedNorms:
    """Finite norms in ascending order on their device, float32, with room at the end that is filled with infinity."""

    def __init__(self, norms: list[float]) -> None:
        self._num_inserted = len(norms)  # at least as many as are finite: how many are only the device knows
        room = [float("inf")] * max(_FIRST_CAPACITY, len(norms))
        self._sorted = torch.tensor(norms + room, dtype=torch.float32)
        self._spare = torch.empty_like(self._sorted)
        self._count = torch.tensor(len(norms))

    def insert(self, norm: torch.Tensor) -> None:
        if self._sorted.device != norm.device:
            self._sorted, self._spare, self._count = (t.to(norm.device) for t in (self._sorted, self._spare, self._count))
        if self._num_inserted == len(self._sorted):
            self._sorted = torch.cat([self._sorted, torch.full_like(self._sorted, float("inf"))])
            self._spare = torch.empty_like(self._sorted)
        is_finite = torch.isfinite(norm)
        # new[i] = max(old[i - 1], min(old[i], norm)): exact, and infinity changes nothing
        torch.minimum(self._sorted, norm.where(is_finite, float("inf")), out=self._spare)
        torch.maximum(self._spare[1:], self._sorted[:-1], out=self._spare[1:])
        self._sorted, self._spare = self._spare, self._sorted
        self._count = self._count + is_finite
        self._num_inserted += 1

    def percentile(self, percentile: float) -> torch.Tensor:
        """0-d float32; infinity while there is no finite norm."""
        wide = torch.float32 if self._count.device.type == "mps" else torch.float64  # MPS has no float64
        last = (self._count - 1).clamp_min_(0)
        position = last.to(wide) * (percentile / 100.0)
        low = position.floor().long()
        pair = self._sorted.index_select(0, torch.stack([low, torch.minimum(low + 1, last)])).to(wide)
        found = pair[0] + (position - low) * (pair[1] - pair[0])
        return found.float().where(self._count > 0, float("inf"))

    def to_list(self) -> list[float]:
        found: list[float] = self._sorted[: int(self._count)].tolist()
        return found
