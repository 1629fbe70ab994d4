"""Follows the deployments topic from its beginning, in a thread, and brings what it says into service."""

import logging
import threading

from clipdrift_contract.bus.log import Bus
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import DEPLOYMENTS, Deployment
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.repository import ModelRepository

_POLL_SECONDS = 0.25
_log = logging.getLogger(__name__)


class DeploymentFollower:
    """One thread; ends by `stop`. Only the newest generation of what is read together is loaded."""

    def __init__(self, bus: Bus, repository: ModelRepository, metrics: MetricSet, clock: Clock) -> None:
        self._bus = bus
        self._repository = repository
        self._metrics = metrics
        self._clock = clock
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="deployments", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join(10.0)

    def _follow(self) -> None:
        self._wait_for_topic()
        consumer = self._bus.consumer(None, [DEPLOYMENTS])
        publisher = self._bus.publisher()
        reader = EventReader(consumer, publisher=publisher, metrics=self._metrics, clock=self._clock)
        while not self._is_stopping.is_set():
            announced: dict[str, list[Deployment]] = {}
            for _, _, event in reader.poll(500, _POLL_SECONDS):
                if isinstance(event, Deployment):
                    announced.setdefault(event.model, []).append(event)
            for deployments in announced.values():
                self._apply(deployments)
            if not self._repository.is_caught_up and consumer.lag() == 0:
                self._repository.is_caught_up = True
        consumer.close()
        publisher.close(1.0)

    def _apply(self, deployments: list[Deployment]) -> None:
        try:
            self._repository.apply_newest(deployments)
        except Exception:  # noqa: BLE001  one deployment must not end the thread that brings the next; what serves goes on
            _log.exception("a deployment of %s could not be applied", deployments[0].model)

    def _wait_for_topic(self) -> None:
        while not self._is_stopping.is_set():
            try:
                self._bus.ensure_topics([DEPLOYMENTS])
            except RetryableError as error:
                _log.warning("the bus is away: %s", error)
                self._is_stopping.wait(1.0)
                continue
            return
