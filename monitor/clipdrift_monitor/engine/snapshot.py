"""What readers see of the engine."""

from collections.abc import Mapping

import msgspec

from clipdrift_monitor.risk.realised import Realised
from clipdrift_monitor.state import ModelState


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What readers may see: the state after a commit.

    `is_idle`: nothing was left to read, to judge, to send or to wait for. `waits_for`: why nothing goes on at this moment, in
    words; then all the rest is from before.
    """

    models: Mapping[str, ModelState] = {}
    is_loaded: bool = False
    is_idle: bool = False
    waits_for: str = ""
    lag: int = 0
    num_outbox: int = 0
    is_audit_intact: bool = True
    realised: Mapping[str, tuple[Realised, ...]] = {}  # false alarms by model and severity: promised, and on its own days
    running: Mapping[str, float] = {}  # wall time at which each model's running retrain was started, in seconds
