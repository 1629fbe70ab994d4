"""A monitor's engine on a bus and a store of its own, for benches: told of events, it reads and judges them all."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import MS_PER_DAY, ManualClock
from clipdrift_contract.events import Event
from clipdrift_contract.metrics import MetricSet
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.engine.engine import Engine
from clipdrift_monitor.store.store import Store

POLICY = Policy(may_retrain=False)


def never(errand: object) -> None:
    """Retrains are recommended and never started."""
    raise AssertionError(errand)


class House:
    """One monitor with its bus and store in a folder."""

    def __init__(self, folder: Path) -> None:
        config = MonitorConfig(policy=POLICY, project_name="bench", evidence_dir=folder / "evidence")
        clock = ManualClock(now_ms=1_000 * MS_PER_DAY)
        bus = SqliteBus(folder / "bus.db", num_partitions=1)
        self.store = Store(f"sqlite:///{folder / 'store.db'}")
        self.engine = Engine(config, bus, self.store, never, MetricSet(), clock)
        self._publisher = EventPublisher(bus.publisher(), source="bench", clock=clock)
        self._stack = ExitStack()
        self._turn = self._stack.enter_context(self.engine.session())

    def __enter__(self) -> "House":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._publisher.close()
        self.store.close()

    def tell(self, events: Sequence[Event]) -> None:
        """Tell events and take turns until all is read and judged."""
        for event in events:
            self._publisher.publish(event)
        self._publisher.flush(10.0)
        self._turn(0.0)
        while self.engine.snapshot.lag:
            self._turn(0.0)
