"""Vectors that are added to, over what the store holds."""

import numpy as np

from clipdrift_monitor.intake.window_book import WindowBook
from clipdrift_monitor.windows.window import WindowKey

KEYS = [WindowKey("v", 0, start_ms) for start_ms in range(5)]


def test_sums_are_added_to_those_of_the_store_which_stay_as_they_are_until_saved():
    kept = {("m", KEYS[0]): np.array([1.0, 2.0])}
    book = WindowBook(lambda model, key: kept.get((model, key)))

    book.add("m", KEYS[0], np.array([10.0, 20.0]))
    book.add("m", KEYS[0], np.array([100.0, 200.0]))
    book.add("m", KEYS[1], np.array([5.0, 5.0]))

    assert {key: sums.tolist() for (_, key), sums in book.changes().items()} == {KEYS[0]: [111.0, 222.0], KEYS[1]: [5.0, 5.0]}
    assert kept["m", KEYS[0]].tolist() == [1.0, 2.0]


def test_what_was_not_saved_is_forgotten_when_the_book_is_cleared():
    book = WindowBook(lambda model, key: None)
    book.add("m", KEYS[0], np.ones(2))
    book.clear()

    assert book.vector("m", KEYS[0]) is None
    assert book.changes() == {}


def test_what_was_not_used_for_long_is_let_go_and_read_again():
    kept, loads = {}, []

    def load(model, key):
        loads.append(key)
        return kept.get((model, key))

    book = WindowBook(load, max_windows=2)
    for key in KEYS:
        book.add("m", key, np.ones(1))
    kept |= book.changes()
    book.forget_changes()
    loads.clear()
    values = [book.vector("m", key)[0] for key in KEYS]

    assert values == [1.0] * 5
    assert loads == KEYS[:3]
