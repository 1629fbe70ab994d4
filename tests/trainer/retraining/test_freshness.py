"""Which rows may judge: new to both models, whole days, and with labels that are all in."""

import numpy as np

from clipdrift_trainer.retraining.freshness import label_horizon, may_judge
from clipdrift_trainer.tasks.task import Rows

DAY = 86_400_000
HOUR = DAY // 24


def rows(time_ms: np.ndarray, delay_ms: np.ndarray | int = 0, label: np.ndarray | None = None) -> Rows:
    return Rows({}, np.zeros(len(time_ms)) if label is None else label, time_ms, time_ms + delay_ms)


def test_a_row_of_the_moment_at_which_the_champions_data_end_is_fresh_and_the_one_before_is_not() -> None:
    time_ms = np.array([3 * DAY - 1, 3 * DAY])

    assert may_judge(rows(time_ms), 3 * DAY, 9 * DAY, 0).tolist() == [False, True]


def test_the_rest_of_a_day_that_the_champion_has_seen_a_part_of_may_not_judge() -> None:
    time_ms = 3 * DAY + np.arange(48) * HOUR

    found = may_judge(rows(time_ms), champion_end_ms=3 * DAY + 7 * HOUR, as_of_ms=9 * DAY, label_horizon_ms=0)

    assert found.tolist() == [False] * 24 + [True] * 24


def test_a_row_may_judge_from_the_moment_on_at_which_labels_of_its_time_are_in() -> None:
    time_ms = np.array([7 * DAY, 7 * DAY + 1])

    assert may_judge(rows(time_ms), 0, as_of_ms=9 * DAY, label_horizon_ms=2 * DAY).tolist() == [True, False]


def test_labels_that_come_soon_for_one_class_alone_do_not_tilt_the_rows_that_judge() -> None:
    # half of the rows are frauds, known within an hour; that the others are none is known after ten days
    generator = np.random.default_rng(0)
    time_ms = np.sort(generator.integers(0, 60 * DAY, 20_000))
    is_fraud = generator.random(20_000) < 0.5
    delay_ms = np.where(is_fraud, HOUR, 10 * DAY)
    as_of_ms = 60 * DAY
    known = rows(time_ms, delay_ms, is_fraud.astype(float)).select(time_ms + delay_ms <= as_of_ms)

    newest = known.time_ms > as_of_ms - 10 * DAY
    judging = may_judge(known, 30 * DAY, as_of_ms, label_horizon(known))

    assert known.label[newest].mean() == 1.0, "of the newest rows only frauds are labelled"
    assert abs(known.label[judging].mean() - 0.5) < 0.02
    assert not (judging & newest).any()
    assert judging.sum() > 6_000


def test_the_horizon_is_that_of_older_rows_since_of_the_newest_only_quick_labels_are_known() -> None:
    time_ms = np.arange(1_000)
    delay_ms = np.where(time_ms < 500, 40, 1)

    assert label_horizon(rows(time_ms, delay_ms)) == 40
    assert label_horizon(rows(time_ms[:0])) == 0
    assert label_horizon(rows(time_ms[:1], 7)) == 7
