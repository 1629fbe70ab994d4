"""Traffic of a rollout: two models on the same rows, errors in clusters, labels late. Axes: N rows of a day, S slices, D days.

How errors hang together: a day is good or bad as a whole (sd 5 points for both models, 2 points more by slice), the candidate
has days of its own (sd 1 point, and 1 more by slice) which no pairing takes out, and within a day errors come in runs: what
both models find hard, and what each finds hard, are autoregressive from row to row (coefficient 0.2 to 0.5, which is a lag-1
correlation of 0.1 to 0.3 of the errors). Who is wrong is labelled a little less often by the time a day is judged.
"""

from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter
from scipy.special import ndtri

from clipdrift_monitor.rollout.compared import ComparedBlock, PairedSums, Served, ServedBlock, SideSums
from clipdrift_monitor.windows.window import Floats

LONGEST_DAYS = 100


class World(NamedTuple):
    """What rollouts of one kind have in common."""

    shares: tuple[float, ...] = (0.30, 0.20, 0.15, 0.15, 0.10, 0.10)
    """Of the slices in the traffic; all but the first may be the one in which a candidate is worse."""
    rows_a_day: int = 3_000
    base_error: tuple[float, float] = (0.15, 0.25)
    delay_days: int = 3
    """A day's labels are mature so long after its end."""
    day_sd: float = 0.05
    slice_day_sd: float = 0.02
    own_day_sd: float = 0.01
    own_slice_day_sd: float = 0.01
    persistence: float = 0.0
    """Of the candidate's own days: how much of today's is yesterday's. The evidence takes days as independent."""
    common: float = 0.75
    """Share of what is hard that both models find hard."""
    labelled_right: float = 0.95
    labelled_wrong: float = 0.92
    failed_share: float = 0.002
    """Of the requests, on both sides; one day in ten it is ten times that."""


USUAL = World()
TUNED_ON = World(
    shares=(0.40, 0.25, 0.20, 0.15), rows_a_day=2_000, base_error=(0.06, 0.12), delay_days=2, day_sd=0.02, own_day_sd=0.007,
    own_slice_day_sd=0.007, common=0.6,
)  # fmt: skip
"""What constants were chosen on, beside seeds of their own: other slices, error rates, delays and spreads than the bench's."""


class Traffic(NamedTuple):
    """One rollout's world: what lasts from day to day."""

    world: World
    base_S: Floats  # the champion's error rate
    excess_S: Floats  # the candidate's error rate minus the champion's
    own_DS: Floats  # what the candidate's days have of their own
    autoregression: float
    random: np.random.Generator

    @property
    def excess(self) -> float:
        """Errors a row that the candidate makes beyond the champion's, on average."""
        return float(np.asarray(self.world.shares) @ self.excess_S)


class Day(NamedTuple):
    """The rows of one day, as each model answers them."""

    slice_N: np.ndarray
    error_champion_N: Floats
    error_candidate_N: Floats
    loss_champion_N: Floats
    loss_candidate_N: Floats
    luck_N: Floats
    """Of the label, 0..1: below the share that is labelled it has come when the day is judged."""


def traffic_of(world: World, excess: float, in_slice: bool, random: np.random.Generator) -> Traffic:
    num_slices = len(world.shares)
    excess_S = np.full(num_slices, 0.0 if in_slice else excess)
    if in_slice:
        excess_S[random.integers(1, num_slices)] = excess
    base_S = random.uniform(*world.base_error, num_slices)
    noise_DS = random.normal(0, world.own_day_sd, (LONGEST_DAYS, 1)) + random.normal(
        0, world.own_slice_day_sd, (LONGEST_DAYS, num_slices)
    )
    noise_DS[1:] *= np.sqrt(1 - world.persistence**2)
    own_DS = lfilter([1.0], [1.0, -world.persistence], noise_DS, axis=0)
    return Traffic(world, base_S, excess_S, own_DS, random.uniform(0.2, 0.5), random)


def day_of(traffic: Traffic, number: int) -> Day:
    world, random, num_slices = traffic.world, traffic.random, len(traffic.world.shares)
    num_rows = random.poisson(world.rows_a_day)
    slice_N = random.choice(num_slices, num_rows, p=world.shares)
    shared_S = random.normal(0, world.day_sd) + random.normal(0, world.slice_day_sd, num_slices)
    champion_S = np.clip(traffic.base_S + shared_S, 0.01, 0.9)
    candidate_S = np.clip(champion_S + traffic.excess_S + traffic.own_DS[number], 0.001, 0.95)
    hard_3N = random.standard_normal((3, num_rows)) * np.sqrt(1 - traffic.autoregression**2)
    hard_3N = lfilter([1.0], [1.0, -traffic.autoregression], hard_3N, axis=1)
    sides = []
    for own_N, rate_S in ((hard_3N[1], champion_S), (hard_3N[2], candidate_S)):
        latent_N = np.sqrt(world.common) * hard_3N[0] + np.sqrt(1 - world.common) * own_N
        error_N = (latent_N > -ndtri(rate_S)[slice_N]).astype(float)
        confidence_N = np.clip(1 - rate_S[slice_N] - 0.08 * latent_N, 0.5, 0.99)
        sides.append((error_N, np.where(error_N > 0, confidence_N, 1 - confidence_N) ** 2))
    (error_N, loss_N), (candidate_error_N, candidate_loss_N) = sides
    return Day(slice_N, error_N, candidate_error_N, loss_N, candidate_loss_N, random.random(num_rows))


def shadow_block(world: World, day: Day, number: int) -> ComparedBlock:
    """Rows that have a label; whether it has come depends on the answer that the user got, so on the champion's."""
    day = _where(day, _has_label(world, day.error_champion_N, day.luck_N))
    error_N, loss_N = day.error_candidate_N - day.error_champion_N, day.loss_candidate_N - day.loss_champion_N
    columns = [np.ones(len(error_N)), loss_N, loss_N**2, error_N, error_N**2]
    fields = ("num_rows", "loss_sum", "loss_sq_sum", "error_sum", "error_sq_sum")
    sums = _sums(day.slice_N, columns, len(world.shares))
    pairs = tuple(PairedSums(slice=name, **dict(zip(fields, row, strict=True))) for name, row in sums)
    return ComparedBlock(start_ms=number, end_ms=number + 1, stage="shadow", pairs=pairs)


def canary_block(world: World, day: Day, number: int, share: float, random: np.random.Generator) -> ComparedBlock:
    is_candidate_N = random.random(len(day.slice_N)) < share
    has_label_N = _has_label(world, np.where(is_candidate_N, day.error_candidate_N, day.error_champion_N), day.luck_N)
    ours, theirs = _where(day, has_label_N & is_candidate_N), _where(day, has_label_N & ~is_candidate_N)
    return ComparedBlock(
        start_ms=number,
        end_ms=number + 1,
        stage=f"canary {share:g}",
        candidate=_side(world, ours.slice_N, ours.error_candidate_N, ours.loss_candidate_N),
        champion=_side(world, theirs.slice_N, theirs.error_champion_N, theirs.loss_champion_N),
    )


def served_block(world: World, number: int, stage: str, share: float, random: np.random.Generator) -> ServedBlock:
    """How both sides answered on that day: alike."""
    failed_share = world.failed_share * (10 if random.random() < 0.1 else 1)
    sides = []
    for part in (share, 1 - share) if share else (1, 1):
        num_requests = round(part * world.rows_a_day)
        num_failed = int(random.binomial(num_requests, failed_share))
        buckets, counts = np.unique(np.floor(random.normal(40, 4, num_requests - num_failed)).astype(int), return_counts=True)
        histogram = dict(zip(buckets.tolist(), counts.tolist(), strict=True))
        sides.append(Served(num_answered=num_requests - num_failed, num_failed=num_failed, latency_histogram=histogram))
    return ServedBlock(start_ms=number, end_ms=number + 1, stage=stage, candidate=sides[0], champion=sides[1])


def _has_label(world: World, error_N: Floats, luck_N: Floats) -> np.ndarray:
    has_label_N: np.ndarray = luck_N < np.where(error_N > 0, world.labelled_wrong, world.labelled_right)
    return has_label_N


def _where(day: Day, chosen_N: np.ndarray) -> Day:
    return Day(*(one[chosen_N] for one in day))


def _side(world: World, slice_N: np.ndarray, error_N: Floats, loss_N: Floats) -> tuple[SideSums, ...]:
    columns = [np.ones(len(error_N)), loss_N, loss_N**2, error_N]
    fields = ("num_rows", "loss_sum", "loss_sq_sum", "num_errors")
    sums = _sums(slice_N, columns, len(world.shares))
    return tuple(SideSums(slice=name, **dict(zip(fields, row, strict=True))) for name, row in sums)


def _sums(slice_N: np.ndarray, columns: list[Floats], num_slices: int) -> list[tuple[str, list[float]]]:
    by_slice = np.array([np.bincount(slice_N, weights=one, minlength=num_slices) for one in columns]).T
    return [("", by_slice.sum(axis=0).tolist()), *zip("ABCDEFGHIJ"[:num_slices], by_slice.tolist(), strict=True)]
