"""Reads what the monitor knows about models, as plain values: for the JSON interface, the pages and the exporter."""

from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

import msgspec
import numpy as np

from clipdrift_contract.events import Decision, Deployment, Incident, RetrainOutcome, RunEnd, Signal
from clipdrift_monitor.api.answers import (
    LiveAccuracy,
    ModelTold,
    RolloutTold,
    RunningRetrain,
    SliceCounts,
    SliceTold,
    WindowTold,
    WouldBeSeen,
)
from clipdrift_monitor.api.foresight import SavedTests, would_be_seen
from clipdrift_monitor.api.intervals import anytime, inflation_of
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.snapshot import Snapshot
from clipdrift_monitor.incidents.precision import Precision, precision_of
from clipdrift_monitor.risk.realised import Realised
from clipdrift_monitor.rollout.finding import Finding
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import RetrainRow, Store
from clipdrift_monitor.windows.delays import Maturity
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
    num_windows: int = 0  # that have predictions


class _Looked(NamedTuple):
    """What was worked out of a state, and how that state is told from a later one."""

    key: tuple[object, ...]
    live: LiveFigures | None
    harm: SavedTests | None


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
        self._outcomes: dict[str, tuple[int, RetrainOutcome | None]] = {}  # with how many retrains had ended by then
        self._layouts: dict[tuple[str, str], Layout] = {}
        self._inflations: dict[tuple[str, str], float] = {}
        self._looked: _Looked | None = None  # the newest alone: a page asks several times for the same, and memory stays small

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

    def newest_outcome(self, state: ModelState) -> RetrainOutcome | None:
        """Of the newest retrain that has ended; asked of the store once an outcome."""
        num_ended = sum(state.num_retrains.values())
        known = self._outcomes.get(state.model)
        if known is None or known[0] != num_ended:
            ended = [row.outcome for row in self._store.retrains(state.model) if row.outcome is not None] if num_ended else []
            newest = max(ended, key=lambda one: one.finished_at_ms, default=None)
            known = self._outcomes[state.model] = (num_ended, newest)
        return known[1]

    def _run_of(self, model: str, version: str) -> RunEnd | None:
        place = (model, version)
        if place not in self._runs:
            found = self._store.run(*place)
            if found is None:
                return None
            self._runs[place] = found
        return self._runs[place]

    def _layout(self, model: str, version: str) -> Layout | None:
        """None where the run is not known, or cannot serve."""
        place = (model, version)
        if place not in self._layouts:
            run = self._run_of(model, version)
            if run is None or run.profile is None:
                return None
            self._layouts[place] = Layout(run.profile)
        return self._layouts[place]

    def _layout_in_service(self, state: ModelState) -> Layout | None:
        return None if state.in_service is None else self._layout(state.model, state.in_service.version)

    def live(self, state: ModelState) -> LiveFigures | None:
        """Live figures of the version in service; None while there is no version."""
        return self._look(state).live

    def _look(self, state: ModelState) -> _Looked:
        counts = (state.num_predictions, state.num_labels, state.watermark_ms, state.judged_until_ms)
        key = (state.model, state.generation, *counts)
        looked = self._looked
        if looked is None or looked.key != key:
            looked = self._looked = _Looked(key, self._live(state), self._harm(state.model))
        return looked

    def _live(self, state: ModelState) -> LiveFigures | None:
        layout = self._layout_in_service(state)
        if layout is None:
            return None
        width = self._config.window_ms
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
        assert state.in_service is not None
        inflation = self.inflation(state.model, state.in_service.version)
        figures = {name: anytime(one, inflation) for name, one in state.live.items()}
        return LiveFigures(figures.pop(""), figures, is_mature=True)

    def judged_overall(self, state: ModelState) -> View | None:
        """The same of all slices together."""
        if "" not in state.live:
            live = self.live(state)
            return live.overall if live is not None else None
        assert state.in_service is not None
        return anytime(state.live[""], self.inflation(state.model, state.in_service.version))

    def inflation(self, model: str, version: str) -> float:
        """What intervals of a version's accuracy allow for; 1 while its run is not known."""
        place = (model, version)
        if place not in self._inflations:
            run = self._run_of(model, version)
            if run is None:
                return 1.0
            self._inflations[place] = inflation_of(run)
        return self._inflations[place]

    def _figures(self, state: ModelState, layout: Layout, start_ms: int, end_ms: int, *, is_mature: bool) -> LiveFigures:
        assert state.in_service is not None
        by_slice: dict[int, Floats] = {}
        starts = set()
        for key, sums in self._store.windows(state.model, start_ms, end_ms):
            if key.version == state.in_service.version:
                by_slice[key.slice_index] = by_slice[key.slice_index] + sums if key.slice_index in by_slice else sums
                starts.add(key.start_ms // self._config.window_ms)
        overall = np.sum(list(by_slice.values()), axis=0) if by_slice else layout.zeros()
        inflation = self.inflation(state.model, state.in_service.version)
        slices = {layout.slice_name(index): anytime(view(layout, sums), inflation) for index, sums in sorted(by_slice.items())}
        return LiveFigures(anytime(view(layout, overall), inflation), slices, is_mature, len(starts))

    def _harm(self, model: str) -> SavedTests | None:
        body = self._store.harm(model)
        return None if body is None else msgspec.msgpack.decode(body, type=SavedTests)

    def realised(self, model: str) -> tuple[Realised, ...]:
        """False alarms in 90 days by severity, as promised and as the model's own days would bring them; empty before that is
        measured."""
        return self.snapshot.realised.get(model, ())

    def accuracy(self, model: str, start_ms: int, end_ms: int) -> list[SliceCounts]:
        """Labels and hits of predictions made in [start, end), all versions together, by slice; "" is all."""
        state = self.state(model)
        layout, counts = self._layout_in_service(state), dict[str, list[int]]()
        if layout is None:
            return []
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
        harm, found = self._look(state).harm, []
        for name, figures in live.slices.items():
            before = validated.get(name)
            has_rows = before is not None and before.num_rows > 0
            found.append(
                SliceTold(
                    slice=name,
                    live=figures,
                    share=figures.num_predictions / live.overall.num_predictions if live.overall.num_predictions else None,
                    validated_accuracy=self.validated_accuracy(run, name),
                    validated_share=before.num_rows / num_validated if before and has_rows else None,
                    would_be_seen=_foresight(harm, figures, live.num_windows, name),
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
        wanted = None if slice_name is None else {slice_name}
        told = [one for place, found in by_window.items() for one in self._window(state, place, found, wanted)]
        usual = _usual_share(state)
        return [_with_maturity(state, one, usual) for one in told]

    def _window(
        self, state: ModelState, place: tuple[int, str], by_slice: dict[int, Floats], wanted: Collection[str] | None
    ) -> list[WindowTold]:
        start_ms, version = place
        layout = self._layout(state.model, version)
        if layout is None:
            return []
        named = {"": np.sum(list(by_slice.values()), axis=0)} | {
            layout.slice_name(index): sums for index, sums in sorted(by_slice.items())
        }
        inflation = self.inflation(state.model, version)
        return [
            WindowTold(
                version=version,
                slice=name,
                start_ms=start_ms,
                end_ms=start_ms + self._config.window_ms,
                view=anytime(view(layout, sums), inflation),
                maturity=Maturity(),
            )
            for name, sums in named.items()
            if wanted is None or name in wanted
        ]

    def blocks(self, model: str, start_ms: int = 0, end_ms: int = 2**62) -> list[JudgedBlock]:
        """Judged blocks that start in [start, end), the oldest first, as they were told."""
        found = [msgspec.msgpack.decode(body, type=JudgedBlock) for body in self._store.blocks(model)]
        return [one for one in found if start_ms <= one.start_ms < end_ms]

    def precision(self) -> Precision:
        """How often people called incidents true so far, of all models."""
        counts: Counter[str] = Counter()
        for state in self.snapshot.models.values():
            counts.update(state.num_feedback)
        return precision_of(counts)

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

    def validated_accuracy(self, run: RunEnd | None, slice_name: str = "") -> float | None:
        """Of all validated rows, or of a slice's; None where values are foretold or nothing was validated."""
        if run is None or not run.validation or (run.profile is not None and run.profile.task == "regression"):
            return None
        found = run.validation[0] if not slice_name else next((one for one in run.validation if one.slice == slice_name), None)
        return found.num_correct / found.num_rows if found is not None and found.num_rows else None

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
            would_be_seen=None if live is None else _foresight(self._look(state).harm, live.overall, live.num_windows),
            realised=self.realised(model),
            open_signals=tuple(state.open_signals),
            open_incidents=tuple(one.incident_id for one in state.incidents if one.is_open),
            retrain=RunningRetrain(key=running, state="running") if running else None,
            previous_version=state.served_before[-1].version if state.served_before else None,
            rollout=_rollout(state),
            approval=state.waiting_approval.approval.approval_id if state.waiting_approval is not None else "",
        )


def _rollout(state: ModelState) -> RolloutTold | None:
    running, finding = state.rollout, state.finding or Finding()
    if running is None:
        return None
    return RolloutTold(
        rollout_id=running.rollout_id, key=running.key, version=running.candidate.version, stage=running.stage.name,
        weight=running.stage.weight, is_held=running.is_held, num_labels=finding.num_labels, progress=finding.progress,
        harm_level=finding.harm_level, words=finding.plain or "no labels of its rows are due yet",
    )  # fmt: skip


def _usual_share(state: ModelState) -> float | None:
    """Of the predictions in the view that ends with the newest judged block, those that have a label."""
    judged = state.live.get("")
    return judged.maturity if judged is not None else None


def _with_maturity(state: ModelState, told: WindowTold, usual_share: float | None) -> WindowTold:
    seen = told.view
    maturity = state.delays.maturity(
        seen.num_predictions, seen.num_labels, seen.num_correct, start_ms=told.start_ms, end_ms=told.end_ms,
        now_ms=state.watermark_ms, usual_share=usual_share,
    )  # fmt: skip
    is_counted = seen.accuracy is not None
    return msgspec.structs.replace(told, maturity=maturity if is_counted else msgspec.structs.replace(maturity, accuracy=None))


def _foresight(harm: SavedTests | None, figures: View, num_windows: int, slice_name: str = "") -> WouldBeSeen | None:
    if harm is None or not num_windows:
        return None
    return would_be_seen(harm, figures.num_labels / num_windows, slice_name)


def _accuracy(figures: View) -> LiveAccuracy:
    return LiveAccuracy(value=figures.accuracy, low=figures.accuracy_low, high=figures.accuracy_high, n=figures.num_labels)
