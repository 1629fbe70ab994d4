"""What a clipping rule is and what one call of it says."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch

from clipdrift_contract.events import ClipSpec

Parameters = torch.Tensor | Iterable[torch.Tensor]


class ClipStep(NamedTuple):
    """What one call did, on the gradients' device: nothing here forces the host to wait."""

    norm_P: torch.Tensor  # float32 [P], before clipping, in the order of the parameters that have a gradient
    norm_before: torch.Tensor  # 0-d
    norm_after: torch.Tensor  # 0-d: what the optimizer should consume
    coefficient: torch.Tensor  # 0-d: norm_after / norm_before, 0 for a step that was not finite
    bound: torch.Tensor  # 0-d; inf when there is none. Where each tensor has its own (agc, adagc): norm_after of a step in
    # which any was clipped, inf otherwise. So for every rule a step was clipped if norm_before > bound and coefficient < 1


class Clipper(Protocol):
    """A clipping rule. Called once a step, between backward and the optimizer, by the training thread."""

    spec: ClipSpec
    last: ClipStep | None

    def __call__(self, parameters: Parameters) -> torch.Tensor:
        """Clip in place; returns the total norm before clipping, as a 0-d tensor."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue as if it had not stopped: numbers and lists that JSON can hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
