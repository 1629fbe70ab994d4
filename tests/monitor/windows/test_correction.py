"""What late labels change in what was said."""

import pytest

from clipdrift_monitor.windows.correction import correct
from clipdrift_monitor.windows.view import View, wilson_interval


def figures(num_labels, num_correct, num_predictions=1_000):
    if not num_labels:
        return View(num_predictions=num_predictions, num_labels=0, num_correct=0, maturity=0.0)
    low, high = wilson_interval(num_correct, num_labels)
    return View(
        num_predictions=num_predictions, num_labels=num_labels, num_correct=num_correct, accuracy=num_correct / num_labels,
        accuracy_low=low, accuracy_high=high, maturity=num_labels / num_predictions,
    )  # fmt: skip


def values(num_labels, error):
    return View(num_predictions=100, num_labels=num_labels, num_correct=0, mean_absolute_error=error, maturity=num_labels / 100)


def test_without_new_labels_nothing_is_corrected():
    assert correct(figures(500, 400), None, figures(500, 400, 1_200), 7, 0.5) is None


def test_labels_that_change_little_are_noted_and_not_told():
    found = correct(figures(500, 400), None, figures(600, 478), 7, 0.5)
    assert (found.num_late_labels, found.told, found.words, found.after.num_labels) == (100, None, "", 600)


def test_an_accuracy_outside_of_what_was_said_is_told_with_both_figures():
    found = correct(figures(500, 400), None, figures(900, 630), 7, 0.5)
    assert found.told == found.after == figures(900, 630)
    assert found.before == figures(500, 400)
    assert found.words == "Accuracy is 70.0 % by 900 labels; it was told as 80.0 % (76.3 % to 83.3 %) by 500."


def test_a_correction_is_told_once_and_again_only_where_it_changes_again():
    first = correct(figures(500, 400), None, figures(900, 630), 7, 0.5)
    second = correct(figures(500, 400), first, figures(920, 645), 8, 0.5)
    third = correct(figures(500, 400), second, figures(1_000, 760), 9, 0.5)
    assert second.told == first.told != second.after
    assert third.told == third.after
    assert third.before == first.after
    assert third.num_late_labels == 500


@pytest.mark.parametrize(("before", "after", "words"), [
    (figures(0, 0), figures(300, 240), "Accuracy is 80.0 % by 300 labels; there were none."),
    (figures(300, 240), figures(700, 560), "70 % of the predictions have a label now; it was 30 %."),
    (values(50, 2.0), values(90, 2.3), "The mean absolute error is 2.3 by 90 labels; it was told as 2 by 50."),
    (values(50, None), values(90, 2.3), "The mean absolute error is 2.3 by 90 labels; there were none."),
    (values(60, 2.0), values(90, 2.1), ""),
])  # fmt: skip
def test_what_is_told_says_what_changed(before, after, words):
    assert correct(before, None, after, 0, 0.5).words == words
