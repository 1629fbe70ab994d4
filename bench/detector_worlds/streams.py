"""Streams of 0/1 errors: validated ones, and production with or without a rise of the error rate.

Axes: R streams, N labels. Errors hang together in four ways; the error rate before a change is 0.10 in all of them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Errors = npt.NDArray[np.uint8]
RATE, HARMED_RATE = 0.10, 0.15
NUM_VALIDATED, NUM_NULL, CHANGE_AT, HORIZON = 5_000, 10_000, 2_000, 4_000
BLOCK = 500  # labels of a day; validation has ten of them


class World(NamedTuple):
    """How errors hang together: from one to the next, or within a day."""

    name: str
    lag: float = 0.0
    day_sd: float = 0.0  # of the days' true error rates


class Streams(NamedTuple):
    """One model a row: its validation, a production without change, and one with a rise after 2,000 labels."""

    validated_RN: Errors
    null_RN: Errors
    harmed_RN: Errors


NULLS = (World("independent"), World("lag 0.1", lag=0.1), World("lag 0.3", lag=0.3), World("days differ", day_sd=0.04))
# Days that differ too little for ten validated days to show it for certain: measured, too, and told apart from the nulls.
FAINT = (World("days differ by .01", day_sd=0.01), World("days differ by .02", day_sd=0.02))


def streams_of(world: World, num_streams: int, seed: int) -> Streams:
    """The same streams for the same seed."""
    random = np.random.default_rng([seed, round(1_000 * world.lag), round(1_000 * world.day_sd)])
    validated = _errors(world, RATE, NUM_VALIDATED, num_streams, random)
    null = _errors(world, RATE, NUM_NULL, num_streams, random)
    before = _errors(world, RATE, CHANGE_AT, num_streams, random)
    after = _errors(world, HARMED_RATE, HORIZON, num_streams, random, before[-1])
    return Streams(*(np.ascontiguousarray(one.T) for one in (validated, null, np.concatenate([before, after]))))


def _errors(
    world: World, rate: float, num_labels: int, num_streams: int, random: np.random.Generator, last_R: Errors | None = None
) -> Errors:
    """[N, R]: a chain with P(error | last) = p + lag (last - p), p the day's rate."""
    rate_NR = np.full((num_labels, num_streams), rate)
    if world.day_sd:
        size = rate * (1 - rate) / world.day_sd**2 - 1  # of a beta distribution with this mean and standard deviation
        rate_NR = np.repeat(random.beta(rate * size, (1 - rate) * size, (num_labels // BLOCK, num_streams)), BLOCK, axis=0)
    draw_NR = random.random((num_labels, num_streams))
    if not world.lag:
        return (draw_NR < rate_NR).astype(np.uint8)
    error_NR = np.empty((num_labels, num_streams), np.uint8)
    for i in range(num_labels):
        chance_R = rate_NR[i] if last_R is None else rate_NR[i] + world.lag * (last_R - rate_NR[i])
        error_NR[i] = last_R = (draw_NR[i] < chance_R).astype(np.uint8)
    return error_NR
