"""Three real streams: a model is trained on the first days, every fifth of them is held out, and production is what came after.

A control replays held-out days, drawn again with replacement: nothing in it is a harm, so every alarm on it is false.
Axes: N rows, K classes, D features.
"""

import os
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from river import drift
from sklearn.ensemble import HistGradientBoostingClassifier
from threshold_worlds import datasets
from worlds import DAY_MS, Day, run_of

from clipdrift_contract.columns import Column
from clipdrift_contract.events import LabelBatch
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_deploy.demo.project.flights import NUMBERS, read_table
from clipdrift_monitor.risk.block import Block
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import TEST_NAMES, HarmConfig, start, step
from clipdrift_monitor.risk.reference import Reference, reference_of
from clipdrift_monitor.windows.window import Layout, label_sums
from clipdrift_trainer.evaluation.clustering import cluster_errors
from detector_worlds.streams import Errors

os.environ["DO_NOT_TRACK"] = "1"
from evidently.legacy.calculations.stattests.registry import get_stattest

NAMES = ("flights", "elec", "covtype")
DETECTORS = (*TEST_NAMES, "adwin_on_errors", "evidently_default")
CONTROL_DAYS = 90
_FLIGHTS = Path(__file__).parents[2] / "build" / "bench" / "flights.npz"
_HELD_OUT, _DRIFT_SHARE, _MAX_REFERENCE, _ONE_COVER_OF = 5, 0.5, 5_000, 4


class Table(NamedTuple):
    """Rows in time order; a model is trained on the days before `first_day`."""

    x_ND: npt.NDArray[np.float32]
    label_N: npt.NDArray[np.int64]
    day_N: npt.NDArray[np.int64]
    first_day: int
    is_category_D: tuple[bool, ...]  # of the first D features: those that are columns of a table and not parts of a sequence


class DayOfRows(NamedTuple):
    """One day as the detectors read it; the block's times are those of the day's own date."""

    block: Block
    errors: Errors
    is_drifted: bool  # by Evidently's default: at least half of the columns


class Stream(NamedTuple):
    """What is compared: a reference, its held-out days, and production."""

    reference: Reference
    held_out: list[DayOfRows]
    production: list[DayOfRows]
    first_day: int


def available() -> dict[str, str]:
    """Each stream with the reason why it cannot be had; "" where it can."""
    why = datasets.available()
    return {name: why[name] for name in NAMES}


def table_of(name: str) -> Table:
    """A data set in time order."""
    if name == "flights":
        return _flights()
    rows = datasets.READERS[name]().rows
    if name == "covtype":
        rows = rows.take(np.arange(0, len(rows.label), _ONE_COVER_OF))
        area, soil = (rows.x[:, part].argmax(axis=1) for part in (slice(10, 14), slice(14, 54)))
        x_ND, is_category = np.column_stack([rows.x[:, :10], area, soil]).astype(np.float32), (*[False] * 10, True, True)
        return Table(x_ND, rows.label, rows.time_ms // DAY_MS, 60, is_category)
    return Table(rows.x, rows.label, rows.time_ms // DAY_MS, 200, (False,) * rows.x.shape[1])


def _flights() -> Table:
    """The flights of the demo with its features: late or not, known at departure; a model knows January and February."""
    with np.load(read_table(_FLIGHTS), allow_pickle=False) as table:
        earlier_ND = table["earlier_departures"].reshape(len(table["label"]), -1)
        categories = [table[name].astype(np.float32) for name in ("carrier", "origin", "weekday")]
        x_ND = np.column_stack([*[table[name] for name in NUMBERS], *categories, earlier_ND]).astype(np.float32)
        day_N, label_N = table["time_ms"] // DAY_MS, table["label"].astype(np.int64)
    is_category = (*(False for _ in NUMBERS), True, True, True)
    return Table(x_ND, label_N, day_N - day_N[0], 59, is_category)


def stream_of(table: Table) -> Stream:
    """Train, hold out, summarise as the trainer does, and cut production into days."""
    is_known_N = table.day_N < table.first_day
    is_held_N = is_known_N & (table.day_N % _HELD_OUT == _HELD_OUT - 1)
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0)
    model.fit(table.x_ND[is_known_N & ~is_held_N], table.label_N[is_known_N & ~is_held_N])
    num_classes = int(table.label_N.max()) + 1
    score_NK = np.zeros((len(table.label_N), num_classes))
    score_NK[:, model.classes_] = model.predict_proba(table.x_ND)
    names = tuple(str(k) for k in range(num_classes))
    task = "binary" if num_classes == 2 else "multiclass"
    layout = Layout(ReferenceProfile(task=task, classes=names, score_counts=(0,), num_rows=1))
    held_N = np.flatnonzero(is_held_N)
    clustering = cluster_errors(
        score_NK[held_N], table.label_N[held_N].astype(float), table.day_N[held_N] * DAY_MS, np.zeros(len(held_N), int), ()
    )
    run = msgspec.structs.replace(run_of([Day(np.full(20, 0.4), np.zeros(20, int))] * 3), clustering=clustering)
    seen_ND = table.x_ND[held_N[:: max(1, len(held_N) // _MAX_REFERENCE)]]

    def days(index_N: npt.NDArray[np.int64]) -> list[DayOfRows]:
        return [
            _day(layout, score_NK[rows], table.label_N[rows], table.x_ND[rows], seen_ND, table.is_category_D, number)
            for number in np.unique(table.day_N[index_N]).tolist()
            for rows in (index_N[table.day_N[index_N] == number],)
        ]

    return Stream(reference_of(run), days(held_N), days(np.flatnonzero(~is_known_N)), table.first_day)


def false_alarms(stream: Stream, num_controls: int, seed: int) -> dict[str, float]:
    """Share of controls of 90 held-out days, drawn again, with any alarm."""
    random = np.random.default_rng(seed)
    found = dict.fromkeys(DETECTORS, 0.0)
    for _ in range(num_controls):
        drawn = [stream.held_out[i] for i in random.integers(0, len(stream.held_out), CONTROL_DAYS)]
        for name, day in first_alarms(stream.reference, drawn).items():
            found[name] += (day is not None) / num_controls
    return found


def first_alarms(reference: Reference, days: list[DayOfRows]) -> dict[str, int | None]:
    """Number of the day, from 0, of each detector's first alarm."""
    found: dict[str, int | None] = dict.fromkeys(DETECTORS)
    state, adwin = start(reference, Allotment()), drift.ADWIN()
    for number, day in enumerate(days):
        block = msgspec.structs.replace(day.block, start_ms=number * DAY_MS, end_ms=(number + 1) * DAY_MS)
        alarms = [one.test for one in step(state, block, HarmConfig()) if one.is_alarm]
        for value in day.errors.tolist():
            adwin.update(value)
            if adwin.drift_detected:
                alarms.append("adwin_on_errors")
        alarms += ["evidently_default"] if day.is_drifted else []
        for name in alarms:
            found[name] = number if found[name] is None else found[name]
    return found


def _day(
    layout: Layout,
    score_NK: npt.NDArray[np.float64],
    label_N: npt.NDArray[np.int64],
    x_ND: npt.NDArray[np.float32],
    seen_ND: npt.NDArray[np.float32],
    is_category_D: tuple[bool, ...],
    number: int,
) -> DayOfRows:
    num_rows, start_ms = len(label_N), number * DAY_MS
    predicted_N = score_NK.argmax(axis=1)
    batch = LabelBatch(
        model="m", version="v", epoch="e", sequence=Column.of(np.arange(num_rows, dtype="u8")),
        event_time_ms=Column.of(np.full(num_rows, start_ms, "i8")), slice_index=Column.of(np.zeros(num_rows, "i2")),
        predicted=Column.of(predicted_N.astype("f8")), scores=Column.of(score_NK.astype("f8")),
        label=Column.of(label_N.astype("f8")), label_time_ms=Column.of(np.full(num_rows, start_ms, "i8")),
    )  # fmt: skip
    ((_, sums),) = label_sums(layout, batch, np.ones(num_rows, bool), DAY_MS)
    error_N = (predicted_N != label_N).astype(np.uint8)
    block = Block(
        start_ms=start_ms, end_ms=start_ms + DAY_MS, num_labels=float(num_rows), brier_sum=layout.value(sums, "brier_sum"),
        labels=tuple(layout.counts(sums, "labels").tolist()), hits=tuple(layout.counts(sums, "hits").tolist()),
        score_sum=tuple(layout.counts(sums, "score_sum").tolist()), errors=error_N.tobytes(), num_errors=float(error_N.sum()),
        log_loss_sum=layout.value(sums, "nll_sum"),
    )  # fmt: skip
    return DayOfRows(block, error_N, _is_drifted(seen_ND, x_ND, is_category_D))


def _is_drifted(seen_ND: npt.NDArray[np.float32], now_ND: npt.NDArray[np.float32], is_category_D: tuple[bool, ...]) -> bool:
    """Evidently's `dataset_drift` with all defaults: its test for each column by type and size, and half of the columns."""
    drifted = []
    for column, is_category in enumerate(is_category_D):
        seen, now = (pd.Series(one[:, column][~np.isnan(one[:, column])]) for one in (seen_ND, now_ND))
        kind = "cat" if is_category else "num"
        test = get_stattest(seen, now, kind, None)
        drifted.append(bool(len(now)) and test(seen, now, kind, None).drifted)
    return float(np.mean(drifted)) >= _DRIFT_SHARE
