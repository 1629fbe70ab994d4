"""What is judged."""

from collections.abc import Mapping

import msgspec

from clipdrift_contract.events import RunEnd
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.decisions.worth import PastRetrains
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.windows.window import Floats, Layout

BySlice = Mapping[int, Floats]  # a vector a slice


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The version in service, with what was validated."""

    run: RunEnd
    layout: Layout
    window_ms: int
    label_horizon_ms: int
    min_label_share: float
    policy: Policy
    allotment: Allotment = Allotment()  # what the model may spend of the budget of false alarms
    past: PastRetrains = PastRetrains()
    """How the retrains of all models ended."""
