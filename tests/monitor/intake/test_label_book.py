"""One bit a receipt, over chunks, lives and evictions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_monitor.intake.label_book import CHUNK, LabelBook


class Shelf:
    """A store of bits."""

    def __init__(self):
        self.bits, self.num_loads = {}, 0

    def load(self, model, epoch, chunk):
        self.num_loads += 1
        return self.bits.get((model, epoch, chunk))


@given(st.lists(st.lists(st.integers(0, 3 * CHUNK), max_size=30), max_size=6), st.booleans())
def test_a_receipt_is_first_once_whatever_batches_and_lives_it_comes_in(batches, is_saved):
    shelf = Shelf()
    book, known, given_up = LabelBook(shelf.load), set(), set()
    for numbers in batches:
        told = book.first_time("m", "e", np.array(numbers, "u8"), np.zeros(len(numbers)))
        for number, is_first in zip(numbers, told.tolist(), strict=True):
            assert is_first == (number not in known)
            known.add(number)
        if is_saved:
            shelf.bits |= book.changes()
            book.forget_changes()
            given_up = set(known)
        book.clear()  # a new life, or a commit that failed: what was not saved never was
        known = set(given_up)


def test_models_and_epochs_do_not_share_numbers():
    book = LabelBook(lambda model, epoch, chunk: None)
    told = [book.first_time(model, epoch, np.array([7], "u8"), np.zeros(1))[0] for model in "ab" for epoch in "xy"]

    assert told == [True] * 4


def test_only_what_was_changed_is_saved_and_what_was_not_used_for_long_is_let_go():
    shelf = Shelf()
    book = LabelBook(shelf.load, max_chunks=2)
    for chunk in range(4):
        book.first_time("m", "e", np.array([chunk * CHUNK], "u8"), np.array([chunk]))
    saved = book.changes()
    shelf.bits |= saved
    book.forget_changes()

    assert set(saved) == {("m", "e", chunk) for chunk in range(4)}
    assert {len(bits) for bits, _ in saved.values()} == {CHUNK // 8}
    assert [newest_ms for _, newest_ms in dict(sorted(saved.items())).values()] == [0, 1, 2, 3]
    assert book.changes() == {}
    loads = shelf.num_loads
    assert book.first_time("m", "e", np.array([3 * CHUNK, 0], "u8"), np.array([1, 9])).tolist() == [False, False]
    assert sorted(newest_ms for _, newest_ms in book.changes().values()) == [3, 9]  # never earlier than it was
    assert shelf.num_loads == loads + 1  # chunk 3 was at hand, chunk 0 was not
