"""Names what is wrong in how gradients are made, clipped and consumed, from what one window recorded.

Silent in PyTorch, all of them: clipping that is called in the wrong place or on the wrong parameters changes no type and raises
nothing, and a norm that overflows in half precision sets every gradient to zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Fault, FaultKind
from clipdrift_trainer.recording.spikes import loudest
from clipdrift_trainer.recording.window import NUM_COLUMNS, Column, Floats

HALF_LIMIT = 65_504.0  # the largest float16
_LEAST_STEPS = 5  # in which a layer must have had no gradient to be called frozen
_MOST_LAYERS = 8  # named one by one


@dataclass(slots=True)
class StepNote:
    """What the host knows of one recorded row without waiting for the device."""

    step: int
    learning_rate: float = 0.0
    batch_id: str = ""
    is_clipped: bool = True  # False: the optimizer stepped and clipping had not been called
    is_stepped: bool = False
    is_stale: bool = False  # no backward had come since the last step or clip
    is_overtaken: bool = False  # a backward came between clip and step
    is_repeated: bool = False  # clip was called again on the same, further accumulated gradients
    is_scaled: bool = False  # the loss scaler had not been asked to unscale


@dataclass(frozen=True)
class Setting:
    """What does not change from step to step."""

    names: Sequence[str]
    has_clipped_before: bool = False  # in an earlier window
    has_stepped_first: bool = False  # the run began with a step, not with a clip
    has_half: bool = False  # float16 gradients
    unclipped: Sequence[str] = ()  # in the optimizer and not clipped
    untrained: Sequence[str] = ()  # clipped and not in the optimizer
    resting: Sequence[str] = ()  # frozen on purpose since the window began
    tolerance: float = 1e-3


def find_faults(rows: Floats, notes: Sequence[StepNote], setting: Setting) -> tuple[Fault, ...]:
    """The faults that a window shows, each kind once; frozen layers, each layer once.

    Args:
        rows: [S, P + 6], see `recording.window`; one row a note.
        notes: What the host saw.
        setting: See there.
    """
    order = _order_faults(notes, setting)
    found = [*order, *_value_faults(rows, notes, setting), *_parameter_faults(notes, setting)]
    if not order:
        found += _promise_faults(rows, notes, setting)
    return tuple(found + _frozen_layers(rows, notes, setting))


def is_misplaced(note: StepNote) -> bool:
    """Whether clipping did not act on the gradients that the optimizer took."""
    return not note.is_clipped or note.is_stale or note.is_overtaken


def _fault(kind: FaultKind, steps: Sequence[int], words: str, layer: str = "") -> list[Fault]:
    return [Fault(kind=kind, step=steps[0], num_steps=len(steps), layer=layer, words=words)] if steps else []


def _order_faults(notes: Sequence[StepNote], setting: Setting) -> list[Fault]:
    taken = [note for note in notes if note.is_stepped]
    misplaced = [note.step for note in taken if is_misplaced(note)]
    if not setting.has_clipped_before and not any(note.is_clipped for note in notes):
        found = _fault("clip_missing", misplaced, "the optimizer stepped and clipping was never called")
    elif setting.has_stepped_first:
        words = "clipping is called after the optimizer's step, so it changes nothing: call it between backward and step"
        found = _fault("clip_after_step", misplaced, words)
    else:
        words = "clipping is called before backward, so it acts on no or old gradients: call it between backward and step"
        found = _fault("clip_before_backward", misplaced, words)
    repeated = [note.step for note in notes if note.is_repeated]
    words = "clipping is called more than once a step, on gradients that are still accumulating: call it once, before step"
    scaled = [note.step for note in taken if note.is_scaled]
    unscale = "gradients are still multiplied by the loss scale, so they are not clipped: call scaler.unscale_(optimizer) first"
    return found + _fault("double_clip", repeated, words) + _fault("scaled_gradients", scaled, unscale)


def _value_faults(rows: Floats, notes: Sequence[StepNote], setting: Setting) -> list[Fault]:
    norm_SP, total_S = rows[:, :-NUM_COLUMNS], rows[:, Column.TOTAL]
    is_counted_S = np.array([note.is_stepped and not note.is_scaled for note in notes], bool)
    is_nan_S = is_counted_S & np.isnan(total_S)
    is_inf_S = is_counted_S & np.isinf(total_S)
    is_huge_S = is_counted_S & np.isfinite(total_S) & (total_S > HALF_LIMIT)

    def fault(kind: FaultKind, is_so_S: npt.NDArray[np.bool_], words: str) -> list[Fault]:
        found = [int(s) for s in np.flatnonzero(is_so_S)]
        layer = setting.names[loudest(norm_SP[found[0]])] if found else ""
        return _fault(kind, [notes[s].step for s in found], words, layer)

    zeroed = "the step's gradients were set to zero, so the weights moved by momentum alone"
    if setting.has_half:
        words = f"float16 gradients overflow at 65,504 ({zeroed}, or torch's own clipping would have done so): scale the loss"
        overflow = fault("half_overflow", is_inf_S | is_huge_S, words)
    else:
        overflow = fault("inf", is_inf_S, f"an infinite gradient; {zeroed}")
    return fault("nan", is_nan_S, f"a NaN gradient; {zeroed}") + overflow


def _parameter_faults(notes: Sequence[StepNote], setting: Setting) -> list[Fault]:
    steps = [note.step for note in notes if note.is_stepped]
    found: list[Fault] = []
    if setting.unclipped:
        words = f"the optimizer trains {len(setting.unclipped)} tensors that are not clipped: {_named(setting.unclipped)}"
        found += _fault("wrong_parameters", steps, words, setting.unclipped[0])
    elif setting.untrained:
        words = f"{len(setting.untrained)} tensors are clipped that the optimizer does not train: {_named(setting.untrained)}"
        found += _fault("wrong_parameters", steps, words, setting.untrained[0])
    return found


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _promise_faults(rows: Floats, notes: Sequence[StepNote], setting: Setting) -> list[Fault]:
    if setting.unclipped or setting.untrained:
        return []
    steps = [note.step for row, note in zip(rows, notes, strict=True) if is_broken_promise(row, setting.tolerance)]
    words = "between clipping and the optimizer's step something changed the gradients (a hook, another clipping, unscaling)"
    return _fault("not_as_promised", steps, words)


def is_broken_promise(row: Floats, tolerance: float) -> bool:
    """Whether the norm that the optimizer met, where it was looked at, is not the one that clipping left behind."""
    consumed, promised = row[Column.CONSUMED], row[Column.AFTER]
    return bool(not np.isnan(consumed) and not np.isclose(consumed, promised, rtol=tolerance, atol=1e-7))


def _frozen_layers(rows: Floats, notes: Sequence[StepNote], setting: Setting) -> list[Fault]:
    total_S = rows[:, Column.TOTAL]
    is_sound_S = np.array([note.is_stepped for note in notes], bool) & np.isfinite(total_S) & (total_S > 0)
    if is_sound_S.sum() < _LEAST_STEPS:
        return []
    left_out = {*setting.unclipped, *setting.resting}
    is_measured_P = np.array([name not in left_out for name in setting.names], bool)
    frozen = np.flatnonzero((rows[is_sound_S, :-NUM_COLUMNS] == 0).all(axis=0) & is_measured_P)
    steps = [note.step for note, is_sound in zip(notes, is_sound_S, strict=True) if is_sound]
    words = "no gradient reaches this tensor: it is cut off, or it is not used"
    named = [fault for p in frozen[:_MOST_LAYERS] for fault in _fault("frozen_layer", steps, words, setting.names[p])]
    rest = len(frozen) - _MOST_LAYERS
    return named + (_fault("frozen_layer", steps, f"and {rest} more tensors") if rest > 0 else [])
