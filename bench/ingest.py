"""Rows a second on one core, from encoded batches on the SQLite bus to closed and judged windows in the store.

A binary model with 16 numeric features of 16 bins and 4 categorical ones of 12 words, 10 slices, batches of 512 rows as serving
writes them (4-byte numbers). The whole monitor works, one thread: reads, decodes, checks, counts, judges, commits.

`rows_per_second`: predictions a second of CPU time (user and system). `ratio_to_numpy`: the same work over bare numpy's, whose
`searchsorted` and `bincount` count the 20 columns by slice from arrays that lie ready in memory, in pieces of 32,768 rows;
rounds are interleaved, the ratio is the median's, and the counts must be equal. `rows_per_second_with_labels`: every row with
its label, too. `rss_growth_mib`: resident memory of a monitor after ten million rows of ten days over that after one million.
`evidently_rows_per_second`, `nannyml_rows_per_second`: what those need to compare frames of the same columns; each null where
it is not installed (no version of NannyML installs beside constraints.txt). Argument: rows a round (default 2,000,000). The
last line is one JSON object.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
from monitor_house import never

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.columns import Column
from clipdrift_contract.events import (
    BlockScore,
    ClipSpec,
    ErrorClustering,
    FeatureColumn,
    LabelBatch,
    PredictionBatch,
    RunEnd,
    SliceScore,
)
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.engine import Engine
from clipdrift_monitor.store.store import Store
from clipdrift_monitor.windows.window import Layout

_BATCH_ROWS, _ROUNDS, _PIECE_ROWS = 512, 5, 32_768
_NUM_NUMERIC, _NUM_CATEGORICAL, _NUM_BINS = 16, 4, 16
_NUM_SLICES = 10
_DAY_MS = 86_400_000
_FIRST_DAY = 20_000
_ROWS_A_DAY = 1_000_000
_MEMORY_MILLIONS = 10
_NUM_ORIGINALS = 200  # batches of different features; the rest repeat them at other times
_WORDS = np.array([f"carrier-{i:02d}" for i in range(12)], object)
_PEER_ROWS = 20_000
_EDGES = tuple(float(np.float32(q)) for q in np.quantile(np.random.default_rng(1).normal(size=100_000), np.arange(1, 16) / 16))
Batch = tuple[PredictionBatch, LabelBatch]


def run_end() -> RunEnd:
    numeric = [
        FeatureProfile(spec=FeatureSpec(name=f"n{i}", kind="numeric"), edges=_EDGES, counts=(6_250,) * _NUM_BINS)
        for i in range(_NUM_NUMERIC)
    ]
    categorical = [
        FeatureProfile(
            spec=FeatureSpec(name=f"c{i}", kind="categorical"), categories=tuple(_WORDS), counts=(8_333,) * 12 + (0,)
        )
        for i in range(_NUM_CATEGORICAL)
    ]
    slices = SliceSpec(feature="n0", edges=tuple(np.linspace(-1.5, 1.5, _NUM_SLICES - 2).tolist()))
    profile = ReferenceProfile(
        task="binary", classes=("no", "yes"), features=(*numeric, *categorical), slices=slices,
        slice_counts=(10_000,) * _NUM_SLICES, score_edges=tuple(round(i / 20, 2) for i in range(1, 20)),
        score_counts=(5_000,) * 20, label_counts=(50_000, 50_000), num_rows=100_000,
    )  # fmt: skip
    days = tuple(
        BlockScore(start_ms=i * _DAY_MS, num_rows=10_000, num_errors=2_500, nll_sum=5_000, brier_sum=1_700) for i in range(8)
    )
    at_ms = (_FIRST_DAY - 1) * _DAY_MS
    return RunEnd(
        run_id="run", model="m", version="v", started_at_ms=0, ended_at_ms=at_ms, data_start_ms=0, data_end_ms=at_ms,
        as_of_ms=at_ms, data_digest="d", code_revision="c", seed=0, optimizer="SGD", learning_rate=0.1,
        clip=ClipSpec(kind="global_norm", max_norm=0.5), num_steps=100, num_checked=10, removed_mass_ratio=0.1,
        clip_rate_ratio=0.1,
        validation=(SliceScore(slice="", num_rows=80_000, num_correct=60_000, nll_sum=40_000, brier_sum=13_600, ece=0.01),),
        clustering=(
            ErrorClustering(slice="", lag1_autocorrelation=0, between_hour_variance=0, between_day_variance=0, days=days),
        ),
        profile=profile, artifact_uri="file:///m.onnx", artifact_digest="sha256:v",
    )  # fmt: skip


def originals() -> list[Batch]:
    """Batches of different rows, at no time yet."""
    random = np.random.default_rng(0)
    slices = run_end().profile.slices
    made = []
    for _ in range(_NUM_ORIGINALS):
        numbers = random.normal(size=(_NUM_NUMERIC, _BATCH_ROWS)).astype("f4")
        p_N = (1 / (1 + np.exp(-1.5 * numbers[1]))).astype("f4")
        features = [FeatureColumn(name=f"n{i}", values=Column.of(values)) for i, values in enumerate(numbers)]
        for i in range(_NUM_CATEGORICAL):
            words = _WORDS[random.integers(0, len(_WORDS), _BATCH_ROWS)]
            features.append(FeatureColumn(name=f"c{i}", values=Column.of(words)))
        common: dict[str, Any] = {
            "model": "m", "version": "v", "epoch": "e", "sequence": Column.of(np.arange(_BATCH_ROWS, dtype="u8")),
            "event_time_ms": Column.of(np.zeros(_BATCH_ROWS, "i8")), "slice_index": Column.of(slices.index(numbers[0])),
            "predicted": Column.of((p_N > 0.5).astype("f8")), "scores": Column.of(np.stack([1 - p_N, p_N], axis=1)),
        }  # fmt: skip
        labels = LabelBatch(
            **common, label=Column.of((random.random(_BATCH_ROWS) < p_N).astype("f8")), label_time_ms=common["event_time_ms"]
        )
        made.append((PredictionBatch(**common, features=tuple(features)), labels))
    return made


def batches(made: list[Batch], first_row: int, num_rows: int) -> Iterator[Batch]:
    """So many rows, a million a day."""
    for row in range(first_row, first_row + num_rows, _BATCH_ROWS):
        sequence_N = np.arange(row, row + _BATCH_ROWS)
        time_N = _FIRST_DAY * _DAY_MS + sequence_N * (_DAY_MS // _ROWS_A_DAY)
        at = {"sequence": Column.of(sequence_N.astype("u8")), "event_time_ms": Column.of(time_N)}
        predictions, labels = made[row // _BATCH_ROWS % len(made)]
        yield (
            msgspec.structs.replace(predictions, **at),
            msgspec.structs.replace(labels, **at, label_time_ms=Column.of(time_N + 3_600_000)),
        )


def publish(bus: SqliteBus, events: Iterator[Any]) -> None:
    publisher = EventPublisher(bus.publisher(), source="bench", clock=SystemClock())
    for i, event in enumerate(events):
        publisher.publish(event)
        if i % 2_000 == 1_999:
            publisher.flush(60.0)
    publisher.flush(60.0)
    publisher.close()


def closing(made: list[Batch], num_rows: int) -> PredictionBatch:
    """One batch so late that everything before it is due."""
    days_on = num_rows // _ROWS_A_DAY + 3
    ((predictions, _),) = batches(made, days_on * _ROWS_A_DAY // _BATCH_ROWS * _BATCH_ROWS, 1)
    return predictions


def known_run(bus: SqliteBus, path: Path) -> Path:
    """A store that has taken the run that made the version; nothing else is on the bus yet."""
    publish(bus, iter([run_end()]))
    store = Store(f"sqlite:///{path}")
    take_all(bus, store)
    store.close()
    return path


def take_all(bus: SqliteBus, store: Store) -> None:
    """A monitor's life until everything is read, judged and saved."""
    engine = Engine(MonitorConfig(), bus, store, never, MetricSet(), SystemClock())
    with engine.session() as turn:
        turn(0.0)
        while engine.snapshot.lag:
            turn(0.0)


def counts_in(store: Store) -> np.ndarray:
    """What the windows hold, by slice, of all features."""
    layout = Layout(run_end().profile)
    first, last = layout.features["n0"].start, layout.size
    total = np.zeros((_NUM_SLICES, last - first))
    for key, sums in store.windows("m", 0, 2**60):
        total[key.slice_index] += sums[first:last]
    return total


class Numpy:
    """Bare numpy on the same columns, which lie ready."""

    def __init__(self, events: list[PredictionBatch]) -> None:
        self._slice_N = np.concatenate([one.slice_index.array() for one in events])
        self._edges = np.array(_EDGES, "f4")
        self._numeric = [
            np.concatenate([one.features[i].values.array() for one in events]) for i in range(_NUM_NUMERIC)
        ]  # fmt: skip
        self._codes = [
            np.concatenate([np.frombuffer(one.features[i].values.data, "<i4") for one in events])
            for i in range(_NUM_NUMERIC, _NUM_NUMERIC + _NUM_CATEGORICAL)
        ]

    def counts(self) -> np.ndarray:
        """By slice, one feature after another, each with an entry for missing values (and for other words)."""
        parts = [np.zeros((_NUM_SLICES, _NUM_BINS + 1)) for _ in self._numeric] + [
            np.zeros((_NUM_SLICES, 14)) for _ in self._codes
        ]
        for start in range(0, len(self._slice_N), _PIECE_ROWS):
            piece = slice(start, start + _PIECE_ROWS)
            slice_N = self._slice_N[piece].astype(np.intp)
            first_N = slice_N * (_NUM_BINS + 1)
            for i, values_N in enumerate(self._numeric):
                bin_N = np.searchsorted(self._edges, values_N[piece], side="right")
                parts[i] += np.bincount(first_N + bin_N, minlength=parts[i].size).reshape(parts[i].shape)
            first_N = slice_N * 14
            for i, code_N in enumerate(self._codes, _NUM_NUMERIC):
                parts[i] += np.bincount(first_N + code_N[piece], minlength=parts[i].size).reshape(parts[i].shape)
        return np.concatenate(parts, axis=1)


def measure_speed(folder: Path, made: list[Batch], num_rows: int) -> dict[str, Any]:
    num_rows = num_rows // _BATCH_ROWS * _BATCH_ROWS
    last = closing(made, num_rows)
    plain, labelled = SqliteBus(folder / "plain-bus.db"), SqliteBus(folder / "labelled-bus.db")
    begun = {bus: known_run(bus, folder / f"{name}-begun.db") for name, bus in (("plain", plain), ("labelled", labelled))}
    events = [predictions for predictions, _ in batches(made, 0, num_rows)]
    publish(plain, iter([*events, last]))
    publish(labelled, iter([*(one for pair in batches(made, 0, num_rows) for one in pair), last]))
    bare = Numpy([*events, last])
    num_rows += _BATCH_ROWS
    seconds: dict[str, list[float]] = {"clipdrift": [], "wall": [], "numpy": [], "labelled": []}
    for i in range(_ROUNDS):
        store = Store(f"sqlite:///{shutil.copy(begun[plain], folder / f'plain-{i}.db')}")
        began, wall = time.process_time(), time.perf_counter()
        take_all(plain, store)
        seconds["clipdrift"].append(time.process_time() - began)
        seconds["wall"].append(time.perf_counter() - wall)
        began = time.process_time()
        expected = bare.counts()
        seconds["numpy"].append(time.process_time() - began)
        assert (counts_in(store) == expected).all(), "the counts differ from numpy's"
        num_judged = len(store.blocks("m"))
        assert num_judged >= num_rows // _ROWS_A_DAY, f"only {num_judged} windows were closed"
        store.close()
        store = Store(f"sqlite:///{shutil.copy(begun[labelled], folder / f'labelled-{i}.db')}")
        began = time.process_time()
        take_all(labelled, store)
        seconds["labelled"].append(time.process_time() - began)
        store.close()
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "rows_per_second": round(num_rows / middle["clipdrift"]),
        "ratio_to_numpy": round(middle["numpy"] / middle["clipdrift"], 2),
        "numpy_rows_per_second": round(num_rows / middle["numpy"]),
        "rows_per_second_of_wall_time": round(num_rows / middle["wall"]),
        "rows_per_second_with_labels": round(num_rows / middle["labelled"]),
    }


def measure_memory(folder: Path, made: list[Batch]) -> dict[str, Any]:
    """Resident memory of a monitor in a process of its own, after each million rows."""
    bus = SqliteBus(folder / "long.db")
    publish(bus, iter([run_end()]))
    command = [sys.executable, __file__, "--monitor", str(folder)]
    found = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdin is not None
        assert monitor.stdout is not None
        for million in range(_MEMORY_MILLIONS):
            publish(bus, (predictions for predictions, _ in batches(made, million * 1_000_000, 1_000_000)))
            monitor.stdin.write("go\n")
            monitor.stdin.flush()
            found.append(int(monitor.stdout.readline()) / 2**20)
        monitor.stdin.close()
    return {"rss_growth_mib": round(found[-1] - found[0], 1), "rss_mib_after_a_million": round(found[0], 1)}


def be_monitor(folder: Path) -> None:
    """Reads all there is whenever a line comes, and answers with the bytes of its resident memory."""
    store = Store(f"sqlite:///{folder / 'long-store.db'}")
    engine = Engine(MonitorConfig(), SqliteBus(folder / "long.db"), store, never, MetricSet(), SystemClock())
    with engine.session() as turn:
        for _ in sys.stdin:
            turn(0.0)
            while engine.snapshot.lag:
                turn(0.0)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(pages * os.sysconf("SC_PAGESIZE"), flush=True)


def frame_of(events: list[PredictionBatch]) -> Any:
    names = [column.name for column in events[0].features]
    return import_module("pandas").DataFrame(
        {name: np.concatenate([one.features[i].values.array() for one in events]) for i, name in enumerate(names)}
    )


def evidently_speed(made: list[Batch]) -> int | None:
    """Evidently's drift preset with its own choice of tests, on frames that lie ready."""
    try:
        evidently, presets = import_module("evidently"), import_module("evidently.presets")
    except ImportError:
        return None
    half = _PEER_ROWS // _BATCH_ROWS
    reference, current = (frame_of([one for one, _ in part]) for part in (made[:half], made[half : 2 * half]))
    numeric, words = [f"n{i}" for i in range(_NUM_NUMERIC)], [f"c{i}" for i in range(_NUM_CATEGORICAL)]
    definition = evidently.DataDefinition(numerical_columns=numeric, categorical_columns=words)
    began = time.process_time()
    sides = [evidently.Dataset.from_pandas(frame, data_definition=definition) for frame in (current, reference)]
    evidently.Report([presets.DataDriftPreset()]).run(*sides).dict()
    return round(len(current) / (time.process_time() - began))


def nannyml_speed(made: list[Batch]) -> int | None:
    """NannyML's univariate drift by Jensen-Shannon in chunks of the rows of a day's slice."""
    try:
        nannyml = import_module("nannyml")
    except ImportError:
        return None
    half = _PEER_ROWS // _BATCH_ROWS
    reference, current = (frame_of([one for one, _ in part]) for part in (made[:half], made[half : 2 * half]))
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=list(reference), continuous_methods=["jensen_shannon"], categorical_methods=["jensen_shannon"],
        chunk_number=_NUM_SLICES,
    )  # fmt: skip
    calculator.fit(reference)
    began = time.process_time()
    calculator.calculate(current)
    return round(len(current) / (time.process_time() - began))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--monitor"]:
        be_monitor(Path(sys.argv[2]))
        sys.exit()
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    made = originals()
    results: dict[str, Any] = {"bench": "ingest", "rows": num_rows}
    with tempfile.TemporaryDirectory() as name:
        results |= measure_speed(Path(name), made, num_rows)
    print(f"{results['rows_per_second']:,} rows a second, bare numpy {results['numpy_rows_per_second']:,}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        results |= measure_memory(Path(name), made)
    results |= {"evidently_rows_per_second": evidently_speed(made), "nannyml_rows_per_second": nannyml_speed(made)}
    print(json.dumps(results))
