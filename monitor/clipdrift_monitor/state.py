"""All that the monitor remembers of one model, saved whole with every batch of events that changes it."""

from collections.abc import Collection
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.events import Deployment, Diagnosis, Incident, RetrainOutcome, ServedVersion, Signal
from clipdrift_monitor.approvals.approval import WaitingApproval
from clipdrift_monitor.clipping.association import Association
from clipdrift_monitor.clipping.seen import SeenVersion
from clipdrift_monitor.decisions.decide import History
from clipdrift_monitor.detectors.streams import StreamState
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.faults import FaultMemory
from clipdrift_monitor.diagnosis.rules import Facts
from clipdrift_monitor.incidents.history import PastIncident
from clipdrift_monitor.risk.harm import Statement
from clipdrift_monitor.rollout.accounting import RetrainWorth
from clipdrift_monitor.rollout.comparison import Comparison
from clipdrift_monitor.rollout.course import PastRollout, Rollout
from clipdrift_monitor.rollout.evidence import Memory as EvidenceMemory
from clipdrift_monitor.rollout.finding import Finding
from clipdrift_monitor.rollout.trace import RolloutTrace
from clipdrift_monitor.windows.correction import Correction
from clipdrift_monitor.windows.delays import LabelDelays
from clipdrift_monitor.windows.view import View

StateWord = Literal["no labels due yet", "healthy", "harmed", "data broken", "retraining", "not judged"]


class OpenBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of the version in service in a block that is not judged yet: as they came, with the time of each prediction."""

    time_ms: bytes = b""  # <i8 [N]
    is_error: bytes = b""  # u1 [N]
    slice_index: bytes = b""  # <i2 [N]; shorter where the first labels came before slices were kept

    def with_labels(
        self,
        time_ms_N: npt.NDArray[np.int64],
        is_error_N: npt.NDArray[np.bool_],
        at_most: int,
        slice_N: npt.NDArray[np.int16] | None = None,
    ) -> "OpenBlock":
        """This block with more labels; what exceeds `at_most` is left out."""
        room = max(0, at_most - len(self.is_error))
        kept_N = np.zeros(len(time_ms_N), np.int16) if slice_N is None else slice_N
        return OpenBlock(
            time_ms=self.time_ms + time_ms_N[:room].astype("<i8").tobytes(),
            is_error=self.is_error + is_error_N[:room].astype(np.uint8).tobytes(),
            slice_index=self.slice_index + kept_N[:room].astype("<i2").tobytes(),
        )

    def errors_in_order(self, slices: Collection[int] | None = None) -> bytes:
        """0 or 1 for each label, of all slices or of some, in the order of the predictions' times.

        Example:
            >>> block = OpenBlock().with_labels(np.array([20, 10]), np.array([True, False]), 100)
            >>> list(block.errors_in_order())
            [0, 1]
        """
        time_N, is_error_N = np.frombuffer(self.time_ms, "<i8"), np.frombuffer(self.is_error, np.uint8)
        if slices is not None:
            known_N = np.frombuffer(self.slice_index, "<i2")
            unknown_N = np.full(len(time_N) - len(known_N), -1, "<i2")  # the oldest, from a store of before
            chosen_N = np.isin(np.concatenate([unknown_N, known_N]), list(slices))
            time_N, is_error_N = time_N[chosen_N], is_error_N[chosen_N]
        return is_error_N[np.argsort(time_N, kind="stable")].tobytes()


class JudgingFault(msgspec.Struct, frozen=True, kw_only=True):
    """A block that cannot be judged, for an error of the monitor's own; those after it wait for it."""

    version: str
    start_ms: int
    error: str


class JudgedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor saw and said of one block of one version."""

    version: str
    start_ms: int
    end_ms: int
    view: View
    levels: dict[str, float] = {}  # evidence by harm test; 1: alarm
    statements: tuple[Statement, ...] = ()
    alarms: tuple[str, ...] = ()
    drift: DriftReport = DriftReport()
    correction: Correction | None = None  # by labels that came since


class ModelState(msgspec.Struct, kw_only=True):
    """Lists are replaced and never changed in place, so that a shallow copy is a snapshot."""

    model: str
    generation: int = 0
    champion_generation: int = 0  # with which the version in service came there; later ones are steps of a rollout beside it
    in_service: ServedVersion | None = None
    served_before: list[ServedVersion] = []  # the newest last; a rollback goes back to it
    quarantine: list[str] = []  # digests that were rolled back: they stay out
    in_service_since_ms: int = 0
    watermark_ms: int = 0
    num_predictions: int = 0
    num_labels: int = 0
    num_unrecorded: int = 0
    num_version_labels: int = 0  # mature labels of the version in service
    judged_until_ms: int = 0
    judging_fault: JudgingFault | None = None  # what the block after those that were judged failed by
    late_blocks: list[tuple[str, int]] = []  # version and start of judged blocks that got labels and were not seen again yet
    delays: LabelDelays = LabelDelays()  # of all labels so far
    kept_from_ms: int = 0  # rows and labels of an event time before it are left out: their window is let go
    open_blocks: dict[int, OpenBlock] = {}  # by the block's start
    drift: DriftReport = DriftReport()
    streams: dict[str, StreamState] = {}  # of detectors on the errors of the version in service, by name
    last_view: View | None = None  # of the newest judged block
    live: dict[str, View] = {}  # over the view that ends with the newest judged block, by slice; "" is all of them
    recent_accuracy: list[float] = []  # of the newest judged blocks that have one, the oldest first
    last_block_start_ms: int = 0
    levels: dict[str, float] = {}
    repair_worth: float = 0.0  # Brier score a prediction, of the newest judged block
    facts: Facts | None = None  # of the newest judged block
    diagnosis: Diagnosis | None = None
    seen_versions: list[SeenVersion] = []  # how each was trained and fared, the oldest first
    association: Association | None = None  # of drift and harm with clipping, over these
    faults: FaultMemory = FaultMemory()  # of features and labels of the version in service
    open_signals: list[Signal] = []
    incidents: list[Incident] = []  # those that are open, or were until not long ago
    history: History = msgspec.field(default_factory=History)
    tried: RetrainOutcome | None = None  # the last shadow retrain that was ordered for the version in service
    waiting_outcome: RetrainOutcome | None = None  # it came before the run that it speaks of
    waiting_deployment: Deployment | None = None  # the same, of another life's store
    waiting_approval: WaitingApproval | None = None  # what a person is asked
    orderers: dict[str, str] = {}  # who ordered the retrains whose end is open, by key; the monitor's own are not in it
    num_approvals: dict[str, int] = {}  # over, by "kind/state"
    num_rubber_stamps: int = 0
    answer_seconds: list[float] = []  # from opening the evidence, of the last answers, the newest last
    rollout: Rollout | None = None  # that runs
    comparison: Comparison | None = None  # of the version in service with a candidate, or with the one that it replaced
    evidence: EvidenceMemory | None = None  # of the rollout that runs
    finding: Finding | None = None  # what the evidence shows by now
    rollout_traces: list[RolloutTrace] = []  # how the last rollouts went, look by look, the newest last
    past_rollouts: list[PastRollout] = []  # the newest last
    num_rollouts: dict[str, int] = {}  # over, by how they ended
    has_stray: bool = False  # a deployment was taken over whose canary or shadow nobody here knows
    worth_open: RetrainWorth | None = None  # of the retrain whose predecessor answers as a shadow
    worths: list[RetrainWorth] = []  # of those that are over, the newest last
    num_signals: dict[str, int] = {}  # by "kind/severity"
    past_incidents: list[PastIncident] = []  # of the last 90 days
    num_incidents: dict[str, int] = {}  # by "root/severity" when they opened
    num_feedback: dict[str, int] = {}  # incidents by the newest verdict of people
    num_decisions: dict[str, int] = {}
    num_retrains: dict[str, int] = {}  # finished, by verdict

    @property
    def all_worths(self) -> list[RetrainWorth]:
        """What retrains were worth, the newest last; that of one may still be measured."""
        return [*self.worths, *([self.worth_open] if self.worth_open is not None else [])]

    def __post_init__(self) -> None:
        if not self.champion_generation:  # of a store from before rollouts: each generation was another champion's
            self.champion_generation = self.generation

    @property
    def word(self) -> StateWord:
        """The state in a word or two."""
        if self.judging_fault is not None:  # the words below would be of older blocks
            return "not judged"
        kinds = {signal.kind for signal in self.open_signals if signal.severity != "note"}
        if self.history.running_key:
            return "retraining"
        if "data_broken" in kinds:
            return "data broken"
        if kinds:
            return "harmed"
        return "healthy" if self.num_version_labels else "no labels due yet"


def counted(counts: dict[str, int], name: str) -> dict[str, int]:
    """A copy of `counts` with one more of `name`.

    Example:
        >>> counted({"a": 1}, "a")
        {'a': 2}
    """
    return {**counts, name: counts.get(name, 0) + 1}
