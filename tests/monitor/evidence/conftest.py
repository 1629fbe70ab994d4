"""A bus on disk that predictions and labels are recorded on, as serving does it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import MS_PER_DAY, ManualClock
from clipdrift_contract.columns import Column
from clipdrift_contract.events import FeatureColumn, LabelBatch, PredictionBatch
from clipdrift_monitor.evidence.order import EvidenceOrder


class Recorded:
    """One bus; rows are added to it batch by batch."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.bus = connect(self.url)
        self.publisher = self.bus.publisher()
        self.events = EventPublisher(self.publisher, source="serving", clock=ManualClock(now_ms=100 * MS_PER_DAY))

    def predictions(self, time_ms: Any, sequence: Any, *, event_id: str | None = None, **changed: Any) -> None:
        """One batch of predictions of pump v1; a name in `changed` replaces what would be there."""
        time_N = np.asarray(time_ms, "i8")
        given: dict[str, Any] = {
            "model": "pump", "version": "v1", "epoch": "e1", "sequence": np.asarray(sequence, "u8"), "event_time_ms": time_N,
            "slice_index": np.zeros(len(time_N), "i2"), "predicted": np.zeros(len(time_N)),
            "scores": np.full((len(time_N), 2), 0.5, "f4"), "features": {"pressure": time_N.astype("f4")}, **changed,
        }  # fmt: skip
        features = tuple(FeatureColumn(name=name, values=Column.of(values)) for name, values in given.pop("features").items())
        packed = {name: Column.of(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
        self.events.publish(PredictionBatch(features=features, **packed), event_id=event_id)

    def labels(self, time_ms: Any, sequence: Any, label: Any, **changed: Any) -> None:
        """One batch of labels for predictions of pump v1."""
        time_N = np.asarray(time_ms, "i8")
        given: dict[str, Any] = {
            "model": "pump", "version": "v1", "epoch": "e1", "sequence": np.asarray(sequence, "u8"), "event_time_ms": time_N,
            "slice_index": np.zeros(len(time_N), "i2"), "predicted": np.zeros(len(time_N)),
            "scores": np.full((len(time_N), 2), 0.5, "f4"), "label": np.asarray(label, "f8"), "label_time_ms": time_N + 1,
            **changed,
        }  # fmt: skip
        packed = {name: Column.of(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
        self.events.publish(LabelBatch(**packed))

    def flush(self) -> None:
        self.events.flush(30)

    def order(self, tmp_path: Path, **changed: Any) -> EvidenceOrder:
        """Reference: the first 10 days; alarm: days 20 to 22."""
        given: dict[str, Any] = {
            "signal_id": "pump-v1-repairable-1", "model": "pump", "version": "v1", "bus_url": self.url, "reference_start_ms": 0,
            "reference_end_ms": 10 * MS_PER_DAY, "current_start_ms": 20 * MS_PER_DAY, "current_end_ms": 22 * MS_PER_DAY,
            "title": "Repairable harm: pump v1", "why": "A simple repair would gain 0.03.",
            "html_path": str(tmp_path / "report.html"), "classes": ("fine", "failed"), "slice_names": ("north", "south"),
            **changed,
        }  # fmt: skip
        return EvidenceOrder(**given)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    made = Recorded(tmp_path / "bus.db")
    yield made
    made.events.close()
    made.bus.close()


@pytest.fixture(scope="session")
def open_recorded() -> Callable[[Path], Recorded]:
    """Opens a bus to record on, for fixtures that outlive a test."""
    return Recorded


@pytest.fixture
def make_order() -> Callable[..., EvidenceOrder]:
    """An order that nobody reads rows for."""

    def make(signal_id: str = "pump-v1-repairable-1", **changed: Any) -> EvidenceOrder:
        return EvidenceOrder(
            signal_id=signal_id, model="pump", version="v1", bus_url="sqlite:///none.db", reference_start_ms=0,
            reference_end_ms=10, current_start_ms=20, current_end_ms=30, **changed,
        )  # fmt: skip

    return make
