"""Clips gradients, records what clipping did, evaluates, exports, retrains.

Rooms in the order of the data: tasks (what is learned) -> clipping -> recording -> integrations (loops that are not ours) ->
evaluation -> profiling, export, registering (card, signature), registry -> training (one run) -> retraining (several runs
against the model in service).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipdrift_trainer.integrations.loop import watch

__all__ = ["watch"]


def __getattr__(name: str) -> Any:
    """`watch`, imported when it is asked for: parts of this package are used where torch is not."""
    if name != "watch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("clipdrift_trainer.integrations.loop").watch
