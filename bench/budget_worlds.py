"""Simulated traffic for bench/budget.py: days of labelled predictions of binary models with 16 numeric and 4 categorical
features and ten slices; healthy in four ways, and harmed.

Axes: N rows of a day in the order of time, F features, S slices.

A healthy model says honest probabilities. How errors hang together is a Gaussian copula, which leaves the probabilities as they
are; a harm makes rows wrong that were right.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import ndtr

from clipdrift_contract.clock import MS_PER_DAY
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
from clipdrift_contract.profile import FeatureSpec, ReferenceProfile, SliceSpec
from clipdrift_trainer.evaluation.clustering import between_block_variance, lag1_autocorrelation
from clipdrift_trainer.profiling import make_profile
from clipdrift_trainer.tasks.task import BaseTask, Rows

Floats = npt.NDArray[np.float64]
NUM_NUMERIC, NUM_CATEGORICAL, NUM_SLICES = 16, 4, 10
NUM_ROWS = 2_000  # a day
VALIDATED_DAYS = 28
SLICES = tuple(f"s{i}" for i in range(NUM_SLICES))
_LEVELS = 6  # of a categorical feature that is not the slice
_UNUSED = slice(8, 16)  # features that no model reads


class World(NamedTuple):
    """A null, unless `points` says by how many points of error model 0 is worse from `since` on."""

    name: str
    lag: float = 0.0  # of what lies behind errors, between neighbouring rows
    day_share: float = 0.0  # of its variance that a whole day has in common; half of that with the other models
    cycle: float = 0.0  # 1: hours and weekdays differ
    shift: float = 0.0  # by how many standard deviations features that no model reads move, from `since` on over 20 days
    points: float = 0.0
    in_slice: bool = False  # the harm is in one slice alone


NULLS = (
    World("independent"),
    World("clustered", lag=0.3, day_share=0.05),
    World("daily and weekly cycle", lag=0.1, day_share=0.02, cycle=1.0),
    World("benign covariate shift", lag=0.1, day_share=0.02, shift=0.5),
)
HARMS = tuple(
    World(f"{points:g} points {'in one slice' if in_slice else 'overall'}", lag=0.1, day_share=0.02, points=points,
          in_slice=in_slice)
    for in_slice in (True, False) for points in (2.0, 5.0, 10.0)
)  # fmt: skip


class Day(NamedTuple):
    number: int
    time_N: npt.NDArray[np.int64]
    x_NF: Floats  # numeric
    level_NC: npt.NDArray[np.int64]  # categorical; the first is the slice
    slice_N: npt.NDArray[np.int16]
    p_N: Floats
    y_N: npt.NDArray[np.int64]

    @property
    def errors(self) -> npt.NDArray[np.bool_]:
        return (self.p_N > 0.5) != (self.y_N == 1)


class Traffic:
    """All days of all models of one replay, drawn day by day.

    Args:
        world: How it goes.
        num_models: Which all see rows of the same kind and judge them by weights of their own.
        since: Day on which a shift or harm begins.
        seed: Of this replay.
    """

    def __init__(self, world: World, num_models: int, since: int, seed: int) -> None:
        self.world, self.since = world, since
        self.random = np.random.default_rng(seed)
        self.weights_MF = self.random.normal(0, 0.6, (num_models, 8))
        self.level_MK = self.random.normal(0, 0.3, (num_models, _LEVELS))
        self.slice_MS = self.random.normal(0, 0.3, (num_models, NUM_SLICES))
        self.harmed_slice = int(self.random.integers(NUM_SLICES))

    def day(self, number: int) -> list[Day]:
        """The day's rows of each model."""
        common = self.random.normal()
        return [self._of_model(m, number, common) for m in range(len(self.weights_MF))]

    def _of_model(self, m: int, number: int, common: float) -> Day:
        random, world = self.random, self.world
        hour_N = np.sort(random.uniform(0, 24, NUM_ROWS))
        if world.cycle:  # three times as much by day as by night
            hour_N = np.sort(np.where(random.random(NUM_ROWS) < 0.75, random.uniform(7, 21, NUM_ROWS), hour_N))
        wave_N, week = world.cycle * np.sin(2 * np.pi * hour_N / 24), world.cycle * np.cos(2 * np.pi * number / 7)
        x_NF = random.normal(size=(NUM_ROWS, NUM_NUMERIC))
        x_NF[:, :4] += 0.4 * wave_N[:, None] + 0.2 * week
        moved = world.shift * min(1.0, max(0.0, (number - self.since + 1) / 20))
        x_NF[:, _UNUSED] += moved
        slice_N = self._slices(wave_N, week)
        level_NC = random.integers(0, _LEVELS, (NUM_ROWS, NUM_CATEGORICAL))
        level_NC[:, 0] = slice_N
        logit_N = x_NF[:, :8] @ self.weights_MF[m] + self.level_MK[m][level_NC[:, 1]] + self.slice_MS[m][slice_N]
        p_N = 1 / (1 + np.exp(-logit_N * (1 + 0.15 * week)))
        is_error_N = self._errors(np.minimum(p_N, 1 - p_N), common)
        if world.points and m == 0 and number >= self.since:
            is_error_N = self._harmed(is_error_N, p_N, slice_N)
        time_N = (number * MS_PER_DAY + hour_N * 3_600_000).astype(np.int64)
        return Day(number, time_N, x_NF, level_NC, slice_N, p_N, ((p_N > 0.5) != is_error_N).astype(np.int64))

    def _slices(self, wave_N: Floats, week: float) -> npt.NDArray[np.int16]:
        """All as large, or leaning to the first ones by day and to the last ones at the week's end."""
        place_N = self.random.random(NUM_ROWS)
        lean_N = np.exp(0.2 * wave_N + 0.1 * week)
        return np.minimum(place_N**lean_N * NUM_SLICES, NUM_SLICES - 1).astype(np.int16)

    def _errors(self, chance_N: Floats, common: float) -> npt.NDArray[np.bool_]:
        random, world = self.random, self.world
        fresh_N = random.normal(size=NUM_ROWS)
        fresh_N[1:] *= np.sqrt(1 - world.lag**2)
        chain_N = lfilter([1.0], [1.0, -world.lag], fresh_N)
        day = np.sqrt(0.5) * common + np.sqrt(0.5) * random.normal()
        z_N = np.sqrt(1 - world.day_share) * chain_N + np.sqrt(world.day_share) * day
        found: npt.NDArray[np.bool_] = ndtr(z_N) < chance_N
        return found

    def _harmed(self, is_error_N: npt.NDArray[np.bool_], p_N: Floats, slice_N: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
        """So many points more: of what is right, a share goes wrong."""
        is_hit_N = slice_N == self.harmed_slice if self.world.in_slice else np.ones(NUM_ROWS, bool)
        rate = np.minimum(p_N, 1 - p_N)[is_hit_N].mean()
        return is_error_N | (is_hit_N & (self.random.random(NUM_ROWS) < self.world.points / 100 / (1 - rate)))


# --- as the trainer and the bus tell of it ---


def run_of(model: str, days: list[Day]) -> RunEnd:
    """The end of a run that was validated on `days`."""
    slice_N = np.concatenate([day.slice_N for day in days])
    error_N = np.concatenate([day.errors for day in days])
    brier_N = np.concatenate([(day.p_N - day.y_N) ** 2 for day in days])
    nll_N = np.concatenate([-np.log(np.clip(np.where(day.y_N == 1, day.p_N, 1 - day.p_N), 1e-7, 1)) for day in days])
    day_N = np.repeat(np.arange(len(days)), NUM_ROWS)
    hour_N = np.concatenate([day.time_N // 3_600_000 for day in days])
    found = [("", np.ones(len(error_N), bool)), *((name, slice_N == i) for i, name in enumerate(SLICES))]
    clustering, validation = [], []
    for name, is_in_N in found:
        blocks = tuple(
            BlockScore(
                start_ms=i * MS_PER_DAY, num_rows=int((of_day := is_in_N & (day_N == i)).sum()),
                num_errors=int(error_N[of_day].sum()), nll_sum=float(nll_N[of_day].sum()),
                brier_sum=float(brier_N[of_day].sum()),
            )
            for i in range(len(days))
        )  # fmt: skip
        clustering.append(
            ErrorClustering(
                slice=name, lag1_autocorrelation=lag1_autocorrelation(error_N[is_in_N]), days=blocks,
                between_hour_variance=between_block_variance(error_N[is_in_N], hour_N[is_in_N]),
                between_day_variance=between_block_variance(error_N[is_in_N], day_N[is_in_N]),
            )
        )  # fmt: skip
        num_rows = int(is_in_N.sum())
        validation.append(
            SliceScore(
                slice=name, num_rows=num_rows, num_correct=num_rows - int(error_N[is_in_N].sum()),
                nll_sum=float(nll_N[is_in_N].sum()), brier_sum=float(brier_N[is_in_N].sum()), ece=0.0,
            )
        )  # fmt: skip
    return RunEnd(
        run_id=f"r-{model}", model=model, version="v1", started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1,
        as_of_ms=1, data_digest="", code_revision="", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=1,
        profile=profile_of(days), validation=tuple(validation), clustering=tuple(clustering), artifact_uri="file:///m",
        artifact_digest="d",
    )  # fmt: skip


class TrafficTask(BaseTask):
    """What the trainer's profile needs to know of the models."""

    classes = ("no", "yes")
    features = (
        *(FeatureSpec(name=f"x{f}", kind="numeric") for f in range(NUM_NUMERIC)),
        *(FeatureSpec(name=f"c{c}", kind="categorical") for c in range(NUM_CATEGORICAL)),
    )
    slices = SliceSpec(feature="c0", categories=SLICES)


_WORDS = (np.array(SLICES), *[np.array([f"l{k}" for k in range(_LEVELS)])] * (NUM_CATEGORICAL - 1))


def profile_of(days: list[Day]) -> ReferenceProfile:
    """By the trainer itself, with how much days differ."""
    x_NF, level_NC = np.concatenate([day.x_NF for day in days]), np.concatenate([day.level_NC for day in days])
    p_N = np.concatenate([day.p_N for day in days])
    columns = {f"x{f}": x_NF[:, f] for f in range(NUM_NUMERIC)}
    columns |= {f"c{c}": _WORDS[c][level_NC[:, c]] for c in range(NUM_CATEGORICAL)}
    time_N = np.concatenate([day.time_N for day in days])
    rows = Rows(columns, np.concatenate([day.y_N for day in days]).astype(float), time_N, time_N)
    vocabularies = {f"c{c}": tuple(_WORDS[c].tolist()) for c in range(NUM_CATEGORICAL)}
    return make_profile(TrafficTask(), rows, np.stack([1 - p_N, p_N], 1), vocabularies)


def _sequence(day: Day) -> Column:
    return Column.of(np.arange(day.number * NUM_ROWS, (day.number + 1) * NUM_ROWS, dtype="u8"))


def predictions_of(model: str, day: Day) -> PredictionBatch:
    columns = [FeatureColumn(name=f"x{f}", values=Column.of(day.x_NF[:, f].astype("f4"))) for f in range(NUM_NUMERIC)]
    columns += [FeatureColumn(name=f"c{c}", values=Column.of(_WORDS[c][day.level_NC[:, c]])) for c in range(NUM_CATEGORICAL)]
    return PredictionBatch(
        model=model, version="v1", role="champion", epoch="e", sequence=_sequence(day),
        event_time_ms=Column.of(day.time_N), slice_index=Column.of(day.slice_N), features=tuple(columns),
        predicted=Column.of((day.p_N > 0.5).astype("f8")), scores=Column.of(np.stack([1 - day.p_N, day.p_N], 1)),
    )  # fmt: skip


def labels_of(model: str, day: Day) -> LabelBatch:
    return LabelBatch(
        model=model, version="v1", epoch="e", sequence=_sequence(day),
        event_time_ms=Column.of(day.time_N), slice_index=Column.of(day.slice_N),
        predicted=Column.of((day.p_N > 0.5).astype("f8")), scores=Column.of(np.stack([1 - day.p_N, day.p_N], 1)),
        label=Column.of(day.y_N.astype("f8")), label_time_ms=Column.of(day.time_N + 3_600_000),
    )  # fmt: skip
