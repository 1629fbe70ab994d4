"""Reads what the monitor knows about models, as plain values: for the JSON interface, the pages and the exporter."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.events import Decision, Deployment, Incident, RunEnd, Signal
from clipdrift_monitor.api.answers import LiveAccuracy, ModelTold, RunningRetrain, SliceCounts, SliceTold, WindowTold
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.snapshot import Snapshot
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import RetrainRow, Store
from clipdrift_monitor.windows.span import merged
from clipdrift_monitor.windows.view import View, view
from clipdrift_monitor.windows.window import Floats, Layout


class UnknownModelError(LookupError):
    """There is no such model; the message names those there are."""


class UnknownSliceError(LookupError):
    """The model has no such slice; the message names those it has."""


class UnknownIncidentError(LookupError):
    """There is no such incident."""


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
        return self._run_of(state.model, state.in_service.version)

    def _run_of(self, model: str, version: str) -> RunEnd | None:
        place = (model, version)
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

    def judged(self, state: ModelState) -> LiveFigures | None:
        """Live figures as of the newest judged block, which cost nothing to read; before it those of first labels."""
        if "" not in state.live:
            return self.live(state)
        slices = {name: figures for name, figures in state.live.items() if name}
        return LiveFigures(state.live[""], slices, is_mature=True)

    def _figures(self, state: ModelState, layout: Layout, start_ms: int, end_ms: int, *, is_mature: bool) -> LiveFigures:
        assert state.in_service is not None
        by_slice: dict[int, Floats] = {}
        for key, sums in self._store.windows(state.model, start_ms, end_ms):
            if key.version == state.in_service.version:
                by_slice[key.slice_index] = by_slice[key.slice_index] + sums if key.slice_index in by_slice else sums
        overall = np.sum(list(by_slice.values()), axis=0) if by_slice else layout.zeros()
        slices = {layout.slice_name(index): view(layout, sums) for index, sums in sorted(by_slice.items())}
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
            for name in ("", layout.slice_name(key.slice_index)):
                so_far = counts.setdefault(name, [0, 0])
                so_far[0] += labels
                so_far[1] += correct
        return [SliceCounts(slice=name, num_labels=found[0], num_correct=found[1]) for name, found in counts.items()]

    def slices(self, model: str) -> list[SliceTold]:
        """The slices of the version in service over the sliding view, beside what was validated; in the profile's order."""
        state = self.state(model)
        run, live = self.run(state), self.live(state)
        if run is None or live is None:
            return []
        validated = {one.slice: one for one in run.validation if one.slice}
        num_validated = sum(one.num_rows for one in validated.values())
        is_regression = run.profile is not None and run.profile.task == "regression"
        found = []
        for name, figures in live.slices.items():
            before = validated.get(name)
            has_rows = before is not None and before.num_rows > 0
            found.append(
                SliceTold(
                    slice=name,
                    live=figures,
                    share=figures.num_predictions / live.overall.num_predictions if live.overall.num_predictions else None,
                    validated_accuracy=before.num_correct / before.num_rows
                    if before and has_rows and not is_regression
                    else None,
                    validated_share=before.num_rows / num_validated if before and has_rows else None,
                )
            )
        return found

    def windows(
        self, model: str, start_ms: int | None = None, end_ms: int | None = None, slice_name: str | None = None
    ) -> list[WindowTold]:
        """Figures of the windows that start in [start, end), the oldest first; without a span those of the sliding view.

        Args:
            model: Of which.
            start_ms: First moment; None: as far back as the view goes from `end_ms`.
            end_ms: Moment after the last; None: all that is known.
            slice_name: Only this slice; "" is all slices together; None: each of them, and all together.
        """
        state, width = self.state(model), self._config.window_ms
        until_ms = state.watermark_ms + width if end_ms is None else end_ms
        since_ms = until_ms - (self._config.view_windows + 1) * width if start_ms is None else start_ms
        by_window: dict[tuple[int, str], dict[int, Floats]] = {}
        for key, sums in merged(self._store.windows(model, since_ms, until_ms), width_ms=width).items():
            by_window.setdefault((key.start_ms, key.version), {})[key.slice_index] = sums
        return [told for place, found in by_window.items() for told in self._window(model, place, found, slice_name)]

    def _window(
        self, model: str, place: tuple[int, str], by_slice: dict[int, Floats], slice_name: str | None
    ) -> list[WindowTold]:
        start_ms, version = place
        run = self._run_of(model, version)
        if run is None or run.profile is None:
            return []
        layout = Layout(run.profile)
        named = {"": np.sum(list(by_slice.values()), axis=0)} | {
            layout.slice_name(index): sums for index, sums in sorted(by_slice.items())
        }
        return [
            WindowTold(
                version=version,
                slice=name,
                start_ms=start_ms,
                end_ms=start_ms + self._config.window_ms,
                view=view(layout, sums),
            )
            for name, sums in named.items()
            if slice_name in (None, name)
        ]

    def blocks(self, model: str, start_ms: int = 0, end_ms: int = 2**62) -> list[JudgedBlock]:
        """Judged blocks that start in [start, end), the oldest first."""
        found = [msgspec.msgpack.decode(body, type=JudgedBlock) for body in self._store.blocks(model)]
        return [one for one in found if start_ms <= one.start_ms < end_ms]

    def incident(self, incident_id: str) -> Incident:
        """Raises UnknownIncidentError when there is none."""
        found = self._store.incident(incident_id)
        if found is None:
            raise UnknownIncidentError(
                f"there is no incident {incident_id[:100]!r}; GET /api/v1/incidents names those there are"
            )
        return found

    def incidents(self, model: str, limit: int = 50, offset: int = 0) -> list[Incident]:
        """The last changed first."""
        return self._store.incidents(model, limit=limit, offset=offset)

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

    def validated_accuracy(self, run: RunEnd | None) -> float | None:
        """Of all validated rows; None where values are foretold or nothing was validated."""
        if run is None or not run.validation or (run.profile is not None and run.profile.task == "regression"):
            return None
        overall = run.validation[0]
        return overall.num_correct / overall.num_rows if overall.num_rows else None

    def describe(self, model: str) -> ModelTold:
        """One model in full."""
        state = self.state(model)
        run, live = self.run(state), self.live(state)
        overall = live.overall if live is not None else None
        running = state.history.running_key
        return ModelTold(
            model=model,
            version=state.in_service.version if state.in_service else None,
            generation=state.generation,
            state=state.word,
            accuracy=None if overall is None else _accuracy(overall),
            is_mature=live.is_mature if live is not None else False,
            validated_accuracy=self.validated_accuracy(run),
            nll=overall.nll if overall else None,
            brier=overall.brier if overall else None,
            ece=overall.ece if overall else None,
            auc=overall.auc if overall else None,
            mean_absolute_error=overall.mean_absolute_error if overall else None,
            slices={name: _accuracy(one) for name, one in (live.slices if live else {}).items()},
            num_predictions=state.num_predictions,
            num_labels=state.num_labels,
            watermark_ms=state.watermark_ms,
            evidence=state.levels,
            repair_worth=state.repair_worth,
            removed_mass=run.removed_mass_ratio if run else None,
            clipping=state.diagnosis.clipping if state.diagnosis else "unknown",
            association=state.association,
            diagnosis=state.diagnosis,
            open_signals=tuple(state.open_signals),
            open_incidents=tuple(one.incident_id for one in state.incidents if one.is_open),
            retrain=RunningRetrain(key=running, state="running") if running else None,
            previous_version=state.served_before[-1].version if state.served_before else None,
        )


def _accuracy(figures: View) -> LiveAccuracy:
    return LiveAccuracy(value=figures.accuracy, low=figures.accuracy_low, high=figures.accuracy_high, n=figures.num_labels)
