"""Which root a signal has, by its kind and by what the diagnosis finds behind it."""

from collections.abc import Mapping

from clipdrift_contract.events import Diagnosis, IncidentRoot, Severity, Signal
from clipdrift_monitor.risk.harm import TEST_NAMES

RANK: Mapping[Severity, int] = {"note": 0, "ticket": 1, "page": 2}
OF_A_VERSION: frozenset[IncidentRoot] = frozenset({"harm", "drift", "training"})
"""Roots that end with their version; a broken feed outlives it."""
_OWN_ROOT: Mapping[str, IncidentRoot] = {"data_broken": "data", "labels_missing": "labels", "training_fault": "training"}
_LABEL_FAULT = "label"  # faults of what brings the labels begin so


def root_of(signal: Signal, diagnosis: Diagnosis, *, is_harmed: bool) -> IncidentRoot:
    """The root of a new signal.

    What breaks the data explains drift and harm alike; what breaks the labels, or the training, explains harm. Missing labels
    stand for themselves: neither drift nor harm makes labels stay away.

    Args:
        signal: The signal.
        diagnosis: Of its window.
        is_harmed: Whether the model is harmed at this window; then what moved explains the harm.

    Example:
        >>> from clipdrift_contract.events import Signal
        >>> moved = Signal(signal_id="s", model="m", version="1", kind="feature_drift", severity="note", detector="psi",
        ...                window_start_ms=0, window_end_ms=1, statistic=0.5, threshold=0.2)
        >>> broken, nothing = (Diagnosis(cause=cause, clipping="unknown", words="") for cause in ("data_broken", "none"))
        >>> root_of(moved, broken, is_harmed=True), root_of(moved, nothing, is_harmed=False)
        ('data', 'drift')
    """
    found = root_of_cause(diagnosis)
    if signal.kind in _OWN_ROOT:
        is_label_fault = signal.kind == "data_broken" and found == "labels"
        return "labels" if is_label_fault else _OWN_ROOT[signal.kind]
    if signal.kind in TEST_NAMES:
        return found or "harm"
    if found == "data":
        return "data"
    return "harm" if is_harmed else "drift"


def root_of_cause(diagnosis: Diagnosis) -> IncidentRoot | None:
    """The root that a diagnosis finds behind harm; None where it finds nothing broken."""
    if diagnosis.cause == "data_broken":
        return "labels" if diagnosis.fault.startswith(_LABEL_FAULT) else "data"
    return "training" if diagnosis.cause == "training_fault" else None


def concerns(diagnosis: Diagnosis, root: IncidentRoot) -> bool:
    """Whether a diagnosis is about incidents of this root.

    Example:
        >>> concerns(Diagnosis(cause="drift", clipping="unknown", words=""), "labels")
        False
    """
    found = root_of_cause(diagnosis)
    return root == found if found is not None else root in ("harm", "drift")


def loudest(signals: tuple[Signal, ...]) -> Severity:
    """The highest severity of signals; there must be one."""
    return max((signal.severity for signal in signals), key=lambda severity: RANK[severity])
