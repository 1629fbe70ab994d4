"""Drives the traffic day by day, in lockstep with the monitor, so that the same replay gives the same decisions every time."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Deployment, Event
from clipdrift_deploy.demo.client import ServingClient
from clipdrift_deploy.demo.story import Listener
from clipdrift_deploy.demo.traffic import Stream

_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.1


class ReplayError(ClipdriftError):
    """The replay cannot go on; the message says what it waited for and which log tells more."""


class Watcher(Protocol):
    """What the replay asks of the monitor."""

    def progress(self) -> dict[str, Any]:
        """Counts taken in by model, and whether the monitor has anything left to do."""
        ...


class Replay:
    """Sends `streams` to serving and waits, after each day, until monitor and retraining have come to rest.

    Args:
        streams: The traffic, one stream a model.
        client: Of the server.
        watcher: Of the monitor.
        listener: Of the bus.
        check: Called while waiting; raises when a process has ended.
        on_events: Told of every new event, in order, with the day's end.
        patience_seconds: How long a day may take to come to rest (a retrain runs meanwhile).
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        client: ServingClient,
        watcher: Watcher,
        listener: Listener,
        *,
        check: Callable[[], None],
        on_events: Callable[[Sequence[Event]], None],
        patience_seconds: float = 180.0,
    ) -> None:
        self.streams = streams
        self._client = client
        self._watcher = watcher
        self._listener = listener
        self._check = check
        self._on_events = on_events
        self._patience_seconds = patience_seconds

    def await_first_versions(self, models: Sequence[str]) -> None:
        """Wait until each of `models` has a version in service."""
        self._wait(f"a first version of {', '.join(models)}", lambda: all(self._client.generation(name) for name in models))
        self._on_events(self._listener.poll())

    def run_until(self, end_ms: int) -> None:
        """Send everything up to `end_ms`, which should be a midnight, and wait until it has been dealt with.

        The first rows of a day are what an earlier one is weighed with: while a candidate is on its way, what follows is in
        service before the others are sent.
        """
        if any(self._is_on_its_way(stream.model) for stream in self.streams):
            for stream in self.streams:
                stream.send_until(self._client, min(stream.next_ms + 1, end_ms))
            self.settle()
        for stream in self.streams:
            stream.send_until(self._client, end_ms)
        self.settle()

    def finish(self) -> None:
        """Hand in the labels that are still out, and wait until they have been dealt with."""
        for stream in self.streams:
            stream.deliver_until(self._client, stream.last_label_ms)
        self.settle()

    def settle(self) -> None:
        """Wait until the monitor has seen all, no retrain runs, and serving has taken up every deployment."""
        self._client.flush()
        self._wait("the monitor to take in all predictions and labels", self._has_come_to_rest)
        self._on_events(self._listener.poll())
        self._wait("serving to take up the newest deployment", self._has_swapped)

    def _has_come_to_rest(self) -> bool:
        progress = self._watcher.progress()
        if not progress["is_idle"]:
            return False
        models = progress["models"]
        return all(
            models.get(stream.model, {}).get("num_predictions", 0) >= stream.num_answered
            and models.get(stream.model, {}).get("num_labels", 0) >= stream.num_labels
            for stream in self.streams
        )

    def _is_on_its_way(self, model: str) -> bool:
        in_order = self._listener.stories[model].in_order
        return bool(in_order) and bool(in_order[-1].stage)

    def _has_swapped(self) -> bool:
        names = {stream.model for stream in self.streams}
        newest = {name: newest_generation(self._listener.stories[name].deployments.values()) for name in names}
        return all(self._client.generation(name) >= generation for name, generation in newest.items() if generation)

    def _wait(self, for_what: str, is_done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while not is_done():
            self._check()
            if time.monotonic() > deadline:
                raise ReplayError(f"waited {self._patience_seconds:.0f} s in vain for {for_what}: {self._watcher.progress()}")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def newest_generation(deployments: Iterable[Deployment]) -> int:
    """The highest generation announced; 0 for none."""
    return max((one.generation for one in deployments), default=0)
