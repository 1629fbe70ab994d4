"""What the HTTP interface answers with: the shapes that its OpenAPI document names."""

from typing import Generic, TypeVar

import msgspec

from clipdrift_contract.events import Diagnosis, Incident, Signal
from clipdrift_monitor.clipping.association import Association
from clipdrift_monitor.incidents.precision import Precision
from clipdrift_monitor.risk.realised import Realised
from clipdrift_monitor.state import StateWord
from clipdrift_monitor.windows.delays import Maturity
from clipdrift_monitor.windows.view import View

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrong, in words."""

    error: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str
    is_idle: bool


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """All that was saved is read."""

    status: str


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What has been read of one model since the store began."""

    num_predictions: int
    num_labels: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the monitor has come."""

    is_idle: bool
    lag: int
    models: dict[str, Counted]


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list; `next` is the address of the part after it, null at the end."""

    items: tuple[T, ...]
    next: str | None = None


class IncidentPage(msgspec.Struct, frozen=True, kw_only=True):
    """Incidents, the last changed first, and how often people called them true so far."""

    items: tuple[Incident, ...]
    precision: Precision
    next: str | None = None


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a line."""

    model: str
    version: str | None
    state: StateWord
    num_open_incidents: int = 0


class LiveAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """A share of right answers with its 95 % interval, of `n` labels; null where values are foretold or there are no labels.

    The interval holds at every look while labels come in, and allows for errors that hang together as validation says.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


class WouldBeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """After how many labels a lasting rise of the error rate would raise an alarm."""

    rise: float
    num_labels: float | None
    """Null: validation is too short to tell such a rise from chance."""
    num_blocks: float | None
    """The same in windows, at the traffic of the sliding view."""
    words: str


class RunningRetrain(msgspec.Struct, frozen=True, kw_only=True):
    """The retrain that is running."""

    key: str
    state: str


class RolloutTold(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate on its way into service."""

    rollout_id: str
    key: str
    version: str
    stage: str
    weight: float
    """Share of the requests that it answers."""
    is_held: bool
    num_labels: int
    """Mature labels of its rows."""
    progress: float
    """Of the evidence that a promotion needs, 0..1."""
    harm_level: float
    """Of the evidence that a rollback needs, 0..1."""
    words: str


class ModelTold(msgspec.Struct, frozen=True, kw_only=True):
    """One model in full."""

    model: str
    version: str | None
    generation: int
    state: StateWord
    accuracy: LiveAccuracy | None
    is_mature: bool
    validated_accuracy: float | None
    nll: float | None
    brier: float | None
    ece: float | None
    auc: float | None
    mean_absolute_error: float | None
    slices: dict[str, LiveAccuracy]
    num_predictions: int
    num_labels: int
    watermark_ms: int
    evidence: dict[str, float]
    repair_worth: float
    removed_mass: float | None
    clipping: str
    association: Association | None
    diagnosis: Diagnosis | None
    would_be_seen: WouldBeSeen | None
    realised: tuple[Realised, ...]
    open_signals: tuple[Signal, ...]
    open_incidents: tuple[str, ...]
    retrain: RunningRetrain | None
    previous_version: str | None
    approval: str = ""
    """What a person is asked about this model; "" where nothing."""
    rollout: RolloutTold | None = None


class SliceCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of one slice; "" is all slices together."""

    slice: str
    num_labels: int
    num_correct: int


class CountedAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Labels and right answers by slice."""

    slices: tuple[SliceCounts, ...]


class SliceTold(msgspec.Struct, frozen=True, kw_only=True):
    """One slice of the version in service, over the sliding view, beside what was validated."""

    slice: str
    live: View
    share: float | None
    """Of all predictions in view."""
    validated_accuracy: float | None
    validated_share: float | None
    would_be_seen: WouldBeSeen | None = None


class WindowTold(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one window: predictions made in [start, end) of one version; slice "" is all of them."""

    version: str
    slice: str
    start_ms: int
    end_ms: int
    view: View
    maturity: Maturity
    """How far it is labelled, beside how far it should be by now."""


class EvidenceTold(msgspec.Struct, frozen=True, kw_only=True):
    """A pack of evidence: its page, and the signal it was made for."""

    signal_id: str
    address: str
    is_ready: bool


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be in service again."""

    version: str
    generation: int


class RetrainOrdered(msgspec.Struct, frozen=True, kw_only=True):
    """The order that was taken; its end is seen among the retrains."""

    key: str
    approval: str = ""
    """What another person is asked first; "": it is ordered."""
