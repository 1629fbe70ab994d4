import numpy as np
import pytest
from label_days import NEVER, NUM_ROWS, LabelDays

from clipdrift_monitor.diagnosis.faults import LABELS, MOVED
from clipdrift_monitor.risk.challengers import logit, sigmoid

NUM_USUAL = 14


def scored(random):
    """Scores of a day and labels that follow them."""
    score_N = sigmoid(random.normal(-0.5, 1.8, NUM_ROWS))
    return score_N, (random.random(NUM_ROWS) < score_N).astype(int)


def rough(random):
    """The same where days differ: on some the event is thrice as common as the scores say, as on days of storms."""
    score_N = sigmoid(random.normal(-0.5, 1.8, NUM_ROWS))
    return score_N, (random.random(NUM_ROWS) < sigmoid(logit(score_N) + random.normal(0.0, 0.7))).astype(int)


def days_of(make, random, num_days=NUM_USUAL):
    days = LabelDays()
    for _ in range(num_days):
        days.search(*make(random))
    return days


def faults(found):
    return [one.kind for one in found if one.kind != MOVED]


def missing(label, share):
    return lambda random, label_N: np.where((label_N == label) & (random.random(NUM_ROWS) < share), NEVER, 0)


ON_TIME = missing(0, 0.0)


@pytest.mark.parametrize("make", [scored, rough], ids=["days alike", "days that differ"])
@pytest.mark.parametrize(
    ("told", "late", "kind", "is_certain"),
    [
        (lambda random, label_N: 1 - label_N, ON_TIME, "labels_flipped", False),
        (lambda random, label_N: random.permutation(label_N), ON_TIME, "labels_misjoined", False),
        (lambda random, label_N: np.ones(NUM_ROWS, int), ON_TIME, "labels_one_class", True),
        (lambda random, label_N: label_N, missing(1, 0.9), "labels_missing_for_class", False),
        (lambda random, label_N: label_N, missing(0, 0.8), "labels_missing_for_class", False),
    ],
    ids=["turned round", "joined wrongly", "all yes", "yes missing", "no missing"],
)
def test_labels_that_break_are_named_with_their_fault_and_since_when(make, told, late, kind, is_certain):
    random = np.random.default_rng(3)
    days = days_of(make, random)
    found = []
    for _ in range(5):
        score_N, label_N = make(random)
        found = days.search(score_N, told(random, label_N), late_N=late(random, label_N))

    assert faults(found) == [kind]
    (fault,) = found
    assert fault.subject == LABELS
    assert fault.since_ms == (days.day - 5) * 86_400_000
    assert fault.is_certain == is_certain
    assert fault.confidence >= 0.9
    assert next(one for one in fault.rows if one.name == "probability of this explanation").value >= 0.9


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_a_class_that_come_after_all_are_late_and_not_missing(label):
    random = np.random.default_rng(4)
    days = days_of(rough, random)
    told = []
    for _ in range(6):
        score_N, label_N = rough(random)
        told += faults(days.search(score_N, label_N, late_N=np.where(label_N == label, 2, 0)))
    assert told[0] == "labels_missing_for_class"  # nobody can know yet that they will come
    assert told[-1] == "labels_delayed_by_class"


def test_a_fault_that_is_mended_is_not_told_any_more():
    random = np.random.default_rng(5)
    days = days_of(scored, random)
    for _ in range(3):
        score_N, label_N = scored(random)
        days.search(score_N, 1 - label_N)
    assert faults(days.search(*scored(random))) == []


def recalibrated(random):
    """The event has become six times as common among the same kinds of rows."""
    score_N = sigmoid(random.normal(-0.5, 1.8, NUM_ROWS))
    return score_N, (random.random(NUM_ROWS) < sigmoid(logit(score_N) + np.log(6))).astype(int)


def weaker(random):
    """The scores foretell half as much as they did."""
    score_N = sigmoid(random.normal(-0.5, 1.8, NUM_ROWS))
    return score_N, (random.random(NUM_ROWS) < sigmoid(0.5 * logit(score_N))).astype(int)


@pytest.mark.parametrize("after", [scored, rough, recalibrated, weaker], ids=lambda one: one.__name__)
@pytest.mark.parametrize("make", [scored, rough], ids=["days alike", "days that differ"])
def test_healthy_drifting_and_recalibrated_worlds_are_never_accused(make, after):
    for seed in range(4):
        random = np.random.default_rng(seed)
        days = days_of(make, random)
        for _ in range(14):
            assert faults(days.search(*after(random))) == []


def test_labels_that_are_missing_by_chance_are_nobodys_class():
    for seed in range(4):
        random = np.random.default_rng(seed)
        days = days_of(rough, random)
        for _ in range(7):
            score_N, label_N = rough(random)
            late_N = np.where(random.random(NUM_ROWS) < random.choice([0.1, 0.3, 0.6]), NEVER, 0)
            assert faults(days.search(score_N, label_N, late_N=late_N)) == []


def test_one_slice_that_turned_round_and_grew_is_the_worlds_and_no_wrong_join():
    """Added up, the rates look flat; slice by slice, one follows its scores and the other goes against them."""
    random = np.random.default_rng(6)
    days = days_of(scored, random)
    for _ in range(7):
        score_N, label_N = scored(random)
        slice_N = (random.random(NUM_ROWS) < 0.5).astype(int)
        found = days.search(score_N, np.where(slice_N == 1, 1 - label_N, label_N), slice_N)
        assert faults(found) == []
    assert [one.kind for one in found] == [MOVED]


def test_classes_without_any_spread_and_days_without_labels_are_no_error():
    days = LabelDays()
    score_N = np.full(NUM_ROWS, 0.9)
    for _ in range(NUM_USUAL):
        assert days.search(score_N, np.ones(NUM_ROWS, int)) == ()
    assert faults(days.search(score_N, np.ones(NUM_ROWS, int), late_N=np.full(NUM_ROWS, NEVER))) != ["labels_flipped"]


def test_scores_that_say_nothing_cannot_show_a_wrong_join():
    random = np.random.default_rng(8)
    days = LabelDays()
    for _ in range(NUM_USUAL + 5):
        found = days.search(sigmoid(random.normal(0.0, 1.0, NUM_ROWS)), random.integers(0, 2, NUM_ROWS))
        assert faults(found) == []
