"""HopSkipJump on models that can only be asked, beside the exact distance of a linear one."""

import sys

import numpy as np
import pytest

from clipdrift_trainer.evaluation.hop_skip_jump import RobustnessExtraError, turning_distances
from clipdrift_trainer.tasks.task import Rows

SLOPE_D = np.array([1.0, -2.0, 0.5])
SCALES = {"a": np.array(2.0), "t": np.array([0.5, 1.0])}


def rows(num_rows: int = 4) -> Rows:
    generator = np.random.default_rng(0)
    features = {
        "site": np.array(["x"] * num_rows, object),
        "a": generator.normal(size=num_rows),
        "t": generator.normal(size=(num_rows, 2)),
    }
    times = np.zeros(num_rows, np.int64)
    made = Rows(features, np.zeros(num_rows), times, times)
    return Rows(features, (margin(made) > 0).astype(float), times, times)


def margin(some: Rows) -> np.ndarray:
    numbers = np.column_stack([np.nan_to_num(some.features["a"]), some.features["t"]])
    return numbers @ SLOPE_D + 0.3


def answer(some: Rows) -> np.ndarray:
    one_N = 1 / (1 + np.exp(-margin(some)))
    return np.stack([1 - one_N, one_N], axis=1)


def exact(some: Rows) -> np.ndarray:
    """In standard deviations: every number moves by as much, in the direction that helps."""
    reach_D = np.abs(SLOPE_D) * np.array([2.0, 0.5, 1.0])
    return np.abs(margin(some)) / reach_D.sum()


def test_the_distance_of_a_linear_model_is_found_from_above() -> None:
    pytest.importorskip("art")

    found = turning_distances(answer, rows(), SCALES, max_iter=15, max_eval=500, seed=1)

    assert (found >= exact(rows()) - 1e-3).all(), "no attack can do better than the exact distance"
    assert (found <= 1.35 * exact(rows()) + 0.02).all()


def test_the_same_seed_finds_the_same_and_numpys_own_generator_goes_on_undisturbed() -> None:
    pytest.importorskip("art")
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)

    first, second = (turning_distances(answer, rows(2), SCALES, max_iter=3, max_eval=60, seed=1) for _ in range(2))

    assert first.tolist() == second.tolist()
    assert np.random.random(3).tolist() == expected.tolist()


def test_a_wrong_answer_needs_no_change_and_one_that_never_changes_cannot_be_turned() -> None:
    pytest.importorskip("art")
    some = rows(2)
    wrong = Rows(some.features, 1 - some.label, some.time_ms, some.label_time_ms)
    always_one = lambda these: np.tile([0.0, 1.0], (len(these), 1))  # noqa: E731

    assert turning_distances(answer, wrong, SCALES).tolist() == [0.0, 0.0]
    ones = Rows(some.features, np.ones(2), some.time_ms, some.label_time_ms)
    assert np.isinf(turning_distances(always_one, ones, SCALES)).all()


def test_what_is_missing_stays_missing() -> None:
    pytest.importorskip("art")
    some = rows(1)
    some.features["a"][0] = np.nan
    some = Rows(some.features, (margin(some) > 0).astype(float), some.time_ms, some.label_time_ms)
    asked = []

    def watching(these: Rows) -> np.ndarray:
        asked.append(np.isnan(these.features["a"]).all())
        return answer(these)

    turning_distances(watching, some, SCALES, max_iter=2, max_eval=60)

    assert all(asked)


def test_rows_that_there_is_no_time_for_are_left_out() -> None:
    pytest.importorskip("art")
    times = iter([0.0, 5.0, 11.0])

    found = turning_distances(answer, rows(4), SCALES, max_iter=1, max_eval=50, budget_seconds=10.0, timer=lambda: next(times))

    assert len(found) == 2


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)

    with pytest.raises(RobustnessExtraError, match=r"pip install 'clipdrift\[robustness\]'"):
        turning_distances(answer, rows(1), SCALES)
