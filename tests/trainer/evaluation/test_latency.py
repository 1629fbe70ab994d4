"""Latencies by turns, with a clock that the test turns."""

import numpy as np
import pytest

from clipdrift_trainer.evaluation.latency import quantile_ratio, time_by_turns


class Machine:
    """A clock that answers move on; a disturbance slows everything down for a while."""

    def __init__(self) -> None:
        self.now, self.asked, self.slowness = 0.0, [], 1.0

    def timer(self) -> float:
        return self.now

    def answering(self, name: str, seconds: float):
        def answer(row: int) -> None:
            self.asked.append((name, row))
            self.now += seconds * self.slowness

        return answer


def test_each_row_is_asked_of_both_by_turns_and_who_is_first_changes() -> None:
    machine = Machine()

    a_RN, b_RN = time_by_turns(
        machine.answering("a", 0.002), machine.answering("b", 0.001), 2, 2, budget_seconds=9, timer=machine.timer
    )

    assert machine.asked[:4] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)], "unmeasured, to warm up"
    assert machine.asked[4:] == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    np.testing.assert_allclose(a_RN, np.full((2, 2), 0.002))
    np.testing.assert_allclose(b_RN, np.full((2, 2), 0.001))


def test_no_round_begins_when_the_time_is_over() -> None:
    machine = Machine()

    a_RN, _ = time_by_turns(
        machine.answering("a", 0.1), machine.answering("b", 0.1), 5, 100, budget_seconds=2.5, timer=machine.timer
    )

    assert len(a_RN) == 3


def test_a_disturbance_meets_both_and_leaves_the_ratio_alone() -> None:
    generator = np.random.default_rng(0)
    slowness_R1 = generator.lognormal(0, 1.0, (25, 1))
    base_RN = generator.lognormal(0, 0.05, (2, 25, 32))

    found = quantile_ratio(1.5e-3 * base_RN[0] * slowness_R1, 1e-3 * base_RN[1] * slowness_R1, 0.5)

    assert found.low < 1.5 < found.high
    assert found.high - found.low < 0.6


def test_the_ratio_is_that_of_numpys_quantiles() -> None:
    a_RN, b_RN = np.random.default_rng(1).lognormal(size=(2, 10, 40))

    for share in (0.5, 0.99):
        found = quantile_ratio(a_RN, b_RN, share)
        assert found.value == pytest.approx(np.quantile(a_RN, share) / np.quantile(b_RN, share))
        assert found.low <= found.value <= found.high


def test_the_interval_holds_a_true_ratio_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        noise = generator.lognormal(0, 0.3, (2, 20, 8))
        noise = noise * generator.lognormal(0, 0.3, (2, 20, 1))  # rounds differ
        found = quantile_ratio(2 * noise[0], noise[1], 0.5, seed=seed)
        hits += found.low <= 2.0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(
    "seconds", [np.zeros((0, 4)), np.ones((1, 4)), np.zeros((5, 4)), np.full((5, 4), np.nan), np.ones((5, 0))], ids=str
)
def test_what_cannot_be_known_is_no_number(seconds: np.ndarray) -> None:
    assert all(np.isnan(x) for x in quantile_ratio(seconds, seconds, 0.5))
