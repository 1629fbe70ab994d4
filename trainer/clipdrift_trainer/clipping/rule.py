"""What the rules share: their settings out of a `ClipSpec`, and the one call that scales all gradients alike."""

from typing import Any, ClassVar

import msgspec
import torch

from clipdrift_contract.events import ClipKind, ClipSpec
from clipdrift_trainer.clipping.norms import gradients_of, tensor_norms, total_norm
from clipdrift_trainer.clipping.scaling import scale_together
from clipdrift_trainer.clipping.step import ClipStep, Parameters


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings that only one rule has, under the names that `ClipSpec.options` knows them by. This one: none."""


class Rule:
    """A `Clipper` whose settings are checked. Subclasses say how to clip in `_clip`.

    Raises:
        ValueError: An option is unknown or out of range, or the bound is missing or not for this rule.
    """

    kind: ClassVar[ClipKind]
    keeps_direction: ClassVar[bool]
    """Whether all gradients are scaled alike, so that the step only becomes shorter."""
    needs_max_norm: ClassVar[bool] = False
    takes_max_norm: ClassVar[bool] = True
    options_type: ClassVar[type[Options]] = Options

    def __init__(self, spec: ClipSpec) -> None:
        if self.needs_max_norm and spec.max_norm is None:
            raise ValueError(f"clipping by {self.kind} needs max_norm")
        if not self.takes_max_norm and spec.max_norm is not None:
            raise ValueError(f"clipping by {self.kind} takes no max_norm, got {spec.max_norm!r}; {options_words(type(self))}")
        self.spec = spec
        self.last: ClipStep | None = None
        try:
            self._options: Any = msgspec.convert(spec.options, self.options_type, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"clipping by {self.kind}: {error}; {options_words(type(self))}") from error

    @torch.no_grad()
    def __call__(self, parameters: Parameters) -> torch.Tensor:
        listed = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        gradients = gradients_of(listed)
        norm_P = tensor_norms(gradients, self.spec.norm_type)
        before = total_norm(norm_P, self.spec.norm_type)
        if gradients:
            self.last = self._clip(listed, gradients, norm_P, before)
        else:  # nothing was measured, so nothing is learned
            self.last = ClipStep(norm_P, before, before, torch.ones_like(before), torch.full_like(before, float("inf")))
        return before

    def _clip(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor
    ) -> ClipStep:
        """Clip in place. At least one gradient; `parameters` holds also those that have none."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken.

        Raises:
            ValueError: The state is that of another rule, or holds something else than numbers.
        """
        kept = sorted(self.state_dict())
        if sorted(state) != kept:
            keeps = f"keeps {kept}" if kept else "has no state"
            raise ValueError(f"clipping by {self.kind} {keeps}, got {sorted(state)}: the state is that of another rule")
        try:
            self._restore(state)
        except TypeError as error:
            raise ValueError(f"the state of clipping by {self.kind} is damaged: {error}") from error

    def _restore(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` tells; a rule without state has nothing to set."""


class ScalingRule(Rule):
    """A rule that scales all gradients alike, down to a bound of their total norm."""

    keeps_direction = True

    def _clip(
        self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], norm_P: torch.Tensor, before: torch.Tensor
    ) -> ClipStep:
        return scale_together(gradients, norm_P, before, self._next_bound(before))

    def _next_bound(self, norm: torch.Tensor) -> torch.Tensor:
        """The bound of this step, 0-d on the norm's device; `norm` may be NaN or infinite and then must not be learned from."""
        raise NotImplementedError


def options_words(rule: type[Rule]) -> str:
    """What a rule's options are, for a message.

    Example:
        >>> options_words(Rule)
        'it has no options'
    """
    fields = msgspec.structs.fields(rule.options_type)
    if not fields:
        return "it has no options"
    return "its options are " + ", ".join(f"{field.name} ({field.default:g})" for field in fields)


def state_number(value: torch.Tensor | None) -> float | None:
    """A 0-d tensor as JSON can hold it: None for what is not set, or not finite."""
    number = float("inf") if value is None else float(value)
    return number if number - number == 0.0 else None
