"""Reads what the monitor knows about models, as plain values: for the JSON interface, the pages and the exporter."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.events import Decision, Deployment, RunEnd, Signal
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.snapshot import Snapshot
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import RetrainRow, Store
from clipdrift_monitor.windows.view import View, view
from clipdrift_monitor.windows.window import Floats, Layout


class UnknownModelError(LookupError):
    """There is no such model; the message names those there are."""


class SliceCounts(NamedTuple):
    """Labels of one slice; "" is all slices together."""

    slice: str
    num_labels: int
    num_correct: int


class LiveFigures(NamedTuple):
    """Of the version in service over the sliding view."""

    overall: View
    slices: dict[str, View]
    is_mature: bool  # off: no window's labels are due yet, so these are first labels only


class Reader:
    """Thread-safe: reads the engine's snapshot and the store.

    Args:
        config: Of the monitor.
        store: Where everything is kept.
        snapshot: Gives the engine's newest snapshot.
    """

    def __init__(self, config: MonitorConfig, store: Store, snapshot: Callable[[], Snapshot]) -> None:
        self._config = config
        self._store = store
        self._snapshot = snapshot
        self._runs: dict[tuple[str, str], RunEnd] = {}

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot()

    def names(self) -> list[str]:
        """Models in the order of their names."""
        return sorted(self.snapshot.models)

    def state(self, model: str) -> ModelState:
        """Raises UnknownModelError when there is no such model."""
        models = self.snapshot.models
        if model not in models:
            raise UnknownModelError(f"no model {model[:100]!r}; there are: {', '.join(sorted(models)) or 'none yet'}")
        return models[model]

    def run(self, state: ModelState) -> RunEnd | None:
        """Of the version in service."""
        if state.in_service is None:
            return None
        place = (state.model, state.in_service.version)
        if place not in self._runs:
            found = self._store.run(*place)
            if found is None:
                return None
            self._runs[place] = found
        return self._runs[place]

    def live(self, state: ModelState) -> LiveFigures | None:
        """Live figures of the version in service; None while there is no version."""
        run = self.run(state)
        if run is None or run.profile is None:
            return None
        layout, width = Layout(run.profile), self._config.window_ms
        due_ms = (state.watermark_ms - self._config.label_horizon_ms) // width * width
        found = self._figures(state, layout, due_ms - self._config.view_windows * width, due_ms, is_mature=True)
        if found.overall.num_labels:
            return found
        newest_ms = state.watermark_ms + width
        return self._figures(state, layout, due_ms - self._config.view_windows * width, newest_ms, is_mature=False)

    def _figures(self, state: ModelState, layout: Layout, start_ms: int, end_ms: int, *, is_mature: bool) -> LiveFigures:
        assert state.in_service is not None
        by_slice: dict[int, Floats] = {}
        for key, sums in self._store.windows(state.model, start_ms, end_ms):
            if key.version == state.in_service.version:
                by_slice[key.slice_index] = by_slice[key.slice_index] + sums if key.slice_index in by_slice else sums
        overall = np.sum(list(by_slice.values()), axis=0) if by_slice else layout.zeros()
        names = layout.profile.slice_names
        slices = {_slice_name(names, index): view(layout, sums) for index, sums in sorted(by_slice.items())}
        return LiveFigures(view(layout, overall), slices, is_mature)

    def accuracy(self, model: str, start_ms: int, end_ms: int) -> list[SliceCounts]:
        """Labels and hits of predictions made in [start, end), all versions together, by slice; "" is all."""
        state = self.state(model)
        run = self.run(state)
        if run is None or run.profile is None:
            return []
        layout, counts = Layout(run.profile), dict[str, list[int]]()
        for key, sums in self._store.windows(model, start_ms, end_ms):
            labels, correct = (round(layout.value(sums, name)) for name in ("num_labels", "num_correct"))
            for name in ("", _slice_name(layout.profile.slice_names, key.slice_index)):
                so_far = counts.setdefault(name, [0, 0])
                so_far[0] += labels
                so_far[1] += correct
        return [SliceCounts(name, *found) for name, found in counts.items()]

    def blocks(self, model: str) -> list[JudgedBlock]:
        """Every judged block, the oldest first."""
        return [msgspec.msgpack.decode(body, type=JudgedBlock) for body in self._store.blocks(model)]

    def signals(self, model: str, limit: int = 50, offset: int = 0) -> list[Signal]:
        """The newest first."""
        return self._store.listed("signals", model, limit, offset)

    def decisions(self, model: str, limit: int = 50, offset: int = 0) -> list[Decision]:
        """The newest first; also those to do nothing."""
        return self._store.listed("decisions", model, limit, offset)

    def deployments(self, model: str, limit: int = 50, offset: int = 0) -> list[Deployment]:
        """The newest first."""
        return self._store.listed("deployments", model, limit, offset)

    def runs(self, model: str, limit: int = 50, offset: int = 0) -> list[RunEnd]:
        """The newest first."""
        return self._store.listed("runs", model, limit, offset)

    def retrains(self, model: str) -> list[RetrainRow]:
        """The newest first."""
        return list(reversed(self._store.retrains(model)))

    def describe(self, model: str) -> dict[str, Any]:
        """One model in full, as JSON-able values."""
        state = self.state(model)
        run, live = self.run(state), self.live(state)
        overall = live.overall if live is not None else None
        running = state.history.running_key
        return {
            "model": model,
            "version": state.in_service.version if state.in_service else None,
            "generation": state.generation,
            "state": state.word,
            "accuracy": None if overall is None else _accuracy(overall),
            "is_mature": live.is_mature if live is not None else False,
            "validated_accuracy": _validated_accuracy(run),
            "nll": overall.nll if overall else None,
            "brier": overall.brier if overall else None,
            "ece": overall.ece if overall else None,
            "auc": overall.auc if overall else None,
            "mean_absolute_error": overall.mean_absolute_error if overall else None,
            "slices": {name: _accuracy(one) for name, one in (live.slices if live else {}).items()},
            "num_predictions": state.num_predictions,
            "num_labels": state.num_labels,
            "watermark_ms": state.watermark_ms,
            "evidence": state.levels,
            "repair_worth": state.repair_worth,
            "removed_mass": run.removed_mass_ratio if run else None,
            "clipping": state.diagnosis.clipping if state.diagnosis else "unknown",
            "diagnosis": None if state.diagnosis is None else msgspec.to_builtins(state.diagnosis),
            "open_signals": msgspec.to_builtins(state.open_signals),
            "retrain": {"key": running, "state": "running"} if running else None,
            "previous_version": state.served_before[-1].version if state.served_before else None,
        }


def _validated_accuracy(run: RunEnd | None) -> float | None:
    if run is None or not run.validation or (run.profile is not None and run.profile.task == "regression"):
        return None
    overall = run.validation[0]
    return overall.num_correct / overall.num_rows if overall.num_rows else None


def _accuracy(figures: View) -> dict[str, float | int | None]:
    return {
        "value": figures.accuracy,
        "low": figures.accuracy_low,
        "high": figures.accuracy_high,
        "n": figures.num_labels,
    }


def _slice_name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"slice {index}"
