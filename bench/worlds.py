"""Simulated worlds: days of labelled predictions of a binary model, healthy in three ways and harmed in six.

Used by bench/harm.py and by the tests of the harm tests. Axes: N rows of a day.

A model that is healthy gives honest probabilities p: the event happens with probability p, and so the predicted class is wrong
with probability min(p, 1 - p). How errors hang together is a Gaussian copula, which leaves those probabilities as they are:
row i is an error when z_i < quantile(min(p_i, 1 - p_i)), with z standard normal, and correlated between rows, or within days.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.columns import Column
from clipdrift_contract.events import BlockScore, ClipSpec, ErrorClustering, LabelBatch, RunEnd
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_monitor.risk.harm import Block
from clipdrift_monitor.windows.window import Layout, label_sums
from clipdrift_trainer.evaluation.clustering import between_block_variance, lag1_autocorrelation

Floats = npt.NDArray[np.float64]
DAY_MS = 86_400_000
LAYOUT = Layout(ReferenceProfile(task="binary", classes=("no", "yes"), score_counts=(0,), num_rows=1))
_MEAN, _SPREAD = -0.7, 1.4  # of the true log-odds


class Day(NamedTuple):
    p_N: Floats  # what the model says
    y_N: npt.NDArray[np.int64]

    @property
    def errors(self) -> npt.NDArray[np.bool_]:
        return (self.p_N > 0.5) != (self.y_N == 1)


class World(NamedTuple):
    """How one world differs from the independent one; `since` is the day on which the harm begins."""

    name: str
    lag: float = 0.0  # of z between neighbouring rows
    day_share: float = 0.0  # of z's variance that a whole day has in common
    harm: Callable[[Floats, int], tuple[Floats, Floats]] | None = None  # log-odds, days of harm -> of the model, of the truth


def _broken(x_N: Floats, _: int) -> tuple[Floats, Floats]:
    return x_N, np.roll(x_N, len(x_N) // 2)  # the model reads another row's inputs


def _swapped(x_N: Floats, _: int) -> tuple[Floats, Floats]:
    return -x_N, x_N  # a deployment in which the classes changed places


def _slow(x_N: Floats, days: int) -> tuple[Floats, Floats]:
    return x_N, x_N * max(-1.0, 1 - 0.02 * days)  # what the model learned fades, and then turns round


def _moved(x_N: Floats, _: int) -> tuple[Floats, Floats]:
    return x_N, x_N + 1.0  # the event has become more common


def _proud(x_N: Floats, _: int) -> tuple[Floats, Floats]:
    return x_N * 2.0, x_N  # the model has become too sure


def _hard(x_N: Floats, _: int) -> tuple[Floats, Floats]:
    return x_N / 3.0, x_N / 3.0  # rows are hard to tell, and the model says so


NULLS = (World("independent"), World("markov", lag=0.6), World("day_effect", day_share=0.05))
HARMS = (
    World("classes_swapped", day_share=0.05, harm=_swapped),
    World("broken_inputs", day_share=0.05, harm=_broken),
    World("slow_decay", day_share=0.05, harm=_slow),
    World("event_more_common", day_share=0.05, harm=_moved),
    World("too_sure", day_share=0.05, harm=_proud),
    World("harder_days", day_share=0.05, harm=_hard),
)


def days_of(world: World, num_days: int, num_rows: int, since: int, random: np.random.Generator) -> list[Day]:
    """`num_days` days of `num_rows` rows; harm, if the world has one, from day `since` on."""
    found = []
    for number in range(num_days):
        x_N = random.normal(_MEAN, _SPREAD, num_rows)
        said_N, true_N = x_N, x_N
        if world.harm is not None and number >= since:
            said_N, true_N = world.harm(x_N, number - since)
        found.append(_day(world, said_N, true_N, random))
    return found


def _day(world: World, said_N: Floats, true_N: Floats, random: np.random.Generator) -> Day:
    p_N, t_N = _sigmoid(said_N), _sigmoid(true_N)
    noise_N = random.normal(size=len(p_N))
    z_N = np.empty(len(p_N))
    carried = random.normal()
    for i, fresh in enumerate(noise_N):
        carried = world.lag * carried + np.sqrt(1 - world.lag**2) * fresh
        z_N[i] = carried
    z_N = np.sqrt(1 - world.day_share) * z_N + np.sqrt(world.day_share) * random.normal()
    is_unlikely_N = _normal_share(z_N) < np.minimum(t_N, 1 - t_N)  # what the truth holds for less likely happens
    return Day(p_N, ((t_N > 0.5) != is_unlikely_N).astype(np.int64))


def _sigmoid(x_N: Floats) -> Floats:
    return 1 / (1 + np.exp(-x_N))


_GRID = np.linspace(-6, 6, 4001)
_SHARES = np.cumsum(np.exp(-(_GRID**2) / 2))
_SHARES = (_SHARES - _SHARES[0] / 2) / _SHARES[-1]


def _normal_share(z_N: Floats) -> Floats:
    """Distribution function of the standard normal, to 1e-4."""
    return np.interp(z_N, _GRID, _SHARES)


def block_of(day: Day, number: int) -> Block:
    """A day as the harm tests read it, through the monitor's own windows."""
    num_rows, start_ms = len(day.p_N), number * DAY_MS
    batch = LabelBatch(
        model="m", version="v", epoch="e", sequence=Column.of(np.arange(num_rows, dtype="u8")),
        event_time_ms=Column.of(np.full(num_rows, start_ms, "i8")), slice_index=Column.of(np.zeros(num_rows, "i2")),
        predicted=Column.of((day.p_N > 0.5).astype("f8")), scores=Column.of(np.stack([1 - day.p_N, day.p_N], 1)),
        label=Column.of(day.y_N.astype("f8")), label_time_ms=Column.of(np.full(num_rows, start_ms, "i8")),
    )  # fmt: skip
    ((_, sums),) = label_sums(LAYOUT, batch, np.ones(num_rows, bool), DAY_MS)
    return Block(
        start_ms=start_ms, end_ms=start_ms + DAY_MS, num_labels=LAYOUT.value(sums, "num_labels"),
        brier_sum=LAYOUT.value(sums, "brier_sum"), labels=tuple(LAYOUT.counts(sums, "labels").tolist()),
        hits=tuple(LAYOUT.counts(sums, "hits").tolist()), score_sum=tuple(LAYOUT.counts(sums, "score_sum").tolist()),
        errors=day.errors.astype(np.uint8).tobytes(), num_errors=float(day.errors.sum()),
        log_loss_sum=LAYOUT.value(sums, "nll_sum"),
    )  # fmt: skip


def _log_loss(day: Day) -> float:
    return float(-np.log(np.clip(np.where(day.y_N == 1, day.p_N, 1 - day.p_N), 1e-7, 1.0)).sum())


def run_of(days: list[Day]) -> RunEnd:
    """The end of a run that was validated on `days`."""
    error_N = np.concatenate([day.errors for day in days])
    day_N = np.repeat(np.arange(len(days)), [len(day.p_N) for day in days])
    hour_N = np.concatenate([np.arange(len(day.p_N)) * 24 // len(day.p_N) for day in days]) + 24 * day_N
    scores = tuple(
        BlockScore(
            start_ms=i * DAY_MS, num_rows=len(day.p_N), num_errors=int(day.errors.sum()), nll_sum=_log_loss(day),
            brier_sum=float(((day.p_N - day.y_N) ** 2).sum()),
        )
        for i, day in enumerate(days)
    )  # fmt: skip
    clustering = ErrorClustering(
        slice="", lag1_autocorrelation=lag1_autocorrelation(error_N), days=scores,
        between_hour_variance=between_block_variance(error_N, hour_N),
        between_day_variance=between_block_variance(error_N, day_N),
    )  # fmt: skip
    return RunEnd(
        run_id="r", model="m", version="v", started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1, as_of_ms=1,
        data_digest="", code_revision="", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=1,
        clustering=(clustering,),
    )  # fmt: skip
